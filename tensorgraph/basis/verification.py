"""Checks of a basis from its manifest alone, without trusting the search that chose it.

Minors are recomputed at the recorded points; ranks, completeness and reasons at other points over other primes, drawn
from a digest of the manifest so that they cannot be known before it is written; bounds from degrees of freedom and
Molien-Weyl dimensions; and all graphs are enumerated anew. The list of dropped graphs is a record: each reason is
checked, not that every graph that was ever tried is listed.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations_with_replacement
from math import gcd
from typing import Any

import numpy as np

from tensorgraph.algebra import PRIMES, Points, RowSpace, Trials, determinant, gradients, invariant_dimension, values
from tensorgraph.basis.claims import Claims, DroppedClaim, RankClaim
from tensorgraph.basis.families import FAMILIES, complete_vertices
from tensorgraph.basis.search import Pass, degrees_of_freedom, failure_probability, strata
from tensorgraph.basis.types import Basis, named
from tensorgraph.graphs import SCALAR, Multigraph, canonical, connected_graphs

FRESH_PRIMES = PRIMES[3:]


@dataclass(frozen=True)
class Check:
    """What was checked; ``problems`` is empty where it holds."""

    name: str
    problems: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether it holds."""
        return not self.problems


def verify_basis(basis: Mapping[str, Any]) -> tuple[Check, ...]:
    """All checks of a manifest's ``basis`` object; those that build on well-formed graphs are left out without them.

    Raises:
        PackageError: the object is no basis.
    """
    claims = Claims.of(basis)
    seed = int.from_bytes(hashlib.sha256(json.dumps(basis, sort_keys=True).encode()).digest()[:8], "big")
    fresh = Points.random(range(1, claims.max_rank + 1), FRESH_PRIMES, seed)
    first = Check("graphs are what they should be", tuple(_graphs(claims)))
    if not first.passed:
        return (first,)
    checks: dict[str, Callable[[Claims, Points], Iterator[str]]] = (
        {
            "minors are non-zero": _linear_minors,
            "ranks are the Molien-Weyl dimensions": _linear_ranks,
            "every dropped graph has its reason": _linear_reasons,
        }
        if claims.family == "linear"
        else {
            "minors are non-zero": _minors,
            "ranks are as claimed, and known as claimed": _ranks,
            "no graph is missing": _completeness,
            "no invariant is too many": _minimality,
            "every dropped graph has its reason": _reasons,
        }
    )
    return (first, *(Check(name, tuple(check(claims, fresh))) for name, check in checks.items()))


def rank_on(stratum: Sequence[int], basis: Basis) -> int:
    """The rank of a basis on a stratum, at random points."""
    return _rank([graph for graph in basis.graphs if graph != SCALAR], stratum, Points.random(stratum, FRESH_PRIMES, 0))


def _graphs(claims: Claims) -> Iterator[str]:
    order = complete_vertices(claims.max_rank) + 1 if claims.body_order == "complete" else claims.body_order
    if claims.vertices + 1 != order:
        yield f"{claims.vertices} vertices do not fit body order {claims.body_order}"
    graphs = list(claims.kept.values())
    if [(i.name, i.graph) for i in named(graphs)] != list(claims.kept.items()):
        yield "the invariants do not have their names or are not in order"
    if SCALAR not in graphs or len(set(graphs)) != len(graphs):
        yield "the scalar is missing, or an invariant is there twice"
    dropped = [graph for graph, _ in claims.dropped]
    if len(set(dropped)) != len(dropped) or set(dropped) & set(graphs):
        yield "a graph is dropped twice, or dropped and kept"
    for graph in (*graphs, *dropped):
        if canonical(graph) != graph or not graph.is_closed:
            yield f"{graph} is not a canonical closed graph"
        if claims.family != "linear" and not graph.is_connected:
            yield f"{graph} is a product"
        if graph.order > claims.vertices or max(graph.ranks) > claims.max_rank:
            yield f"{graph} is larger than allowed"
    if claims.family != "linear" and [row.stratum for row in claims.ranks] != list(_passes(claims)):
        yield "the strata are not those of the family"
    unknown = {name for _, entry in claims.dropped for name in entry.on} - set(claims.kept)
    unknown |= {name for row in claims.ranks for name in row.minor.rows} - set(claims.kept)
    if unknown:
        yield f"{sorted(unknown)} are no invariants"


