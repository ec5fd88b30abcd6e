"""Forces, Hessians and virials against differences of what they are the derivatives of.

Central differences at a step and at halves of it are extrapolated to a step of zero (Richardson; the choice of the
order as in Ridders, Adv. Eng. Softw. 4, 75, 1982: the element of the tableau that agrees best with its neighbours,
which never looks at the value that is checked).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import torch
from ase import Atoms

from tensorgraph.battery.bounds import judged
from tensorgraph.battery.check import Check
from tensorgraph.battery.predictions import LEAST_ENERGY, Floats, Prediction, largest, predictions, scales
from tensorgraph.battery.structures import PERIODIC, SEED, Maker, structures
from tensorgraph.battery.subject import Subject
from tensorgraph.model.derivatives import hessian

LEVELS = 4
LENGTHS = {torch.float64: 0.004, torch.float32: 0.03}
"""The largest step (Å): as small as a sensitivity asks for, in float32 as large as rounding asks for."""
STRAINS = {torch.float64: 0.0015, torch.float32: 0.02}
"""The largest strain: a few of its atoms' distances times it is a step in Å."""
DIRECTIONS = 3  # random ones, of every structure
VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))

Path = Callable[[float], Atoms]


def check_forces(subject: Subject) -> Check:
    """The force along random directions is minus the slope of the energy, for every structure."""
    random = np.random.default_rng(SEED)
    tried = structures(subject.species, subject.cutoff)
    found = predictions(subject, list(tried.values()))
    paths, expected, where = [], [], []
    for (kind, atoms), one, scale in zip(
        tried.items(), found, scales(subject, list(tried.values()), found), strict=True
    ):
        for _ in range(DIRECTIONS):
            direction = random.normal(size=(len(atoms), 3))
            direction /= np.linalg.norm(direction)
            paths.append(_along(atoms, direction))
            expected.append((-float((one.forces * direction).sum()), scale.forces))
            where.append(kind)
    slopes = extrapolated(subject, paths, LENGTHS[subject.dtype], lambda one: np.array([one.energy]))
    return judged(subject, "forces: slopes of the energy", _relative(where, slopes, expected))


def check_hessian(subject: Subject) -> tuple[Check, ...]:
    """The Hessian by autograd is symmetric, and each of its products with a direction is a slope of the forces.

    Forces that are no gradient have an asymmetric Hessian. The second derivatives are what training on forces and
    vibrations rely on, from kernels of their own.
    """
    random = np.random.default_rng(SEED)
    symmetry: dict[str, float] = {}
    paths, expected, where = [], [], []
    for kind, atoms in structures(subject.species, subject.cutoff).items():
        if kind not in ("molecule", "small crystal"):
            continue
        matrix = hessian(subject.model, subject.batch([atoms])).detach().cpu().numpy().astype(np.float64)
        scale = max(largest(matrix), LEAST_ENERGY)
        symmetry[kind] = largest(matrix - matrix.T) / scale
        for _ in range(DIRECTIONS):
            direction = random.normal(size=(len(atoms), 3))
            direction /= np.linalg.norm(direction)
            paths.append(_along(atoms, direction))
            expected.append((-matrix @ direction.ravel(), scale))
            where.append(kind)
    slopes = extrapolated(subject, paths, LENGTHS[subject.dtype], lambda one: one.forces.ravel())
    return (
        judged(subject, "Hessian: symmetry", symmetry),
        judged(subject, "Hessian: slopes of the forces", _relative(where, slopes, expected)),
    )


def check_virial(subject: Subject) -> tuple[Check, ...]:
    """The virial is the slope of the energy under each of six strains: in triclinic cells, smaller than the cutoff
    where the atoms are, for every combination of periodic directions; the stress is the virial over the volume."""
    make = Maker(np.random.default_rng(SEED), subject.species, subject.cutoff)
    tried = [make.packed(2, pbc) for pbc in PERIODIC] + [make.packed(1, PERIODIC[7])]
    found = predictions(subject, tried)
    paths, expected, where = [], [], []
    asymmetry: dict[str, float] = {}
    for index, (atoms, one, scale) in enumerate(zip(tried, found, scales(subject, tried, found), strict=True)):
        periodic = "".join(name for name, is_periodic in zip("abc", atoms.pbc, strict=True) if is_periodic) or "none"
        asymmetry[f"structure {index}, periodic: {periodic}"] = largest(one.virial - one.virial.T) / scale.virial
        for first, second in VOIGT:
            strain = np.zeros((3, 3))
            strain[first, second] += 0.5
            strain[second, first] += 0.5
            paths.append(_strained(atoms, strain))
            expected.append((float((one.virial * strain).sum()), scale.virial))
            where.append(f"periodic: {periodic}, {'xyz'[first]}{'xyz'[second]}")
    slopes = extrapolated(subject, paths, STRAINS[subject.dtype], lambda one: np.array([one.energy]))
    return (
        judged(subject, "virials: strain derivatives", _relative(where, slopes, expected)),
        judged(subject, "virials: symmetry", asymmetry),
    )


def _relative(
    where: Sequence[str], slopes: Sequence[Floats], expected: Sequence[tuple[float | Floats, float]]
) -> dict[str, list[float]]:
    found: defaultdict[str, list[float]] = defaultdict(list)
    for kind, slope, (value, scale) in zip(where, slopes, expected, strict=True):
        found[kind].append(largest(slope - value) / scale)
    return found


def _along(atoms: Atoms, direction: Floats) -> Path:
    def moved(step: float) -> Atoms:
        result: Atoms = atoms.copy()
        result.positions += step * direction
        return result

    return moved


def _strained(atoms: Atoms, strain: Floats) -> Path:
    def strained(step: float) -> Atoms:
        result: Atoms = atoms.copy()
        result.set_cell(atoms.cell.array @ (np.eye(3) + step * strain))
        result.positions = atoms.positions @ (np.eye(3) + step * strain)
        return result

    return strained


def extrapolated(
    subject: Subject, paths: Sequence[Path], step: float, quantity: Callable[[Prediction], Floats]
) -> list[Floats]:
    """The derivatives of a quantity along paths of structures at zero, from differences at `step` and halves of it."""
    steps = step / 2.0 ** np.arange(LEVELS)
    moved = [path(sign * h) for path in paths for h in steps for sign in (1, -1)]
    values = iter([quantity(one) for one in predictions(subject, moved)])
    return [_limit([(next(values) - next(values)) / (2 * h) for h in steps]) for _ in paths]


def _limit(levels: list[Floats]) -> Floats:
    """The element of Richardson's tableau that agrees best with the two that it was made of."""
    best, least = levels[-1], np.inf
    for order in range(1, len(levels)):
        factor = 4.0**order
        better = [(factor * fine - coarse) / (factor - 1) for coarse, fine in pairwise(levels)]
        for index, value in enumerate(better):
            change = max(largest(value - levels[index]), largest(value - levels[index + 1]))
            if change < least:
                best, least = value, change
        levels = better
    return best
