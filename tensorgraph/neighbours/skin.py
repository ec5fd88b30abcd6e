"""Lists of pairs that are kept while atoms move a little, for dynamics and relaxations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from tensorgraph.errors import StructureError
from tensorgraph.neighbours.arguments import checked_cutoff
from tensorgraph.neighbours.lists import ROUNDING, Flags, Floats, Integers, Placed, named_by_species, tensors_of


@dataclass(frozen=True)
class _Structure:
    """Where atoms were asked about; all that pairs depend on."""

    positions: Tensor
    cell: Tensor
    periodic: Flags
    placed: Placed

    @classmethod
    def of(cls, atoms: Atoms) -> _Structure:
        """Raises StructureError as `neighbour_pairs` does for positions and cells."""
        positions, cell, periodic = tensors_of(atoms)
        return cls(positions, cell, periodic, Placed.of(positions, cell, periodic, named_by_species(atoms)))

    def equals(self, other: _Structure) -> bool:
        same = torch.equal(self.positions, other.positions) and torch.equal(self.cell, other.cell)
        return same and np.array_equal(self.periodic, other.periodic)

    def steps_from(self, other: _Structure, skin: float) -> Tensor | None:
        """Whole cell vectors [n_atoms, 3] that atoms moved by since `other`; None if one moved by half the skin more.

        None also for other cells, directions or numbers of atoms.
        """
        if len(other.positions) != len(self.positions) or not np.array_equal(other.periodic, self.periodic):
            return None
        if not torch.equal(other.placed.cell, self.placed.cell):
            return None
        steps = self.positions - other.positions
        whole = torch.zeros_like(steps)
        if self.periodic.any() and 2 * _largest(steps) > skin:  # atoms may have been wrapped
            whole = (steps @ self.placed.inverse).round()
            whole[:, torch.from_numpy(~self.periodic)] = 0
            steps = steps - whole @ self.placed.cell
        farthest = float(steps.square().sum(dim=1).max()) ** 0.5 if len(steps) else 0.0
        # Where rounding is as large as the skin, no list outlives a step.
        uncertain = 4 * ROUNDING * max(map(_largest, (self.positions, other.positions, self.placed.cell)))
        return whole if 2 * farthest <= skin - uncertain else None


@dataclass(frozen=True)
class _List:
    """All pairs within the cutoff and a skin (Å) of a structure."""

    structure: _Structure
    skin: float
    pairs: Tensor
    """[2, n]"""
    shifts: Tensor
    """[n, 3], whole cell vectors, in float64."""
    crossed: Tensor
    """[n_atoms, 3], faces of the cell that atoms have crossed since: what `offsets` hold for."""
    offsets: Tensor
    """[n, 3] in Å, what shifts and crossings add to the displacements."""

    @classmethod
    def of(cls, structure: _Structure, cutoff: float, skin: float) -> _List:
        """Raises StructureError where the pairs within the cutoff are too many; with those in the skin, it has none."""
        try:
            pairs, shifts = structure.placed.listed(cutoff + skin)
        except StructureError:
            if not skin:
                raise
            return cls.of(structure, cutoff, 0.0)
        crossed = torch.zeros_like(structure.positions)
        return cls(structure, skin, pairs, shifts.to(crossed), crossed, structure.placed.offsets(shifts))

    def followed(self, structure: _Structure) -> _List | None:
        """The list for atoms that have moved, or None where it does not hold any more."""
        steps = structure.steps_from(self.structure, self.skin)
        if steps is None:
            return None
        crossed = structure.placed.whole - self.structure.placed.whole - steps
        if torch.equal(crossed, self.crossed):
            return self
        first, second = self.pairs
        shifts = self.shifts + crossed.index_select(0, second) - crossed.index_select(0, first)
        offsets = structure.placed.offsets(shifts)
        return _List(self.structure, self.skin, self.pairs, self.shifts, crossed, offsets)


@dataclass(frozen=True)
class _Answer:
    structure: _Structure
    pairs: Integers
    displacements: Floats

    def copied(self) -> tuple[Integers, Floats]:
        """What is given away may be changed."""
        return self.pairs.copy(), self.displacements.copy()


class SkinnedNeighbours:
    """Pairs of atoms within `cutoff` (Å), as `neighbour_pairs` gives them, out of a list that also holds a skin.

    The list has all pairs within cutoff + skin (Å). It is made anew when an atom has moved more than half the skin
    since it was made, whole cell vectors aside; and when the cell or the directions are other ones, or the number of
    atoms is. In between, only its distances are computed. Pairs, their order and displacements are those of
    `neighbour_pairs`, to the bit. `builds` counts how often a list was made.

    A list may be asked about any structures one after another: what it holds is used where it is right for the
    positions, whatever they belong to. It has its skin only where the structure is near the one before, for otherwise
    it is not used again: one structure after another costs what `neighbour_pairs` costs, and so does the first.
    Copies and pickles start without pairs.
    """

    def __init__(self, cutoff: float, skin: float) -> None:
        """Raises ValueError for a cutoff that is not a number above 0, or a skin below 0, and up to 1e12 Å."""
        self.cutoff = checked_cutoff(cutoff)
        self.skin = checked_cutoff(skin, "skin", zero=True)
        self.builds = 0
        self._list: _List | None = None
        self._answer: _Answer | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "builds": 0, "_list": None, "_answer": None}

    def pairs(self, atoms: Atoms) -> tuple[Integers, Floats]:
        """Pairs [2, n_pairs] and displacements [n_pairs, 3] in Å: see `neighbour_pairs`, also for errors."""
        structure = _Structure.of(atoms)
        if self._answer is not None and structure.equals(self._answer.structure):
            return self._answer.copied()
        found = self._followed(structure)
        within = structure.placed.within(found.pairs, found.offsets, self.cutoff, named_by_species(atoms))
        pairs, displacements = (tensor.numpy() for tensor in within)
        self._list, self._answer = found, _Answer(structure, pairs, displacements)
        return self._answer.copied()

    def _followed(self, structure: _Structure) -> _List:
        """The list that is there, as long as it holds, or another."""
        found = None if self._list is None else self._list.followed(structure)
        if found is None:
            near = self._answer is not None and structure.steps_from(self._answer.structure, self.skin) is not None
            self._list = self._answer = None  # which memory must not hold beside the new
            found = _List.of(structure, self.cutoff, self.skin if near else 0.0)
            self.builds += 1
        return found


def _largest(values: Tensor) -> float:
    return float(values.abs().max()) if values.numel() else 0.0
