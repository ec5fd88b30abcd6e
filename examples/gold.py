"""The end of the demonstration: what `tensorgraph train examples/gold.yaml` gave, beside published errors, in motion.

Run as `python -m examples.gold`, after `python -m examples.au6` and the training; `make demo` runs all three.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.io import read
from ase.md.verlet import VelocityVerlet
from rich.table import Table

from examples.console import out, progress
from tensorgraph.calculator import TensorGraphCalculator

DYNAMICS_STEPS = 1_000
# RMSE on the last 500 samples of a trajectory of the same recipe: energy in eV, forces in eV/Å.
PUBLISHED = (
    ("Behler-Parrinello network", "0.04", ""),
    ("many-body expansion, Eq. 2", "0.014", ""),
    ("many-body expansion, Eq. 4", "0.009", ""),
    ("many-body expansion, Eq. 5", "0.012", ""),
    ("graph network", "0.2", ""),
    ("forces, Eq. 6", "", "0.7"),
    ("forces, Eq. 9", "", "0.12"),
)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m examples.gold", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("build/gold"), help="where the samples stand (%(default)s)")
    folder: Path = parser.parse_args(argv).out
    errors = json.loads((folder / "run" / "test.json").read_text(encoding="utf-8"))
    out.print(errors_table(errors["energy"]["rmse_mev"] / 1e3, errors["forces"]["rmse_ev_per_angstrom"]))
    calculator = TensorGraphCalculator(folder / "run" / "model.safetensors")
    start = read(folder / "test.xyz", 0)
    out.print(dynamics_line(total_energies(start, calculator), len(start)), soft_wrap=True)


def errors_table(energy: float, forces: float) -> Table:
    """The errors, in eV and eV/Å, below the published ones."""
    table = Table(title="Au6, EMT: RMSE on the last 500 samples")
    table.add_column("potential")
    table.add_column("energy, eV", justify="right")
    table.add_column("forces, eV/Å", justify="right")
    for row in PUBLISHED:
        table.add_row(*row)
    table.add_section()
    table.add_row("this model", f"{energy:.4f}", f"{forces:.4f}", style="bold green")
    return table


def total_energies(start: Atoms, calculator: TensorGraphCalculator) -> np.ndarray:
    """Total energies (eV) of NVE dynamics of 1 fs that goes on from a sample, before and after every step."""
    atoms = start.copy()
    atoms.calc = calculator
    dynamics, energies = VelocityVerlet(atoms, timestep=units.fs), [atoms.get_total_energy()]
    with progress("dynamics", DYNAMICS_STEPS) as advance:
        for _ in range(DYNAMICS_STEPS):
            dynamics.run(1)
            energies.append(atoms.get_total_energy())
            advance()
    return np.array(energies)


def dynamics_line(total_energies: np.ndarray, n_atoms: int, femtoseconds: float = 1.0) -> str:
    """How well dynamics keeps its total energy: total_energies [steps + 1] (eV), one step taking `femtoseconds`."""
    per_atom = 1e3 * (total_energies - total_energies[0]) / n_atoms
    picoseconds = 1e-3 * femtoseconds * np.arange(len(per_atom))
    slope = np.polyfit(picoseconds, per_atom, 1)[0]
    return (
        f"dynamics, {len(per_atom) - 1} steps of {femtoseconds:g} fs: energy drift {slope:+.4f} meV/atom/ps, "
        f"largest deviation {np.abs(per_atom).max():.3f} meV/atom"
    )


if __name__ == "__main__":
    main()
