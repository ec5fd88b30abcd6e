"""The families of all graphs up to an order, products included: pruned to linear independence, or as they are.

``linear`` is what a linear potential needs. Invariants of different multidegree (how many tensors of each kind) are
independent of each other, so each multidegree is pruned by itself: graphs, simplest first, are kept while their values
at random points are linearly independent, until there are as many as the Molien-Weyl dimension allows. That bound is a
proof, and so is a non-zero minor of the values. Permuting colours is a symmetry: what is true of one multidegree holds
for those that differ in the names of colours, so each pattern is pruned, and recorded, once.

``products`` is the census that moment tensor potentials take (Shapeev, Multiscale Model. Simul. 14, 1153, 2016).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations_with_replacement

import numpy as np

from tensorgraph.algebra import Points, RowSpace, combination, invariant_dimension, values
from tensorgraph.basis.rule import Rule
from tensorgraph.basis.search import POINT_SEED
from tensorgraph.basis.types import Basis, BodyOrder, Certificate, Dropped, Minor, StratumRank, named, simplicity
from tensorgraph.errors import BudgetError
from tensorgraph.graphs import Kind, Multigraph, canonical, multigraphs_of_degree_sequence
from tensorgraph.graphs.enumeration import pattern_of

MAX_INVARIANTS = 4000
"""More than a package could use."""

Multidegree = tuple[Kind, ...]


@dataclass(frozen=True)
class Pruned:
    """Kept and left-out graphs of one multidegree, and the row space of the kept ones' values."""

    kept: tuple[Multigraph, ...]
    left_out: tuple[Multigraph, ...]
    space: RowSpace


def derive_products(rule: Rule, body_order: BodyOrder, primes: Sequence[int]) -> Basis:
    """The basis of all invariants, and other outputs, of at most ``rule.vertices`` tensors.

    Raises:
        BudgetError: there are more than ``MAX_INVARIANTS``; for ``linear`` before any work is done.
        BasisError: there are none, or none of a rank that is asked for.
    """
    if rule.preset.superfluous == "nothing":
        return _census(rule, body_order, primes)
    degrees = {kinds: size for kinds in multidegrees(rule) if (size := dimension_of(kinds, rule.layout.dimension))}
    rule.check_outputs(degrees)
    _check_budget(sum(degrees.values()), "linearly independent invariants")
    # Any prime serves; the points of all multidegrees are the same, so there are as many as the largest needs.
    points = Points.random(rule.recorded, [primes[0]] * max(degrees.values()), POINT_SEED, rule.layout.dimension)
    patterns = {kinds: pattern_of(kinds) for kinds in degrees}
    pruned = {
        kinds: _independent(kinds, size, points) for kinds, size in degrees.items() if patterns[kinds][0] == kinds
    }
    kept = {kinds: _recoloured(pruned[pattern].kept, colours) for kinds, (pattern, colours) in patterns.items()}
    invariants = named(graph for graphs in kept.values() for graph in graphs)
    names = {invariant.graph: invariant.name for invariant in invariants}
    dropped = (_why_dropped(graph, one.kept, names, points) for one in pruned.values() for graph in one.left_out)
    rows = tuple(_stratum_rank(kinds, degrees[kinds], one, names) for kinds, one in pruned.items())
    return Basis(rule, body_order, invariants, tuple(dropped), Certificate.of(points, rows))


def multidegrees(rule: Rule) -> list[Multidegree]:
    """The kinds of up to ``rule.vertices`` tensors and of what closes each output, descending."""
    assert rule.vertices is not None, "all graphs have no end"
    kinds = sorted(rule.layout.kinds, reverse=True)
    return [
        tuple(sorted((*tensors, *(() if output is None else (output,))), reverse=True))
        for output in rule.outputs
        for order in range(1, rule.vertices + 1)
        for tensors in combinations_with_replacement(kinds, order)
        if rule.allows(tensors)
    ]


@cache
def dimension_of(kinds: Multidegree, dimension: int) -> int:
    """Linearly independent graphs of a multidegree (Molien and Weyl)."""
    turning: Counter[Kind | int] = Counter(kind for kind in kinds if kind.rank and kind.role != "epsilon")
    return invariant_dimension(turning, dimension, pseudo=any(kind.role == "epsilon" for kind in kinds))


def _check_budget(number: int, what: str) -> None:
    if number > MAX_INVARIANTS:
        allowed = f"at most {MAX_INVARIANTS}, by a smaller body order, rank or degree"
        raise BudgetError(f"{number} {what}; allowed: {allowed}")


def _census(rule: Rule, body_order: BodyOrder, primes: Sequence[int]) -> Basis:
    graphs: list[Multigraph] = []
    for kinds in multidegrees(rule):
        graphs += multigraphs_of_degree_sequence(kinds)
        _check_budget(len(graphs), "graphs and more")
    rule.check_outputs(graph.kinds for graph in graphs)
    points = Points.random((), primes[:1], POINT_SEED, rule.layout.dimension)
    return Basis(rule, body_order, named(graphs), (), Certificate.of(points, ()))


def _recoloured(graphs: Sequence[Multigraph], colours: Sequence[int]) -> list[Multigraph]:
    names = dict(enumerate(colours))
    return [canonical(graph.recoloured(names)) for graph in graphs]


def _stratum_rank(kinds: Multidegree, bound: int, pruned: Pruned, names: Mapping[Multigraph, str]) -> StratumRank:
    rows = tuple(names[graph] for graph in pruned.kept)
    minor = Minor(0, rows, tuple(pruned.space.pivots), pruned.space.determinant)
    return StratumRank(tuple(sorted(kinds)), bound, pruned.space.rank, "Molien-Weyl", 0.0, minor)


def _independent(kinds: Multidegree, dimension: int, points: Points) -> Pruned:
    space = RowSpace(int(points.primes[0]))
    kept: list[Multigraph] = []
    left_out: list[Multigraph] = []
    for graph in sorted(multigraphs_of_degree_sequence(kinds), key=simplicity):
        if space.rank == dimension:
            break
        (kept if space.add(np.asarray(values(graph, points))) else left_out).append(graph)
    if space.rank < dimension:  # the first fundamental theorem excludes it; an unlucky point does not
        raise RuntimeError(f"graphs of {kinds} span {space.rank} of {dimension} invariants at these points")
    return Pruned(tuple(kept), tuple(left_out), space)


def _why_dropped(
    graph: Multigraph, kept: Sequence[Multigraph], names: Mapping[Multigraph, str], points: Points
) -> Dropped:
    """Zero, or dependent on those that have a part in the linear combination of kept graphs that a graph is."""
    value = np.asarray(values(graph, points))
    if not np.any(value):  # as whatever was left out before any was kept
        return Dropped(graph, "zero")
    parts = combination(np.array([values(other, points) for other in kept]), value, int(points.primes[0]))
    on = [] if parts is None else [names[other] for other, part in zip(kept, parts, strict=True) if part]
    return Dropped(graph, "dependent", tuple(on))
