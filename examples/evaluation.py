"""Energies and forces of many structures at once, in batches of bounded size, against one structure at a time.

Run as `python -m examples.evaluation`. The model is not trained: its numbers mean nothing, but both ways must give the
same ones, and the times are those of a trained model.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.build import molecule
from ase.collections import g2

from examples.gold import out as console
from tensorgraph.calculator import TensorGraphCalculator
from tensorgraph.runtime import batch_structures

PACKAGE = Path(__file__).parents[1] / "generated" / "hiphop4"
COPIES, MOST_ATOMS = 5, 500  # of every molecule; in a batch, which bounds its memory


def main() -> None:
    calculator, structures = TensorGraphCalculator(PACKAGE), molecules(COPIES)
    evaluate(calculator, structures[:2])  # the first call compiles
    started = time.perf_counter()
    energies, forces = evaluate(calculator, structures)
    batched = time.perf_counter() - started

    started, largest = time.perf_counter(), 0.0
    for atoms, energy, force in zip(structures, energies, forces, strict=True):
        largest = max(largest, abs(energy - calculator.get_potential_energy(atoms)))
        largest = max(largest, np.abs(force - calculator.get_forces(atoms)).max())
    single = time.perf_counter() - started
    console.print(
        f"{len(structures)} structures, {sum(map(len, structures))} atoms: {batched:.2f} s in batches, {single:.2f} s "
        f"one by one; largest difference {largest:.1e} eV and eV/Å",
        soft_wrap=True,
    )


def molecules(copies: int) -> list[Atoms]:
    """The molecules of ASE's g2 collection that have H, C, N and O alone, with atoms moved by about 0.05 Å."""
    random, frames = np.random.default_rng(0), []
    known = [atoms for name in g2.names if set((atoms := molecule(name)).symbols) <= set("HCNO")]
    for atoms in known * copies:
        atoms = atoms.copy()
        atoms.positions += random.normal(scale=0.05, size=(len(atoms), 3))
        frames.append(atoms)
    return frames


def evaluate(calculator: TensorGraphCalculator, structures: Sequence[Atoms]) -> tuple[list[float], list[np.ndarray]]:
    """The energy (eV) and the forces [n_atoms, 3] (eV/Å) of every structure."""
    energies: list[float] = []
    forces: list[np.ndarray] = []
    for part in batches(structures):
        batch = batch_structures(part, calculator.package.architecture.CUTOFF, torch.float64)
        result = calculator.model.energy_and_forces(*batch.inputs)
        energies += result.energy.tolist()
        forces += np.split(result.forces.numpy(), np.cumsum([len(atoms) for atoms in part])[:-1])
    return energies, forces


def batches(structures: Sequence[Atoms]) -> Iterator[list[Atoms]]:
    """The structures in their order, as many at a time as have `MOST_ATOMS` atoms, but at least one."""
    part: list[Atoms] = []
    for atoms in structures:
        if part and sum(map(len, part)) + len(atoms) > MOST_ATOMS:
            yield part
            part = []
        part.append(atoms)
    if part:
        yield part


if __name__ == "__main__":
    main()
