"""The layers of HIP-HOP-NN: sensitivities, interactions over the pairs, activated and residual layers.

After Allen, Shinkle, Bujack and Lubbers, arXiv:2503.23515 (interaction), Lubbers, Smith and Barros, J. Chem. Phys.
148, 241715, 2018 (sensitivities, blocks) and Chigaev et al., J. Chem. Phys. 158, 184108, 2023 (tensors). Distances
are in Å.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from . import architecture
from .grouping import PairGroups, PairIndex
from .invariants import invariants
from .moments import moments
from .pairs import environment
from .sensitivities import sensitivities
from .tensors import tensor_components

GROUP_NORM_EPS = 1e-5


@dataclass(frozen=True)
class Geometry:
    """What every layer needs of the pairs, sorted by central atom i.

    `radial` [n_pairs, 2]: 1/r and the cutoff function; `directions` [n_pairs, (L+1)²]: the components of [r̂…r̂]₀;
    `kinds` [n_atoms]: which of the species each atom is.
    """

    index: PairIndex
    kinds: Tensor
    radial: Tensor
    directions: Tensor

    @classmethod
    def of(cls, groups: PairGroups, kinds: Tensor, displacements: Tensor) -> Geometry:
        """From kinds [n_atoms], and displacements [n_pairs, 3] in Å in the order in which the pairs were given."""
        # Keeps what is beyond the cutoff beyond it, and everything within as it is, but no square overflows.
        displacements = groups.sort(displacements).clamp(-2 * architecture.CUTOFF, 2 * architecture.CUTOFF)
        distance = torch.linalg.vector_norm(displacements, dim=1, keepdim=True)
        radial = torch.cat([1 / distance, cutoff_function(distance)], dim=1)
        return cls(groups.index, kinds, radial, tensor_components(displacements / distance))


def cutoff_function(distance: Tensor) -> Tensor:
    """cos²(π r / 2 R_c) up to the cutoff R_c and exactly zero beyond it; same shape as `distance` (Å)."""
    inside = distance <= architecture.CUTOFF
    return torch.cos(math.pi / 2 * distance / architecture.CUTOFF).square() * inside


def linear(n_in: int, n_out: int, random: torch.Generator, bias: bool = True, xavier: bool = False) -> torch.nn.Linear:
    """A linear layer drawn from `random`: weights of variance 2/(n_in + n_out) (xavier), or torch's default range."""
    device = torch.get_default_device()
    layer: torch.nn.Linear = torch.nn.utils.skip_init(torch.nn.Linear, n_in, n_out, bias=bias, device=device)
    shape, bound, deviation = (n_out, n_in), 1 / math.sqrt(n_in), math.sqrt(2 / (n_in + n_out))
    with torch.no_grad():
        layer.weight.copy_(_normal(shape, deviation, random) if xavier else _uniform(shape, bound, random))
        if bias:
            layer.bias.copy_(_uniform((n_out,), bound, random))
    return layer


def _normal(shape: tuple[int, ...], deviation: float, random: torch.Generator) -> Tensor:
    """Normally distributed elements of the default dtype, on the default device.

    They are drawn in float64 on the CPU, so that a seed means the same weights in every dtype and on every device.
    """
    return _by_default(deviation * torch.randn(shape, generator=random, dtype=torch.float64, device="cpu"))


def _uniform(shape: tuple[int, ...], bound: float, random: torch.Generator) -> Tensor:
    """Elements uniform in [-bound, bound], drawn like `_normal`."""
    return _by_default(bound * (2 * torch.rand(shape, generator=random, dtype=torch.float64, device="cpu") - 1))


def _by_default(values: Tensor) -> Tensor:
    return values.to(device=torch.get_default_device(), dtype=torch.get_default_dtype())


class Sensitivity(torch.nn.Module):
    """s_ν(r) = exp(−½ σ_ν² (1/r − 1/μ_ν)²) · cos²(π r / 2 R_c), with trained μ_ν (Å) and σ_ν (Å); HIP-NN."""

    def __init__(self) -> None:
        super().__init__()
        n = architecture.SENSITIVITY_FUNCTIONS
        self.mu = torch.nn.Parameter(1 / torch.linspace(1 / architecture.SOFT_MAX, 1 / architecture.SOFT_MIN, n))
        self.sigma = torch.nn.Parameter(torch.full((n,), 2 * architecture.SOFT_MIN * n))

    def forward(self, radial: Tensor) -> Tensor:
        """[n_pairs, 2] (1/r and the cutoff function) -> [n_pairs, n_functions]."""
        return sensitivities(radial, self.mu, self.sigma)

    def extra_repr(self) -> str:
        return f"functions={self.mu.shape[0]}, cutoff={architecture.CUTOFF} Å"


