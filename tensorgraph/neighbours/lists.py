"""Pairs of atoms within a cutoff, for any mixture of periodic directions, on the device where the positions are."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from ase import Atoms
from ase.data import chemical_symbols
from numpy.typing import NDArray
from torch import Tensor

from tensorgraph.errors import StructureError
from tensorgraph.neighbours.arguments import LARGEST_LENGTH, checked_cutoff
from tensorgraph.neighbours.search import Listed, close_pairs, reduced

SMALLEST_DISTANCE = 1e-3  # Å; atoms closer than this coincide, and the direction between them is undefined
SMALLEST_HEIGHT = 0.1  # Å between opposite faces of the periodic lattice; thinner ones have no end of images
LARGEST_SINGLE_LENGTH = 1e5  # Å; beyond it float32 is off by more than a hundredth of an Å
ROUNDING = 1e-14  # of a search among positions, relative to the largest of them

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]
Named = Callable[[int], str]
"""What an atom is called in an error."""


def neighbour_pairs(atoms: Atoms, cutoff: float) -> tuple[Integers, Floats]:
    """Pairs [2, n_pairs] (central atom i, neighbour j) and displacements r_j − r_i [n_pairs, 3] in Å.

    Every pair within `cutoff` (Å) is listed in both directions, with every periodic image, also of the atom itself.
    They are sorted by i, then by j, then by the image, whatever whole cell vectors are added to positions.

    Raises StructureError, naming the atoms, for a position that is not finite or beyond 1e12 Å and for coincident
    atoms; for a cell that is singular, not finite or beyond 1e12 Å in its periodic directions; and where there are more
    than about 1e8 pairs. Raises ValueError for a cutoff that is not a number above 0 and up to 1e12 Å.
    """
    cutoff = checked_cutoff(cutoff)
    pairs, displacements = _pairs(*tensors_of(atoms), cutoff, named_by_species(atoms))
    return pairs.numpy(), displacements.numpy()


def neighbour_tensors(
    positions: Tensor, cell: Tensor, periodic: Sequence[bool], cutoff: float
) -> tuple[Tensor, Tensor]:
    """As `neighbour_pairs`, but of tensors and on their device: positions [n_atoms, 3] and cell [3, 3] in Å.

    Displacements have the dtype of the positions and are differentiable with respect to positions and cell. In single
    precision, positions and periodic vectors may not be beyond 1e5 Å.

    Raises StructureError and ValueError as `neighbour_pairs` does, atoms named by their number; ValueError for a wrong
    shape; and TypeError for a dtype other than one of float32 and float64.
    """
    cutoff = checked_cutoff(cutoff)
    if positions.dim() != 2 or positions.shape[1] != 3 or cell.shape != (3, 3) or len(periodic) != 3:
        shapes = f"{list(positions.shape)}, {list(cell.shape)} and {len(periodic)} directions"
        raise ValueError(f"positions, cell and periodic must be [n_atoms, 3], [3, 3] and 3 directions, not {shapes}")
    if {positions.dtype, cell.dtype} not in ({torch.float32}, {torch.float64}):
        raise TypeError(f"positions and cell must be float32 or float64, not {positions.dtype} and {cell.dtype}")
    return _pairs(positions, cell, np.array(periodic, dtype=np.bool_), cutoff, str)


def tensors_of(atoms: Atoms) -> tuple[Tensor, Tensor, Flags]:
    """Positions [n_atoms, 3] and cell [3, 3] in Å, copied, and the periodic directions."""
    positions, cell = (np.array(values, dtype=np.float64) for values in (atoms.positions, atoms.cell))
    return torch.from_numpy(positions), torch.from_numpy(cell), np.array(atoms.pbc)


def named_by_species(atoms: Atoms) -> Named:
    return lambda index: f"{index} ({species_name(int(atoms.numbers[index]))})"


def _pairs(positions: Tensor, cell: Tensor, periodic: Flags, cutoff: float, named: Named) -> tuple[Tensor, Tensor]:
    placed = Placed.of(positions, cell, periodic, named)
    pairs, shifts = placed.listed(cutoff)
    return placed.within(pairs, placed.offsets(shifts), cutoff, named)


@dataclass(frozen=True)
class Placed:
    """Atoms moved into the cell along periodic directions: their positions are `wrapped + whole @ cell`."""

    wrapped: Tensor
    """Positions [n_atoms, 3] in Å, differentiable."""
    whole: Tensor
    """Whole cell vectors [n_atoms, 3], of the same dtype, that were taken off; 0 along directions not periodic."""
    cell: Tensor
    """Vectors [3, 3] in Å, those along directions that are not periodic as `completed_cell` makes them."""
    inverse: Tensor
    """Of the cell [3, 3], in 1/Å."""
    periodic: Flags

    @classmethod
    def of(cls, positions: Tensor, cell: Tensor, periodic: Flags, named: Named) -> Placed:
        """Raises StructureError for positions and cells as `neighbour_pairs` does."""
        largest = LARGEST_LENGTH if positions.dtype == torch.float64 else LARGEST_SINGLE_LENGTH
        _check_positions(positions.detach(), largest, named)
        completed = _completed(cell.detach().cpu().double().numpy(), periodic, largest)
        is_periodic = torch.from_numpy(periodic).to(cell.device)
        cell = torch.where(is_periodic.unsqueeze(1), cell, torch.from_numpy(completed).to(cell))
        inverse = torch.from_numpy(np.linalg.inv(completed)).to(cell)
        whole = torch.where(is_periodic, (positions.detach() @ inverse).floor(), 0.0)
        return cls(positions - _combined(whole, cell), whole, cell, inverse, periodic)

    @property
    def rounding(self) -> float:
        """In Å, of a search among these positions."""
        largest = float(self.wrapped.detach().abs().max()) if len(self.wrapped) else 0.0
        return ROUNDING * largest * float(torch.finfo(self.wrapped.dtype).eps / torch.finfo(torch.float64).eps)

    def listed(self, reach: float) -> Listed:
        """Pairs and shifts of all that are within `reach` (Å), and a few beyond, in the order of `neighbour_pairs`."""
        # Moving atoms rounds: the search must not miss a pair for it, and the displacements decide.
        reach += self.rounding + ROUNDING * reach
        cell = self.cell.detach().cpu().double().numpy()
        pairs, shifts = close_pairs(self.wrapped.detach().double(), cell, self.periodic, reach)
        order = _order(pairs, shifts, len(self.wrapped))
        return pairs.index_select(1, order), shifts.index_select(0, order)

    def offsets(self, shifts: Tensor) -> Tensor:
        """What the shifts [n, 3] of pairs add to their displacements, in Å."""
        return _combined(shifts.to(self.wrapped), self.cell)

    def within(self, pairs: Tensor, offsets: Tensor, cutoff: float, named: Named) -> tuple[Tensor, Tensor]:
        """Those pairs [2, n] that are within `cutoff` (Å), and their displacements [n, 3].

        Raises StructureError for atoms that coincide.
        """
        first, second = pairs
        displacements = _rows(self.wrapped, second) - _rows(self.wrapped, first) + offsets
        distances = torch.linalg.vector_norm(displacements.detach(), dim=1)
        _check_apart(pairs, distances, cutoff, named)
        chosen = torch.nonzero(distances <= cutoff).flatten()
        if len(chosen) == len(distances):
            return pairs, displacements
        return pairs.index_select(1, chosen), _rows(displacements, chosen)


def _rows(values: Tensor, chosen: Tensor) -> Tensor:
    """`values[chosen]`: faster on a CPU; on a GPU, gradients of this form only are the same each time."""
    return values[chosen] if values.is_cuda else values.index_select(0, chosen)


def _combined(numbers: Tensor, vectors: Tensor) -> Tensor:
    """Multiples [n, 3] of the vectors [3, 3], summed; a product of matrices may be rounded to TF32."""
    first, second, third = numbers.unsqueeze(2).unbind(1)
    return first * vectors[0] + second * vectors[1] + third * vectors[2]


def _order(pairs: Tensor, shifts: Tensor, n_atoms: int) -> Tensor:
    """The order of the pairs [2, n] by the first atom, then the second, then the shifts [n, 3]."""
    if not len(shifts):
        return pairs[0]
    low, high = torch.aminmax(shifts, dim=0)
    ranges = [n_atoms, n_atoms, *(high - low + 1).tolist()]
    columns = [*pairs, *(shifts - low).unbind(1)]
    if math.prod(ranges) < 2**63:
        key = columns[0]
        for column, size in zip(columns[1:], ranges[1:], strict=True):
            key = key * size + column
        return torch.argsort(key)
    order = torch.arange(len(shifts), device=shifts.device)
    for column in reversed(columns):
        order = order[torch.argsort(column[order], stable=True)]
    return order


def completed_cell(atoms: Atoms) -> Floats:
    """The cell [3, 3] in Å with its non-periodic vectors replaced by unit vectors orthogonal to the periodic ones.

    A non-periodic direction may have any cell vector, or none: it must not matter.
    """
    return _completed(np.array(atoms.cell, dtype=np.float64), np.array(atoms.pbc), LARGEST_LENGTH)


def _completed(cell: Floats, periodic: Flags, largest: float) -> Floats:
    if not (np.abs(cell[periodic]) <= largest).all():
        reason = f"beyond {largest:g} Å" if np.isfinite(cell[periodic]).all() else "not finite"
        raise StructureError(f"the cell has periodic vectors that are {reason}")
    _, singular, directions = np.linalg.svd(cell[periodic])
    completed = cell.copy()
    completed[~periodic] = directions[len(singular) :]
    if periodic.any() and _smallest_height(completed, periodic, singular) < SMALLEST_HEIGHT:
        lengths = ", ".join(f"{length:.3g}" for length in np.linalg.norm(cell[periodic], axis=1))
        raise StructureError(
            f"the cell is singular in its periodic directions (lengths {lengths} Å, smallest singular value "
            f"{singular.min():.3g} Å): opposite faces must be {SMALLEST_HEIGHT} Å apart"
        )
    return completed


def _smallest_height(cell: Floats, periodic: Flags, singular: Floats) -> float:
    """The smallest distance (Å) of opposite faces along periodic directions, given singular values; 0 if flat.

    A skewed cell may be thin where its lattice, with other vectors, is not.
    """
    if singular.min() <= 3 * np.finfo(np.float64).eps * singular.max():
        return 0.0
    if singular.min() >= SMALLEST_HEIGHT:  # heights are at least that
        return float(singular.min())
    return float(1 / np.linalg.norm(np.linalg.inv(reduced(cell, periodic)[0]), axis=0)[periodic].max())


def species_name(number: int) -> str:
    """The chemical symbol of an atomic number, or its number where it has none."""
    return chemical_symbols[number] if 0 <= number < len(chemical_symbols) else f"atomic number {number}"


def _check_positions(positions: Tensor, largest: float, named: Named) -> None:
    wrong = torch.nonzero(~(positions.abs() <= largest).all(dim=1)).flatten()
    if len(wrong):
        index = int(wrong[0])
        position = positions[index].cpu().numpy()
        reason = f"beyond {largest:g} Å" if np.isfinite(position).all() else "not finite"
        raise StructureError(f"atom {named(index)} has the position {position}: {reason}")


def _check_apart(pairs: Tensor, distances: Tensor, cutoff: float, named: Named) -> None:
    if len(distances) and float(distances.min()) < SMALLEST_DISTANCE:
        close = torch.nonzero((distances < SMALLEST_DISTANCE) & (distances <= cutoff)).flatten()
        if not len(close):
            return
        i, j = pairs[:, close[0]].tolist()
        names = f"atoms {named(i)} and {named(j)}"
        raise StructureError(f"{names} coincide: they, or images of them, are closer than {SMALLEST_DISTANCE} Å")
