"""Choosing the contractions: one split for every class of open-legged graphs, cheapest for the family as a whole.

Every connected subgraph of an invariant is an open-legged graph; isomorphic ones are the same tensor up to the order
of its axes, so they are one intermediate. Cutting a class into two connected parts is one contraction of smaller
classes. A program is a choice of one cut per class; its cost, by ``cut_cost``, counts each class that is reached once,
which is how sharing enters. The search starts from the cheapest cuts of each class alone and changes single cuts while
the family's cost falls. Branch and bound then goes through all choices that could be cheaper; where it gets to the end,
the choice is proved to be cheapest, by that cost, among the programs that make every connected graph from two connected
parts and every product from one of its pieces and the rest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from math import comb, prod

from tensorgraph.algebra import Layout
from tensorgraph.contractions.types import ContractionProgram, Operand, Output, Step
from tensorgraph.graphs import Multigraph, canonical, canonical_labelling


@dataclass(frozen=True)
class Cut:
    """Two sets of vertices of a canonical graph, the classes that they induce, and what contracting them costs."""

    left: tuple[int, ...]
    right: tuple[int, ...]
    left_class: Multigraph
    right_class: Multigraph
    cost: int

    @property
    def parts(self) -> tuple[Multigraph, Multigraph]:
        """Both classes."""
        return self.left_class, self.right_class


Choice = dict[Multigraph, Cut]

MAX_STATES = 5_000
"""Sets of classes that branch and bound looks at before it gives up: a fraction of a second."""


def contraction_program(graphs: Sequence[Multigraph], layout: Layout) -> ContractionProgram:
    """A contraction program for all graphs together; graph ``k``, which is closed, is its output ``k``."""
    roots = [canonical(graph.opened) for graph in graphs]
    dimension = layout.dimension
    known = _improved(_cheapest_alone(roots, dimension), roots, dimension)
    choice, proved = _cheapest(known, roots, dimension)
    program = _written(graphs, roots, choice, layout, proved)
    program.verify()
    return program


@cache
def cuts(graph: Multigraph, dimension: int = 3) -> tuple[Cut, ...]:
    """Ways to cut a canonical graph of tensors in this dimension in two: one for each pair of classes.

    A connected graph is cut into two connected parts, a product into one of its pieces and the rest. Cuts into the same
    two classes cost the same: the edges that cross are those of the graph without those of the parts.
    """
    vertices = range(graph.order)
    found: dict[tuple[Multigraph, ...], Cut] = {}
    for size in range(1, graph.order if not graph.is_connected else graph.order // 2 + 1):
        for left in combinations(vertices, size):
            right = tuple(vertex for vertex in vertices if vertex not in left)
            parts = graph.induced(left), graph.induced(right)
            if _is_cut(graph, *parts):
                cost = cut_cost(graph, left, dimension)
                cut = Cut(left, right, canonical(parts[0]), canonical(parts[1]), cost)
                found.setdefault(tuple(sorted(cut.parts)), cut)
    return tuple(sorted(found.values(), key=lambda cut: (cut.left, cut.right)))


def _is_cut(graph: Multigraph, left: Multigraph, right: Multigraph) -> bool:
    if graph.is_connected:
        return left.is_connected and right.is_connected
    return left.is_connected and sum(left.legs) + sum(right.legs) == sum(graph.legs)  # no edge was cut


def cut_cost(graph: Multigraph, left: Sequence[int], dimension: int = 3) -> int:
    """Estimated multiplications of the contraction of some vertices with the others.

    Result components times terms, indices at one vertex counted up to order since the tensors are symmetric: ``k`` legs
    at a vertex have ``C(k+D-1, D-1)`` distinct values, and so have ``k`` parallel edges between two vertices.
    """
    crossing = [multiplicity for u, v, multiplicity in graph.edges if (u in left) != (v in left)]
    return prod(comb(count + dimension - 1, dimension - 1) for count in (*graph.legs, *crossing))


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
    return sum(choice[graph].cost for graph in reachable(roots, choice))


def _cheapest_alone(graphs: Sequence[Multigraph], dimension: int = 3) -> Choice:
    """For every class within the graphs the cut that is cheapest when nothing is shared."""
    cost: dict[Multigraph, int] = {}
    choice: Choice = {}

    def total(graph: Multigraph) -> int:
        if graph.order == 1:
            return 0
        if graph not in cost:
            options = cuts(graph, dimension)
            priced = [(cut.cost + sum(map(total, cut.parts)), number) for number, cut in enumerate(options)]
            cost[graph], best = min(priced)
            choice[graph] = options[best]
        return cost[graph]

    for graph in graphs:
        total(graph)
    return choice


def _improved(choice: Choice, roots: Sequence[Multigraph], dimension: int = 3) -> Choice:
    """Local search: change one cut at a time while the family's cost falls."""
    family = _Family(choice, roots)
    improved = True
    while improved:
        improved = False
        for graph in list(reachable(roots, family.choice)):
            for cut in cuts(graph, dimension):
                improved |= family.changed(graph, cut)
    return family.choice


