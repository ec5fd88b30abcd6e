"""The layers of HIP-HOP-NN: interactions over the pairs, and the blocks that begin with one.

After Allen, Shinkle, Bujack and Lubbers, arXiv:2503.23515 (interaction), Lubbers, Smith and Barros, J. Chem. Phys.
148, 241715, 2018 (sensitivities, blocks) and Chigaev et al., J. Chem. Phys. 158, 184108, 2023 (tensors). Distances
are in Å.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from . import architecture
from ._runtime import modules
from ._runtime.geometry import Geometry
from ._runtime.modules import ActivatedLayer, ChannelNorm, linear, normal
from ._runtime.moments import moments
from ._runtime.pairs import environment
from ._runtime.sensitivities import Sensitivities
from .invariants import invariants

SENSITIVITIES = Sensitivities(__package__)


class Sensitivity(modules.Sensitivity):
    """The sensitivities of this package's cutoff."""

    operator = SENSITIVITIES

    def __init__(self) -> None:
        functions, cutoff = architecture.SENSITIVITY_FUNCTIONS, architecture.CUTOFF
        super().__init__(functions, architecture.SOFT_MIN, architecture.SOFT_MAX, cutoff)


class Interaction(torch.nn.Module):
    """x_ia = Σ_kb M[k,b,a] Ĩ_k(E_ib) + (W z_i + B)_a, with E_i the tensors around atom i.

    E_i is a sum of products over the neighbours; `order` says which products are taken first.
    """

    def __init__(self, n_in: int, order: str, random: torch.Generator) -> None:
        super().__init__()
        self.order = order
        n_out, n_invariants = architecture.FEATURES, architecture.N_INVARIANTS
        n_functions = architecture.SENSITIVITY_FUNCTIONS
        self.sensitivity = Sensitivity()
        deviation = math.sqrt(2 / (n_in * (n_out + n_functions)))
        self.weights = torch.nn.Parameter(normal((n_functions, n_out, n_in), deviation, random))
        self.self_interaction = linear(n_in, n_out, random, xavier=True)
        self.norm = ChannelNorm(n_invariants, n_out) if architecture.GROUP_NORM and architecture.MAX_RANK else None
        self.mixing: torch.nn.Parameter | None = None
        if architecture.MAX_RANK:
            deviation = math.sqrt(2 / (n_out * (n_out + n_invariants)))
            self.mixing = torch.nn.Parameter(normal((n_invariants, n_out, n_out), deviation, random))

    def environment(self, features: Tensor, geometry: Geometry, directions: Tensor) -> Tensor:
        """The tensors E around every atom: features [n_atoms, n_in] -> [n_atoms, (L+1)², FEATURES].

        No array over pairs, sensitivities and channels arises in either order.
        """
        n_functions, n_out, n_in = self.weights.shape
        sensitivity = self.sensitivity(geometry.radial)
        if self.order == "neighbours first":  # the features are species: no sum over them is needed
            sums = moments(directions, sensitivity, geometry.kinds, n_in, geometry.index)
            return sums.flatten(2) @ self.weights.permute(2, 0, 1).flatten(0, 1)
        weighted = (features @ self.weights.view(-1, n_in).t()).view(-1, n_functions, n_out)
        return environment(directions, sensitivity, weighted, geometry.index)

    def forward(self, features: Tensor, geometry: Geometry, directions: Tensor) -> Tensor:
        """[n_atoms, n_in], and of the pairs' directions the components [n_pairs, (L+1)²] -> [n_atoms, FEATURES]."""
        around = self.environment(features, geometry, directions)
        own: Tensor = self.self_interaction(features)
        if self.mixing is None:
            return around.squeeze(1) + own
        values = invariants(around)
        if self.norm is not None:
            values = self.norm(values)
        return torch.addmm(own, values.flatten(1), self.mixing.flatten(0, 1))


class Block(torch.nn.Module):
    """An interaction followed by `ATOM_LAYERS` linear layers, each activated."""

    def __init__(self, n_in: int, order: str, random: torch.Generator) -> None:
        super().__init__()
        n, residual = architecture.FEATURES, architecture.RESIDUAL
        self.interaction = ActivatedLayer(Interaction(n_in, order, random), n_in, n, random, residual)
        linears = (linear(n, n, random, xavier=True) for _ in range(architecture.ATOM_LAYERS))
        self.atom_layers = torch.nn.Sequential(*(ActivatedLayer(layer, n, n, random, residual) for layer in linears))

    def forward(self, features: Tensor, geometry: Geometry, directions: Tensor) -> Tensor:
        """[n_atoms, n_in] -> [n_atoms, FEATURES]."""
        mixed: Tensor = self.atom_layers(self.interaction(features, geometry, directions))
        return mixed
