"""The picture by which potentials are judged: error against time per atom and step, with the Pareto front."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator
from matplotlib.transforms import Bbox

from tensorgraph.errors import TrainingError
from tensorgraph.evaluation import write_figure
from tensorgraph.sweep.grid import short_keys
from tensorgraph.sweep.results import Row
from tensorgraph.sweep.table import worded

PANELS = {"forces": "force RMSE, eV/Å", "energy": "energy RMSE, meV/atom"}
COLOURS = "#1f5a94 #c4572e #3c8a5b #8456a8 #b8860b #4f9fb8 #b0447a #6b6b6b".split()
MARKERS = "osD^vPX*"
DISTANCES = (8, 14, 22, 32, 44, 58, 74, 92)  # points, of a label from its point
DIRECTIONS = ((1, 0.5), (1, -0.5), (-1, 0.5), (-1, -0.5), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))


def write_picture(rows: Sequence[Row], path: Path) -> Path | None:
    """Write the picture and return its path; None where nothing was measured. Raises TrainingError."""
    panels = [name for name in PANELS if _rows_of(rows, name)]
    if not panels:
        return None
    timed = [row for row in rows if row.time is not None]
    write_figure(lambda: _figure(timed, panels), path, font_size=10, kind=TrainingError)
    return path


def _figure(rows: Sequence[Row], panels: Sequence[str]) -> Figure:
    figure = Figure(figsize=(6.2 * len(panels), 4.8), layout="constrained")
    drawn = [figure.add_subplot(1, len(panels), index + 1) for index in range(len(panels))]
    key = _coloured_key(rows)
    for axes, name in zip(drawn, panels, strict=True):
        _panel(axes, _rows_of(rows, name), name, key)
    handles = _legend(rows, key)
    figure.legend(handles=handles, loc="outside upper center", ncols=min(5, len(handles)), frameon=False)
    figure.draw_without_rendering()  # labels are placed where the layout puts the axes
    for axes, name in zip(drawn, panels, strict=True):
        _place_labels(axes, _rows_of(rows, name), name, key)
    return figure


def varied(rows: Sequence[Row]) -> dict[str, list[str]]:
    """The axes on which the rows differ, with their values in words, in the order of the grid."""
    found = {key: list(dict.fromkeys(worded(row.values[key]) for row in rows)) for key in rows[0].values}
    return {key: values for key, values in found.items() if len(values) > 1}


def _coloured_key(rows: Sequence[Row]) -> str | None:
    """The axis that colours and markers tell apart: one of words, such as the family, before one of numbers."""
    fitting = {key: values for key, values in varied(rows).items() if len(values) <= len(COLOURS)}
    if len(varied(rows)) < 2 or not fitting:
        return None  # the labels say all
    return min(fitting, key=lambda key: (not isinstance(rows[0].values[key], str), len(fitting[key])))


def _style(row: Row, rows: Sequence[Row], key: str | None) -> tuple[str, str]:
    index = 0 if key is None else varied(rows)[key].index(worded(row.values[key]))
    return COLOURS[index], MARKERS[index]


def _legend(rows: Sequence[Row], key: str | None) -> list[Line2D]:
    front = Line2D([], [], color="0.45", linewidth=1.2, label="Pareto front")
    if key is None:
        return [front]
    label = short_keys(list(rows[0].values))[key]
    points = [
        Line2D([], [], color=colour, marker=marker, linestyle="", label=f"{label} {value}")
        for value, colour, marker in zip(varied(rows)[key], COLOURS, MARKERS, strict=False)
    ]
    return [*points, front]


def _point(row: Row, name: str) -> tuple[float, float]:
    point = row.point(name)
    assert point is not None
    return point


def _rows_of(rows: Sequence[Row], name: str) -> list[Row]:
    """Those that have a place on logarithmic axes."""
    return [row for row in rows if (point := row.point(name)) is not None and point[1] > 0]


def _panel(axes: Axes, rows: Sequence[Row], name: str, key: str | None) -> None:
    xs, ys = zip(*(_point(row, name) for row in rows), strict=True)
    axes.set(xscale="log", yscale="log", xlabel="time per atom and step, µs", ylabel=f"{PANELS[name]} (validation)")
    for values, limit, axis in ((xs, axes.set_xlim, axes.xaxis), (ys, axes.set_ylim, axes.yaxis)):
        ratio = max(1.3, max(values) / min(values))
        low, high = min(values) / ratio**0.15, max(values) * ratio**0.22  # room for labels
        limit(low, high)
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)) if high / low > 5 else MaxNLocator(6, steps=[1, 2, 5, 10]))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_locator(NullLocator())
        axis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.2)
    axes.plot(*zip(*_front_line(axes, rows, name), strict=True), color="0.45", linewidth=1.2, zorder=1)
    for row in rows:
        colour, marker = _style(row, rows, key)
        x, y = _point(row, name)
        assert row.time is not None
        on = getattr(row, f"{name}_front")
        axes.errorbar(x, y, xerr=row.time.spread, color=colour, marker=marker, markersize=7, linestyle="",
                      markerfacecolor=colour if on else "white", elinewidth=1, zorder=3)  # fmt: skip


def _front_line(axes: Axes, rows: Sequence[Row], name: str) -> list[tuple[float, float]]:
    """The corners of the front's staircase, from edge to edge of the axes."""
    x, top = axes.get_xlim()[1], axes.get_ylim()[1]
    corners = []
    for right, error in sorted((_point(row, name) for row in rows if getattr(row, f"{name}_front")), reverse=True):
        corners += [(x, error), (right, error)]
        x = right
    return [*corners, (x, top)]


