"""Vibrations of a molecule from the Hessian of a fitted potential, beside those of its reference, EMT.

Run as `python -m examples.vibrations`. EMT's molecules are toys; what is compared is how well the fitted potential
gives the second derivatives of a reference on whose energies and forces alone it was trained.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from ase import Atoms
from ase.build import molecule
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.optimize import BFGS
from ase.vibrations import VibrationsData
from rich.table import Table

from examples.fitting import fitted, labelled, out_directory, spec
from examples.gold import out as console
from examples.gold_training import Settings
from tensorgraph.calculator import TensorGraphCalculator
from tensorgraph.runtime import neighbour_tensors

SETTINGS = Settings(steps=1_500, batch_size=20, learning_rate=1e-2)
FRAMES, NAME, DISTANCE = 500, "CH3OH", 0.01  # Å, of finite differences
FORCE = 1e-4  # eV/Å, at the minimum about which atoms vibrate


def main(argv: Sequence[str] | None = None) -> None:
    out = out_directory("vibrations", (__doc__ or "").splitlines()[0], argv)
    start = relaxed(molecule(NAME), EMT())
    text = spec(NAME.lower(), ["H", "C", "O"], cutoff=5.0, soft_min=0.8)
    model = fitted(text, labelled(samples(start, FRAMES), EMT()), SETTINGS, out)
    minimum = relaxed(start, model)
    console.print(table(wavenumbers(start, differences(start, EMT())), wavenumbers(minimum, hessian(minimum, model))))


def samples(minimum: Atoms, count: int) -> list[Atoms]:
    """The molecule with atoms moved from its minimum by up to about 0.08 Å."""
    random, frames = np.random.default_rng(0), []
    for _ in range(count):
        atoms = minimum.copy()
        atoms.positions += random.normal(scale=random.uniform(0, 0.08), size=(len(atoms), 3))
        frames.append(atoms)
    return frames


def relaxed(atoms: Atoms, calculator: Calculator) -> Atoms:
    """A copy of the atoms at the nearest minimum of the calculator."""
    result = atoms.copy()
    result.calc = calculator
    BFGS(result, logfile=None).run(fmax=FORCE, steps=300)
    return result


def hessian(atoms: Atoms, calculator: TensorGraphCalculator) -> np.ndarray:
    """Second derivatives of the energy [3n, 3n] in eV/Å², by automatic differentiation of the forces."""
    positions = torch.tensor(atoms.positions, requires_grad=True)
    cutoff = calculator.package.architecture.CUTOFF
    pairs, displacements = neighbour_tensors(positions, torch.tensor(atoms.cell.array), atoms.pbc.tolist(), cutoff)
    forces = calculator.model.energy_and_forces(
        torch.tensor(atoms.numbers, dtype=torch.int64), pairs, displacements, create_graph=True
    ).forces
    rows = [torch.autograd.grad(-force, positions, retain_graph=True)[0].flatten() for force in forces.flatten()]
    return torch.stack(rows).numpy()


def differences(atoms: Atoms, calculator: Calculator) -> np.ndarray:
    """The same by central differences of any calculator's forces."""
    rows = []
    for index in range(3 * len(atoms)):
        forces = []
        for sign in (1, -1):
            moved = Atoms(atoms.numbers, atoms.positions.copy(), cell=atoms.cell, pbc=atoms.pbc)
            moved.calc = calculator
            moved.positions.flat[index] += sign * DISTANCE
            forces.append(moved.get_forces().flatten())
        rows.append((forces[1] - forces[0]) / (2 * DISTANCE))
    matrix = np.array(rows)
    return (matrix + matrix.T) / 2


def wavenumbers(atoms: Atoms, matrix: np.ndarray) -> np.ndarray:
    """Of the normal modes [3n] in 1/cm, in increasing order; imaginary ones negative."""
    n = len(atoms)
    frequencies = VibrationsData(atoms, matrix.reshape(n, 3, n, 3)).get_frequencies()
    return np.sort(frequencies.real - np.abs(frequencies.imag))


def table(true: np.ndarray, predicted: np.ndarray) -> Table:
    """One row per mode but for the six that move or turn the molecule."""
    result = Table(title=f"{NAME}: vibrations, 1/cm")
    for column in ("mode", "EMT", "model"):
        result.add_column(column, justify="right")
    for index, pair in enumerate(zip(_vibrations(true), _vibrations(predicted), strict=True), 1):
        result.add_row(str(index), *(f"{value:.0f}" for value in pair))
    return result


def _vibrations(values: np.ndarray) -> np.ndarray:
    return np.sort(values[np.argsort(np.abs(values), kind="stable")[6:]])


if __name__ == "__main__":
    main()
