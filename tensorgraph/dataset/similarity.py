"""Pairs of similar structures, and the work that forces and stresses do between them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from ase.geometry import find_mic
from numpy.typing import NDArray

from tensorgraph.dataset.structure import LabelledStructure
from tensorgraph.model.labels import cell_volume

Floats = NDArray[np.float64]

SIMILAR = 0.35  # Å that an atom moves at most between structures that are compared, and
STRAINED = 0.05  # largest component of the strain between them
SUCCESSORS = 5  # of each structure that are tried
MOST_TRIED, MOST_USED = 2_000, 400  # pairs of structures


@dataclass(frozen=True)
class Work:
    """From one structure to a similar one: what the energy changes by, and the work of forces and stresses (in eV)."""

    energy: float
    forces: float
    stress: float | None
    """None where the cell stays as it is."""
    n_atoms: int


def works_between(structures: Sequence[LabelledStructure]) -> Iterator[Work]:
    """Of pairs of structures with the same atoms in the same order, each with a few of those that follow it."""
    groups: dict[tuple[bytes, bytes], list[LabelledStructure]] = defaultdict(list)
    for one in structures:
        if one.labels.energy is not None and one.labels.forces is not None and len(one.atoms) > 1:
            groups[one.atoms.numbers.tobytes(), one.atoms.pbc.tobytes()].append(one)
    tried = used = 0
    for step in range(1, SUCCESSORS + 1):
        for members in groups.values():
            for one, other in zip(members, members[step:], strict=False):
                if tried == MOST_TRIED or used == MOST_USED:
                    return
                tried += 1
                if (work := _work(one, other)) is not None:
                    used += 1
                    yield work


def _work(one: LabelledStructure, other: LabelledStructure) -> Work | None:
    """None for structures that are not similar, or strained without labels that say at what cost."""
    energies = one.labels.energy, other.labels.energy
    first, second = one.labels.forces, other.labels.forces
    if first is None or second is None or energies[0] is None or energies[1] is None:
        return None
    stress: float | None = None
    if not one.atoms.pbc.any():
        moved, second = _superposed(one.atoms.positions, other.atoms.positions, second)
    else:
        strained = not np.allclose(one.atoms.cell.array, other.atoms.cell.array, rtol=0, atol=1e-6)
        if strained and (stress := _work_of_stress(one, other)) is None:
            return None
        moved = _displaced(one, other, strained)
    if np.linalg.norm(moved, axis=1).max() > SIMILAR:
        return None
    forces = -float(((first + second) / 2 * moved).sum())
    return Work(energies[1] - energies[0], forces, stress, len(one.atoms))


def _work_of_stress(one: LabelledStructure, other: LabelledStructure) -> float | None:
    """None without stresses of both, along directions that are not periodic, and for large strains."""
    first, second = one.labels.stress, other.labels.stress
    volumes = cell_volume(one.atoms), cell_volume(other.atoms)
    if first is None or second is None or volumes[0] is None or volumes[1] is None or not one.atoms.pbc.all():
        return None
    strain = np.linalg.solve(one.atoms.cell.array, other.atoms.cell.array) - np.eye(3)
    strain = (strain + strain.T) / 2
    if np.abs(strain).max() > STRAINED:
        return None
    return float(((volumes[0] * first + volumes[1] * second) / 2 * strain).sum())


def _superposed(first: Floats, second: Floats, forces: Floats) -> tuple[Floats, Floats]:
    """How atoms move [n, 3] to the second structure, turned to meet the first, and its forces, turned likewise."""
    first, second = first - first.mean(axis=0), second - second.mean(axis=0)
    turn = _rotation(first, second)
    return second @ turn - first, forces @ turn


def _rotation(first: Floats, second: Floats) -> Floats:
    """Proper, with the least squares of `second @ rotation − first` (Kabsch)."""
    left, _, right = np.linalg.svd(second.T @ first)
    left[:, -1] *= np.sign(np.linalg.det(left @ right))
    rotation: Floats = left @ right
    return rotation


def _displaced(one: LabelledStructure, other: LabelledStructure, strained: bool) -> Floats:
    """How atoms move [n, 3] to the nearest image in the other structure, in the mean cell, their mean taken off."""
    moved: Floats
    if strained:
        scaled = other.atoms.get_scaled_positions(wrap=False) - one.atoms.get_scaled_positions(wrap=False)
        moved = (scaled - np.round(scaled)) @ ((one.atoms.cell.array + other.atoms.cell.array) / 2)
    else:
        moved = find_mic(other.atoms.positions - one.atoms.positions, one.atoms.cell, one.atoms.pbc)[0]
    mean: Floats = moved.mean(axis=0)
    return moved - mean
