"""Lists of pairs that are kept while atoms move a little, for dynamics and relaxations."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from ase import Atoms
from torch import Tensor

from tensorgraph.runtime.arguments import checked_cutoff
from tensorgraph.runtime.neighbours import (
    ROUNDING,
    Floats,
    Integers,
    Placed,
    named_by_species,
    tensors_of,
)


@dataclass(frozen=True)
class _Build:
    """All pairs [2, n] within the cutoff and the skin of atoms as they were, and their shifts [n, 3] in float64."""

    positions: Tensor
    placed: Placed
    pairs: Tensor
    shifts: Tensor


class SkinnedNeighbours:
    """Pairs of atoms within `cutoff` (Å), as `neighbour_pairs` gives them, out of a list that also holds a skin.

    The list has all pairs within cutoff + skin (Å). It is made anew when an atom has moved more than half the skin
    since it was made, whole cell vectors aside; and when the cell or the directions are other ones, or the number of
    atoms is. In between, only its distances are computed. Pairs, their order and displacements are those of
    `neighbour_pairs`, to the bit. `builds` counts how often the list was made.

    An object holds plain data: it can be copied and pickled. It follows one structure; another is a reason to build.
    """

    def __init__(self, cutoff: float, skin: float) -> None:
        """Raises ValueError for a cutoff that is not a number above 0, or a skin below 0, and up to 1e12 Å."""
        self.cutoff = checked_cutoff(cutoff)
        self.skin = checked_cutoff(skin, "skin", zero=True)
        self.builds = 0
        self._build: _Build | None = None

    def pairs(self, atoms: Atoms) -> tuple[Integers, Floats]:
        """Pairs [2, n_pairs] and displacements [n_pairs, 3] in Å: see `neighbour_pairs`, also for errors.

        The list with its skin, too, has at most about 1e8 pairs.
        """
        positions, cell, periodic = tensors_of(atoms)
        named = named_by_species(atoms)
        placed = Placed.of(positions, cell, periodic, named)
        moved = self._moved(positions, placed)
        if self._build is None or moved is None:
            self._build, moved = self._built(positions, placed), torch.zeros_like(positions)
            self.builds += 1
        build = self._build
        pairs, displacements = placed.within(build.pairs, _shifted(build, placed, moved), self.cutoff, named)
        pairs = pairs.clone() if pairs is build.pairs else pairs  # what is returned may be changed
        return pairs.numpy(), displacements.numpy()

    def _built(self, positions: Tensor, placed: Placed) -> _Build:
        pairs, shifts = placed.listed(self.cutoff + self.skin)
        return _Build(positions, placed, pairs, shifts.to(positions))

    def _moved(self, positions: Tensor, placed: Placed) -> Tensor | None:
        """Whole cell vectors [n_atoms, 3] that atoms moved by since the build, if the list still holds; else None."""
        build = self._build
        if build is None or len(build.positions) != len(positions):
            return None
        if (build.placed.periodic != placed.periodic).any() or not torch.equal(build.placed.cell, placed.cell):
            return None
        steps = positions - build.positions
        whole = (steps @ torch.linalg.inv(placed.cell)).round()
        whole[:, torch.from_numpy(~placed.periodic)] = 0
        left = torch.linalg.vector_norm(steps - whole @ placed.cell, dim=1)
        # Where rounding is as large as the skin, every step is a build, with the reach that is due.
        uncertain = 4 * ROUNDING * max(map(_largest, (positions, build.positions, placed.cell)))
        return whole if not len(left) or 2 * float(left.max()) <= self.skin - uncertain else None


def _largest(values: Tensor) -> float:
    return float(values.abs().max()) if values.numel() else 0.0


def _shifted(build: _Build, placed: Placed, moved: Tensor) -> Tensor:
    """The shifts of the list's pairs for the atoms as they are placed now: some may have crossed the cell's faces."""
    crossed = placed.whole - build.placed.whole - moved
    if not crossed.any():
        return build.shifts
    first, second = build.pairs
    return build.shifts + crossed.index_select(0, second) - crossed.index_select(0, first)
