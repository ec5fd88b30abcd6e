"""Liquid water at constant temperature: radial distributions of a potential fitted to SPC/Fw, and of SPC/Fw itself.

Run as `python -m examples.water`. A box of 27 molecules and a picosecond show that the fit holds in dynamics; for the
structure of water take larger and longer runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator
from ase.md.langevin import Langevin
from matplotlib.figure import Figure

from examples.console import out as console
from examples.console import progress
from examples.fitting import Fit, fitted, labelled, out_directory, spec
from examples.spc_fw import ANGLE, BOND, FlexibleWater
from tensorgraph.neighbours.lists import neighbour_pairs

VOLUME, TEMPERATURE = 29.9, 300.0  # Å³ per molecule and K, of water at ambient pressure
TIMESTEP, FRICTION = 1.0 * units.fs, 0.01 / units.fs
FARTHEST, BINS = 4.6, 92  # Å, half of the box; of radial distributions
FIT = Fit(steps=400, structures=1)


@dataclass(frozen=True)
class Plan:
    """Molecules along an edge of the box; steps of 1 fs that give training frames, and that are analysed."""

    edge: int = 3
    training: int = 600
    equilibration: int = 300
    production: int = 1_000
    kept_every: int = 5


@dataclass(frozen=True)
class Distribution:
    """g(r) [bins] of two species at the distances r [bins] in Å: 1 where atoms know nothing of each other."""

    r: np.ndarray
    oxygen_oxygen: np.ndarray
    oxygen_hydrogen: np.ndarray


def main(argv: Sequence[str] | None = None) -> None:
    out = out_directory("water", (__doc__ or "").splitlines()[0], argv)
    found = study(out)
    for name, distribution in found.items():
        console.print(f"{name}: {summary(distribution)}", soft_wrap=True)
    console.print(f"wrote {plot(found, out / 'radial_distribution.png')}", soft_wrap=True)


def study(out: Path, plan: Plan | None = None, fit: Fit = FIT) -> dict[str, Distribution]:
    """Radial distributions by SPC/Fw and by a model fitted to it."""
    plan = plan or Plan()
    reference = FlexibleWater()
    heated = dynamics(box(plan.edge), reference, 1.2 * TEMPERATURE, plan.training, plan.kept_every, "training frames")
    text = spec("water", ["H", "O"], cutoff=4.5, soft_min=0.8, rank=2)
    model = fitted(text, labelled(heated, reference), fit, out)
    found = {}
    for name, calculator in {"SPC/Fw": reference, "model": model}.items():
        steps = plan.equilibration + plan.production
        frames = dynamics(heated[-1], calculator, TEMPERATURE, steps, plan.kept_every, f"NVT, {name}")
        found[name] = radial_distribution(frames[plan.equilibration // plan.kept_every :])
    return found


def box(edge: int, seed: int = 0) -> Atoms:
    """Molecules on a cubic lattice at the density of water, each turned at random."""
    random = np.random.default_rng(seed)
    half = ANGLE / 2
    molecule = BOND * np.array([[0, 0, 0], [np.sin(half), np.cos(half), 0], [-np.sin(half), np.cos(half), 0]])
    spacing, positions = VOLUME ** (1 / 3), []
    for place in np.ndindex(edge, edge, edge):
        turn, _ = np.linalg.qr(random.normal(size=(3, 3)))
        positions.append(molecule @ turn + (np.array(place) + 0.5) * spacing)
    return Atoms("OH2" * edge**3, np.concatenate(positions), cell=np.full(3, edge * spacing), pbc=True)


def dynamics(start: Atoms, calculator: Calculator, kelvin: float, steps: int, every: int, title: str) -> list[Atoms]:
    """Langevin dynamics with new velocities; a frame after every `every` steps of 1 fs."""
    atoms, random, frames = start.copy(), np.random.default_rng(0), []
    atoms.set_momenta(np.sqrt(atoms.get_masses() * units.kB * kelvin)[:, None] * random.normal(size=(len(atoms), 3)))
    atoms.calc = calculator
    motion = Langevin(atoms, TIMESTEP, temperature_K=kelvin, friction=FRICTION, fixcm=False, rng=random)
    with progress(title, steps // every) as advance:
        for _ in range(steps // every):
            motion.run(every)
            frames.append(atoms.copy())
            advance(f"{atoms.get_temperature():.0f} K")
    return frames


def radial_distribution(frames: Sequence[Atoms]) -> Distribution:
    """Between molecules, averaged over frames of one cell."""
    edges = np.linspace(0, FARTHEST, BINS + 1)
    shells = 4 / 3 * np.pi * np.diff(edges**3)
    counts = {"O": np.zeros(BINS), "H": np.zeros(BINS)}
    for atoms in frames:
        (first, second), vectors = neighbour_pairs(atoms, FARTHEST)
        seen = (atoms.numbers[first] == 8) & (first // 3 != second // 3)
        for symbol, number in {"O": 8, "H": 1}.items():
            lengths = np.linalg.norm(vectors[seen & (atoms.numbers[second] == number)], axis=1)
            counts[symbol] += np.histogram(lengths, edges)[0]
    n_oxygen, volume = len(frames[0]) / 3, frames[0].get_volume()
    others = {"O": n_oxygen - 1, "H": 2 * (n_oxygen - 1)}
    g = {name: counts[name] / len(frames) / n_oxygen / (others[name] / volume * shells) for name in counts}
    return Distribution((edges[1:] + edges[:-1]) / 2, g["O"], g["H"])


def summary(found: Distribution) -> str:
    """Where the first peaks are."""
    bonded = found.r < 2.5  # Å; by hydrogen bonds
    oxygen = peak(found.r, found.oxygen_oxygen)
    hydrogen = peak(found.r[bonded], found.oxygen_hydrogen[bonded])
    return f"first peaks at {oxygen:.2f} Å (O–O) and {hydrogen:.2f} Å (O–H, hydrogen bonds)"


def peak(r: np.ndarray, g: np.ndarray) -> float:
    """The distance at which g is largest."""
    return float(r[g.argmax()])


def plot(found: dict[str, Distribution], path: Path) -> Path:
    """Write a PNG of both radial distributions, and return its path."""
    with matplotlib.rc_context({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(9, 3.6), layout="constrained")
        for axes, pair in zip(figure.subplots(1, 2), ("oxygen_oxygen", "oxygen_hydrogen"), strict=True):
            for (name, values), style in zip(found.items(), ("-", "--"), strict=True):
                axes.plot(values.r, getattr(values, pair), style, label=name)
            axes.axhline(1, color="0.8", linewidth=1, zorder=0)
            axes.set_xlim(1.2, FARTHEST)
            axes.set_xlabel(f"{pair.replace('_', '–')} distance, Å")
            axes.set_ylabel("g(r)")
            axes.legend(frameon=False)
        figure.savefig(path, dpi=150)
    return path


if __name__ == "__main__":
    main()
