"""Checks of a basis from its manifest alone, without trusting the search that chose it.

Minors are recomputed at the recorded points; ranks, completeness and reasons at other points over other primes, drawn
from a digest of the manifest so that they cannot be known before it is written; bounds from degrees of freedom and
Molien-Weyl dimensions; and all graphs are enumerated anew. The list of dropped graphs is a record: each reason is
checked, not that every graph that was ever tried is listed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import gcd
from typing import Any

import numpy as np

from tensorgraph.algebra import PRIMES, Points, RowSpace, Trials, determinant, gradients, values
from tensorgraph.basis.claims import Claims, DroppedClaim, RankClaim
from tensorgraph.basis.families import complete_vertices
from tensorgraph.basis.products import dimension_of, multidegrees
from tensorgraph.basis.rule import Pass, Rule, degrees_of_freedom, strata
from tensorgraph.basis.search import failure_probability
from tensorgraph.basis.types import Basis, named
from tensorgraph.graphs import Kind, Multigraph, canonical, connected_graphs, multigraphs_of_degree_sequence
from tensorgraph.graphs.enumeration import pattern_of

FRESH_PRIMES = PRIMES[3:]

Checks = Mapping[str, Callable[[Claims, Points], Iterator[str]]]


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
    fresh = Points.random(claims.rule.recorded, FRESH_PRIMES, seed, claims.dimension)
    first = Check("graphs are what they should be", tuple(_graphs(claims)))
    if not first.passed:
        return (first,)
    checks = _CHECKS[claims.rule.preset.candidates, claims.rule.preset.superfluous]
    return (first, *(Check(name, tuple(check(claims, fresh))) for name, check in checks.items()))


def rank_on(stratum: Sequence[Kind], basis: Basis) -> int:
    """The rank of a basis on a stratum, at random points."""
    points = Points.random(stratum, FRESH_PRIMES, 0, basis.layout.dimension)
    return _rank([graph for graph in basis.graphs if graph.order > 1], stratum, points)


def _graphs(claims: Claims) -> Iterator[str]:
    rule, products = claims.rule, claims.rule.preset.candidates == "all"
    order = complete_vertices(rule.layout) + 1 if claims.body_order == "complete" else claims.body_order
    if claims.vertices + 1 != order:
        yield f"{claims.vertices} vertices do not fit body order {claims.body_order}"
    graphs = list(claims.kept.values())
    if [(i.name, i.graph) for i in named(graphs)] != list(claims.kept.items()):
        yield "the invariants do not have their names or are not in order"
    scalars = {Multigraph((kind,)) for kind in rule.scalars if rule.allows((kind,))}
    if not scalars <= set(graphs) or len(set(graphs)) != len(graphs):
        yield "a scalar is missing, or an invariant is there twice"
    dropped = [graph for graph, _ in claims.dropped]
    if len(set(dropped)) != len(dropped) or set(dropped) & set(graphs):
        yield "a graph is dropped twice, or dropped and kept"
    for graph in (*graphs, *dropped):
        if canonical(graph) != graph or not graph.is_closed:
            yield f"{graph} is not a canonical closed graph"
        if not products and not graph.is_connected:
            yield f"{graph} is a product"
        if not _within(graph, rule):
            yield f"{graph} is larger than allowed"
    if not products and [row.kinds for row in claims.ranks] != list(_passes(claims)):
        yield "the strata are not those of the family"
    unknown = {name for _, entry in claims.dropped for name in entry.on} - set(claims.kept)
    unknown |= {name for row in claims.ranks for name in row.minor.rows} - set(claims.kept)
    if unknown:
        yield f"{sorted(unknown)} are no invariants"


def _within(graph: Multigraph, rule: Rule) -> bool:
    """Whether a graph is made of the rule's tensors and outputs, and no larger than it allows."""
    tensors = [kind for kind in graph.kinds if kind.role == "tensor"]
    others: list[Kind | None] = [kind for kind in graph.kinds if kind.role != "tensor"]
    known = set(tensors) <= set(rule.layout.kinds) and len(others) <= 1 and (others or [None])[0] in rule.outputs
    return known and rule.allows(tensors) and rule.vertices is not None and len(tensors) <= rule.vertices


