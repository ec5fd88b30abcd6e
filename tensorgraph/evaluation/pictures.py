"""Pictures of an evaluation: predicted against true values, and how errors are distributed."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tensorgraph.atomic import write_file
from tensorgraph.errors import TensorGraphError
from tensorgraph.evaluation.metrics import Predicted
from tensorgraph.evaluation.result import Evaluation, short

MANY = 2_000
"""Points; where there are more, their density is drawn."""
GROUPS = 8
"""Drawn by themselves, the largest ones; the others together."""
FEW = 200
"""Errors; where there are more, a histogram leaves out the largest and smallest half per cent."""
WIDE = 30
"""Of the largest error over the smallest: beyond it the scale is logarithmic."""
COLOURS = "#1f5a94 #c4572e #3c8a5b #8456a8 #b8860b #4f9fb8 #b0447a #6b6b6b #1a1a1a".split()

Floats = NDArray[np.float64]


def write_pictures(found: Evaluation, folder: str | Path) -> list[Path]:
    """Write `parity.png` and `errors.png` into the folder, which is made if needed, and return their paths.

    Raises TensorGraphError where they cannot be written.
    """
    paths = [Path(folder) / "parity.png", Path(folder) / "errors.png"]
    for path, draw in zip(paths, (parity_figure, errors_figure), strict=True):
        write_figure(partial(draw, found), path, font_size=11)
    return paths


def write_figure(
    draw: Callable[[], Figure], path: Path, *, font_size: int, kind: type[TensorGraphError] = TensorGraphError
) -> None:
    """Write what `draw` draws as a PNG, in the style of all pictures. Raises an error of this kind if it cannot."""
    image = io.BytesIO()
    with matplotlib.rc_context({"font.size": font_size, "axes.spines.top": False, "axes.spines.right": False}):
        draw().savefig(image, dpi=150, format="png")
    write_file(image.getvalue(), path, kind)


def parity_figure(found: Evaluation) -> Figure:
    """Predicted against true energies per atom and force components, as far as there are labels."""
    energies = _energies(found.predictions)
    forces = [(one.structure.labels.forces, one.forces) for one in found.predictions]
    known = [(true.ravel(), predicted.ravel()) for true, predicted in forces if true is not None]
    panels = []
    if len(energies[0]):
        panels.append((*energies, "energy", "eV/atom", "structures"))
    if known:
        true, predicted = (np.concatenate(values) for values in zip(*known, strict=True))
        panels.append((true, predicted, "force component", "eV/Å", "components"))
    figure = Figure(figsize=(5.4 * max(1, len(panels)), 4.8), layout="constrained")
    for index, panel in enumerate(panels):
        _parity(figure.add_subplot(1, len(panels), index + 1), *panel)
    return figure


def errors_figure(found: Evaluation) -> Figure:
    """The distribution of errors of energies per atom and of lengths of force errors, and its part below a value."""
    named = _grouped(found.predictions)
    energies = {name: 1e3 * np.subtract(*_energies(members)[::-1]) for name, members in named.items()}
    forces = {name: _force_norms(members) for name, members in named.items()}
    known = [
        (values, title, counted)
        for values, title, counted in (
            (energies, "error of the energy, meV/atom", "structures"),
            (forces, "length of the error of a force, eV/Å", "atoms"),
        )
        if any(len(one) for one in values.values())
    ]
    figure = Figure(figsize=(11, 4.2 * max(1, len(known))), layout="constrained")
    for index, row in enumerate(known):
        _histogram(figure.add_subplot(len(known), 2, 2 * index + 1), *row)
        _cumulative(figure.add_subplot(len(known), 2, 2 * index + 2), *row)
    return figure


def _energies(predictions: Sequence[Predicted]) -> tuple[Floats, Floats]:
    """True and predicted energies per atom [n] of structures that have one."""
    known = [
        (true / len(one.structure.atoms), one.energy / len(one.structure.atoms))
        for one in predictions
        if (true := one.structure.labels.energy) is not None
    ]
    pairs = np.array(known, dtype=np.float64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def _force_norms(predictions: Sequence[Predicted]) -> Floats:
    errors = [error for one in predictions if (error := one.force_errors) is not None]
    norms: Floats = np.linalg.norm(np.concatenate([np.zeros((0, 3)), *errors]), axis=1)
    return norms


def _grouped(predictions: Sequence[Predicted]) -> dict[str, list[Predicted]]:
    """By group, the largest ones first; the rest of them under one name."""
    found: dict[str, list[Predicted]] = {}
    for one in predictions:
        found.setdefault(one.structure.group or "no group", []).append(one)
    if len(found) == 1:
        return {"all": list(predictions)}
    ordered = sorted(found, key=lambda name: (-len(found[name]), name))
    kept = {name: found[name] for name in ordered[:GROUPS]}
    if rest := [one for name in ordered[GROUPS:] for one in found[name]]:
        kept[f"{len(ordered) - GROUPS} others"] = rest
    return kept


def _parity(axes: Axes, true: Floats, predicted: Floats, what: str, unit: str, counted: str) -> None:
    low, high = min(true.min(), predicted.min()), max(true.max(), predicted.max())
    margin = 0.03 * (high - low) or 1e-3
    low, high = low - margin, high + margin
    axes.plot([low, high], [low, high], color="0.55", linewidth=1, zorder=3)
    if len(true) > MANY:
        drawn = axes.hexbin(
            true, predicted, gridsize=90, extent=(low, high, low, high), norm=LogNorm(), cmap="viridis", mincnt=1
        )
        axes.figure.colorbar(drawn, ax=axes, label="points per cell", shrink=0.85)
    else:
        axes.scatter(true, predicted, s=12, color=COLOURS[0], alpha=0.5, linewidths=0, zorder=4)
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    axes.set_aspect("equal")
    axes.set_xlabel(f"{what} of the reference, {unit}")
    axes.set_ylabel(f"{what} of the potential, {unit}")
    errors = 1e3 * (predicted - true)
    rmse, mae = short(float(np.sqrt(np.square(errors).mean()))), short(float(np.abs(errors).mean()))
    axes.text(0.97, 0.04, f"RMSE {rmse} m{unit}\nMAE {mae} m{unit}", transform=axes.transAxes, ha="right")
    axes.set_title(f"{len(true)} {counted}", fontsize=10, color="0.35")


def _histogram(axes: Axes, values: dict[str, Floats], title: str, counted: str) -> None:
    """Of all groups together, stacked."""
    known = {name: one for name, one in values.items() if len(one)}
    joined = np.concatenate(list(known.values()))
    low, high = np.percentile(joined, [0.5, 99.5]) if len(joined) > FEW else (joined.min(), joined.max())
    spread = (high - low) or 1.0
    low, high = (0.0 if title.startswith("length") else low - 0.05 * spread), high + 0.05 * spread
    bins = np.linspace(low, high, int(np.clip(np.sqrt(len(joined)), 10, 60)) + 1).tolist()
    axes.hist([np.clip(one, low, high) for one in known.values()], bins, stacked=True, color=COLOURS[: len(known)],
              label=list(known))  # fmt: skip
    axes.set_xlabel(title)
    axes.set_ylabel(f"number of {counted}")
    if len(known) > 1:
        axes.legend(frameon=False, fontsize=9)
    if outside := int(((joined < low) | (joined > high)).sum()):
        axes.set_title(f"{outside} of {len(joined)} lie outside, in the outermost bars", fontsize=10, color="0.35")


def _cumulative(axes: Axes, values: dict[str, Floats], title: str, counted: str) -> None:
    for colour, (name, one) in zip(COLOURS, values.items(), strict=False):
        if len(one):
            axes.ecdf(np.abs(one), color=colour, label=f"{name} ({len(one)})")
    joined = np.abs(np.concatenate(list(values.values())))
    largest, smallest = joined.max(), np.min(joined, where=joined > 0, initial=np.inf)
    axes.set_xscale("log" if largest > WIDE * smallest else "linear")
    axes.set_ylim(0, 1.01)
    axes.grid(alpha=0.25)
    axes.set_xlabel(title.replace("error of the energy", "size of the error of the energy"))
    axes.set_ylabel(f"part of the {counted} with a smaller error")
    axes.legend(frameon=False, fontsize=9)