def _passes(claims: Claims) -> dict[tuple[int, ...], Pass]:
    return {step.stratum: step for step in FAMILIES[claims.family](claims.max_rank)}


def _minors(claims: Claims, _fresh: Points) -> Iterator[str]:
    for row in claims.ranks:
        graphs = [claims.kept[name] for name in row.minor.rows]
        yield from _check_minor(claims, row, [gradients(graph, claims.points, row.stratum) for graph in graphs])


def _linear_minors(claims: Claims, _fresh: Points) -> Iterator[str]:
    """The matrix of values has one row an invariant and one column a point; the rows are those of the multidegree."""
    for row in claims.ranks:
        graphs = [claims.kept[name] for name in row.minor.rows]
        if any(tuple(sorted(graph.ranks)) != row.stratum for graph in graphs):
            yield f"{row.stratum}: the minor has a row of another multidegree"
        else:
            yield from _check_minor(claims, row, [values(graph, claims.points)[None, :] for graph in graphs])


def _check_minor(claims: Claims, row: RankClaim, matrices: Sequence[np.ndarray]) -> Iterator[str]:
    minor = row.minor
    if not row.rank == len(minor.rows) == len(minor.columns):
        yield f"{row.stratum}: a minor of {len(minor.rows)} rows does not prove rank {row.rank}"
        return
    if row.rank == 0:
        return
    trials, width = matrices[0].shape
    if minor.trial >= trials or max(minor.columns) >= width:
        yield f"{row.stratum}: the minor names a trial or a column that does not exist"
        return
    prime = int(claims.points.primes[minor.trial])
    value = determinant(np.array([matrix[minor.trial, list(minor.columns)] for matrix in matrices]), prime)
    if value == 0 or value != minor.value:
        yield f"{row.stratum}: the minor is {value} modulo {prime}, not {minor.value}"


def _ranks(claims: Claims, fresh: Points) -> Iterator[str]:
    for row in claims.ranks:
        rank = _rank(claims.within(row.stratum), row.stratum, fresh)
        if (rank, degrees_of_freedom(row.stratum)) != (row.rank, row.bound):
            yield f"{row.stratum}: rank {rank} of {degrees_of_freedom(row.stratum)}, not {row.rank} of {row.bound}"
        known_by, probability = _how_known(claims, row)
        if (row.known_by, row.failure_probability) != (known_by, probability):
            yield f"{row.stratum}: known by {known_by} ({probability}), not {row.known_by} ({row.failure_probability})"


def _how_known(claims: Claims, row: RankClaim) -> tuple[str, float]:
    if row.rank == row.bound:
        return "degrees of freedom", 0.0
    if len(_own(claims, row.stratum)) == _passes(claims)[row.stratum].limit:
        return "limit of the family", 0.0
    return "every graph tried", failure_probability(row.rank, claims.vertices, claims.points.primes.tolist())


def _own(claims: Claims, stratum: tuple[int, ...]) -> list[Multigraph]:
    return [graph for graph in claims.within(stratum) if graph.support == stratum]


def _rank(graphs: Sequence[Multigraph], stratum: Sequence[int], points: Points) -> int:
    trials = Trials(points.primes)
    for graph in graphs:
        trials.add(gradients(graph, points, stratum))
    return trials.rank


def _completeness(claims: Claims, fresh: Points) -> Iterator[str]:
    """Every graph up to the number of vertices is tried again, where the rank could be larger."""
    for row in claims.ranks:
        if row.known_by == "every graph tried":
            rank = _rank(list(_all_graphs(row.stratum, claims.vertices)), row.stratum, fresh)
            if rank != row.rank:
                yield f"{row.stratum}: all graphs together have rank {rank}, not {row.rank}"
    if claims.family == "connected":
        everything = set(_all_graphs(tuple(range(1, claims.max_rank + 1)), claims.vertices))
        if everything != set(claims.kept.values()) - {SCALAR}:
            yield f"there are {len(everything)} connected graphs, not {len(claims.kept) - 1}"


def _all_graphs(stratum: tuple[int, ...], vertices: int) -> Iterator[Multigraph]:
    for positions in strata(len(stratum)):
        support = tuple(stratum[position - 1] for position in positions)
        for order in range(2, vertices + 1):
            yield from connected_graphs(support, order)


