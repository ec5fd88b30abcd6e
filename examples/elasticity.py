"""Equation of state and elastic constants of copper: a potential fitted to EMT, and EMT itself.

Run as `python -m examples.elasticity`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.eos import EquationOfState
from matplotlib.figure import Figure
from rich.table import Table

from examples.console import out as console
from examples.fitting import Fit, fitted, labelled, out_directory, spec

FIT = Fit(steps=600, structures=10, energy=1000.0)
FRAMES, LATTICE = 500, 3.61  # Å, where strains start from
STRAINS = np.linspace(-0.04, 0.04, 9)  # of the equation of state
SMALL_STRAIN = 0.005  # of the elastic constants


class Elasticity(NamedTuple):
    """Lattice constant in Å, bulk modulus and elastic constants in GPa; the curve: volumes (Å³) and energies (eV)."""

    lattice_constant: float
    bulk_modulus: float
    c11: float
    c12: float
    c44: float
    volumes: np.ndarray
    energies: np.ndarray


def main(argv: Sequence[str] | None = None) -> None:
    out = out_directory("elasticity", (__doc__ or "").splitlines()[0], argv)
    found = study(out)
    console.print(table(found))
    console.print(f"wrote {plot(found, out / 'equation_of_state.png')}", soft_wrap=True)


def study(out: Path, frames: int = FRAMES, fit: Fit = FIT) -> dict[str, Elasticity]:
    """What EMT and a model fitted to it give."""
    text = spec("copper", ["Cu"], cutoff=5.5, soft_min=1.8)
    model = fitted(text, labelled(strained_crystals(frames), EMT()), fit, out)
    return {"EMT": elasticity(EMT()), "model": elasticity(model)}


def strained_crystals(count: int) -> list[Atoms]:
    """Cubic cells of four atoms under random strains of some per cent, with atoms moved by about 0.05 Å."""
    random, frames = np.random.default_rng(0), []
    for _ in range(count):
        atoms = bulk("Cu", a=LATTICE, cubic=True)
        strain = random.normal(scale=0.015, size=(3, 3)) + random.uniform(-0.045, 0.045) * np.eye(3)
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + (strain + strain.T) / 2), scale_atoms=True)
        atoms.positions += random.normal(scale=random.uniform(0, 0.05), size=(4, 3))
        frames.append(atoms)
    return frames


def elasticity(calculator: Calculator) -> Elasticity:
    """By a Birch-Murnaghan fit to energies, and by stresses under small strains about the minimum that it gives."""
    curve = [_strained(LATTICE, strain * np.eye(3), calculator) for strain in STRAINS]
    volumes = np.array([atoms.get_volume() for atoms in curve])
    energies = np.array([atoms.get_potential_energy() for atoms in curve])
    volume, _, modulus = EquationOfState(volumes, energies, eos="birchmurnaghan").fit()
    lattice_constant = float(volume ** (1 / 3))
    stretch, shear = np.diag([1.0, 0, 0]), np.array([[0, 0, 0], [0, 0, 0.5], [0, 0.5, 0]])
    along, across = _stress_slope(lattice_constant, stretch, calculator)[:2]
    c44 = _stress_slope(lattice_constant, shear, calculator)[3]
    constants = np.array([modulus, along, across, c44]) / units.GPa
    return Elasticity(lattice_constant, *map(float, constants), volumes, energies - energies.min())


def _strained(lattice_constant: float, strain: np.ndarray, calculator: Calculator) -> Atoms:
    """An fcc cell of four atoms; no atom has another place to go to under a homogeneous strain."""
    atoms = bulk("Cu", a=lattice_constant, cubic=True)
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
    atoms.calc = calculator
    return atoms


def _stress_slope(lattice_constant: float, direction: np.ndarray, calculator: Calculator) -> np.ndarray:
    """dσ/dε [6] (eV/Å³, Voigt order) along a strain, by a central difference."""
    more, less = (
        _strained(lattice_constant, sign * SMALL_STRAIN * direction, calculator).get_stress() for sign in (1, -1)
    )
    slope: np.ndarray = (more - less) / (2 * SMALL_STRAIN)
    return slope


def table(found: dict[str, Elasticity]) -> Table:
    """One row per potential."""
    result = Table(title="copper")
    for column in ("potential", "a, Å", "B, GPa", "C11, GPa", "C12, GPa", "C44, GPa"):
        result.add_column(column, justify="left" if column == "potential" else "right")
    for name, values in found.items():
        result.add_row(name, f"{values.lattice_constant:.4f}", *(f"{value:.1f}" for value in values[1:5]))
    return result


def plot(found: dict[str, Elasticity], path: Path) -> Path:
    """Write a PNG of energies over volumes, and return its path."""
    with matplotlib.rc_context({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(5.5, 4), layout="constrained")
        axes = figure.subplots()
        for (name, values), style in zip(found.items(), ("o", "-"), strict=True):
            axes.plot(values.volumes / 4, values.energies / 4 * 1e3, style, label=name)
        axes.set_xlabel("volume, Å³/atom")
        axes.set_ylabel("energy, meV/atom")
        axes.legend(frameon=False)
        figure.savefig(path, dpi=150)
    return path


if __name__ == "__main__":
    main()
