"""Every connected loopless multigraph, each once.

A degree sequence starts as isolated vertices with all legs open. One vertex after the other has its legs joined to
those of the others in every way; after each round isomorphic partial graphs are merged, so the work grows with the
number of classes and not with the number of labelled graphs. Colours only name tensors apart: graphs are enumerated
once for each pattern of equal colours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from itertools import combinations_with_replacement

from tensorgraph.graphs.canonical import canonical
from tensorgraph.graphs.kinds import Kind, as_kinds
from tensorgraph.graphs.multigraph import Multigraph, sort_edges


def degree_sequences(support: Sequence[Kind | int], order: int) -> Iterator[tuple[Kind, ...]]:
    """Descending sequences of ``order`` kinds that use every kind of ``support`` and no other.

    Sequences of odd sum of ranks, or with a vertex that has more legs than all others together, belong to no loopless
    graph.
    """
    wanted = as_kinds(support)
    for kinds in combinations_with_replacement(sorted(wanted, reverse=True), order):
        total = sum(kind.rank for kind in kinds)
        if set(kinds) == set(wanted) and total % 2 == 0 and 2 * kinds[0].rank <= total:
            yield kinds


def multigraphs_of_degree_sequence(kinds: Sequence[Kind | int]) -> tuple[Multigraph, ...]:
    """Canonical forms, ascending, of all closed multigraphs whose vertices have these kinds, connected or not.

    With an antisymmetric vertex those only that do not vanish because two of its indices meet one other vertex.
    """
    wanted = tuple(sorted(as_kinds(kinds), reverse=True))
    pattern, colours = pattern_of(wanted)
    return _multigraphs(wanted) if pattern == wanted else _instances(pattern, colours)


def graphs_of_degree_sequence(kinds: Sequence[Kind | int]) -> tuple[Multigraph, ...]:
    """The connected ones among them."""
    return tuple(graph for graph in multigraphs_of_degree_sequence(kinds) if graph.is_connected)


def connected_graphs(support: Sequence[Kind | int], order: int) -> tuple[Multigraph, ...]:
    """All connected graphs of exactly ``order`` vertices with exactly these kinds; ``order=1`` holds only scalars."""
    if order == 1:
        return tuple(Multigraph((kind,)) for kind in as_kinds(support) if kind.rank == 0) if len(support) == 1 else ()
    sequences = degree_sequences(support, order)
    return tuple(graph for kinds in sequences for graph in graphs_of_degree_sequence(kinds))


def pattern_of(kinds: tuple[Kind, ...]) -> tuple[tuple[Kind, ...], tuple[int, ...]]:
    """The kinds with their colours renamed 0, 1, …, the most frequent first, and the old names.

    Permuting colours is a symmetry of the set of all graphs: each pattern is enumerated once, whatever its colours.
    """
    ranks: dict[int, list[int]] = {}
    for kind in kinds:
        if kind.role == "tensor":
            ranks.setdefault(kind.colour, []).append(kind.rank)
    ordered = tuple(sorted(ranks, key=lambda colour: (-len(ranks[colour]), ranks[colour], colour)))
    number = {colour: k for k, colour in enumerate(ordered)}
    renamed = (replace(k, colour=number[k.colour]) if k.role == "tensor" else k for k in kinds)
    return tuple(sorted(renamed, reverse=True)), ordered


@cache
def _multigraphs(kinds: tuple[Kind, ...]) -> tuple[Multigraph, ...]:
    partial = {canonical(Multigraph(kinds))}
    while any(not graph.is_closed for graph in partial):
        partial = {canonical(new) for graph in partial for new in _joined(graph)}
    return tuple(sorted(partial))


@cache
def _instances(pattern: tuple[Kind, ...], colours: tuple[int, ...]) -> tuple[Multigraph, ...]:
    """The graphs of a pattern with these colours in place of 0, 1, …"""
    names = dict(enumerate(colours))
    return tuple(sorted(canonical(graph.recoloured(names)) for graph in _multigraphs(pattern)))


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
        if not any(share > 1 and _antisymmetric(graph, first, other) for first, other, share in new):
            yield Multigraph(graph.kinds, sort_edges([*graph.edges, *new]))


def _antisymmetric(graph: Multigraph, *vertices: int) -> bool:
    return any(graph.kinds[vertex].role == "epsilon" for vertex in vertices)


def _distributions(total: int, capacities: list[int]) -> Iterator[tuple[int, ...]]:
    """Ways to spread ``total`` over places of these capacities."""
    if not capacities:
        if total == 0:
            yield ()
        return
    for share in range(min(total, capacities[0]) + 1):
        for rest in _distributions(total - share, capacities[1:]):
            yield (share, *rest)
