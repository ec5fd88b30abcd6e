"""Every connected loopless multigraph, each once.

A degree sequence starts as isolated vertices with all legs open. One vertex after the other has its legs joined to
those of the others in every way; after each round isomorphic partial graphs are merged, so the work grows with the
number of classes and not with the number of labelled graphs.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import combinations_with_replacement

from tensorgraph.graphs.canonical import canonical
from tensorgraph.graphs.multigraph import SCALAR, Multigraph, sort_edges


def degree_sequences(support: tuple[int, ...], order: int) -> Iterator[tuple[int, ...]]:
    """Descending degree sequences of ``order`` vertices that use every rank of ``support`` and no other.

    Sequences of odd sum, or with a vertex that has more legs than all others together, belong to no loopless graph.
    """
    for ranks in combinations_with_replacement(sorted(support, reverse=True), order):
        if set(ranks) == set(support) and sum(ranks) % 2 == 0 and 2 * ranks[0] <= sum(ranks):
            yield ranks


@cache
def multigraphs_of_degree_sequence(ranks: tuple[int, ...]) -> tuple[Multigraph, ...]:
    """Canonical forms, ascending, of all closed multigraphs whose vertices have these ranks, connected or not."""
    partial = {canonical(Multigraph(ranks))}
    while any(not graph.is_closed for graph in partial):
        partial = {canonical(new) for graph in partial for new in _joined(graph)}
    return tuple(sorted(partial))


@cache
def graphs_of_degree_sequence(ranks: tuple[int, ...]) -> tuple[Multigraph, ...]:
    """The connected ones among them."""
    return tuple(graph for graph in multigraphs_of_degree_sequence(ranks) if graph.is_connected)


def connected_graphs(support: tuple[int, ...], order: int) -> tuple[Multigraph, ...]:
    """All connected graphs of exactly ``order`` vertices with exactly these ranks; ``order=1`` holds only ``s``."""
    if order == 1:
        return (SCALAR,) if support == (0,) else ()
    sequences = degree_sequences(support, order)
    return tuple(graph for ranks in sequences for graph in graphs_of_degree_sequence(ranks))


def _joined(graph: Multigraph) -> Iterator[Multigraph]:
    """The graph with all legs of its first open vertex joined to legs of other vertices, in every way."""
    if graph.is_closed:
        yield graph
        return
    first = next(vertex for vertex, legs in enumerate(graph.legs) if legs)
    others = [vertex for vertex in range(first + 1, graph.order) if graph.legs[vertex]]
    for shares in _distributions(graph.legs[first], [graph.legs[vertex] for vertex in others]):
        # No edge is given twice: joining closes one of its ends, so two open vertices share no edge.
        new = [(first, other, share) for other, share in zip(others, shares, strict=True) if share]
        yield Multigraph(graph.ranks, sort_edges([*graph.edges, *new]))


def _distributions(total: int, capacities: list[int]) -> Iterator[tuple[int, ...]]:
    """Ways to spread ``total`` over places of these capacities."""
    if not capacities:
        if total == 0:
            yield ()
        return
    for share in range(min(total, capacities[0]) + 1):
        for rest in _distributions(total - share, capacities[1:]):
            yield (share, *rest)