class ChannelNorm(torch.nn.Module):
    """Group norm with the invariants as groups: per atom and invariant, over the channels; affine."""

    def __init__(self) -> None:
        super().__init__()
        shape = (architecture.N_INVARIANTS, architecture.FEATURES)
        self.weight = torch.nn.Parameter(torch.ones(shape))
        self.bias = torch.nn.Parameter(torch.zeros(shape))

    def forward(self, values: Tensor) -> Tensor:
        """[n_atoms, n_invariants, channels] -> the same shape."""
        normal = torch.nn.functional.layer_norm(values, values.shape[2:], eps=GROUP_NORM_EPS)
        return torch.addcmul(self.bias, normal, self.weight)


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
        self.weights = torch.nn.Parameter(_normal((n_functions, n_out, n_in), deviation, random))
        self.self_interaction = linear(n_in, n_out, random, xavier=True)
        self.norm = ChannelNorm() if architecture.GROUP_NORM and architecture.MAX_RANK else None
        self.mixing: torch.nn.Parameter | None = None
        if architecture.MAX_RANK:
            deviation = math.sqrt(2 / (n_out * (n_out + n_invariants)))
            self.mixing = torch.nn.Parameter(_normal((n_invariants, n_out, n_out), deviation, random))

    def environment(self, features: Tensor, geometry: Geometry) -> Tensor:
        """The tensors E around every atom: features [n_atoms, n_in] -> [n_atoms, (L+1)², FEATURES].

        No array over pairs, sensitivities and channels arises in either order.
        """
        n_functions, n_out, n_in = self.weights.shape
        sensitivity = self.sensitivity(geometry.radial)
        if self.order == "neighbours first":  # the features are species: no sum over them is needed
            sums = moments(geometry.directions, sensitivity, geometry.kinds, n_in, geometry.index)
            return sums.flatten(2) @ self.weights.permute(2, 0, 1).flatten(0, 1)
        weighted = (features @ self.weights.view(-1, n_in).t()).view(-1, n_functions, n_out)
        return environment(geometry.directions, sensitivity, weighted, geometry.index)

    def forward(self, features: Tensor, geometry: Geometry) -> Tensor:
        """[n_atoms, n_in] -> [n_atoms, FEATURES]."""
        around = self.environment(features, geometry)
        own: Tensor = self.self_interaction(features)
        if self.mixing is None:
            return around.squeeze(1) + own
        values = invariants(around)
        if self.norm is not None:
            values = self.norm(values)
        return torch.addmm(own, values.flatten(1), self.mixing.flatten(0, 1))


class ActivatedLayer(torch.nn.Module):
    """z' = R·softplus(F(z)) + A z with residuals, A the identity where widths agree; else z' = softplus(F(z))."""

    def __init__(self, layer: torch.nn.Module, n_in: int, random: torch.Generator) -> None:
        super().__init__()
        n_out = architecture.FEATURES
        self.layer = layer
        self.outer = linear(n_out, n_out, random) if architecture.RESIDUAL else None
        self.skip = linear(n_in, n_out, random, bias=False) if architecture.RESIDUAL and n_in != n_out else None

    def forward(self, features: Tensor, *geometry: Geometry) -> Tensor:
        """[n_atoms, n_in] -> [n_atoms, FEATURES]; `geometry` is handed on to an interaction."""
        hidden = softplus(self.layer(features, *geometry))
        if self.outer is None:
            return hidden
        skipped = features if self.skip is None else self.skip(features)
        mixed: Tensor = self.outer(hidden) + skipped
        return mixed


class Block(torch.nn.Module):
    """An interaction followed by `ATOM_LAYERS` linear layers, each activated."""

    def __init__(self, n_in: int, order: str, random: torch.Generator) -> None:
        super().__init__()
        n = architecture.FEATURES
        self.interaction = ActivatedLayer(Interaction(n_in, order, random), n_in, random)
        self.atom_layers = torch.nn.Sequential(
            *(ActivatedLayer(linear(n, n, random, xavier=True), n, random) for _ in range(architecture.ATOM_LAYERS))
        )

    def forward(self, features: Tensor, geometry: Geometry) -> Tensor:
        """[n_atoms, n_in] -> [n_atoms, FEATURES]."""
        mixed: Tensor = self.atom_layers(self.interaction(features, geometry))
        return mixed
