"""Labels and lengths that look wrong by a factor: units other than eV and Å, and signs.

Two rules need no typical values. Between two similar structures the energy changes by the work of the mean forces,
ΔE ≈ −½ (F₁ + F₂)·Δr, and of the mean stresses, ½ (V₁σ₁ + V₂σ₂):ε, which is exact for harmonic energies: the ratio of
both sides is 1, whatever the material. And the nearest neighbour of an atom stands at about the sum of the covalent
radii. Where neither tells, because no structures are similar, or their ratios scatter, nothing is said.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
from ase.data import covalent_radii
from numpy.typing import NDArray

from tensorgraph.dataset.similarity import Work, works_between
from tensorgraph.dataset.structure import LabelledStructure
from tensorgraph.errors import StructureError
from tensorgraph.neighbours.lists import neighbour_pairs

Floats = NDArray[np.float64]

FEWEST = 10  # ratios that tell
ONE_SIGN = 0.9  # of the ratios
SCATTER = 0.25  # median deviation of the logarithms of the ratios
NEAR = math.log(1.4)  # of 1: the ratio is right
KNOWN = math.log(1.1)  # of a known factor of forces: its unit is named
APART = math.log(1.3)  # likewise of stresses, whose factors are far apart
CLEAR = 0.5

EV_PER = {"Hartree": 27.211386, "Rydberg": 13.605693, "kcal/mol": 1 / 23.060548, "kJ/mol": 1 / 96.485332}
BOHR = 0.52917721  # Å
GPA = 160.21766  # per eV/Å³
LONG, SHORT, TINY = 1.6, 0.6, 0.2  # of distances over sums of covalent radii
NOBLE = (2, 10, 18, 36, 54, 86)  # whose neighbours are not bonded
LARGEST_STRESS = 5.0  # eV/Å³, 800 GPa
LOOKED_AT, MOST_ATOMS = 60, 50_000  # structures and atoms, about, for lengths
FEWEST_LENGTHS = 3  # structures that tell


def unit_warnings(structures: Sequence[LabelledStructure]) -> list[str]:
    """What looks wrong by a factor, a sentence each, with the reason: lengths, forces against energies, stresses.

    Takes time that does not grow with the number of structures beyond about two thousand pairs of similar ones.
    """
    works = list(works_between(structures))
    forces = _forces_warning([one for one in works if one.stress is None])
    stress = None if forces else _stress_warning([one for one in works if one.stress is not None], structures)
    return [text for text in (_length_warning(structures), forces, stress) if text is not None]


def _forces_warning(works: Sequence[Work]) -> str | None:
    energies, forces = (np.array([getattr(one, name) for one in works]) for name in ("energy", "forces"))
    ratio, count = _ratio(energies, forces)
    if ratio is not None and ratio > 0 and abs(math.log(ratio)) < NEAR:
        return None
    per_atom, _ = _ratio(energies * [one.n_atoms for one in works], forces)
    if per_atom is not None and per_atom > 0 and abs(math.log(per_atom)) < KNOWN:
        return (
            f"energies do not fit the forces: between {count} pairs of similar structures they change by the work of "
            "the forces over the number of atoms, as energies per atom do; expected: those of whole structures"
        )
    if ratio is None:
        return None
    return (
        f"energies do not fit the forces: between {count} pairs of similar structures they change by {ratio:.3g} times "
        f"the work of the forces (median){_known(ratio, _force_factors(), KNOWN)}; expected: eV and eV/Å"
    )


def _stress_warning(works: Sequence[Work], structures: Sequence[LabelledStructure]) -> str | None:
    # What the forces leave over tells where it is more than the error of their work, of which a tenth is not harmonic.
    works = [one for one in works if abs(one.energy - one.forces) > CLEAR * abs(one.forces)]
    energies = np.array([one.energy - one.forces for one in works])
    ratio, count = _ratio(energies, np.array([one.stress for one in works]))
    if ratio is not None:
        if ratio > 0 and abs(math.log(ratio)) < NEAR:
            return None
        return (
            f"energies do not fit the stresses: between {count} pairs of similar cells they change by {ratio:.3g} "
            f"times the work of the stress (median){_known(ratio, _stress_factors(), APART)}; expected: eV/Å³, "
            "positive where the cell wants to shrink (or a virial in eV, of the other sign)"
        )
    largest = [float(np.abs(one.labels.stress).max()) for one in structures if one.labels.stress is not None]
    if largest and (middle := float(np.median(largest))) > LARGEST_STRESS:
        return (
            f"stresses are {middle:.3g} eV/Å³ at their largest (median), {middle * GPA:.0f} GPa: in GPa or kbar they "
            f"would be {GPA:.1f} or {10 * GPA:.0f} times as large as in eV/Å³, which is expected"
        )
    return None


def _ratio(changes: Floats, works: Floats) -> tuple[float | None, int]:
    """The median of the ratios where the works are large, and their number; None where they are few or scatter."""
    chosen = np.abs(works) >= np.median(np.abs(works)) if works.size else np.zeros(0, dtype=np.bool_)
    chosen &= (works != 0) & (changes != 0)
    count = int(chosen.sum())
    if count < FEWEST:
        return None, count
    ratios = changes[chosen] / works[chosen]
    sizes = np.log(np.abs(ratios))
    positive = float((ratios > 0).mean())
    scatter = float(np.median(np.abs(sizes - np.median(sizes))))
    if scatter > SCATTER or max(positive, 1 - positive) < ONE_SIGN:
        return None, count
    return math.copysign(math.exp(float(np.median(sizes))), positive - 0.5), count


def _force_factors() -> dict[str, float]:
    """Changes of energies over the work of forces, where one or both have other units than eV and Å."""
    units, lengths = {"eV": 1.0, **EV_PER}, {"Å": 1.0, "bohr": BOHR, "nm": 10.0}
    return {
        f"energies in {energy} and forces in {unit}/{length}": units[unit] / lengths[length] / units[energy]
        for energy, unit in itertools.product(units, units)
        for length in lengths
        if "eV" in (energy, unit) or energy == unit
    }


def _stress_factors() -> dict[str, float]:
    return {"stresses in GPa": 1 / GPA, "stresses in kbar": 0.1 / GPA, "stresses in Hartree/bohr³": 183.63}


def _known(ratio: float, factors: Mapping[str, float], within: float) -> str:
    """What would explain the ratio, to be put into a sentence after a number."""
    sign = ", of the opposite sign" if ratio < 0 else ""
    if abs(math.log(abs(ratio))) < NEAR:
        return sign
    distances = {name: abs(math.log(abs(ratio) / factor)) for name, factor in factors.items()}
    near = sorted((name for name in distances if distances[name] < within), key=lambda name: distances[name])
    return sign + (f", as with {' or '.join(near[:2])}" if near else "")


def _length_warning(structures: Sequence[LabelledStructure]) -> str | None:
    atoms = sum(len(one.atoms) for one in structures)
    step = max(1, len(structures) // LOOKED_AT, atoms // MOST_ATOMS)
    found = [ratio for one in structures[::step] if (ratio := _length_ratio(one)) is not None]
    if len(found) < FEWEST_LENGTHS:
        return None
    middle = float(np.median(found))
    if SHORT <= middle <= LONG:
        return None
    reason = "positions and cells in nm would be a tenth of those in Å" if middle < TINY else ""
    if middle > LONG:
        reason = f"positions and cells in bohr would be {1 / BOHR:.2f} times as long as in Å"
    elif not reason:
        reason = f"positions and cells that were already in Å, taken for bohr, would be {BOHR:.2f} times as long"
    return (
        f"lengths look wrong: the nearest neighbours of atoms stand at {middle:.2f} times the sum of covalent radii "
        f"(median of {len(found)} structures), about 1 is expected; {reason}"
    )


def _length_ratio(structure: LabelledStructure) -> float | None:
    """The median, over atoms, of the distance to the nearest neighbour over the sum of both radii."""
    atoms = structure.atoms
    radii = covalent_radii[atoms.numbers]
    try:
        (first, second), displacements = neighbour_pairs(atoms, 2.5 * 2 * float(radii.max()))
    except StructureError:  # atoms that coincide, or a cell that is flat: whoever computes with them refuses them
        return None
    ratios = np.linalg.norm(displacements, axis=1) / (radii[first] + radii[second])
    bonded = ~(np.isin(atoms.numbers[first], NOBLE) | np.isin(atoms.numbers[second], NOBLE))
    nearest = np.full(len(atoms), np.inf)
    np.minimum.at(nearest, first[bonded], ratios[bonded])
    known = nearest[np.isfinite(nearest)]
    return float(np.median(known)) if known.size else None
