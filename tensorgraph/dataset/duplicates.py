"""Structures that stand in a data set twice, or in the training and the test set."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tensorgraph.dataset.structure import LabelledStructure

SAME_ENERGY = 1e-6  # eV
SAME_PLACE = 1e-6  # Å
SAME_FORCE = 1e-4  # eV/Å, and relative to the largest force

Floats = NDArray[np.float64]


def duplicates(train: Sequence[LabelledStructure], test: Sequence[LabelledStructure]) -> list[tuple[int, int]]:
    """Pairs (index in `train`, index in `test`), sorted, of structures that are taken for the same.

    They have the same elements, energies equal to 1e-6 eV and, where both have forces, equally large ones to 1e-4 eV/Å,
    whatever their order and direction: among a thousand structures some have the same energy by chance. Where one has
    no energy: the same atomic numbers in their order, and cells and positions equal to 1e-6 Å.
    """
    first, second = _by_composition(train), _by_composition(test)
    found: set[tuple[int, int]] = set()
    for composition in first.keys() & second.keys():
        ours, theirs = first[composition], second[composition]
        found |= _same_energies(train, ours, test, theirs)
        found |= _same_geometries(train, ours, test, theirs)
    return sorted(found)


def duplicates_within(structures: Sequence[LabelledStructure]) -> list[tuple[int, int]]:
    """Pairs of indices, the smaller one first, sorted, of structures of one list that are taken for the same."""
    return [(one, other) for one, other in duplicates(structures, structures) if one < other]


def repetition(
    train: Sequence[LabelledStructure], others: Sequence[LabelledStructure] | None = None, name: str = "test"
) -> str | None:
    """A sentence on the structures of `others`, called `name`, that stand in `train`; None where there are none.

    Without `others`, on those of `train` that repeat an earlier one.
    """
    pairs = duplicates_within(train) if others is None else duplicates(train, others)
    again = {second: first for first, second in reversed(pairs)}
    if not again:
        return None
    compared = train if others is None else others
    what = "structures repeat an earlier one" if others is None else f"{name} structures stand in the training set too"
    second, first = min(again.items())
    example = f"{compared[second].origin} is {train[first].origin}"
    return f"{len(again)} of {len(compared)} {what} (same elements, same energy), the first: {example}"


def _by_composition(structures: Sequence[LabelledStructure]) -> dict[bytes, list[int]]:
    found: dict[bytes, list[int]] = defaultdict(list)
    for index, one in enumerate(structures):
        found[np.sort(one.atoms.numbers).tobytes()].append(index)
    return found


def _same_energies(
    train: Sequence[LabelledStructure], ours: list[int], test: Sequence[LabelledStructure], theirs: list[int]
) -> set[tuple[int, int]]:
    first = {index: energy for index in ours if (energy := train[index].labels.energy) is not None}
    second = {index: energy for index in theirs if (energy := test[index].labels.energy) is not None}
    keys = np.array(list(first)), np.array(list(second))
    values = np.array(list(first.values())), np.array(list(second.values()))
    pairs = [(int(keys[0][a]), int(keys[1][b])) for a, b in _close(*values, SAME_ENERGY)]
    return {(i, j) for i, j in pairs if _same_forces(train[i].labels.forces, test[j].labels.forces)}


def _same_forces(first: Floats | None, second: Floats | None) -> bool:
    if first is None or second is None:
        return True
    ours, theirs = (np.sort(np.linalg.norm(forces, axis=1)) for forces in (first, second))
    return bool(np.allclose(ours, theirs, rtol=0, atol=SAME_FORCE * max(1.0, float(ours.max()))))


def _same_geometries(
    train: Sequence[LabelledStructure], ours: list[int], test: Sequence[LabelledStructure], theirs: list[int]
) -> set[tuple[int, int]]:
    """Of pairs of which one at least has no energy."""
    if all(train[i].labels.energy is not None for i in ours) and all(test[j].labels.energy is not None for j in theirs):
        return set()
    first, second = np.array([_geometry(train[i]) for i in ours]), np.array([_geometry(test[j]) for j in theirs])
    # One number of each structure sorts out nearly all pairs; where it differs by more, a coordinate does.
    weights = np.cos(np.arange(first.shape[1]))
    window = SAME_PLACE * float(np.abs(weights).sum())
    return {
        (ours[a], theirs[b])
        for a, b in _close(first @ weights, second @ weights, window)
        if (train[ours[a]].labels.energy is None or test[theirs[b]].labels.energy is None)
        and np.array_equal(train[ours[a]].atoms.numbers, test[theirs[b]].atoms.numbers)
        and np.abs(first[a] - second[b]).max() <= SAME_PLACE
    }


def _geometry(structure: LabelledStructure) -> Floats:
    """Cell and positions in a row; directions along which the structure is not periodic have no vector."""
    cell = structure.atoms.cell.array * structure.atoms.pbc[:, None]
    return np.concatenate([cell.ravel(), structure.atoms.positions.ravel()])


def _close(first: Floats, second: Floats, tolerance: float) -> list[tuple[int, int]]:
    """Pairs of indices whose values differ by at most the tolerance."""
    order = np.argsort(second)
    slack = tolerance * (1 + 1e-9)  # of numbers that a file rounds
    starts = np.searchsorted(second[order], first - slack, side="left")
    ends = np.searchsorted(second[order], first + slack, side="right")
    return [(a, int(order[k])) for a in range(len(first)) for k in range(starts[a], ends[a])]