def _passes(claims: Claims) -> dict[tuple[Kind, ...], Pass]:
    return {step.stratum: step for step in claims.rule.passes()}


def _minors(claims: Claims, _fresh: Points) -> Iterator[str]:
    for row in claims.ranks:
        graphs = [claims.kept[name] for name in row.minor.rows]
        yield from _check_minor(claims, row, [gradients(graph, claims.points, row.kinds) for graph in graphs])


def _linear_minors(claims: Claims, _fresh: Points) -> Iterator[str]:
    """The matrix of values has one row an invariant and one column a point; the rows are those of the multidegree."""
    for row in claims.ranks:
        graphs = [claims.kept[name] for name in row.minor.rows]
        if any(tuple(sorted(graph.kinds)) != row.kinds for graph in graphs):
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
        rank, bound = _rank(claims.within(row.kinds), row.kinds, fresh), degrees_of_freedom(row.kinds, claims.dimension)
        if (rank, bound) != (row.rank, row.bound):
            yield f"{row.stratum}: rank {rank} of {bound}, not {row.rank} of {row.bound}"
        known_by, probability = _how_known(claims, row)
        if (row.known_by, row.failure_probability) != (known_by, probability):
            yield f"{row.stratum}: known by {known_by} ({probability}), not {row.known_by} ({row.failure_probability})"


def _how_known(claims: Claims, row: RankClaim) -> tuple[str, float]:
    if row.rank == row.bound:
        return "degrees of freedom", 0.0
    if len(_own(claims, row.kinds)) == _passes(claims)[row.kinds].limit:
        return "limit of the family", 0.0
    return "every graph tried", failure_probability(row.rank, claims.vertices, claims.points.primes.tolist())


def _own(claims: Claims, stratum: tuple[Kind, ...]) -> list[Multigraph]:
    return [graph for graph in claims.within(stratum) if graph.support == stratum]


def _rank(graphs: Sequence[Multigraph], stratum: Sequence[Kind], points: Points) -> int:
    trials = Trials(points.primes)
    for graph in graphs:
        trials.add(gradients(graph, points, stratum))
    return trials.rank


def _completeness(claims: Claims, fresh: Points) -> Iterator[str]:
    """Every graph up to the number of vertices is tried again, where the rank could be larger."""
    for row in claims.ranks:
        if row.known_by == "every graph tried":
            rank = _rank(list(_all_graphs(row.kinds, claims)), row.kinds, fresh)
            if rank != row.rank:
                yield f"{row.stratum}: all graphs together have rank {rank}, not {row.rank}"
    if claims.family == "connected":
        everything = set(_all_graphs(claims.rule.tensors, claims))
        if everything != {graph for graph in claims.kept.values() if graph.order > 1}:
            yield f"there are {len(everything)} connected graphs, not {len(claims.kept) - len(claims.rule.scalars)}"


def _all_graphs(stratum: tuple[Kind, ...], claims: Claims) -> Iterator[Multigraph]:
    for support in strata(stratum):
        for order in range(2, claims.vertices + 1):
            yield from (graph for graph in connected_graphs(support, order) if claims.rule.allows(graph.kinds))


def _minimality(claims: Claims, fresh: Points) -> Iterator[str]:
    """As many invariants as the ranks need, within the family's limits; a census is not minimal."""
    passes, others = _passes(claims), len(claims.kept) - len(claims.rule.scalars)
    if claims.family in ("independent", "connected"):
        if claims.family == "independent" and others != sum(row.rank for row in claims.ranks):
            yield f"{others} invariants besides the scalars, the rank is less"
        return
    for graph in claims.kept.values():
        if graph.order > 1 and graph.support not in passes:
            yield f"{graph} belongs to no stratum of the family"
    for row in claims.ranks:
        own, limit = _own(claims, row.kinds), passes[row.kinds].limit
        below = _rank([g for g in claims.within(row.kinds) if g not in own], row.kinds, fresh)
        if len(own) != row.rank - below or (limit is not None and len(own) > limit):
            yield f"{row.stratum}: {len(own)} invariants of its own, {row.rank - below} would do"


