"""What layers need of the pairs: their distances and directions, sorted by central atom. Distances are in Å."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .grouping import PairGroups, PairIndex


@dataclass(frozen=True)
class Geometry:
    """What every layer needs of the pairs, sorted by central atom i.

    `displacements` [n_pairs, 3] from i to j in Å, at most twice the cutoff along each axis; `distance` [n_pairs, 1] in
    Å; `radial` [n_pairs, 2]: 1/r in 1/Å and the cutoff function; `unit_vectors` [n_pairs, 3]: directions from i to j;
    `kinds` [n_atoms]: which of the species each atom is, a number beyond the last for none of them.
    """

    groups: PairGroups
    kinds: Tensor
    displacements: Tensor
    distance: Tensor
    radial: Tensor
    unit_vectors: Tensor

    @property
    def index(self) -> PairIndex:
        """The pairs as the micro-kernels take them."""
        return self.groups.index

    def sum(self, rows: Tensor) -> Tensor:
        """What pairs have added to their central atoms, in order: [n_pairs, ...] -> [n_atoms, ...]."""
        return _flat(self.groups.targets.sum, rows)

    def of_centres(self, rows: Tensor) -> Tensor:
        """What the central atom of each pair has: [n_atoms, ...] -> [n_pairs, ...]."""
        return _flat(self.groups.targets.spread, rows)

    def of_neighbours(self, rows: Tensor) -> Tensor:
        """What the neighbour of each pair has: [n_atoms, ...] -> [n_pairs, ...]."""
        return _flat(self.groups.sources.spread, rows)

    @classmethod
    def of(cls, groups: PairGroups, kinds: Tensor, displacements: Tensor, cutoff: float) -> Geometry:
        """From kinds [n_atoms], displacements [n_pairs, 3] in Å in the order in which the pairs were given, and the
        cutoff in Å."""
        # Keeps what is beyond the cutoff beyond it, and everything within as it is, but no square overflows.
        displacements = groups.sort(displacements).clamp(-2 * cutoff, 2 * cutoff)
        distance = torch.linalg.vector_norm(displacements, dim=1, keepdim=True)
        radial = torch.cat([1 / distance, cutoff_function(distance, cutoff)], dim=1)
        return cls(groups, kinds, displacements, distance, radial, displacements / distance)


def _flat(function: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
    """A function of matrices, applied to rows of any shape."""
    return function(rows.flatten(1)).unflatten(1, rows.shape[1:]) if rows.dim() > 2 else function(rows)


def cutoff_function(distance: Tensor, cutoff: float) -> Tensor:
    """cos²(π r / 2 R_c) up to the cutoff R_c and exactly zero beyond it; same shape as `distance` (Å)."""
    inside = distance <= cutoff
    return torch.cos(math.pi / 2 * distance / cutoff).square() * inside
