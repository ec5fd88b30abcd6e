"""Pairs of atoms within a cutoff, for any mixture of periodic directions, on the device where the positions are."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from ase import Atoms
from ase.data import chemical_symbols
from numpy.typing import NDArray
from torch import Tensor
from vesin import NeighborList

from tensorgraph.errors import StructureError

SMALLEST_DISTANCE = 1e-3  # Å; atoms closer than this coincide, and the direction between them is undefined
SMALLEST_HEIGHT = 0.1  # Å between opposite faces of the periodic cell; thinner ones have no end of images
LARGEST_POSITION = 1e12  # Å; beyond it float64 no longer tells where an atom is, relative to its neighbours
LARGEST_SINGLE_POSITION = 1e5  # Å; beyond it float32 is off by more than a hundredth of an Å
ROUNDING = 1e-14  # of a search among positions, relative to the largest of them

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Named = Callable[[int], str]
"""What an atom is called in an error."""


def neighbour_pairs(atoms: Atoms, cutoff: float) -> tuple[Integers, Floats]:
    """Pairs [2, n_pairs] (central atom i, neighbour j) and displacements r_j − r_i [n_pairs, 3] in Å, sorted by i.

    Every pair within `cutoff` (Å) is listed in both directions, with every periodic image, also of the atom itself.

    Raises StructureError, naming the atoms, for a position that is not finite or beyond 1e12 Å and for coincident
    atoms; and for a cell that is singular, or not finite, in its periodic directions.
    """
    positions = torch.from_numpy(np.array(atoms.positions, dtype=np.float64))
    cell = np.array(atoms.cell, dtype=np.float64)

    def named(index: int) -> str:
        return f"{index} ({species_name(int(atoms.numbers[index]))})"

    pairs, displacements = _pairs(positions, torch.from_numpy(cell), np.array(atoms.pbc), cutoff, named)
    return pairs.numpy(), displacements.numpy()


def neighbour_tensors(
    positions: Tensor, cell: Tensor, periodic: Sequence[bool], cutoff: float
) -> tuple[Tensor, Tensor]:
    """As `neighbour_pairs`, but of tensors and on their device: positions [n_atoms, 3] and cell [3, 3] in Å.

    Displacements have the dtype of the positions and are differentiable with respect to positions and cell. On a GPU
    pairs are sorted by i, then by j: their order, and so sums over them, are the same each time.

    Raises StructureError as `neighbour_pairs` does, atoms named by their number; ValueError for a wrong shape; and
    TypeError for a dtype other than one of float32 and float64.
    """
    if positions.dim() != 2 or positions.shape[1] != 3 or cell.shape != (3, 3) or len(periodic) != 3:
        shapes = f"{list(positions.shape)}, {list(cell.shape)} and {len(periodic)} directions"
        raise ValueError(f"positions, cell and periodic must be [n_atoms, 3], [3, 3] and 3 directions, not {shapes}")
    if {positions.dtype, cell.dtype} not in ({torch.float32}, {torch.float64}):
        raise TypeError(f"positions and cell must be float32 or float64, not {positions.dtype} and {cell.dtype}")
    return _pairs(positions, cell, np.array(periodic, dtype=np.bool_), cutoff, str)


def _pairs(
    positions: Tensor, cell: Tensor, periodic: NDArray[np.bool_], cutoff: float, named: Named
) -> tuple[Tensor, Tensor]:
    _check_positions(positions.detach(), named)
    completed = torch.from_numpy(_completed(cell.detach().cpu().double().numpy(), periodic)).to(cell)
    if not len(positions):  # which the finder refuses
        return positions.new_zeros((2, 0), dtype=torch.int64), positions
    is_periodic = torch.from_numpy(periodic).to(cell.device)
    cell = torch.where(is_periodic.unsqueeze(1), cell, completed)
    wrapped = _wrapped(positions, cell, is_periodic)
    fixed, box = wrapped.detach().double(), cell.detach().double()
    together = _closed_up(fixed, box[~is_periodic], 2 * cutoff)
    # Moving atoms rounds: the finder must not miss a pair for it, and the displacements below decide.
    reach = cutoff + _precision_ratio(positions.dtype) * ROUNDING * _largest(wrapped)
    finder = NeighborList(cutoff=reach, full_list=True, sorted=True)
    pairs, shifts = finder.compute(together, box, is_periodic, "PS")
    pairs = pairs.to(torch.int64)
    first, second = pairs.unbind(1)
    displacements = wrapped[second] - wrapped[first] + _combined(shifts.to(wrapped.dtype), cell)
    distances = torch.linalg.vector_norm(displacements.detach(), dim=1)
    chosen = torch.nonzero(distances <= cutoff).flatten()
    if positions.is_cuda:  # where the finder's order differs from run to run
        chosen = chosen[_lexicographic(torch.cat([pairs, shifts.to(pairs)], dim=1)[chosen])]
    _check_apart(pairs[chosen], distances[chosen], named)
    return pairs[chosen].t().contiguous(), displacements[chosen]


def _combined(numbers: Tensor, vectors: Tensor) -> Tensor:
    """Multiples [n, 3] of the vectors [3, 3], summed; a product of matrices may be rounded to TF32."""
    return (numbers.unsqueeze(2) * vectors).sum(dim=1)


def _precision_ratio(dtype: torch.dtype) -> float:
    """How much coarser a dtype is than float64."""
    return float(torch.finfo(dtype).eps / torch.finfo(torch.float64).eps)


def _largest(positions: Tensor) -> float:
    return float(positions.detach().abs().max()) if positions.numel() else 0.0


def _lexicographic(rows: Tensor) -> Tensor:
    """The order of the rows [n, k] by their first number, then their second, and so on."""
    order = torch.arange(len(rows), device=rows.device)
    for column in reversed(rows.unbind(1)):
        order = order[torch.argsort(column[order], stable=True)]
    return order


def completed_cell(atoms: Atoms) -> Floats:
    """The cell [3, 3] in Å with its non-periodic vectors replaced by unit vectors orthogonal to the periodic ones.

    A non-periodic direction may have any cell vector, or none: it must not matter.
    """
    return _completed(np.array(atoms.cell, dtype=np.float64), np.array(atoms.pbc))


def _completed(cell: Floats, periodic: NDArray[np.bool_]) -> Floats:
    if not np.isfinite(cell[periodic]).all():
        raise StructureError("the cell has periodic vectors that are not finite")
    _, heights, directions = np.linalg.svd(cell[periodic])
    n_periodic = int(periodic.sum())
    if n_periodic and _smallest_height(cell[periodic]) < SMALLEST_HEIGHT:
        lengths = ", ".join(f"{length:.3g}" for length in np.linalg.norm(cell[periodic], axis=1))
        raise StructureError(
            f"the cell is singular in its periodic directions (lengths {lengths} Å, smallest singular value "
            f"{heights.min():.3g} Å): opposite faces must be {SMALLEST_HEIGHT} Å apart"
        )
    completed = cell.copy()
    completed[~periodic] = directions[n_periodic:]
    return completed


def _wrapped(positions: Tensor, cell: Tensor, periodic: Tensor) -> Tensor:
    """The positions [n_atoms, 3] moved into the cell along periodic directions: the finder counts cells in 32 bits."""
    with torch.no_grad():
        scaled = positions @ torch.linalg.inv(cell)
        whole = torch.where(periodic, scaled.floor(), torch.zeros_like(scaled))
    return positions - _combined(whole, cell)


def _closed_up(positions: Tensor, directions: Tensor, largest_gap: float) -> Tensor:
    """The positions [n_atoms, 3] with every empty slab wider than `largest_gap` (Å) narrowed to that width.

    `directions` are the unit vectors that are not periodic, orthogonal to each other and to the periodic ones. Atoms on
    two sides of a slab wider than the cutoff are no pair before or after, all others keep their displacement; and the
    finder's grid stays small, however far apart the atoms are.
    """
    for direction in directions:
        heights = positions @ direction
        order = torch.argsort(heights, stable=True)
        gaps = torch.diff(heights[order], prepend=heights[order][:1])
        closed = torch.empty_like(heights)
        closed[order] = gaps.clamp(max=largest_gap).cumsum(0)
        positions = positions + torch.outer(closed - heights, direction)
    return positions


def _smallest_height(vectors: Floats) -> float:
    """The smallest distance (Å) of opposite faces of the cell that 1 to 3 `vectors` span; 0 if they are dependent."""
    if np.linalg.matrix_rank(vectors) < len(vectors):
        return 0.0
    return float(1 / np.linalg.norm(np.linalg.pinv(vectors), axis=0).max())


def species_name(number: int) -> str:
    """The chemical symbol of an atomic number, or its number where it has none."""
    return chemical_symbols[number] if 0 <= number < len(chemical_symbols) else f"atomic number {number}"


def _check_positions(positions: Tensor, named: Named) -> None:
    largest = LARGEST_POSITION if positions.dtype == torch.float64 else LARGEST_SINGLE_POSITION
    wrong = torch.nonzero(~(positions.abs() <= largest).all(dim=1)).flatten()
    if len(wrong):
        index = int(wrong[0])
        position = positions[index].cpu().numpy()
        reason = f"beyond {largest:g} Å" if np.isfinite(position).all() else "not finite"
        raise StructureError(f"atom {named(index)} has the position {position}: {reason}")


def _check_apart(pairs: Tensor, distances: Tensor, named: Named) -> None:
    close = torch.nonzero(distances < SMALLEST_DISTANCE).flatten()
    if len(close):
        i, j = pairs[close[0]].tolist()
        names = f"atoms {named(i)} and {named(j)}"
        raise StructureError(f"{names} coincide: they, or images of them, are closer than {SMALLEST_DISTANCE} Å")
