"""What the gold demonstration reports: errors beside the published ones, the drift of dynamics, a parity plot."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.table import Table

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


@dataclass(frozen=True)
class Predictions:
    """True and predicted energies [n] (eV) and forces [n_atoms, 3] (eV/Å)."""

    true_energy: np.ndarray
    energy: np.ndarray
    true_forces: np.ndarray
    forces: np.ndarray


class Errors(NamedTuple):
    """Root mean square errors of energies (eV) and force components (eV/Å)."""

    energy: float
    forces: float

    @classmethod
    def of(cls, predictions: Predictions) -> Errors:
        return cls(
            _rms(predictions.energy - predictions.true_energy), _rms(predictions.forces - predictions.true_forces)
        )


def errors_table(errors: Errors) -> Table:
    """The errors below the published ones."""
    table = Table(title="Au6, EMT: RMSE on the last 500 samples")
    table.add_column("potential")
    table.add_column("energy, eV", justify="right")
    table.add_column("forces, eV/Å", justify="right")
    for row in PUBLISHED:
        table.add_row(*row)
    table.add_section()
    table.add_row("this model", f"{errors.energy:.4f}", f"{errors.forces:.4f}", style="bold green")
    return table


def dynamics_line(total_energies: np.ndarray, n_atoms: int, femtoseconds: float = 1.0) -> str:
    """How well dynamics keeps its total energy: total_energies [steps + 1] (eV), one step taking `femtoseconds`."""
    per_atom = 1e3 * (total_energies - total_energies[0]) / n_atoms
    picoseconds = 1e-3 * femtoseconds * np.arange(len(per_atom))
    slope = np.polyfit(picoseconds, per_atom, 1)[0]
    return (
        f"dynamics, {len(per_atom) - 1} steps of {femtoseconds:g} fs: energy drift {slope:+.4f} meV/atom/ps, "
        f"largest deviation {np.abs(per_atom).max():.3f} meV/atom"
    )


def parity_plot(predictions: Predictions, path: Path) -> Path:
    """Write a PNG of predicted against true energies and forces, and return its path."""
    errors = Errors.of(predictions)
    with matplotlib.rc_context({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(10, 4.8), layout="constrained")
        energies, forces = figure.subplots(1, 2)
        _parity(energies, predictions.true_energy, predictions.energy, "energy", "eV", errors.energy)
        _parity(forces, predictions.true_forces.ravel(), predictions.forces.ravel(), "force", "eV/Å", errors.forces)
        figure.suptitle("Au$_6$, EMT: 500 test samples")
        figure.savefig(path, dpi=150)
    return path


def _parity(axes: Axes, true: np.ndarray, predicted: np.ndarray, what: str, unit: str, rmse: float) -> None:
    low, high = min(true.min(), predicted.min()), max(true.max(), predicted.max())
    axes.plot([low, high], [low, high], color="0.6", linewidth=1, zorder=1)
    axes.scatter(true, predicted, s=9, color="#b8860b", alpha=0.45, linewidths=0, zorder=2)
    axes.set_xlabel(f"{what} of EMT, {unit}")
    axes.set_ylabel(f"{what} of the model, {unit}")
    axes.set_aspect("equal")
    axes.text(0.05, 0.92, f"RMSE {1e3 * rmse:.1f} m{unit}", transform=axes.transAxes)


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values))))
