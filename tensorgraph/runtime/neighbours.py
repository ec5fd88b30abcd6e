"""Pairs of atoms within a cutoff, for any mixture of periodic directions."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from numpy.typing import NDArray
from vesin import NeighborList

from tensorgraph.errors import StructureError

SMALLEST_DISTANCE = 1e-3  # Å; atoms closer than this coincide, and the direction between them is undefined
SMALLEST_HEIGHT = 0.1  # Å between opposite faces of the periodic cell; thinner ones have no end of images

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def neighbour_pairs(atoms: Atoms, cutoff: float) -> tuple[Integers, Floats]:
    """Pairs [2, n_pairs] (central atom i, neighbour j) and displacements r_j − r_i [n_pairs, 3] in Å, sorted by i.

    Every pair within `cutoff` (Å) is listed in both directions, with every periodic image, also of the atom itself.

    Raises StructureError, naming the atoms, for a position that is not finite and for coincident atoms; and for a cell
    that is singular, or not finite, in its periodic directions.
    """
    positions = np.asarray(atoms.positions, dtype=np.float64)
    _check_finite(atoms, positions)
    cell = completed_cell(atoms)
    finder = NeighborList(cutoff=cutoff, full_list=True, sorted=True)
    first, second, displacements = finder.compute(positions, cell, np.asarray(atoms.pbc), "ijD")
    pairs = np.stack([first, second]).astype(np.int64)
    _check_apart(atoms, pairs, displacements)
    return pairs, displacements


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


def _smallest_height(vectors: Floats) -> float:
    """The smallest distance (Å) of opposite faces of the cell that 1 to 3 `vectors` span; 0 if they are dependent."""
    if np.linalg.matrix_rank(vectors) < len(vectors):
        return 0.0
    return float(1 / np.linalg.norm(np.linalg.pinv(vectors), axis=0).max())


def _check_finite(atoms: Atoms, positions: Floats) -> None:
    wrong = np.flatnonzero(~np.isfinite(positions).all(axis=1))
    if wrong.size:
        index = int(wrong[0])
        raise StructureError(f"atom {index} ({atoms.symbols[index]}) has the position {positions[index]}: not finite")


def _check_apart(atoms: Atoms, pairs: Integers, displacements: Floats) -> None:
    close = np.flatnonzero(np.linalg.norm(displacements, axis=1) < SMALLEST_DISTANCE)
    if close.size:
        i, j = (int(index) for index in pairs[:, close[0]])
        names = f"atoms {i} ({atoms.symbols[i]}) and {j} ({atoms.symbols[j]})"
        raise StructureError(f"{names} coincide: they, or images of them, are closer than {SMALLEST_DISTANCE} Å")