class _Family:
    """A choice, and how many of the classes that it computes (and of the roots) need each class."""

    def __init__(self, choice: Choice, roots: Sequence[Multigraph]) -> None:
        self.choice = dict(choice)
        self.needed: Counter[Multigraph] = Counter()
        for root in roots:
            self.need(root)

    def changed(self, graph: Multigraph, cut: Cut) -> bool:
        """Takes another cut of a class if that makes the family cheaper; whether it did."""
        old = self.choice[graph]
        if not self.needed[graph] or cut is old:
            return False
        growth = self.exchange(graph, cut)
        if growth >= 0:
            self.exchange(graph, old)
        return growth < 0

    def exchange(self, graph: Multigraph, cut: Cut) -> int:
        """Takes another cut, and what that adds to the cost."""
        old, self.choice[graph] = self.choice[graph], cut
        growth = cut.cost - old.cost
        growth += sum(self.need(part) for part in cut.parts)
        return growth - sum(self.drop(part) for part in old.parts)

    def need(self, graph: Multigraph) -> int:
        """One more use of a class, and what that adds to the cost."""
        if graph.order == 1:
            return 0
        self.needed[graph] += 1
        if self.needed[graph] > 1:
            return 0
        cut = self.choice[graph]
        return cut.cost + sum(self.need(part) for part in cut.parts)

    def drop(self, graph: Multigraph) -> int:
        """One use of a class less, and what that takes from the cost."""
        if graph.order == 1:
            return 0
        self.needed[graph] -= 1
        if self.needed[graph]:
            return 0
        cut = self.choice[graph]
        return cut.cost + sum(self.drop(part) for part in cut.parts)


def _cheapest(known: Choice, roots: Sequence[Multigraph], dimension: int = 3) -> tuple[Choice, bool]:
    """Branch and bound over all choices, from one that is known; whether it got to the end.

    Parts have fewer vertices than what they are parts of, so cuts are chosen for classes by falling number of vertices,
    and what is still open depends on the cuts so far only through the set of classes that wait for theirs. Each of
    those will cost at least its cheapest cut: the bound.
    """
    classes = _classes(roots, dimension)
    best, cost_of_best = known, _family_cost(roots, known)
    reached: dict[int, int] = {}
    first = sum(1 << number for number, (graph, _) in enumerate(classes) if graph in roots)
    # Sets of classes are integers; with each its cost so far, its bound, and the cuts chosen, the last one first.
    pending: list[tuple[int, int, int, _Chosen]] = [(first, 0, _bound(classes, first), None)]
    while pending:
        waiting, cost, bound, chosen = pending.pop()
        if bound >= cost_of_best or reached.get(waiting, cost + 1) <= cost:
            continue
        if not waiting:
            best, cost_of_best = _unfolded(chosen), cost
            continue
        if len(reached) == MAX_STATES:
            return best, False
        reached[waiting] = cost
        number = waiting.bit_length() - 1
        graph, options = classes[number]
        rest, bound = waiting ^ 1 << number, bound - options[-1].cut.cost
        for option in options:
            more = sum(least for part, least in option.parts if not rest & part)
            parts = sum(part for part, _ in option.parts if not rest & part)
            own = option.cut.cost
            pending.append((rest | parts, cost + own, bound + own + more, (graph, option.cut, chosen)))
    return best, True


