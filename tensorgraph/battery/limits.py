"""Limits: pairs at the cutoff and beyond it, fragments far apart, atoms alone, and atoms too close.

Limits at the cutoff are taken from both sides: values at a few distances on either side are extrapolated to it by the
polynomial through them, so that what is measured is a step and not the slope times a distance.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
import torch
from ase import Atoms
from ase.data import chemical_symbols
from numpy.polynomial.polynomial import polyfit

from tensorgraph.battery.bounds import judged
from tensorgraph.battery.check import Check
from tensorgraph.battery.predictions import (
    LEAST_ENERGY,
    Floats,
    Prediction,
    Scales,
    by_structure,
    largest,
    predictions,
    scales,
    single_atoms,
)
from tensorgraph.battery.structures import SEED, Maker, structures
from tensorgraph.battery.subject import Subject
from tensorgraph.model.batch import batch_structures
from tensorgraph.neighbours.lists import SMALLEST_DISTANCE

POINTS = 4  # on either side of the cutoff
GAPS = {torch.float64: 2e-4, torch.float32: 1e-2}
"""Between these points, in Å: distances near the cutoff are rounded to 1e-15 and 5e-7 Å."""
CLOSE = (0.7, 0.5, 0.35, 0.2, 0.1, 0.03, 0.01, 2e-3, 5e-4, 1e-5)
"""Distances of dimers, in Å; below 1e-3 the model refuses the structure."""
PARTS, GAUSS = 25, 6  # of the way, and points of the integral over one
CURVE = 30  # points of an energy curve
LONGER = 1.5  # times the cutoff: a list with pairs that must not count
MOST_PAIRS = 40  # of species; a model of all elements has thousands


def check_cutoff(subject: Subject) -> tuple[Check, ...]:
    """Energy and force are continuous where a pair passes the cutoff, and the slope of the force has a step no larger
    than the slopes within it: the published cutoff function cos² has one, of π²/2R_c² times what it multiplies.

    The pairs are dimers of all species, and two molecules of which one atom each comes close to the cutoff. Steps are
    relative to the largest energy, force and slope of the force of all of them between 0.3 R_c and 0.9 R_c.
    """
    gap = GAPS[subject.dtype]
    meetings = _meetings(subject)
    scale = np.max([_curve(subject, meeting) for meeting in meetings], axis=0)
    steps = [np.abs(_limit(subject, meeting, -gap) - _limit(subject, meeting, gap)) / scale for meeting in meetings]
    return tuple(
        judged(subject, name, {meeting.name: float(step[k]) for meeting, step in zip(meetings, steps, strict=True)})
        for k, name in enumerate(("cutoff: step of the energy", "cutoff: step of the force",
                                  "cutoff: step of the force's slope"))
    )  # fmt: skip


@dataclass(frozen=True)
class Meeting:
    """Two fragments, each with an atom at the origin, that move apart along `axis` [3]."""

    name: str
    left: Atoms
    right: Atoms
    axis: Floats

    def at(self, distance: float) -> Atoms:
        """With these two atoms at a distance (Å)."""
        moved = self.right.copy()
        moved.translate(distance * self.axis)
        both: Atoms = self.left + moved
        return both

    def force(self, one: Prediction) -> float:
        """On the fragment that moves, along its way, in eV/Å."""
        return float(one.forces[len(self.left) :].sum(axis=0) @ self.axis)


def check_work(subject: Subject) -> Check:
    """The energy changes by the work of the force, on every part of the way of two fragments from 0.25 R_c to R_c.

    A step of the energy anywhere on the way is in the energies and not in the force. Parts are equal in 1/r, in which
    sensitivities are; the work is an integral by Gauss and Legendre. Relative to the largest change of the energy.
    """
    nodes, weights = np.polynomial.legendre.leggauss(GAUSS)
    edges = np.linspace(1 / 0.25, 1, PARTS + 1)
    middles, halves = (edges[1:] + edges[:-1]) / 2, (edges[:-1] - edges[1:]) / 2
    inverse = middles[:, None] + halves[:, None] * nodes  # of r/R_c, [PARTS, GAUSS]
    found: dict[str, float] = {}
    for meeting in _meetings(subject):
        distances = subject.cutoff / np.concatenate([edges, inverse.ravel()])
        ones = predictions(subject, [meeting.at(distance) for distance in distances])
        energies = np.array([one.energy for one in ones[: PARTS + 1]])
        forces = np.array([meeting.force(one) for one in ones[PARTS + 1 :]]).reshape(PARTS, GAUSS)
        work = subject.cutoff * halves * ((forces / inverse**2) @ weights)
        size = max(float(np.ptp(energies)), LEAST_ENERGY)
        found[meeting.name] = float(np.max(np.abs(np.diff(energies) + work))) / size
    return judged(subject, "work of the force", found)


def _meetings(subject: Subject) -> list[Meeting]:
    make = Maker(np.random.default_rng(SEED), subject.species, subject.cutoff)
    dimers = [Meeting(f"{a}-{b}", Atoms(a), Atoms(b), make.direction()) for a, b in _species_pairs(subject)]
    return [*dimers, *(Meeting(f"molecules {k}", *make.facing(4)) for k in (1, 2, 3))]


def _species_pairs(subject: Subject) -> list[tuple[str, str]]:
    """All pairs of species, or as many as there is time for."""
    pairs = list(combinations_with_replacement([chemical_symbols[number] for number in subject.species], 2))
    chosen = np.random.default_rng(SEED).permutation(len(pairs))[:MOST_PAIRS]
    return [pairs[index] for index in sorted(chosen)]


def _curve(subject: Subject, meeting: Meeting) -> Floats:
    """The largest interaction energy, force, and slope of the force on the way to the cutoff [3]."""
    distances = np.linspace(0.3, 0.9, CURVE) * subject.cutoff
    found = predictions(subject, [meeting.at(distance) for distance in (*distances, 2 * subject.cutoff)])
    energies = np.array([one.energy for one in found])
    forces = np.array([meeting.force(one) for one in found[:-1]])
    steepest = np.abs(np.gradient(forces, distances)).max()
    largest_ones = np.array([np.abs(energies[:-1] - energies[-1]).max(), np.abs(forces).max(), steepest])
    return np.asarray(np.maximum(largest_ones, LEAST_ENERGY), np.float64)


def _limit(subject: Subject, meeting: Meeting, gap: float) -> Floats:
    """Energy, force and slope of the force [3] in the limit of the cutoff, from the side that `gap` has the sign of."""
    beyond = gap * np.arange(1, POINTS + 1)
    found = predictions(subject, [meeting.at(subject.cutoff + distance) for distance in beyond])
    energy = polyfit(beyond, [one.energy for one in found], POINTS - 1)
    force = polyfit(beyond, [meeting.force(one) for one in found], POINTS - 1)
    return np.array([energy[0], force[0], force[1]])


def check_additivity(subject: Subject) -> tuple[Check, ...]:
    """Nothing depends on what is further away than the cutoff: pairs that a longer list holds, fragments beside each
    other, other structures of a batch."""
    tried = structures(subject.species, subject.cutoff)
    atoms = list(tried.values())
    alone = [one for structure in atoms for one in predictions(subject, [structure])]
    sizes = scales(subject, atoms, alone)
    batch = batch_structures(atoms, LONGER * subject.cutoff, subject.dtype, subject.device)
    listed = by_structure(subject.model.energy_and_forces(*batch.inputs), atoms)
    beside: dict[str, list[float]] = {}
    for (kind, first), one, size in zip(tried.items(), alone, sizes, strict=True):
        if not first.pbc.any():
            beside[kind] = _beside(subject, first, one, size)
    sums = {
        kind: abs(float(np.sum(one.energies)) - one.energy) / size.energy
        for kind, one, size in zip(tried, alone, sizes, strict=True)
    }
    return (
        judged(subject, "energies of atoms: their sum", sums),
        judged(subject, "pairs beyond the cutoff", _unlike(tried, listed, alone, sizes)),
        judged(subject, "distant fragments", beside),
        judged(subject, "structures of a batch", _unlike(tried, predictions(subject, atoms), alone, sizes)),
    )


def _beside(subject: Subject, atoms: Atoms, alone: Prediction, size: Scales) -> list[float]:
    """How much a fragment changes for an equal one just beyond the cutoff, and far away."""
    found = []
    for gap in (1.001, 10.0):
        other = atoms.copy()
        other.translate([np.ptp(atoms.positions[:, 0]) + gap * subject.cutoff, 0, 0])
        (both,) = predictions(subject, [atoms + other])
        energies, forces = np.tile(alone.energies, 2), np.tile(alone.forces, (2, 1))
        expected = Prediction(2 * alone.energy, energies, forces, 2 * alone.virial)
        found.append(_difference(both, expected, size))
    return found


def _unlike(
    names: Iterable[str], found: Iterable[Prediction], expected: Iterable[Prediction], sizes: Iterable[Scales]
) -> dict[str, float]:
    return {
        name: _difference(one, other, size)
        for name, one, other, size in zip(names, found, expected, sizes, strict=True)
    }


def _difference(found: Prediction, expected: Prediction, size: Scales) -> float:
    energies = np.append(found.energies - expected.energies, found.energy - expected.energy)
    relative = [largest(energies) / size.energy, largest(found.forces - expected.forces) / size.forces]
    return float(np.max([*relative, largest(found.virial - expected.virial) / size.virial]))


def check_single_atoms(subject: Subject) -> tuple[Check, ...]:
    """An atom alone has no force and no virial, and one energy for its species: in a large periodic cell too.

    Energies are relative to the largest of them, for one may cancel to almost nothing.
    """
    alone = single_atoms(subject)
    size = max(LEAST_ENERGY, *(abs(one.energy) for one in alone.values()))
    side = 2.1 * subject.cutoff
    boxed = [Atoms([number], [[0.3, 0.2, 0.1]], cell=[side] * 3, pbc=True) for number in alone]
    slopes: dict[str, float] = {}
    energies: dict[str, float] = {}
    for (number, one), other in zip(alone.items(), predictions(subject, boxed), strict=True):
        name = chemical_symbols[number]
        slopes[name] = float(np.max([largest(x) for x in (one.forces, one.virial, other.forces, other.virial)]))
        energies[name] = float(np.max(np.abs([other.energy - one.energy, one.energies[0] - one.energy]))) / size
    return (
        judged(subject, "single atoms: forces and virials", slopes),
        judged(subject, "single atoms: energies", energies),
    )


def check_dimers(subject: Subject) -> tuple[Check, ...]:
    """A dimer just beyond the cutoff and further is two atoms; a close one is finite, or refused by a ValueError.

    Energies are relative to the largest of a single atom, for one may cancel to almost nothing.
    """
    alone = {chemical_symbols[number]: one.energy for number, one in single_atoms(subject).items()}
    size = max(LEAST_ENERGY, *map(abs, alone.values()))
    far: dict[str, list[float]] = {}
    close: dict[str, float] = {}
    for first, second in _species_pairs(subject):
        name = f"{first}-{second}"
        dimers = [Atoms([first, second], [[0, 0, 0], [0, 0, d * subject.cutoff]]) for d in (1.00001, 1.2, 3)]
        separate = alone[first] + alone[second]
        found = predictions(subject, dimers)
        far[name] = [abs(one.energy - separate) / size + largest(one.forces) + largest(one.virial) for one in found]
        close[name] = sum(not _is_sound(subject, Atoms([first, second], [[0, 0, 0], [0, d, 0]])) for d in CLOSE)
    return judged(subject, "dimers beyond the cutoff", far), judged(subject, "close dimers", close)


def _is_sound(subject: Subject, atoms: Atoms) -> bool:
    """Whether all results are finite, or the structure is refused as the model and its list of pairs document it."""
    try:
        (one,) = predictions(subject, [atoms])
    except ValueError as error:
        return atoms.get_distance(0, 1) < SMALLEST_DISTANCE and "coincide" in str(error)
    return all(np.isfinite(values).all() for values in (one.energies, one.forces, one.virial, one.energy))
