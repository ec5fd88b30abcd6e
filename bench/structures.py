"""Structures that benchmarks run on: clusters and periodic boxes of water, crystals of gold, and named files."""

from __future__ import annotations

import os
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms
from ase.build import bulk

MOLECULE_VOLUME = 29.9  # Å³, of water at 298 K and 1 bar
WATER = ((0.0, 0.0, 0.0), (0.9572, 0.0, 0.0), (-0.2400, 0.9266, 0.0))  # Å: O H H of the gas phase
SPACING = MOLECULE_VOLUME ** (1 / 3)  # Å between the sites of molecules
LATTICE_CONSTANT = 4.078  # Å, of gold at 298 K
LARGEST_SHIFT = 0.1  # Å along each axis, of the atoms of a crystal: about what they vibrate at 298 K


def water_cluster(molecules_per_side: int, seed: int = 0) -> Atoms:
    """Molecules on a cubic lattice at the density of the liquid, each turned and shifted at random."""
    positions = _molecules((molecules_per_side,) * 3, seed)
    return Atoms("OHH" * (len(positions) // 3), positions)


def water_box(molecules: int, seed: int = 0) -> Atoms:
    """A periodic box of that many molecules at the density of the liquid, as nearly a cube as their number allows."""
    sites = most_cubic(molecules)
    cell = SPACING * np.array(sites)
    return Atoms("OHH" * molecules, _molecules(sites, seed), cell=cell, pbc=True)


def gold_crystal(atoms: int, seed: int = 0) -> Atoms:
    """A periodic fcc crystal of that many atoms, a multiple of 4, each shifted at random."""
    if atoms < 4 or atoms % 4:
        raise ValueError(f"an fcc crystal of cubic cells has a multiple of 4 atoms, not {atoms}")
    crystal = bulk("Au", "fcc", LATTICE_CONSTANT, cubic=True).repeat(most_cubic(atoms // 4))
    crystal.positions += np.random.default_rng(seed).uniform(-LARGEST_SHIFT, LARGEST_SHIFT, (atoms, 3))
    return crystal


MADE = {"water": water_box, "gold": gold_crystal}


def structure(name: str) -> Atoms:
    """`water-N`: a box of N molecules; `gold-N`: a crystal of N atoms; any other name: a file of the data folder."""
    kind, _, count = name.partition("-")
    if kind in MADE and count.isdigit():
        return MADE[kind](int(count))
    path = systems_folder() / f"{name}.xyz"
    if not path.is_file():
        raise FileNotFoundError(f"no system {name}: neither water-N nor gold-N, and there is no file {path}")
    return ase.io.read(path)


def systems_folder() -> Path:
    """Where the files of systems lie: `systems` in the folder that TENSORGRAPH_DATA names."""
    return Path(os.environ.get("TENSORGRAPH_DATA", "")) / "systems"


def most_cubic(count: int) -> tuple[int, int, int]:
    """Three factors of a positive number, ascending, as near to each other as its divisors allow."""
    divisors = [n for n in range(1, count + 1) if count % n == 0]
    triples = [(a, b, count // (a * b)) for a in divisors for b in divisors if count % (a * b) == 0]
    return min(triples, key=lambda sides: (sum(sides), sides))


def _molecules(sites: tuple[int, int, int], seed: int) -> np.ndarray:
    """Positions (Å) of water molecules on a cubic lattice of so many sites, each turned and shifted at random."""
    random = np.random.default_rng(seed)
    positions = []
    for site in np.ndindex(sites):
        rotation, upper = np.linalg.qr(random.normal(size=(3, 3)))
        rotation *= np.sign(np.diag(upper))
        centre = SPACING * np.array(site) + random.uniform(-0.2, 0.2, 3)
        positions.append(np.array(WATER) @ rotation.T + centre)
    return np.concatenate(positions)