@dataclass(frozen=True)
class _Option:
    """A cut, and its parts beyond single tensors: the set of each alone, and its cheapest cut's cost."""

    cut: Cut
    parts: tuple[tuple[int, int], ...]


_Chosen = tuple[Multigraph, Cut, "_Chosen"] | None


def _unfolded(chosen: _Chosen) -> Choice:
    choice: Choice = {}
    while chosen is not None:
        graph, cut, chosen = chosen
        choice[graph] = cut
    return choice


def _classes(roots: Sequence[Multigraph], dimension: int) -> list[tuple[Multigraph, list[_Option]]]:
    """All classes within the roots by rising number of vertices, each with its cuts, the cheapest last."""
    found: set[Multigraph] = set()
    frontier = [root for root in roots if root.order > 1]
    while frontier:
        graph = frontier.pop()
        if graph not in found:
            found.add(graph)
            frontier += [part for cut in cuts(graph, dimension) for part in cut.parts if part.order > 1]
    classes: list[tuple[Multigraph, list[_Option]]] = []
    number: dict[Multigraph, int] = {}
    for graph in sorted(found, key=lambda graph: (graph.order, graph)):
        options = []
        for cut in cuts(graph, dimension):
            parts = sorted({number[part] for part in cut.parts if part.order > 1})
            priced = tuple((1 << part, classes[part][1][-1].cut.cost) for part in parts)
            options.append(_Option(cut, priced))
        number[graph] = len(classes)
        classes.append((graph, sorted(options, key=lambda option: -option.cut.cost)))
    return classes


def _bound(classes: Sequence[tuple[Multigraph, list[_Option]]], waiting: int) -> int:
    return sum(options[-1].cut.cost for number, (_, options) in enumerate(classes) if waiting >> number & 1)


def _written(
    graphs: Sequence[Multigraph], roots: Sequence[Multigraph], choice: Choice, layout: Layout, proved: bool
) -> ContractionProgram:
    """The chosen classes as steps; ``roots[k]`` is the class of what graph ``k`` is without what closes it."""
    value = {Multigraph((kind,)): number for number, kind in enumerate(layout.kinds)}
    steps: list[Step] = []
    for graph in reachable(roots, choice):
        cut = choice[graph]
        left, right = (
            Operand(value[part_class], _indices_on(graph, part))
            for part, part_class in ((cut.left, cut.left_class), (cut.right, cut.right_class))
        )
        value[graph] = len(value)
        steps.append(Step(graph, left, right, graph.index_letters()[1]))
    outputs = (_output(graph, value[root]) for graph, root in zip(graphs, roots, strict=True))
    return ContractionProgram(layout, tuple(steps), tuple(outputs), proved)


def _output(graph: Multigraph, value: int) -> Output:
    """An output: legs that meet the antisymmetric tensor in another order than in the graph may change its sign."""
    if graph.closing is None:
        return Output(value)
    closing, opened = graph.kinds[graph.closing], graph.opened
    legs = [vertex for vertex in canonical_labelling(opened) if opened.legs[vertex]]
    swaps = sum(legs[k] > legs[m] for m in range(len(legs)) for k in range(m))
    return Output(value, closing, (-1) ** swaps if closing.role == "epsilon" else 1)


def _indices_on(graph: Multigraph, part: tuple[int, ...]) -> str:
    """The indices that leave one side of a cut, in the order of that side's axes: by its canonical vertex order."""
    at_vertex, _ = graph.index_letters()
    inside = Counter("".join(at_vertex[vertex] for vertex in part))
    ordered = (part[k] for k in canonical_labelling(graph.induced(part)))
    return "".join(letter for vertex in ordered for letter in at_vertex[vertex] if inside[letter] == 1)