def _taken(axes: Axes, rows: Sequence[Row], name: str, scale: float) -> list[Bbox]:
    """What no label may cover, in pixels: markers, error bars and the line of the front."""
    lines = [axes.transData.transform(_front_line(axes, rows, name))]
    markers = []
    for row in rows:
        assert row.time is not None
        x, y = _point(row, name)
        bar = [(max(x - row.time.spread, axes.get_xlim()[0]), y), (x + row.time.spread, y)]
        lines.append(axes.transData.transform(bar))
        markers.append(axes.transData.transform((x, y)))
    thin = [(a, b, 2 * scale) for line in lines for a, b in pairwise(line)]
    return [
        Bbox([np.minimum(a, b) - width, np.maximum(a, b) + width])
        for a, b, width in [*thin, *((marker, marker, 6 * scale) for marker in markers)]
    ]


def _place_labels(axes: Axes, rows: Sequence[Row], name: str, key: str | None) -> None:
    """Each label at the nearest place around its point where it covers no point, bar, line or other label."""
    figure = axes.figure
    scale = figure.dpi / 72
    points = [axes.transData.transform(_point(row, name)) for row in rows]
    taken = _taken(axes, rows, name, scale)
    inside = axes.get_window_extent()
    wide = [other for other in varied(rows) if other != key] or list(rows[0].values)
    for row, point in sorted(zip(rows, points, strict=True), key=lambda pair: tuple(pair[1])):
        text = ", ".join(worded(row.values[other]) for other in wide)
        colour = _style(row, rows, key)[0]
        placed = axes.annotate(text, _point(row, name), (0, 0), textcoords="offset points", fontsize=8, color=colour,
                               arrowprops={"arrowstyle": "-", "color": colour, "alpha": 0.4, "linewidth": 0.7,
                                           "shrinkA": 0, "shrinkB": 4})  # fmt: skip
        size = placed.get_window_extent()
        width, height = size.width / scale, size.height / scale
        tried: list[tuple[float, int, tuple[float, float], Bbox]] = []
        for distance in DISTANCES:
            for right, up in DIRECTIONS:
                x = right * distance - (width if right < 0 else width / 2 if right == 0 else 0)
                y = up * distance - height / 2
                corner = point[0] + scale * x, point[1] + scale * y
                box = Bbox.from_bounds(*corner, size.width, size.height)
                tried.append((_covered(box, taken, inside), len(tried), (x, y), box))
        _, _, place, box = min(tried, key=lambda one: one[:2])
        placed.set_position(place)
        taken.append(box)


def _covered(box: Bbox, taken: Sequence[Bbox], inside: Bbox) -> float:
    """The area of a box that lies over others or outside, in square pixels."""
    shared = [Bbox.intersection(box, other) for other in [*taken, inside]]
    areas = [0.0 if one is None else one.width * one.height for one in shared]
    return sum(areas[:-1]) + box.width * box.height - areas[-1]
