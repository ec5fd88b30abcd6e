"""The picture of a run: errors of training and validation against the time of training."""

from __future__ import annotations

import csv
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tensorgraph.errors import TrainingError
from tensorgraph.evaluation import write_figure

PANELS = {
    "energy_mev_per_atom": "energy RMSE, meV/atom",
    "forces_ev_per_angstrom": "force RMSE, eV/Å",
    "stress_ev_per_angstrom3": "stress RMSE, eV/Å³",
}
COLOURS = {"train": "0.55", "valid": "#b8460b"}


def draw_learning(folder: Path) -> Path:
    """Write `learning.png` beside the metrics.csv in `folder`, and return its path; TrainingError if that fails."""
    try:
        with (folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise TrainingError(f"the picture of {folder} cannot be drawn: {error.strerror or error}") from error
    path = folder / "learning.png"
    write_figure(lambda: _figure(rows), path, font_size=10, kind=TrainingError)
    return path


def _figure(rows: list[dict[str, str]]) -> Figure:
    shown = [name for name in PANELS if any(row[f"{part}_{name}"] for row in rows for part in COLOURS)]
    figure = Figure(figsize=(4.2 * max(1, len(shown)), 3.4), layout="constrained")
    for index, name in enumerate(shown):
        _panel(figure.add_subplot(1, len(shown), index + 1), rows, name)
    return figure


def _panel(axes: Axes, rows: list[dict[str, str]], name: str) -> None:
    ridges = len(rows) > 1 and len({row["seconds"] for row in rows}) == 1  # of least squares: all at the same time
    for part, colour in COLOURS.items():
        points = [(_at(row, ridges), float(row[key])) for row in rows if row[key := f"{part}_{name}"]]
        points = [(at, value) for at, value in points if value > 0 and (at > 0 or not ridges)]
        if points:
            axes.plot(*zip(*points, strict=True), color=colour, linewidth=1.4, label=part)
    axes.set_yscale("log")
    if ridges:
        axes.set_xscale("log")
    axes.set_xlabel("strength of the ridge" if ridges else "minutes of training")
    axes.set_ylabel(PANELS[name])
    axes.legend(frameon=False)


def _at(row: dict[str, str], ridges: bool) -> float:
    return float(row["rate"]) if ridges else float(row["seconds"]) / 60