def _minimality(claims: Claims, fresh: Points) -> Iterator[str]:
    """As many invariants as the ranks need, within the family's limits; a census is not minimal."""
    passes = _passes(claims)
    if claims.family in ("independent", "connected"):
        if claims.family == "independent" and len(claims.kept) - 1 != sum(row.rank for row in claims.ranks):
            yield f"{len(claims.kept) - 1} invariants besides the scalar, the rank is less"
        return
    for graph in claims.kept.values():
        if graph != SCALAR and graph.support not in passes:
            yield f"{graph} belongs to no stratum of the family"
    for row in claims.ranks:
        own, limit = _own(claims, row.stratum), passes[row.stratum].limit
        below = _rank([g for g in claims.within(row.stratum) if g not in own], row.stratum, fresh)
        if len(own) != row.rank - below or (limit is not None and len(own) > limit):
            yield f"{row.stratum}: {len(own)} invariants of its own, {row.rank - below} would do"


def _reasons(claims: Claims, fresh: Points) -> Iterator[str]:
    for graph, entry in claims.dropped:
        on = [claims.kept[name] for name in entry.on]
        stratum = sorted({rank for g in (graph, *on) for rank in g.ranks})
        if not _has_reason(graph, entry, on, fresh, partial(_rank, stratum=stratum, points=fresh)):
            yield f"{graph} is not {entry.kind} as said"


def _has_reason(
    graph: Multigraph,
    entry: DroppedClaim,
    on: Sequence[Multigraph],
    points: Points,
    rank: Callable[[Sequence[Multigraph]], int],
) -> bool:
    """Dependent means on exactly those named: without any one of them the graph would be independent."""
    if entry.kind == "zero":
        return not on and not np.any(values(graph, points))
    if entry.kind == "multiple":
        numerator, denominator = entry.factor or (0, 0)
        if len(on) != 1 or denominator < 1 or numerator == 0 or gcd(numerator, denominator) != 1:
            return False
        both = zip(values(on[0], points).tolist(), values(graph, points).tolist(), points.primes.tolist(), strict=True)
        return all((x * numerator - y * denominator) % prime == 0 for x, y, prime in both)
    if rank([*on, graph]) != rank(on):
        return False
    without = ([g for g in on if g != left_out] for left_out in on)
    return all(rank([*fewer, graph]) > rank(fewer) for fewer in without)


def _linear_ranks(claims: Claims, fresh: Points) -> Iterator[str]:
    """Each multidegree that has invariants is there, with as many kept graphs as its dimension, independent."""
    expected = {}
    for order in range(1, claims.vertices + 1):
        for ranks in combinations_with_replacement(range(claims.max_rank + 1), order):
            if dimension := invariant_dimension(Counter(rank for rank in ranks if rank)):
                expected[ranks] = dimension
    if {row.stratum: (row.rank, row.bound) for row in claims.ranks} != {k: (d, d) for k, d in expected.items()}:
        yield "the multidegrees are not those that have invariants, or have other dimensions"
    if any((row.known_by, row.failure_probability) != ("Molien-Weyl", 0.0) for row in claims.ranks):
        yield "a dimension is not known by Molien and Weyl"
    for ranks, dimension in expected.items():
        kept = [graph for graph in claims.kept.values() if tuple(sorted(graph.ranks)) == ranks]
        if len(kept) != dimension or _linear_rank(kept, fresh) != dimension:
            yield f"{ranks}: {len(kept)} invariants are kept, {dimension} independent ones are there"
    if len(claims.kept) != sum(expected.values()):
        yield "an invariant belongs to no multidegree"


def _linear_rank(graphs: Sequence[Multigraph], fresh: Points) -> int:
    """The rank of the values at as many points as graphs, over one prime."""
    if not graphs:
        return 0
    prime = int(fresh.primes[0])
    seed = int(fresh.components[1][0, 0]) if 1 in fresh.components else 0
    ranks = {rank for graph in graphs for rank in graph.ranks if rank}
    points = Points.random(ranks, [prime] * len(graphs), seed)
    space = RowSpace(prime)
    for graph in graphs:
        space.add(values(graph, points))
    return space.rank


def _linear_reasons(claims: Claims, fresh: Points) -> Iterator[str]:
    for graph, entry in claims.dropped:
        on = [claims.kept[name] for name in entry.on]
        same = all(sorted(g.ranks) == sorted(graph.ranks) for g in on)
        if not same or not _has_reason(graph, entry, on, fresh, lambda graphs: _linear_rank(graphs, fresh)):
            yield f"{graph} is not {entry.kind} as said"
