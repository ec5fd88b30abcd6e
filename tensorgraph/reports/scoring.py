"""What a layout costs its reader, and the turn in which it looks best.

Discs come first: a vertex must stand clear of others and of edges that it has no part in. Then a crossing costs as
much as it shows, uneven edges, acute angles and small discs cost a little, and every symmetry of the graph that the
picture shows is a gain.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from math import inf, log2

import numpy as np
from numpy.typing import NDArray

from tensorgraph.graphs.multigraph import Multigraph

Array = NDArray[np.float64]

BOX = 98.0  # of the centres of the discs
RADIUS = 9.5
CLEAR = 2.5  # between a disc and a foreign edge
SMALLEST = 4.5  # a disc below this is too small for its letter
_LONGEST = 60.0  # the shortest edge grows no further
_SYMMETRY = 1.6  # crossings that a doubling of the symmetry is worth
_EXAMINED = 600  # layouts of which the symmetry is determined, at most
_CLOSE = 1e-4


def bulge(multiplicity: NDArray[np.int64] | int, length: Array | float) -> Array:
    """How far the outermost of parallel edges of this length bends off the straight line."""
    return np.minimum(5.5 * (multiplicity - 1), np.minimum(0.17 * length * np.sqrt(multiplicity - 1.0), 30.0))


@dataclass(frozen=True)
class Clearance:
    """Of each layout: the radius that discs may have, and the cost without symmetry."""

    radius: Array
    cost: Array


def disc_radius(graph: Multigraph, points: Array) -> float:
    """The radius of the discs of one layout of shape ``(n, 2)``."""
    return float(_clearance(graph, points[None]).radius[0])


def best(graph: Multigraph, candidates: Array) -> Array:
    """The layout ``(n, 2)`` that costs least among the candidates ``(c, n, 2)``, scaled and turned."""
    points = scaled(graph, candidates)
    cost = np.round(_clearance(graph, points).cost, 6)
    most = _SYMMETRY * log2(2 * graph.order)  # no layout gains more
    chosen, least = 0, inf
    for k in map(int, np.argsort(cost, kind="stable")[:_EXAMINED]):
        if cost[k] - most >= least:
            break
        total = round(float(cost[k]) - _SYMMETRY * log2(len(_symmetries(graph, points[k]))), 6)
        if total < least:
            chosen, least = k, total
    return _turned(graph, points[chosen])


def scaled(graph: Multigraph, layouts: Array) -> Array:
    """Layouts ``(c, n, 2)``, each centred and scaled into the box, but no larger than its shortest edge needs."""
    low, high = layouts.min(axis=1, keepdims=True), layouts.max(axis=1, keepdims=True)
    points = (layouts - (low + high) / 2) * (BOX / np.maximum((high - low).max(axis=2, keepdims=True), 1e-9))
    u, v = _ends(graph)
    shortest = np.linalg.norm(points[:, u] - points[:, v], axis=2).min(axis=1, initial=BOX)
    return np.asarray(points * np.minimum(1.0, _LONGEST / np.maximum(shortest, 1e-9))[:, None, None])


def _ends(graph: Multigraph) -> tuple[list[int], list[int]]:
    return [u for u, _, _ in graph.edges], [v for _, v, _ in graph.edges]


def _clearance(graph: Multigraph, points: Array) -> Clearance:
    count = len(points)
    first, second = map(list, zip(*combinations(range(graph.order), 2), strict=True)) if graph.order > 1 else ([], [])
    apart = np.linalg.norm(points[:, first] - points[:, second], axis=2).min(axis=1, initial=BOX)
    radius = np.minimum(RADIUS, 0.26 * apart)
    if not graph.edges:
        return Clearance(radius, np.zeros(count))
    radius = np.minimum(radius, _distance_to_foreign_edges(graph, points) - CLEAR)
    u, v = _ends(graph)
    lengths = np.linalg.norm(points[:, u] - points[:, v], axis=2)
    cost = 0.35 * (RADIUS - radius) + 1.2 * lengths.std(axis=1) / np.maximum(lengths.mean(axis=1), 1e-9)
    cost += np.maximum(0.0, 30.0 - lengths.min(axis=1)) / 10
    cost += _crossings(graph, points) + _acute(graph, points)
    return Clearance(radius, np.where(radius < SMALLEST, cost + 1000.0, cost))


def _distance_to_foreign_edges(graph: Multigraph, points: Array) -> Array:
    """The least distance of a vertex from a bundle of parallel edges that does not end in it."""
    u, v = _ends(graph)
    along = points[:, v] - points[:, u]
    length = np.maximum(np.linalg.norm(along, axis=2), 1e-9)
    relative = points[:, None, :, :] - points[:, u][:, :, None, :]  # (c, e, n, 2)
    unit = (along / length[..., None])[:, :, None, :]
    t = (relative * unit).sum(axis=3) / length[..., None]
    off = np.abs(relative[..., 0] * unit[..., 1] - relative[..., 1] * unit[..., 0])
    bend = bulge(np.array([m for _, _, m in graph.edges]), length)[..., None] * 4 * t * (1 - t)
    foreign = np.array([[w not in (a, b) for w in range(graph.order)] for a, b, _ in graph.edges])
    relevant = foreign & (t > 0) & (t < 1)
    return np.asarray(np.where(relevant, np.maximum(off - bend, 0.0), BOX).min(axis=(1, 2)))


def _crossings(graph: Multigraph, points: Array) -> Array:
    """Pairs of edges that cross, heavier where bundles do."""
    total = np.zeros(len(points))
    pairs = [(e, f) for e, f in combinations(graph.edges, 2) if not {e[0], e[1]} & {f[0], f[1]}]
    if not pairs:
        return total
    a, b, c, d = ([e[k] for e in edges] for edges in zip(*pairs, strict=True) for k in (0, 1))
    weight = np.array([(e[2] + f[2]) / 2 for e, f in pairs])

    def side(p: list[int], q: list[int], r: list[int]) -> Array:
        one, two = points[:, q] - points[:, p], points[:, r] - points[:, p]
        return np.asarray(np.sign(np.round(one[..., 0] * two[..., 1] - one[..., 1] * two[..., 0], 4)))

    crossed = (side(a, b, c) * side(a, b, d) < 0) & (side(c, d, a) * side(c, d, b) < 0)
    return np.asarray(crossed @ weight)


def _acute(graph: Multigraph, points: Array) -> Array:
    """What angles below 30 degrees between edges of one vertex cost."""
    pairs = [
        (w, e[0] + e[1] - w, f[0] + f[1] - w) for e, f in combinations(graph.edges, 2) for w in {*e[:2]} & {*f[:2]}
    ]
    if not pairs:
        return np.zeros(len(points))
    w, p, q = map(list, zip(*pairs, strict=True))
    one, two = points[:, p] - points[:, w], points[:, q] - points[:, w]
    norms = np.maximum(np.linalg.norm(one, axis=2) * np.linalg.norm(two, axis=2), 1e-9)
    angle = np.degrees(np.arccos(np.clip((one * two).sum(axis=2) / norms, -1, 1)))
    return np.asarray((np.maximum(0.0, 30.0 - angle) / 15).sum(axis=1))


def _symmetries(graph: Multigraph, points: Array) -> dict[tuple[int, ...], complex | None]:
    """Automorphisms that are turns or reflections of the layout; of a reflection, a number that points along its axis.

    The axis comes squared, so that both ways along it are the same number.
    """
    z = [complex(x, y) for x, y in points - points.mean(axis=0)]
    far = max(range(len(z)), key=lambda k: round(abs(z[k]), 3))
    result: dict[tuple[int, ...], complex | None] = {tuple(range(len(z))): None}
    for image in range(len(z)):
        if abs(abs(z[image]) - abs(z[far])) > _CLOSE * BOX or graph.kinds[image] != graph.kinds[far]:
            continue
        turn, mirror = z[image] / z[far], z[image] / z[far].conjugate()
        for permutation, axis in (
            (_matched(z, [turn * p for p in z]), None),
            (_matched(z, [mirror * p.conjugate() for p in z]), mirror),
        ):
            if permutation and permutation not in result and _is_automorphism(graph, permutation):
                result[permutation] = axis
    return result


def _matched(z: list[complex], images: list[complex]) -> tuple[int, ...] | None:
    found = []
    for image in images:
        nearest = min(range(len(z)), key=lambda k: abs(z[k] - image))
        if abs(z[nearest] - image) > _CLOSE * BOX:
            return None
        found.append(nearest)
    return tuple(found)


def _is_automorphism(graph: Multigraph, permutation: tuple[int, ...]) -> bool:
    matrix = graph.adjacency
    return all(graph.kinds[v] == graph.kinds[w] for v, w in enumerate(permutation)) and all(
        matrix[permutation[u]][permutation[v]] == m for u, v, m in graph.edges
    )


def _turned(graph: Multigraph, points: Array) -> Array:
    """The layout in the turn that shows its reflections left and right, wide rather than high, heavy at the bottom."""
    axes = [axis for axis in _symmetries(graph, points).values() if axis is not None]
    roots = [np.sqrt(complex(axis)) for axis in axes]
    turns = [1.0 + 0j] + [way / root for root in roots for way in (1j, 1.0)]
    u, v = _ends(graph)
    turns += [way * abs(edge) / edge for edge in ((points[v] - points[u]) @ [1, 1j]) for way in (1, 1j)]
    turns += [-turn for turn in turns]
    z = (points - points.mean(axis=0)) @ np.array([1, 1j])
    turned = np.array([np.stack([(z * turn).real, (z * turn).imag], axis=1) for turn in turns])
    fits = scaled(graph, turned)
    cost = np.round(_clearance(graph, fits).cost, 3)

    def key(k: int) -> tuple[float, ...]:
        squared = [axis * turns[k] ** 2 for axis in axes]
        upright = any(abs(axis + 1) < 1e-3 for axis in squared)
        level = any(abs(axis - 1) < 1e-3 for axis in squared)
        width, height = np.ptp(fits[k], axis=0)
        along = np.abs(fits[k][v] - fits[k][u]).min(axis=1) < 0.1
        return (
            float(cost[k] > 900), -2 * upright - level, -float(along.sum()), float(height > width + 1),
            round(cost[k], 1),
            -round(float(fits[k][:, 1].mean()), 1), k,
        )  # fmt: skip

    return np.asarray(fits[min(range(len(turns)), key=key)])
