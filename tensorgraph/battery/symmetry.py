"""Symmetries: what must not change, or must turn along, when a structure is turned, moved, or written in another way.

All of them are exact in theory, so each check measures rounding, and nothing but a mistake is much larger.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
from ase import Atoms
from ase.build import make_supercell
from numpy.typing import NDArray

from tensorgraph.battery.bounds import judged
from tensorgraph.battery.check import Check
from tensorgraph.battery.predictions import Floats, Prediction, largest, predictions, scales
from tensorgraph.battery.structures import SEED, rotation, structures
from tensorgraph.battery.subject import Subject

TIMES = 3  # random operations on every structure
FURTHEST = 20.0  # Å of a translation: positions of that size are rounded to 4e-15 Å

Expected = Callable[[Prediction], Prediction]
Case = tuple[str, Atoms, Atoms, Expected]


def check_rotation(subject: Subject) -> tuple[Check, ...]:
    """Energies stay and forces and virials turn along when a structure is turned by a random rotation."""
    return _turned(subject, "rotation", 1)


def check_reflection(subject: Subject) -> tuple[Check, ...]:
    """The same of rotations with a reflection: invariants are scalars, none of them a pseudo-scalar."""
    return _turned(subject, "reflection", -1)


def _turned(subject: Subject, name: str, sign: int) -> tuple[Check, ...]:
    random = np.random.default_rng(SEED)
    turns = [sign * rotation(random) for _ in range(TIMES)]
    cases: list[Case] = []
    for kind, atoms in structures(subject.species, subject.cutoff).items():
        for turn in turns:
            cell = atoms.cell.array @ turn.T
            turned = Atoms(atoms.numbers, atoms.positions @ turn.T, cell=cell, pbc=atoms.pbc)
            cases.append((kind, atoms, turned, _turn_along(turn)))
    return _compared(subject, name, cases)


def _turn_along(turn: Floats) -> Expected:
    return lambda one: Prediction(one.energy, one.energies, one.forces @ turn.T, turn @ one.virial @ turn.T)


def check_translation(subject: Subject) -> tuple[Check, ...]:
    """Nothing changes when a structure is moved, nor when atoms are moved back into the cell one by one."""
    random = np.random.default_rng(SEED)
    cases: list[Case] = []
    for kind, atoms in structures(subject.species, subject.cutoff).items():
        for _ in range(TIMES):
            moved = atoms.copy()
            moved.translate(random.uniform(-FURTHEST, FURTHEST, 3))
            cases.append((kind, atoms, moved, _same))
            if atoms.pbc.any():
                wrapped = moved.copy()
                wrapped.wrap()
                cases.append((f"{kind}, wrapped", atoms, wrapped, _same))
    return _compared(subject, "translation", cases)


def check_permutation(subject: Subject) -> tuple[Check, ...]:
    """Energies of atoms and forces follow their atoms when these are listed in another order."""
    random = np.random.default_rng(SEED)
    cases: list[Case] = []
    for kind, atoms in structures(subject.species, subject.cutoff).items():
        for _ in range(TIMES):
            order = random.permutation(len(atoms))
            cases.append((kind, atoms, atoms[order], _picked(np.asarray(order, np.int64))))
    return _compared(subject, "permutation", cases)


def check_cells(subject: Subject) -> tuple[Check, ...]:
    """The same crystal in another cell: skewed, left-handed, or twice as large, which doubles energy and virial."""
    cases: list[Case] = []
    for kind, atoms in structures(subject.species, subject.cutoff).items():
        if not atoms.pbc.any():
            continue
        twice = np.tile(np.arange(len(atoms), dtype=np.int64), 2)
        axis = int(np.flatnonzero(atoms.pbc)[0])
        repeats = [2 if k == axis else 1 for k in range(3)]
        cases.append((f"{kind}, twice as large", atoms, atoms.repeat(repeats), _picked(twice)))
        flipped = atoms.copy()
        flipped.cell[axis] *= -1
        cases.append((f"{kind}, cell of the other hand", atoms, flipped, _same))
        if atoms.pbc.sum() > 1:
            other = int(np.flatnonzero(atoms.pbc)[1])
            matrix = np.eye(3, dtype=int)
            matrix[axis, other] = 1
            skewed = make_supercell(atoms, matrix, wrap=False)
            cases.append((f"{kind}, skewed", atoms, skewed, _same))
    return _compared(subject, "choice of cell", cases)


def _same(one: Prediction) -> Prediction:
    return one


def _picked(order: NDArray[np.int64]) -> Expected:
    def expected(one: Prediction) -> Prediction:
        times = len(order) / len(one.energies)
        return Prediction(times * one.energy, one.energies[order], one.forces[order], times * one.virial)

    return expected


def _compared(subject: Subject, name: str, cases: Sequence[Case]) -> tuple[Check, ...]:
    """Energies, of structures and of atoms, then forces and virials, each relative to the scale of its structure."""
    before = {id(atoms): atoms for _, atoms, _, _ in cases}
    found = predictions(subject, list(before.values()))
    known = dict(zip(before, zip(found, scales(subject, list(before.values()), found), strict=True), strict=True))
    energies: defaultdict[str, list[float]] = defaultdict(list)
    slopes: defaultdict[str, list[float]] = defaultdict(list)
    after = predictions(subject, [changed for _, _, changed, _ in cases])
    for (kind, atoms, _, expected), new in zip(cases, after, strict=True):
        old, scale = known[id(atoms)]
        wanted = expected(old)
        difference = largest(np.append(new.energies - wanted.energies, new.energy - wanted.energy))
        energies[kind].append(difference / scale.energy)
        slopes[f"{kind}: forces"].append(largest(new.forces - wanted.forces) / scale.forces)
        slopes[f"{kind}: virial"].append(largest(new.virial - wanted.virial) / scale.virial)
    return (
        judged(subject, f"{name}: energies", energies),
        judged(subject, f"{name}: forces and virials", slopes),
    )
