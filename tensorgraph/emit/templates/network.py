"""HIP-HOP-NN: energies, forces and virials of atoms from the invariants of this package.

The network of Allen, Shinkle, Bujack and Lubbers, arXiv:2503.23515, on the blocks and energy heads of HIP-NN
(Lubbers, Smith, Barros, J. Chem. Phys. 148, 241715, 2018). Units: Å and eV.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import architecture
from ._runtime.geometry import Geometry
from ._runtime.modules import EnergyHeads
from ._runtime.potential import Potential
from .layers import Block
from .tensors import tensor_components


class Model(Potential):
    """The potential: `Model(seed=0)` has reproducible random weights and leaves torch's global random state alone.

    `Potential` says what its methods take and give.
    """

    NAME = architecture.NAME
    SPEC_DIGEST = architecture.SPEC_DIGEST
    SPECIES = architecture.SPECIES
    CUTOFF = architecture.CUTOFF
    BASIS = f"{architecture.N_INVARIANTS} invariants of ranks up to {architecture.MAX_RANK}"

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(seed)
        widths = [architecture.FEATURES] * architecture.INTERACTIONS
        layers = zip([len(self.SPECIES), *widths[:-1]], architecture.ORDERS, strict=True)
        self.blocks = torch.nn.ModuleList(Block(width, order, random) for width, order in layers)
        self.energy_heads = EnergyHeads(len(self.SPECIES), widths, random)

    def energy_terms(self, species: Tensor, geometry: Geometry) -> Tensor:
        """One-hot species [n_atoms, n_species] -> energy terms [n_heads, n_atoms] in eV, one for each block."""
        directions = tensor_components(geometry.unit_vectors)
        stages = [species]
        for block in self.blocks:
            stages.append(block(stages[-1], geometry, directions))
        return self.energy_heads(stages)
