"""Vibrations of a copper cluster from the Hessian of a fitted potential, and from that of its reference, EMT.

Run as `python -m examples.vibrations`. The potential learns energies and forces alone; its Hessian is exact, by
automatic differentiation, where EMT needs finite differences. The 33 vibrations of the icosahedron fall into nine
groups of equal wavenumber, of 1, 3, 4 or 5, as the irreducible representations of its point group require.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.cluster import Icosahedron
from ase.optimize import BFGS
from ase.vibrations import VibrationsData
from rich.table import Table

from examples.console import out as console
from examples.fitting import Fit, fitted, labelled, out_directory, spec

FIT = Fit(steps=500, structures=10)
FRAMES, FORCE, MOST_STEPS = 300, 1e-4, 300  # eV/Å, at the minimum about which atoms vibrate
DISTANCE = 0.01  # Å, of finite differences


def main(argv: Sequence[str] | None = None) -> None:
    console.print(table(*study(out_directory("vibrations", (__doc__ or "").splitlines()[0], argv))))


def study(out: Path, frames: int = FRAMES, fit: Fit = FIT) -> tuple[np.ndarray, np.ndarray]:
    """Wavenumbers by EMT and by a model fitted to it, each at its own minimum."""
    start = relaxed(Atoms(Icosahedron("Cu", 2)), EMT())
    text = spec("copper_cluster", ["Cu"], cutoff=6.0, soft_min=1.8)
    model = fitted(text, labelled(samples(start, frames), EMT()), fit, out)
    minimum = relaxed(start, model)
    return wavenumbers(start, differences(start, EMT())), wavenumbers(minimum, model.get_hessian(minimum))


def samples(minimum: Atoms, count: int) -> list[Atoms]:
    """The cluster with atoms moved from its minimum by about 0.1 Å at most."""
    random, frames = np.random.default_rng(0), []
    for _ in range(count):
        atoms = minimum.copy()
        atoms.positions += random.normal(scale=random.uniform(0, 0.1), size=(len(atoms), 3))
        frames.append(atoms)
    return frames


def relaxed(atoms: Atoms, calculator: Calculator) -> Atoms:
    """A copy of the atoms at the nearest minimum of the calculator. Raises RuntimeError where it is not reached."""
    result = atoms.copy()
    result.calc = calculator
    if not BFGS(result, logfile=None).run(fmax=FORCE, steps=MOST_STEPS):
        raise RuntimeError(f"forces are not below {FORCE} eV/Å after {MOST_STEPS} steps")
    return result


def differences(atoms: Atoms, calculator: Calculator) -> np.ndarray:
    """Second derivatives of the energy [3n, 3n] in eV/Å², by central differences of any calculator's forces."""
    rows = []
    for index in range(3 * len(atoms)):
        forces = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.calc = calculator
            moved.positions.flat[index] += sign * DISTANCE
            forces.append(moved.get_forces().flatten())
        rows.append((forces[1] - forces[0]) / (2 * DISTANCE))
    matrix = np.array(rows)
    return (matrix + matrix.T) / 2


def wavenumbers(atoms: Atoms, hessian: np.ndarray) -> np.ndarray:
    """Of the vibrations [3n − 6] in 1/cm, in increasing order; imaginary ones negative."""
    frequencies = VibrationsData.from_2d(atoms, hessian).get_frequencies()
    values = frequencies.real - np.abs(frequencies.imag)
    return np.sort(values[np.argsort(np.abs(values), kind="stable")[6:]])  # without translation and rotation


def table(true: np.ndarray, predicted: np.ndarray) -> Table:
    """One row per group of vibrations whose wavenumbers by EMT are within 1/cm."""
    result = Table(title="Cu13: vibrations, 1/cm")
    for column in ("EMT", "model", "degeneracy"):
        result.add_column(column, justify="right")
    for group in np.split(np.arange(len(true)), np.flatnonzero(np.diff(true) > 1) + 1):
        result.add_row(f"{true[group].mean():.0f}", f"{predicted[group].mean():.0f}", str(len(group)))
    return result


if __name__ == "__main__":
    main()
