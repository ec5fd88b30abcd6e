"""Where the vertices of a diagram stand: candidate layouts, and what makes one easier to recognise than another.

The vertices that lie on cycles (the core) are placed first: every cycle in turn as the outer polygon with the rest at
the barycentre of its neighbours (Tutte), polygons in every order, a hub inside a ring, columns by distance. Trees
hang from the core into its widest free angle. The layout that costs the reader least wins; `scoring` says what costs.
Scope: graphs of up to about ten vertices; larger ones are placed too, from fewer candidates.
"""

from __future__ import annotations

from cmath import phase, rect
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import islice, permutations, product
from math import ceil, pi

import numpy as np
from numpy.typing import NDArray

from tensorgraph.graphs.canonical import canonical, canonical_labelling
from tensorgraph.graphs.multigraph import Multigraph
from tensorgraph.reports.scoring import SMALLEST, best, disc_radius, scaled

Points = dict[int, complex]
Coordinates = tuple[tuple[float, float], ...]

_SEARCHED = 7  # vertices up to which every order of a polygon is tried
_CYCLES = 400  # cycles that are tried as the outer polygon
_ORDERS = 36  # orders of the branches at the vertices of a tree, or of the vertices within columns
_FANS = (pi / 4, pi / 3, pi / 2)  # angles between the branches that leave a vertex together
_BETWEEN = 40.0  # the factors of a product
_INNER = 0.48  # radius of what stands inside the outer polygon, where Tutte's is too small for discs


@cache
def layout(graph: Multigraph) -> Coordinates:
    """Coordinates of each vertex of a canonical graph, y downwards, in a square of side ``BOX`` around (0, 0)."""
    pieces = _components(graph)
    if len(pieces) > 1:
        return _side_by_side(graph, pieces)
    if graph.order == 1:
        return ((0.0, 0.0),)
    neighbours = tuple(tuple(v for v, m in enumerate(row) if m) for row in graph.adjacency)
    if graph.order > 4 and len(graph.edges) < graph.order and max(map(len, neighbours)) == 2:
        return _rounded(scaled(graph, _array(_zigzag(neighbours), graph.order)[None])[0])
    found = best(graph, np.array([_array(points, graph.order) for points in _candidates(neighbours)]))
    if disc_radius(graph, found) < SMALLEST:
        orders = _circular_orders(range(graph.order))  # where nothing else leaves room, a polygon does
        found = best(graph, np.array([found, *(_array(_polygon(order), graph.order) for order in orders)]))
    return _rounded(found)


def free_directions(taken: Sequence[float], outward: float, count: int, fan: float) -> list[float]:
    """Angles for ``count`` new lines: evenly all around, or fanned inside the widest gap between those taken.

    Of several widest gaps the one nearest to the angle ``outward`` is used.
    """
    if count == 0:
        return []
    if not taken:
        return _polygon_angles(count) if count != 1 else [outward]
    ordered = sorted(angle % (2 * pi) for angle in taken)
    gaps = [(b - a, (a + b) / 2) for a, b in zip(ordered, [*ordered[1:], ordered[0] + 2 * pi], strict=True)]
    widest = max(gap for gap, _ in gaps)
    middle = min((m for gap, m in gaps if gap > widest - 1e-6), key=lambda m: round(abs(_turn(m - outward)), 6))
    step = min(fan, widest / (count + 1))
    return [middle + (k - (count - 1) / 2) * step for k in range(count)]


def _turn(angle: float) -> float:
    """The angle in (-π, π]."""
    return phase(rect(1, angle))


def _polygon_angles(count: int) -> list[float]:
    """A regular polygon that stands on a side; two points lie on a horizontal line."""
    first = pi if count == 2 else -pi / 2 if count % 2 else -pi / 2 - pi / count
    return [first + 2 * pi * k / count for k in range(count)]


def _polygon(vertices: Sequence[int]) -> Points:
    return {v: rect(1, angle) for v, angle in zip(vertices, _polygon_angles(len(vertices)), strict=True)}


def _array(points: Points, order: int) -> NDArray[np.float64]:
    return np.array([(points[v].real, points[v].imag) for v in range(order)])


def _candidates(neighbours: Sequence[Sequence[int]]) -> Iterator[Points]:
    if all(len(row) == len(neighbours) - 1 for row in neighbours) and len(neighbours) > 2:
        yield from map(_polygon, _circular_orders(range(len(neighbours))))  # complete: known by its polygon
        return
    core = _core(neighbours)
    inside = _core_layouts(neighbours, core) if len(core) > 2 else iter([_polygon(core)])
    branches = _branches(neighbours, core)
    for points in inside:
        yield from _hung(neighbours, points, branches) if branches else [points]


def _core(neighbours: Sequence[Sequence[int]]) -> list[int]:
    """The vertices left when leaves are plucked again and again; of a tree, its one or two centres."""
    left = set(range(len(neighbours)))
    while len(left) > 2:
        leaves = {v for v in left if len(left.intersection(neighbours[v])) == 1}
        if not leaves:
            break
        left -= leaves
    return sorted(left)


def _core_layouts(neighbours: Sequence[Sequence[int]], core: list[int]) -> Iterator[Points]:
    for cycle in islice(_cycles(neighbours, core), _CYCLES):
        yield from _around(neighbours, core, cycle)
    yield from map(_polygon, _circular_orders(core))
    if len(core) <= _SEARCHED:
        most = max(len(neighbours[v]) for v in core)
        for hub in (v for v in core if len(neighbours[v]) == most and most > 2):
            for ring in _circular_orders([v for v in core if v != hub]):
                yield {hub: 0j, **_polygon(ring)}
    roots = [[v] for v in core] + [[u, v] for u in core for v in neighbours[u] if u < v and v in core]
    for root in roots:
        yield from _columns(neighbours, core, root)


