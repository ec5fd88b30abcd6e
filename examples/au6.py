"""Six gold atoms in motion: the samples on which the gold model is trained and tested.

Run as `python -m examples.au6`: writes train.xyz (the first 2,000 samples) and test.xyz (the last 500).

The recipe of the published comparison: six atoms carved from the fcc crystal, ASE's EMT, velocities of a
Maxwell-Boltzmann distribution at 300 K, 125,000 steps of NVE dynamics of 1 fs, every 50th kept.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from ase.md.velocitydistribution import Stationary, ZeroRotation
from ase.md.verlet import VelocityVerlet

from examples.console import progress

STEPS, KEPT_EVERY, TEMPERATURE, SEED = 125_000, 50, 300.0, 2  # fs and K
N_TRAIN, N_TEST = 2_000, 500
ARRAYS = ("positions", "velocities", "forces", "energy")


@dataclass(frozen=True)
class Trajectory:
    """Samples: positions (Å), velocities (ASE's units) and forces (eV/Å), each [n, 6, 3], and energy [n] (eV)."""

    positions: np.ndarray
    velocities: np.ndarray
    forces: np.ndarray
    energy: np.ndarray

    def frames(self) -> list[Atoms]:
        """The samples as labelled ASE atoms."""
        return [self._frame(index) for index in range(len(self.energy))]

    def _frame(self, index: int) -> Atoms:
        atoms = Atoms("Au6", self.positions[index], velocities=self.velocities[index])
        atoms.calc = SinglePointCalculator(atoms, energy=self.energy[index], forces=self.forces[index])
        return atoms


def carved_cluster() -> Atoms:
    """The octahedron of six gold atoms around an octahedral hole of the fcc crystal."""
    crystal = bulk("Au", cubic=True).repeat(2)
    hole = np.full(3, crystal.cell[0, 0] / 4)
    nearest = np.argsort(np.linalg.norm(crystal.positions - hole, axis=1), kind="stable")[:6]
    return Atoms("Au6", crystal.positions[nearest] - hole)


def started_cluster(seed: int) -> Atoms:
    """The carved cluster with random velocities of the temperature, without drift or rotation."""
    atoms = carved_cluster()
    deviations = np.sqrt(atoms.get_masses() * units.kB * TEMPERATURE)[:, None]
    atoms.set_momenta(deviations * np.random.default_rng(seed).normal(size=(6, 3)))
    Stationary(atoms)
    ZeroRotation(atoms)
    return atoms


def simulate(steps: int = STEPS, seed: int = SEED, on_sample: Callable[[], object] = lambda: None) -> Trajectory:
    """Run the dynamics; `on_sample` is called once for every sample kept."""
    atoms = started_cluster(seed)
    atoms.calc = EMT()
    dynamics = VelocityVerlet(atoms, timestep=units.fs)
    samples: dict[str, list[np.ndarray]] = {name: [] for name in ARRAYS}
    for _ in range(steps // KEPT_EVERY):
        values = (atoms.get_positions(), atoms.get_velocities(), atoms.get_forces(), atoms.get_potential_energy())
        for name, value in zip(ARRAYS, values, strict=True):
            samples[name].append(value)
        on_sample()
        dynamics.run(KEPT_EVERY)
    return Trajectory(**{name: np.array(values) for name, values in samples.items()})


def write_samples(folder: Path, on_sample: Callable[[], object] = lambda: None) -> tuple[Path, Path]:
    """Write train.xyz and test.xyz, with momenta, and return their paths; what stands there is kept."""
    paths = folder / "train.xyz", folder / "test.xyz"
    if not all(path.is_file() for path in paths):
        frames = simulate(STEPS, on_sample=on_sample).frames()
        folder.mkdir(parents=True, exist_ok=True)
        for path, part in zip(paths, (frames[:N_TRAIN], frames[-N_TEST:]), strict=True):
            scratch = path.with_suffix(".part.xyz")
            write(scratch, part, format="extxyz")
            os.replace(scratch, path)
    return paths


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m examples.au6", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("build/gold"), help="the folder to write to (%(default)s)")
    folder: Path = parser.parse_args(argv).out
    with progress("simulating Au6", STEPS // KEPT_EVERY) as advance:
        print(*write_samples(folder, advance))


if __name__ == "__main__":
    main()
