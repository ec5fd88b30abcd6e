"""Flexible water as a reference: SPC/Fw, with electrostatics that end at a cutoff.

Y. Wu, H. L. Tepper, G. A. Voth, J. Chem. Phys. 124, 024503 (2006): harmonic bonds and angles, Lennard-Jones between
oxygen atoms, charges. Ewald sums are replaced by the damped shifted force of C. J. Fennell and J. D. Gezelter,
J. Chem. Phys. 124, 234104 (2006), their Eq. 18, so that a potential with a cutoff can learn all of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator, all_changes
from scipy.special import erfc

from tensorgraph.neighbours.lists import neighbour_pairs

KCAL = units.kcal / units.mol
BOND, ANGLE = 1.012, np.deg2rad(113.24)  # Å and radians
BOND_STIFFNESS, ANGLE_STIFFNESS = 1059.162 * KCAL, 75.90 * KCAL  # eV/Å² and eV
EPSILON, SIGMA = 0.1554253 * KCAL, 3.165492  # eV and Å
CHARGES = {8: -0.82, 1: 0.41}
COULOMB = units.Hartree * units.Bohr  # eV Å
DAMPING = 0.2  # 1/Å


class FlexibleWater(Calculator):
    """Energy (eV) and forces (eV/Å) of water molecules, whose atoms stand in the order O, H, H.

    `cutoff` in Å. Molecules may stretch over the faces of a periodic cell, for the nearest images are what is bound.
    """

    implemented_properties = ["energy", "forces"]  # noqa: RUF012, ASE declares it on the instance

    def __init__(self, cutoff: float = 4.5) -> None:
        super().__init__()
        self.cutoff = cutoff

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Raises ValueError where the atoms are not molecules of water."""
        super().calculate(atoms, properties, system_changes)
        if len(self.atoms) % 3 or (self.atoms.numbers.reshape(-1, 3) != [8, 1, 1]).any():
            raise ValueError("atoms must stand in the order O, H, H, molecule by molecule")
        parts = [_bonds(self.atoms), _angles(self.atoms), _between(self.atoms, self.cutoff)]
        energies, forces = zip(*parts, strict=True)
        self.results: dict[str, Any] = {"energy": sum(energies), "forces": sum(forces)}


def _bonds(atoms: Atoms) -> tuple[float, np.ndarray]:
    vectors = _arms(atoms)
    lengths = np.linalg.norm(vectors, axis=2, keepdims=True)
    pull = BOND_STIFFNESS * (lengths - BOND) * vectors / lengths
    return float(BOND_STIFFNESS / 2 * np.square(lengths - BOND).sum()), _of_arms(-pull)


def _angles(atoms: Atoms) -> tuple[float, np.ndarray]:
    vectors = _arms(atoms)
    lengths = np.linalg.norm(vectors, axis=2, keepdims=True)
    units_ = vectors / lengths
    cosine = (units_[:, 0] * units_[:, 1]).sum(axis=1)
    change, sine = np.arccos(cosine) - ANGLE, np.sqrt(1 - cosine**2)
    slopes = (units_[:, ::-1] - cosine[:, None, None] * units_) / lengths  # d cos / d arm
    forces = (ANGLE_STIFFNESS * change / sine)[:, None, None] * slopes
    return float(ANGLE_STIFFNESS / 2 * np.square(change).sum()), _of_arms(forces)


def _arms(atoms: Atoms) -> np.ndarray:
    """From oxygen to both hydrogen atoms [n_molecules, 2, 3], nearest images."""
    positions = atoms.positions.reshape(-1, 3, 3)
    vectors = positions[:, 1:] - positions[:, :1]
    if atoms.pbc.any():
        whole = np.rint(vectors @ np.linalg.inv(atoms.cell.array)) * atoms.pbc
        vectors = vectors - whole @ atoms.cell.array
    return vectors


def _of_arms(forces: np.ndarray) -> np.ndarray:
    """Forces on all atoms [n_atoms, 3] from those on hydrogen atoms [n_molecules, 2, 3]."""
    return np.concatenate([-forces.sum(axis=1, keepdims=True), forces], axis=1).reshape(-1, 3)


def _between(atoms: Atoms, cutoff: float) -> tuple[float, np.ndarray]:
    (first, second), vectors = neighbour_pairs(atoms, cutoff)
    other = first // 3 != second // 3  # cells are wide enough that no molecule meets its own image
    first, second, vectors = first[other], second[other], vectors[other]
    lengths = np.linalg.norm(vectors, axis=1)
    oxygen = atoms.numbers == 8
    energy, slope = _coulomb(lengths, cutoff)
    charges = np.where(oxygen, CHARGES[8], CHARGES[1])
    products = charges[first] * charges[second]
    energy, slope = products * energy, products * slope
    pair = oxygen[first] & oxygen[second]
    for values, change in zip((energy, slope), _lennard_jones(lengths[pair], cutoff), strict=True):
        values[pair] += change
    forces = np.zeros((len(atoms), 3))
    np.add.at(forces, first, (slope / lengths)[:, None] * vectors)  # every pair is there in both directions
    return float(energy.sum() / 2), forces


def _coulomb(r: np.ndarray, cutoff: float) -> tuple[np.ndarray, np.ndarray]:
    """Energy and slope of two unit charges; both vanish at the cutoff."""
    value, slope = _damped(r)
    at_cutoff, slope_there = _damped(np.array(cutoff))
    return COULOMB * (value - at_cutoff - slope_there * (r - cutoff)), COULOMB * (slope - slope_there)


def _damped(r: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    value = erfc(DAMPING * r) / r
    return value, -value / r - 2 * DAMPING / np.sqrt(np.pi) * np.exp(-((DAMPING * r) ** 2)) / r


def _lennard_jones(r: np.ndarray, cutoff: float) -> tuple[np.ndarray, np.ndarray]:
    """Energy and slope, shifted likewise."""

    def plain(r: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        sixth = (SIGMA / r) ** 6
        return 4 * EPSILON * (sixth**2 - sixth), 24 * EPSILON * (sixth - 2 * sixth**2) / r

    (value, slope), (at_cutoff, slope_there) = plain(r), plain(np.array(cutoff))
    return value - at_cutoff - slope_there * (r - cutoff), slope - slope_there