def _cycles(neighbours: Sequence[Sequence[int]], core: list[int]) -> Iterator[list[int]]:
    """Every cycle once: it starts at its smallest vertex and leaves it towards the smaller of the two next to it."""

    def extended(path: list[int]) -> Iterator[list[int]]:
        for v in neighbours[path[-1]]:
            if v == path[0] and len(path) > 2 and path[1] < path[-1]:
                yield path
            elif v > path[0] and v not in path and v in core:
                yield from extended([*path, v])

    for first in core:
        yield from extended([first])


def _around(neighbours: Sequence[Sequence[int]], core: list[int], cycle: list[int]) -> Iterator[Points]:
    """The cycle as a polygon, the rest at the barycentres of their neighbours; also moved outwards to make room."""
    ring = _polygon(cycle)
    inner = [v for v in core if v not in ring]
    if not inner:
        yield ring
        return
    matrix = np.zeros((len(inner), len(inner)))
    right = np.zeros(len(inner), dtype=complex)
    for k, v in enumerate(inner):
        for w in (w for w in neighbours[v] if w in core):
            matrix[k, k] += 1
            if w in ring:
                right[k] += ring[w]
            else:
                matrix[k, inner.index(w)] -= 1
    solved = np.linalg.solve(matrix, right)
    yield {**ring, **dict(zip(inner, map(complex, solved), strict=True))}
    radius = float(np.max(np.abs(solved)))
    if 1e-6 < radius < _INNER:
        yield {**ring, **dict(zip(inner, map(complex, solved * (_INNER / radius)), strict=True))}


def _circular_orders(vertices: Sequence[int]) -> Iterator[list[int]]:
    """Orders around a circle, of which no two differ by a turn or a reflection."""
    if len(vertices) > _SEARCHED:
        yield list(vertices)
        return
    first, *others = vertices
    for rest in permutations(others):
        if len(rest) < 2 or rest[0] < rest[-1]:
            yield [first, *rest]


def _columns(neighbours: Sequence[Sequence[int]], core: list[int], root: list[int]) -> Iterator[Points]:
    """Columns by the distance from the root, each around the same horizontal line."""
    columns, seen = [root], set(root)
    while len(seen) < len(core):
        columns.append(sorted({w for v in columns[-1] for w in neighbours[v] if w in core} - seen))
        seen.update(columns[-1])
    for orders in islice(product(*map(permutations, columns)), _ORDERS):
        yield {
            v: complex(x, y - (len(column) - 1) / 2) for x, column in enumerate(orders) for y, v in enumerate(column)
        }


def _branches(neighbours: Sequence[Sequence[int]], core: list[int]) -> dict[int, list[int]]:
    """For each vertex from which a tree goes on, the vertices that come next."""
    result: dict[int, list[int]] = {}
    seen, queue = set(core), list(core)
    for v in queue:
        new = [w for w in neighbours[v] if w not in seen]
        if new:
            result[v] = new
        seen.update(new)
        queue += new
    return result


def _hung(neighbours: Sequence[Sequence[int]], core: Points, branches: dict[int, list[int]]) -> Iterator[Points]:
    length = min((abs(core[u] - core[v]) for u in core for v in neighbours[u] if v in core), default=1.0)
    for orders in islice(product(*map(permutations, branches.values())), _ORDERS):
        for fan in _FANS:
            points = dict(core)
            for v, new in zip(branches, orders, strict=True):
                taken = [phase(points[w] - points[v]) for w in neighbours[v] if w in points]
                angles = free_directions(taken, phase(points[v]), len(new), fan)
                points.update((w, points[v] + rect(length, angle)) for w, angle in zip(new, angles, strict=True))
            yield points


def _zigzag(neighbours: Sequence[Sequence[int]]) -> Points:
    """A path that turns up and down, where a straight one would be too short."""
    path = [next(v for v, row in enumerate(neighbours) if len(row) == 1)]
    while len(path) < len(neighbours):
        path.append(next(w for w in neighbours[path[-1]] if w not in path[-2:]))
    return {v: complex(k, (0.4 * len(path) - 1.4) * (k % 2)) for k, v in enumerate(path)}


def _components(graph: Multigraph) -> list[list[int]]:
    pieces: list[list[int]] = []
    for first in range(graph.order):
        if not any(first in piece for piece in pieces):
            piece = [first]
            for v in piece:
                piece += [w for w, m in enumerate(graph.adjacency[v]) if m and w not in piece]
            pieces.append(sorted(piece))
    return pieces


def _side_by_side(graph: Multigraph, pieces: list[list[int]]) -> Coordinates:
    """The factors of a product in rows, as many to a row as leaves most room."""
    parts = [graph.induced(piece) for piece in pieces]
    drawn = [np.array(layout(canonical(part))) for part in parts]
    width, height = np.max([np.ptp(points, axis=0) for points in drawn], axis=0) + _BETWEEN
    columns = min(range(1, len(pieces) + 1), key=lambda k: max(k * width, ceil(len(pieces) / k) * height))
    points: Points = {}
    for number, (piece, part, place) in enumerate(zip(pieces, parts, drawn, strict=True)):
        row, column = divmod(number, columns)
        missing = max(0, (row + 1) * columns - len(pieces))  # the last row is centred
        corner = complex((column + missing / 2) * width, row * height)
        for vertex, (x, y) in zip(canonical_labelling(part), place, strict=True):
            points[piece[vertex]] = corner + complex(x, y)
    return _rounded(scaled(graph, _array(points, graph.order)[None])[0])


def _rounded(points: NDArray[np.float64]) -> Coordinates:
    return tuple((round(float(x), 3) + 0.0, round(float(y), 3) + 0.0) for x, y in points)
