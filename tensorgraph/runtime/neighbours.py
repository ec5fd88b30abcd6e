"""Pairs of atoms within a cutoff, for any mixture of periodic directions."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from numpy.typing import NDArray
from vesin import NeighborList

from tensorgraph.errors import StructureError

SMALLEST_DISTANCE = 1e-3  # Å; atoms closer than this coincide, and the direction between them is undefined
SMALLEST_HEIGHT = 0.1  # Å between opposite faces of the periodic cell; thinner ones have no end of images
LARGEST_POSITION = 1e12  # Å; beyond it float64 no longer tells where an atom is, relative to its neighbours
ROUNDING = 1e-14  # of a search among positions, relative to the largest of them

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def neighbour_pairs(atoms: Atoms, cutoff: float) -> tuple[Integers, Floats]:
    """Pairs [2, n_pairs] (central atom i, neighbour j) and displacements r_j − r_i [n_pairs, 3] in Å, sorted by i.

    Every pair within `cutoff` (Å) is listed in both directions, with every periodic image, also of the atom itself.

    Raises StructureError, naming the atoms, for a position that is not finite or beyond 1e12 Å and for coincident
    atoms; and for a cell that is singular, or not finite, in its periodic directions.
    """
    positions = np.asarray(atoms.positions, dtype=np.float64)
    _check_positions(atoms, positions)
    cell = completed_cell(atoms)
    wrapped = _wrapped(positions, cell, atoms.pbc)
    together = _closed_up(wrapped, cell[~atoms.pbc], 2 * cutoff)
    # Moving atoms rounds: the finder must not miss a pair for it, and the displacements below decide.
    reach = cutoff + ROUNDING * float(np.abs(positions).max(initial=0))
    finder = NeighborList(cutoff=reach, full_list=True, sorted=True)
    first, second, shifts = finder.compute(together, cell, np.asarray(atoms.pbc), "ijS")
    displacements = wrapped[second] - wrapped[first] + shifts @ cell
    within = np.linalg.norm(displacements, axis=1) <= cutoff
    pairs = np.stack([first, second]).astype(np.int64)[:, within]
    _check_apart(atoms, pairs, displacements[within])
    return pairs, displacements[within]


def completed_cell(atoms: Atoms) -> Floats:
    """The cell [3, 3] in Å with its non-periodic vectors replaced by unit vectors orthogonal to the periodic ones.

    A non-periodic direction may have any cell vector, or none: it must not matter.
    """
    cell = np.array(atoms.cell, dtype=np.float64)
    if not np.isfinite(cell[atoms.pbc]).all():
        raise StructureError("the cell has periodic vectors that are not finite")
    _, heights, directions = np.linalg.svd(cell[atoms.pbc])
    n_periodic = int(atoms.pbc.sum())
    if n_periodic and _smallest_height(cell[atoms.pbc]) < SMALLEST_HEIGHT:
        lengths = ", ".join(f"{length:.3g}" for length in np.linalg.norm(cell[atoms.pbc], axis=1))
        raise StructureError(
            f"the cell is singular in its periodic directions (lengths {lengths} Å, smallest singular value "
            f"{heights.min():.3g} Å): opposite faces must be {SMALLEST_HEIGHT} Å apart"
        )
    cell[~atoms.pbc] = directions[n_periodic:]
    return cell


def _wrapped(positions: Floats, cell: Floats, periodic: NDArray[np.bool_]) -> Floats:
    """The positions [n_atoms, 3] moved into the cell along periodic directions: the finder counts cells in 32 bits."""
    whole = np.where(periodic, np.floor(positions @ np.linalg.inv(cell)), 0)
    return positions - whole @ cell


def _closed_up(positions: Floats, directions: Floats, largest_gap: float) -> Floats:
    """The positions [n_atoms, 3] with every empty slab wider than `largest_gap` (Å) narrowed to that width.

    `directions` are the unit vectors that are not periodic, orthogonal to each other and to the periodic ones. Atoms on
    two sides of a slab wider than the cutoff are no pair before or after, all others keep their displacement; and the
    finder's grid stays small, however far apart the atoms are.
    """
    for direction in directions:
        heights = positions @ direction
        order = np.argsort(heights, kind="stable")
        gaps = np.diff(heights[order], prepend=heights[order][:1])
        closed = np.empty_like(heights)
        closed[order] = np.minimum(gaps, largest_gap).cumsum()
        positions = positions + np.outer(closed - heights, direction)
    return positions


def _smallest_height(vectors: Floats) -> float:
    """The smallest distance (Å) of opposite faces of the cell that 1 to 3 `vectors` span; 0 if they are dependent."""
    if np.linalg.matrix_rank(vectors) < len(vectors):
        return 0.0
    return float(1 / np.linalg.norm(np.linalg.pinv(vectors), axis=0).max())


def species_name(number: int) -> str:
    """The chemical symbol of an atomic number, or its number where it has none."""
    return chemical_symbols[number] if 0 <= number < len(chemical_symbols) else f"atomic number {number}"


def _named(atoms: Atoms, index: int) -> str:
    return f"{index} ({species_name(int(atoms.numbers[index]))})"


def _check_positions(atoms: Atoms, positions: Floats) -> None:
    wrong = np.flatnonzero(~(np.abs(positions) <= LARGEST_POSITION).all(axis=1))
    if wrong.size:
        index = int(wrong[0])
        reason = f"beyond {LARGEST_POSITION:g} Å" if np.isfinite(positions[index]).all() else "not finite"
        raise StructureError(f"atom {_named(atoms, index)} has the position {positions[index]}: {reason}")


def _check_apart(atoms: Atoms, pairs: Integers, displacements: Floats) -> None:
    close = np.flatnonzero(np.linalg.norm(displacements, axis=1) < SMALLEST_DISTANCE)
    if close.size:
        i, j = (int(index) for index in pairs[:, close[0]])
        names = f"atoms {_named(atoms, i)} and {_named(atoms, j)}"
        raise StructureError(f"{names} coincide: they, or images of them, are closer than {SMALLEST_DISTANCE} Å")