def _reasons(claims: Claims, fresh: Points) -> Iterator[str]:
    for graph, entry in claims.dropped:
        on = [claims.kept[name] for name in entry.on]
        stratum = sorted({kind for g in (graph, *on) for kind in g.kinds})
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
    """Each multidegree that has invariants is there, with as many kept graphs as its dimension, independent.

    Recorded are those that are their own pattern of colours; for the others it follows by renaming colours.
    """
    expected = {}
    for kinds in multidegrees(claims.rule):
        if dimension := dimension_of(kinds, claims.dimension):
            expected[tuple(sorted(kinds))] = dimension
    patterns = {kinds: tuple(sorted(pattern_of(kinds)[0])) for kinds in expected}
    recorded = {kinds: (d, d) for kinds, d in expected.items() if patterns[kinds] == kinds}
    if {row.kinds: (row.rank, row.bound) for row in claims.ranks} != recorded:
        yield "the multidegrees are not those that have invariants, or have other dimensions"
    if any((row.known_by, row.failure_probability) != ("Molien-Weyl", 0.0) for row in claims.ranks):
        yield "a dimension is not known by Molien and Weyl"
    by_degree: dict[tuple[Kind, ...], list[Multigraph]] = {}
    for graph in claims.kept.values():
        by_degree.setdefault(tuple(sorted(graph.kinds)), []).append(graph)
    for kinds, dimension in expected.items():
        kept = by_degree.get(kinds, [])
        if len(kept) != dimension or _linear_rank(kept, fresh) != dimension:
            yield f"{kinds}: {len(kept)} invariants are kept, {dimension} independent ones are there"
    if len(claims.kept) != sum(expected.values()):
        yield "an invariant belongs to no multidegree"


def _linear_rank(graphs: Sequence[Multigraph], fresh: Points) -> int:
    """The rank of the values at as many points as graphs, over one prime."""
    if not graphs:
        return 0
    prime = int(fresh.primes[0])
    seed = next((int(rows[0, 0]) for kind, rows in fresh.components.items() if kind.rank), 0)
    kinds = {kind for graph in graphs for kind in graph.kinds if kind.rank and kind.role != "epsilon"}
    points = Points.random(kinds, [prime] * len(graphs), seed, fresh.dimension)
    space = RowSpace(prime)
    for graph in graphs:
        space.add(values(graph, points))
    return space.rank


def _linear_reasons(claims: Claims, fresh: Points) -> Iterator[str]:
    for graph, entry in claims.dropped:
        on = [claims.kept[name] for name in entry.on]
        same = all(sorted(g.kinds) == sorted(graph.kinds) for g in on)
        if not same or not _has_reason(graph, entry, on, fresh, lambda graphs: _linear_rank(graphs, fresh)):
            yield f"{graph} is not {entry.kind} as said"


def _census(claims: Claims, _fresh: Points) -> Iterator[str]:
    """Every graph of every multidegree, and nothing else."""
    everything = {g for kinds in multidegrees(claims.rule) for g in multigraphs_of_degree_sequence(kinds)}
    if everything != set(claims.kept.values()) or claims.dropped:
        yield f"there are {len(everything)} graphs, not {len(claims.kept)}"


_FUNCTIONS: Checks = {
    "minors are non-zero": _minors,
    "ranks are as claimed, and known as claimed": _ranks,
    "no graph is missing": _completeness,
    "no invariant is too many": _minimality,
    "every dropped graph has its reason": _reasons,
}

_CHECKS: dict[tuple[str, str], Checks] = {
    ("connected", "functions"): _FUNCTIONS,
    ("connected", "nothing"): _FUNCTIONS,
    ("all", "linear combinations"): {
        "minors are non-zero": _linear_minors,
        "ranks are the Molien-Weyl dimensions": _linear_ranks,
        "every dropped graph has its reason": _linear_reasons,
    },
    ("all", "nothing"): {"no graph is missing": _census},
}
"""What is checked, by what the candidates are and what counts as superfluous."""
