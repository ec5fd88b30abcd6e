"""Penrose diagrams: a multigraph as a picture in which a disc is a tensor and a line a contracted index."""

from __future__ import annotations

from cmath import phase, rect
from html import escape
from math import pi

import numpy as np

from tensorgraph.graphs import Kind, Multigraph
from tensorgraph.graphs.canonical import canonical
from tensorgraph.reports.layout import free_directions, layout
from tensorgraph.reports.scoring import bulge, disc_radius

VIEW = 120
PALETTE = ("#bdbdbd", "#6bb8ea", "#f2b134", "#3fb68e", "#d88bb8", "#ece04e", "#ea7f3d", "#9db1f0", "#c5a07a")
"""Fills by rank, after Okabe and Ito: told apart by colour-blind readers, and all light enough for a dark letter."""

_LEG = 12.0  # of an open leg, from the rim of its disc
_WITH_LEGS = 0.78
_MARGIN = 2.0
_FAN = pi / 4


def diagram(graph: Multigraph, size: int = 120) -> str:
    """The graph as a stand-alone SVG image, ``size`` pixels wide and high.

    Isomorphic graphs give the same image, but for the title, which is the graph's own formula. Lines have the colour
    of the surrounding text; discs of rank ``l`` that of the CSS variable ``--rank-l``, where it is set.
    """
    drawn = canonical(graph)
    points = [VIEW / 2 * (1 + 1j) + complex(x, y) * _room(drawn) for x, y in layout(drawn)]
    radius = disc_radius(drawn, np.array(layout(drawn))) * (0.9 if not drawn.is_closed else 1)
    lines = "".join(_edges(drawn, points) + _legs(drawn, points, radius))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {VIEW} {VIEW}" '
        f'width="{size}" height="{size}" role="img">'
        f"<title>{escape(graph.formula)}</title>"
        f'<path d="{lines}" fill="none" stroke="currentColor" stroke-width="1.7" stroke-linecap="round"/>'
        f'<g stroke="currentColor" stroke-width="1.2">{_discs(drawn, points, radius)}</g>'
        f"{_letters(drawn, points, radius)}</svg>"
    )


def _room(graph: Multigraph) -> float:
    """What the layout shrinks by to make room for legs, or for edges that bulge out of the frame."""
    if not graph.is_closed:
        return _WITH_LEGS
    points = [complex(x, y) for x, y in layout(graph)]
    reach = VIEW / 2 - _MARGIN
    for u, v, multiplicity in graph.edges:
        along = points[v] - points[u]
        widest = 1j * along / abs(along) * float(bulge(multiplicity, abs(along)))
        for summit in ((points[u] + points[v]) / 2 + widest, (points[u] + points[v]) / 2 - widest):
            reach = max(reach, abs(summit.real), abs(summit.imag))
    return (VIEW / 2 - _MARGIN) / reach


def _number(value: float) -> str:
    return f"{round(value, 1) + 0.0:g}"


def _point(z: complex) -> str:
    return f"{_number(z.real)} {_number(z.imag)}"


def _edges(graph: Multigraph, points: list[complex]) -> list[str]:
    """Parallel edges as parabolas on both sides of the straight line, which an odd one follows."""
    paths = []
    for u, v, multiplicity in graph.edges:
        a, b = points[u], points[v]
        normal = (b - a) * 1j / abs(b - a)
        widest = float(bulge(multiplicity, abs(b - a)))
        for k in range(multiplicity):
            share = 2 * k / (multiplicity - 1) - 1 if multiplicity > 1 else 0.0
            bend = 2 * widest * share * normal
            paths.append(
                f"M{_point(a)}Q{_point((a + b) / 2 + bend)} {_point(b)}" if bend else f"M{_point(a)}L{_point(b)}"
            )
    return paths


def _legs(graph: Multigraph, points: list[complex], radius: float) -> list[str]:
    centre = sum(points) / len(points)
    paths = []
    for vertex, count in enumerate(graph.legs):
        here = points[vertex]
        taken = [phase(points[w] - here) for w, m in enumerate(graph.adjacency[vertex]) if m]
        outward = phase(here - centre) if abs(here - centre) > 1e-6 else -pi / 2
        for angle in free_directions(taken, outward, count, _FAN):
            paths.append(f"M{_point(here)}L{_point(here + rect(radius + _LEG, angle))}")
    return paths


def _discs(graph: Multigraph, points: list[complex], radius: float) -> str:
    return "".join(
        f'<circle cx="{_number(z.real)}" cy="{_number(z.imag)}" r="{_number(radius)}" '
        f'fill="var(--rank-{kind.rank},{PALETTE[kind.rank % len(PALETTE)]})"{_ring(kind)}/>'
        for kind, z in zip(graph.kinds, points, strict=True)
    )


def _ring(kind: Kind) -> str:
    """What is no tensor has a broken outline: a probe, the antisymmetric tensor."""
    return "" if kind.role == "tensor" else ' stroke="#111" stroke-dasharray="3 2"'


def _letters(graph: Multigraph, points: list[complex], radius: float) -> str:
    widest = max(len(kind.letter) for kind in graph.kinds)
    size = radius * (1.45 if widest == 1 else 1.05)
    text = "".join(
        f'<text x="{_number(z.real)}" y="{_number(z.imag + size * _drop(kind))}">{kind.letter}</text>'
        for kind, z in zip(graph.kinds, points, strict=True)
    )
    style = f'font-family="Georgia,serif" font-style="italic" font-size="{_number(size)}" text-anchor="middle"'
    return f'<g {style} fill="#111">{text}</g>'


def _drop(kind: Kind) -> float:
    """How far, in units of the font size, a letter's baseline lies below its middle."""
    return {"s": 0.23, "v": 0.23, "q": 0.14, "t": 0.28}.get(kind.letter, 0.34)
