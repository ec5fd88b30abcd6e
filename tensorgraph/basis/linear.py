"""The family ``linear``: a basis of all polynomial O(3) invariants up to an order, products included.

What a linear potential needs. Invariants of different multidegree (how many tensors of each rank) are independent of
each other, so each multidegree is pruned by itself: graphs, simplest first, are kept while their values at random
points are linearly independent, until there are as many as the Molien-Weyl dimension allows. That bound is a proof, and
so is a non-zero minor of the values.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations_with_replacement

import numpy as np

from tensorgraph.algebra import Points, RowSpace, combination, invariant_dimension, values
from tensorgraph.basis.search import POINT_SEED
from tensorgraph.basis.types import Basis, BodyOrder, Certificate, Dropped, Minor, StratumRank, named, simplicity
from tensorgraph.errors import BudgetError
from tensorgraph.graphs import Multigraph, multigraphs_of_degree_sequence

MAX_INVARIANTS = 4000
"""More than a package could use."""


def derive_linear(body_order: BodyOrder, vertices: int, max_rank: int, primes: Sequence[int]) -> Basis:
    """The basis of all invariants of at most ``vertices`` tensors.

    Raises:
        BudgetError: there are more than ``MAX_INVARIANTS``, by the Molien-Weyl dimensions, before any work is done.
    """
    degrees = {ranks: dimension for ranks in _multidegrees(vertices, max_rank) if (dimension := _dimension(ranks))}
    if (total := sum(degrees.values())) > MAX_INVARIANTS:
        allowed = f"at most {MAX_INVARIANTS}, by a smaller body order or rank"
        raise BudgetError(f"{total} linearly independent invariants; allowed: {allowed}")
    # Any prime serves; the points of all multidegrees are the same, so there are as many as the largest needs.
    points = Points.random(range(1, max_rank + 1), [primes[0]] * max(degrees.values()), POINT_SEED)
    chosen = {ranks: _independent(ranks, dimension, points) for ranks, dimension in degrees.items()}
    invariants = named(graph for kept, _, _ in chosen.values() for graph in kept)
    names = {invariant.graph: invariant.name for invariant in invariants}
    dropped = tuple(
        _why_dropped(graph, kept, names, points) for kept, left_out, _ in chosen.values() for graph in left_out
    )
    rows = tuple(
        StratumRank(
            tuple(sorted(ranks)),
            degrees[ranks],
            space.rank,
            "Molien-Weyl",
            0.0,
            Minor(0, tuple(names[graph] for graph in kept), tuple(space.pivots), space.determinant),
        )
        for ranks, (kept, _, space) in chosen.items()
    )
    return Basis("linear", body_order, vertices, max_rank, invariants, dropped, Certificate.of(points, rows))


def _multidegrees(vertices: int, max_rank: int) -> list[tuple[int, ...]]:
    """Ranks of up to ``vertices`` tensors, descending; rank 0 stands for the scalar."""
    return [
        ranks
        for order in range(1, vertices + 1)
        for ranks in combinations_with_replacement(range(max_rank, -1, -1), order)
    ]


def _dimension(ranks: tuple[int, ...]) -> int:
    return invariant_dimension(Counter(rank for rank in ranks if rank))


def _independent(
    ranks: tuple[int, ...], dimension: int, points: Points
) -> tuple[list[Multigraph], list[Multigraph], RowSpace]:
    """Kept and left-out graphs of one multidegree, and the row space of the kept ones' values."""
    space = RowSpace(int(points.primes[0]))
    kept: list[Multigraph] = []
    left_out: list[Multigraph] = []
    for graph in sorted(multigraphs_of_degree_sequence(ranks), key=simplicity):
        if space.rank == dimension:
            break
        (kept if space.add(np.asarray(values(graph, points))) else left_out).append(graph)
    if space.rank < dimension:  # the first fundamental theorem excludes it; an unlucky point does not
        raise RuntimeError(f"graphs of ranks {ranks} span {space.rank} of {dimension} invariants at these points")
    return kept, left_out, space


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
