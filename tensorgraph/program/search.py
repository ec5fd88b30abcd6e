"""Choosing the contractions: one split for every class of open-legged graphs, cheapest for the family as a whole.

Every connected subgraph of an invariant is an open-legged graph; isomorphic ones are the same tensor up to the order
of its axes, so they are one intermediate. Cutting a class into two connected parts is one contraction of smaller
classes. A program is a choice of one cut per class; its cost counts each class that is reached once, which is how
sharing enters. The search starts from the cheapest cuts of each class alone and then changes single cuts while the
family's cost falls.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from math import comb
from string import ascii_letters

from tensorgraph.graphs import Multigraph, canonical, canonical_labelling
from tensorgraph.program.types import ContractionProgram, Operand, Step


@dataclass(frozen=True)
class Cut:
    """Two sets of vertices of a canonical graph, and the classes that they induce."""

    left: tuple[int, ...]
    right: tuple[int, ...]
    left_class: Multigraph
    right_class: Multigraph


Choice = dict[Multigraph, Cut]


def contraction_program(graphs: Sequence[Multigraph], max_rank: int) -> ContractionProgram:
    """A contraction program for all graphs together; graph ``k`` is its output ``k``."""
    choice = _improved(_cheapest_alone(graphs), graphs)
    program = _written(graphs, choice, max_rank)
    program.verify()
    return program


@cache
def cuts(graph: Multigraph) -> tuple[Cut, ...]:
    """All ways to cut a connected canonical graph into two connected parts, each unordered pair of classes once."""
    vertices = range(graph.order)
    found: dict[tuple[Multigraph, Multigraph], Cut] = {}
    for size in range(1, graph.order // 2 + 1):
        for left in combinations(vertices, size):
            right = tuple(vertex for vertex in vertices if vertex not in left)
            parts = graph.induced(left), graph.induced(right)
            if all(part.is_connected for part in parts):
                cut = Cut(left, right, canonical(parts[0]), canonical(parts[1]))
                found.setdefault((cut.left_class, cut.right_class), cut)
    return tuple(sorted(found.values(), key=lambda cut: (cut.left, cut.right)))


def cut_cost(graph: Multigraph, cut: Cut) -> int:
    """Estimated multiplications of one contraction.

    Result components times terms, indices at one vertex counted up to order since the tensors are symmetric: ``k`` legs
    at a vertex have ``C(k+2, 2)`` distinct values, and so have ``k`` parallel edges between two vertices.
    """
    left = set(cut.left)
    crossing = [multiplicity for u, v, multiplicity in graph.edges if (u in left) != (v in left)]
    cost = 1
    for count in (*graph.legs, *crossing):
        cost *= comb(count + 2, 2)
    return cost


def reachable(roots: Sequence[Multigraph], choice: Mapping[Multigraph, Cut]) -> Iterator[Multigraph]:
    """The classes that a choice computes for these graphs, each once, operands before their use."""
    done: set[Multigraph] = set()

    def visit(graph: Multigraph) -> Iterator[Multigraph]:
        if graph.order > 1 and graph not in done:
            done.add(graph)
            yield from visit(choice[graph].left_class)
            yield from visit(choice[graph].right_class)
            yield graph

    for root in roots:
        yield from visit(root)


def _family_cost(roots: Sequence[Multigraph], choice: Mapping[Multigraph, Cut]) -> int:
    return sum(cut_cost(graph, choice[graph]) for graph in reachable(roots, choice))


def _cheapest_alone(graphs: Sequence[Multigraph]) -> Choice:
    """For every class within the graphs the cut that is cheapest when nothing is shared."""
    cost: dict[Multigraph, int] = {}
    choice: Choice = {}

    def total(graph: Multigraph) -> int:
        if graph.order == 1:
            return 0
        if graph not in cost:
            priced = [
                (cut_cost(graph, cut) + total(cut.left_class) + total(cut.right_class), number)
                for number, cut in enumerate(cuts(graph))
            ]
            cost[graph], best = min(priced)
            choice[graph] = cuts(graph)[best]
        return cost[graph]

    for graph in graphs:
        total(graph)
    return choice


def _improved(choice: Choice, roots: Sequence[Multigraph]) -> Choice:
    """Local search: change one cut at a time while the family's cost falls."""
    best = _family_cost(roots, choice)
    improved = True
    while improved:
        improved = False
        for graph in list(reachable(roots, choice)):
            for cut in cuts(graph):
                trial = {**choice, graph: cut}
                cost = _family_cost(roots, trial)
                if cost < best:
                    choice, best, improved = trial, cost, True
    return choice


def _written(graphs: Sequence[Multigraph], choice: Choice, max_rank: int) -> ContractionProgram:
    """The chosen classes as steps."""
    value = {Multigraph((rank,)): rank for rank in range(max_rank + 1)}
    steps = []
    for graph in reachable(graphs, choice):
        cut = choice[graph]
        letters = _index_letters(graph)
        steps.append(
            Step(
                graph,
                _operand(graph, cut.left, cut.left_class, value, letters),
                _operand(graph, cut.right, cut.right_class, value, letters),
                "".join(letters[vertex, -1, leg] for vertex, legs in enumerate(graph.legs) for leg in range(legs)),
            )
        )
        value[graph] = max_rank + len(steps)
    return ContractionProgram(max_rank, tuple(steps), tuple(value[graph] for graph in graphs))


def _index_letters(graph: Multigraph) -> dict[tuple[int, int, int], str]:
    """A letter for every index: ``(u, v, copy)`` with ``u < v`` for edges, ``(vertex, -1, leg)`` for legs."""
    keys = [(u, v, copy) for u, v, multiplicity in graph.edges for copy in range(multiplicity)]
    keys += [(vertex, -1, leg) for vertex, legs in enumerate(graph.legs) for leg in range(legs)]
    return dict(zip(keys, ascii_letters, strict=False))


def _operand(
    graph: Multigraph,
    part: tuple[int, ...],
    part_class: Multigraph,
    value: Mapping[Multigraph, int],
    letters: Mapping[tuple[int, int, int], str],
) -> Operand:
    """The value of one side of a cut with the letters on its axes, which follow the canonical order of its vertices."""
    labelling = canonical_labelling(graph.induced(part))
    indices = []
    for vertex in (part[k] for k in labelling):
        for other in (v for v in range(graph.order) if v not in part):
            ends = (min(vertex, other), max(vertex, other))
            indices += [letters[(*ends, copy)] for copy in range(graph.adjacency[vertex][other])]
        indices += [letters[vertex, -1, leg] for leg in range(graph.legs[vertex])]
    return Operand(value[part_class], "".join(indices))
