"""Predictions structure by structure, and the scales that errors are relative to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from tensorgraph.battery.subject import Subject

Floats = NDArray[np.float64]

ATOMS_AT_ONCE = 400
LEAST_ENERGY = 1e-6  # eV per atom: an interaction below it is none, and rounding must not be divided by it


@dataclass(frozen=True)
class Prediction:
    """Of one structure: `energy` in eV, `energies` [n_atoms], `forces` [n_atoms, 3] in eV/Å, `virial` [3, 3] in eV."""

    energy: float
    energies: Floats
    forces: Floats
    virial: Floats


def predictions(subject: Subject, structures: Sequence[Atoms]) -> list[Prediction]:
    """What the model gives for structures, in batches of bounded size."""
    return [one for batch in _batches(structures) for one in by_structure(subject.predict(batch), batch)]


def _batches(structures: Sequence[Atoms]) -> Iterator[Sequence[Atoms]]:
    first = atoms = 0
    for index, structure in enumerate(structures):
        if index > first and atoms + len(structure) > ATOMS_AT_ONCE:
            yield structures[first:index]
            first, atoms = index, 0
        atoms += len(structure)
    yield structures[first:]


def by_structure(found: Any, structures: Sequence[Atoms]) -> Iterator[Prediction]:
    """What a model found for a batch of these structures, one by one."""
    energy, energies, forces, virial = (
        getattr(found, name).detach().cpu().numpy().astype(np.float64)
        for name in ("energy", "energies", "forces", "virial")
    )
    ends = np.cumsum([0, *map(len, structures)])
    for index, (start, end) in enumerate(pairwise(ends)):
        yield Prediction(float(energy[index]), energies[start:end], forces[start:end], virial[index])


def single_atoms(subject: Subject) -> dict[int, Prediction]:
    """What the model gives for an atom alone, by atomic number."""
    found = predictions(subject, [Atoms([number]) for number in subject.species])
    return dict(zip(subject.species, found, strict=True))


@dataclass(frozen=True)
class Scales:
    """What errors of a structure are relative to.

    `energy`: Σ|E_i − E(single atom)| in eV, so that large energies of single atoms hide nothing and energies that
    cancel exaggerate nothing. `forces` and `virial`: the largest component, at least what the energy changes by over
    1 Å and over a strain of one, for both may vanish by symmetry.
    """

    energy: float
    forces: float
    virial: float


def scales(subject: Subject, structures: Sequence[Atoms], found: Sequence[Prediction]) -> list[Scales]:
    """The scales of predictions."""
    alone = {number: one.energy for number, one in single_atoms(subject).items()}
    result = []
    for structure, one in zip(structures, found, strict=True):
        interaction = one.energies - [alone[int(number)] for number in structure.numbers]
        energy = max(float(np.abs(interaction).sum()), LEAST_ENERGY * len(structure))
        mean = energy / len(structure)
        result.append(Scales(energy, max(largest(one.forces), mean), max(largest(one.virial), mean)))
    return result


def largest(values: Floats) -> float:
    """The largest absolute value; NaN if any is."""
    return float(np.abs(values).max(initial=0.0))
