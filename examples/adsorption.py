"""An oxygen atom on copper (111), relaxed with a potential fitted to EMT and with EMT itself.

Run as `python -m examples.adsorption`. EMT's energies of oxygen are a toy; what is compared is how well the fitted
potential gives them back.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.build import add_adsorbate, fcc111
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.optimize import BFGS
from rich.table import Table

from examples.console import out as console
from examples.fitting import Fit, fitted, labelled, out_directory, spec

FIT = Fit(steps=500, structures=6)
FRAMES, LATTICE = 400, 3.59  # Å, EMT's copper
SITES = ("fcc", "hcp", "bridge")
FORCE, MOST_STEPS = 0.01, 150  # eV/Å, where a relaxation ends


class Adsorbed(NamedTuple):
    """Adsorption energy (eV) and height (Å) above the first layer of the relaxed atom."""

    energy: float
    height: float


def main(argv: Sequence[str] | None = None) -> None:
    console.print(table(study(out_directory("adsorption", (__doc__ or "").splitlines()[0], argv))))


def study(
    out: Path, sites: Sequence[str] = SITES, frames: int = FRAMES, fit: Fit = FIT
) -> dict[str, tuple[Adsorbed, Adsorbed]]:
    """What EMT and a model fitted to it give for every site."""
    text = spec("oxygen_on_copper", ["O", "Cu"], cutoff=5.5, soft_min=1.2)
    model = fitted(text, labelled(samples(frames), EMT()), fit, out)
    return {site: (adsorbed(site, EMT()), adsorbed(site, model)) for site in sites}


def slab(site: str | None = None, height: float = 1.2) -> Atoms:
    """Three layers of 2 by 2 atoms, the lowest fixed, with or without an oxygen atom."""
    atoms = fcc111("Cu", (2, 2, 3), a=LATTICE, vacuum=6.0)
    if site is not None:
        add_adsorbate(atoms, "O", height, site)
    atoms.set_constraint(FixAtoms(mask=atoms.get_tags() == 3))
    return atoms


def samples(count: int) -> list[Atoms]:
    """Slabs with atoms moved by about 0.06 Å, nine of ten with oxygen anywhere above; every fortieth an oxygen atom."""
    random, frames = np.random.default_rng(0), []
    for k in range(count):
        if k % 40 == 1:
            frames.append(Atoms("O", cell=[12, 12, 12]))
            continue
        atoms = slab("fcc" if k % 10 else None)
        atoms.positions += random.normal(scale=random.uniform(0, 0.1), size=(len(atoms), 3))
        if k % 10:
            surface = atoms.positions[atoms.numbers == 29, 2].max()
            atoms.positions[-1] = random.uniform(size=2) @ atoms.cell.array[:2] + [0, 0, surface]
            near = atoms.get_distances(-1, np.arange(12), mic=True, vector=True)
            atoms.positions[-1, 2] += _lift(near, random.uniform(1.6, 2.4))
        frames.append(atoms)
    return frames


def _lift(vectors: np.ndarray, distance: float) -> float:
    """How far (Å) an atom must rise to be at least `distance` away from all others, which are at `vectors` [n, 3]."""
    beside = np.square(vectors[:, :2]).sum(axis=1)
    near = beside < distance**2
    return float((vectors[near, 2] + np.sqrt(distance**2 - beside[near])).max()) if near.any() else distance


def adsorbed(site: str, calculator: Calculator) -> Adsorbed:
    """The adsorption energy against the clean slab and an atom far away, both of the same calculator."""
    covered = relaxed(slab(site), calculator)
    alone = Atoms("O", cell=[12, 12, 12], calculator=calculator)
    energy = covered.get_potential_energy() - relaxed(slab(), calculator).get_potential_energy()
    surface = covered.positions[covered.get_tags() == 1, 2].mean()
    return Adsorbed(float(energy - alone.get_potential_energy()), float(covered.positions[-1, 2] - surface))


def relaxed(atoms: Atoms, calculator: Calculator) -> Atoms:
    """The atoms at the nearest minimum. Raises RuntimeError where it is not reached."""
    atoms.calc = calculator
    if not BFGS(atoms, logfile=None).run(fmax=FORCE, steps=MOST_STEPS):
        raise RuntimeError(f"forces are not below {FORCE} eV/Å after {MOST_STEPS} steps")
    return atoms


def table(found: dict[str, tuple[Adsorbed, Adsorbed]]) -> Table:
    """One row per site: EMT's and the model's energy and height."""
    result = Table(title="O on Cu(111)")
    for column in ("site", "energy by EMT, eV", "by the model", "height by EMT, Å", "by the model"):
        result.add_column(column, justify="left" if column == "site" else "right")
    for site, (true, predicted) in found.items():
        values = (true.energy, predicted.energy, true.height, predicted.height)
        result.add_row(site, *(f"{value:.3f}" for value in values))
    return result


if __name__ == "__main__":
    main()
