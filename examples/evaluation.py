"""Batched evaluation: the energies of a thousand copper–gold clusters in a few calls of a fitted potential.

Run as `python -m examples.evaluation`. `tensorgraph.model.predict` evaluates as many structures together as a bound
on atoms and pairs allows. The same structures one by one, and by the reference, EMT, are there for comparison.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.calculators.emt import EMT
from ase.cluster import Icosahedron

from examples.console import out as console
from examples.fitting import Fit, fitted, labelled, out_directory, spec
from tensorgraph.calculator import TensorGraphCalculator
from tensorgraph.model import predict

FIT = Fit(steps=400, structures=20)
FRAMES, SCREENED, MOST_ATOMS = 400, 1_000, 2_000  # structures; atoms in a batch


class Comparison(NamedTuple):
    """Seconds in batches and one by one, the largest difference of their energies (eV), and the RMSE (eV/atom)."""

    batched: float
    one_by_one: float
    difference: float
    rmse: float


def main(argv: Sequence[str] | None = None) -> None:
    found = study(out_directory("evaluation", (__doc__ or "").splitlines()[0], argv))
    console.print(
        f"{SCREENED} structures: {found.batched:.1f} s in batches, {found.one_by_one:.1f} s one by one, largest "
        f"difference {found.difference:.0e} eV; RMSE against EMT {1e3 * found.rmse:.1f} meV/atom",
        soft_wrap=True,
    )


def study(out: Path, frames: int = FRAMES, screened: int = SCREENED, fit: Fit = FIT) -> Comparison:
    """A model fitted to EMT, on clusters that it has not seen."""
    text = spec("copper_gold", ["Cu", "Au"], cutoff=6.0, soft_min=1.8)
    model = fitted(text, labelled(clusters(frames, seed=0), EMT()), fit, out)
    return compare(model, clusters(screened, seed=1))


def clusters(count: int, seed: int) -> list[Atoms]:
    """Icosahedra of 13 atoms, each copper or gold at random, of fitting size, with atoms moved by about 0.1 Å."""
    random, frames = np.random.default_rng(seed), []
    for _ in range(count):
        atoms = Atoms(Icosahedron("Cu", 2))
        gold = random.random(len(atoms)) < random.random()
        atoms.numbers[gold] = 79
        atoms.positions *= 1 + 0.11 * gold.mean() + random.normal(scale=0.01)
        atoms.positions += random.normal(scale=0.1, size=(len(atoms), 3))
        frames.append(atoms)
    return frames


def compare(calculator: TensorGraphCalculator, structures: Sequence[Atoms]) -> Comparison:
    """The structures in batches, one by one, and by EMT."""
    cutoff = calculator.package.architecture.CUTOFF
    list(predict(calculator.model, structures[:2], cutoff))  # the first call compiles
    started = time.perf_counter()
    energies = np.array([one.energy for one in predict(calculator.model, structures, cutoff, max_atoms=MOST_ATOMS)])
    batched = time.perf_counter() - started

    started = time.perf_counter()
    single = np.array([calculator.get_potential_energy(atoms) for atoms in structures])
    one_by_one = time.perf_counter() - started

    emt = EMT()
    errors = (energies - np.array([emt.get_potential_energy(atoms) for atoms in structures])) / len(structures[0])
    rmse = float(np.sqrt(np.square(errors).mean()))
    return Comparison(batched, one_by_one, float(np.abs(energies - single).max()), rmse)


if __name__ == "__main__":
    main()
