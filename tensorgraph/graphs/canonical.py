"""Canonical form by individualisation and refinement (McKay's scheme, for graphs of a few vertices).

Vertices are split into cells that no relabelling can mix (kind first, then the multiset of neighbours); while a cell
holds several vertices, each in turn is singled out and the split refined. Every way of singling out ends in an order
of the vertices; the largest adjacency matrix wins. Vertices that may be swapped without changing anything else
(twins) need only one try, which keeps stars and bundles, the common hard case here, linear.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

from tensorgraph.graphs.multigraph import Multigraph

Matrix = tuple[tuple[int, ...], ...]
Colouring = tuple[int, ...]


def canonical(graph: Multigraph) -> Multigraph:
    """The representative of the graph's isomorphism class; ranks descend along its vertices."""
    return graph.relabelled(canonical_labelling(graph))


@cache
def canonical_labelling(graph: Multigraph) -> tuple[int, ...]:
    """The order of the vertices that makes the graph canonical: entry ``k`` is the vertex that becomes ``k``.

    Two graphs are isomorphic (kinds respected) exactly if their canonical forms are equal.
    """
    return _labelling(graph.adjacency, _initial(graph))


def automorphism_count(graph: Multigraph) -> int:
    """Number of vertex permutations that keep kinds and multiplicities.

    By orbits and stabilisers: the orbit of a vertex within its cell are those whose singling out leads to an equal
    canonical form, and the automorphisms that fix it are counted the same way.
    """
    matrix, colours, count = graph.adjacency, _refined(graph.adjacency, _initial(graph)), 1
    while (cell := _first_open_cell(colours)) is not None:
        forms = [_coloured_form(matrix, _singled_out(colours, vertex)) for vertex in cell]
        count *= forms.count(forms[0])
        colours = _refined(matrix, _singled_out(colours, cell[0]))
    return count


def _initial(graph: Multigraph) -> Colouring:
    return _ranked([(-kind.rank, kind) for kind in graph.kinds])


def _labelling(matrix: Matrix, colours: Colouring) -> tuple[int, ...]:
    leaves = _discrete_orders(matrix, _refined(matrix, colours))
    return max(leaves, key=lambda order: _permuted(matrix, order))


def _coloured_form(matrix: Matrix, colours: Colouring) -> tuple[Matrix, Colouring]:
    """Equal exactly for coloured graphs that are isomorphic."""
    order = _labelling(matrix, colours)
    return _permuted(matrix, order), tuple(colours[vertex] for vertex in order)


def _first_open_cell(colours: Colouring) -> list[int] | None:
    """The vertices of the first colour that several have, or None where all differ."""
    for colour in sorted(set(colours)):
        cell = [vertex for vertex, other in enumerate(colours) if other == colour]
        if len(cell) > 1:
            return cell
    return None


def _singled_out(colours: Colouring, vertex: int) -> Colouring:
    """Doubling leaves a free colour just before the vertex's old one."""
    return tuple(2 * colour - (other == vertex) for other, colour in enumerate(colours))


def _discrete_orders(matrix: Matrix, colours: Colouring) -> Iterator[tuple[int, ...]]:
    cell = _first_open_cell(colours)
    if cell is None:
        yield tuple(sorted(range(len(colours)), key=colours.__getitem__))
        return
    for vertex in _without_twins(matrix, cell):
        yield from _discrete_orders(matrix, _refined(matrix, _singled_out(colours, vertex)))


def _without_twins(matrix: Matrix, cell: list[int]) -> list[int]:
    kept: list[int] = []
    for vertex in cell:
        if not any(_are_twins(matrix, vertex, other) for other in kept):
            kept.append(vertex)
    return kept


def _are_twins(matrix: Matrix, u: int, v: int) -> bool:
    return all(matrix[u][w] == matrix[v][w] for w in range(len(matrix)) if w not in (u, v))


def _refined(matrix: Matrix, colours: Colouring) -> Colouring:
    """Splits cells by the colours and multiplicities of neighbours until nothing changes."""
    while True:
        keys = [(colours[u], *sorted((colours[v], m) for v, m in enumerate(row) if m)) for u, row in enumerate(matrix)]
        refined = _ranked(keys)
        if len(set(refined)) == len(set(colours)):
            return refined
        colours = refined


def _ranked(keys: list[tuple[Any, ...]]) -> Colouring:
    position = {key: k for k, key in enumerate(sorted(set(keys)))}
    return tuple(position[key] for key in keys)


def _permuted(matrix: Matrix, order: tuple[int, ...]) -> Matrix:
    return tuple(tuple(matrix[u][v] for v in order) for u in order)
