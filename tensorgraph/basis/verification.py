"""Checks of a basis from its manifest alone, without trusting the search that chose it.

Minors are recomputed at the recorded points; ranks, completeness and reasons at fresh random points over other primes;
bounds from degrees of freedom and Molien-Weyl dimensions; and all graphs are enumerated anew.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from tensorgraph.algebra import PRIMES, Points, Trials, determinant, gradients, invariant_dimension, values
from tensorgraph.basis.families import FAMILIES, complete_vertices
from tensorgraph.basis.search import degrees_of_freedom, strata
from tensorgraph.basis.types import Basis
from tensorgraph.errors import PackageError
from tensorgraph.graphs import SCALAR, Multigraph, canonical, connected_graphs

FRESH_PRIMES, FRESH_SEED = PRIMES[3:], 271828


@dataclass(frozen=True)
class Check:
    """What was checked; ``problems`` is empty where it holds."""

    name: str
    problems: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether it holds."""
        return not self.problems


@dataclass(frozen=True)
class Claims:
    """A manifest's ``basis`` object, read into graphs and numbers."""

    family: str
    body_order: int | str
    vertices: int
    max_rank: int
    kept: Mapping[str, Multigraph]
    strata: tuple[Mapping[str, Any], ...]
    dropped: tuple[tuple[Multigraph, Mapping[str, Any]], ...]
    points: Points

    @classmethod
    def of(cls, basis: Mapping[str, Any]) -> Claims:
        """Raises PackageError for an object that is no basis."""
        try:
            names = [entry["name"] for entry in basis["invariants"]]
            if len(set(names)) != len(names):
                raise ValueError("two invariants have one name")
            certificate = basis["certificate"]
            points = {int(rank): trials for rank, trials in certificate["points"].items()}
            return cls(
                basis["family"],
                basis["body_order"],
                basis["vertices"],
                basis["max_rank"],
                {entry["name"]: _graph(entry) for entry in basis["invariants"]},
                tuple(certificate["strata"]),
                tuple((_graph(entry), entry) for entry in basis["dropped"]),
                Points.of(certificate["primes"], points),
            )
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise PackageError(f"the manifest holds no basis that can be read: {error!r}") from None

    def within(self, stratum: Sequence[int]) -> list[Multigraph]:
        """Kept graphs that do not vanish on a stratum."""
        return [g for g in self.kept.values() if g != SCALAR and set(g.ranks) <= set(stratum)]


def verify_basis(basis: Mapping[str, Any]) -> tuple[Check, ...]:
    """All checks of a manifest's ``basis`` object, in the order of what they build on.

    Raises:
        PackageError: the object is no basis.
    """
    claims = Claims.of(basis)
    checks: dict[str, Callable[[Claims], Iterator[str]]] = {
        "graphs are what they should be": _graphs,
        "minors are non-zero": _linear_minors if claims.family == "linear" else _minors,
        "the family's strata have the ranks claimed": _linear_ranks if claims.family == "linear" else _ranks,
        "no graph is missing": _linear_counts if claims.family == "linear" else _completeness,
        "no invariant is too many": _minimality,
        "every dropped graph has its reason": _reasons,
    }
    return tuple(Check(name, tuple(check(claims))) for name, check in checks.items())


def _graph(entry: Mapping[str, Any]) -> Multigraph:
    return Multigraph(tuple(entry["ranks"]), tuple((u, v, multiplicity) for u, v, multiplicity in entry["edges"]))


def _fresh(claims: Claims) -> Points:
    return Points.random(range(1, claims.max_rank + 1), FRESH_PRIMES, FRESH_SEED)


def _graphs(claims: Claims) -> Iterator[str]:
    complete = claims.body_order == "complete"
    if claims.vertices + 1 != (complete_vertices(claims.max_rank) + 1 if complete else claims.body_order):
        yield f"{claims.vertices} vertices do not fit body order {claims.body_order}"
    if claims.family not in {*FAMILIES, "linear"}:
        yield f"no family is called {claims.family!r}"
    if next(iter(claims.kept.values()), None) != SCALAR:
        yield "the first invariant is not the scalar"
    for name, graph in claims.kept.items():
        if not name.startswith(graph.composition):
            yield f"{name} is not made of {graph.composition}"
        if canonical(graph) != graph or not graph.is_closed:
            yield f"{name} is not a canonical closed graph"
        if claims.family != "linear" and not graph.is_connected:
            yield f"{name} is a product"
        if graph.order > claims.vertices or max(graph.ranks) > claims.max_rank:
            yield f"{name} is larger than allowed"
    if len(set(claims.kept.values())) != len(claims.kept):
        yield "an invariant is there twice"


def _minors(claims: Claims) -> Iterator[str]:
    for row in claims.strata:
        yield from _check_minor(claims, row, partial(gradients, points=claims.points, stratum=row["stratum"]))


def _linear_minors(claims: Claims) -> Iterator[str]:
    """The matrix of values has one row an invariant and one column a point."""
    for row in claims.strata:
        yield from _check_minor(claims, row, lambda graph: values(graph, claims.points)[None, :])


def _check_minor(claims: Claims, row: Mapping[str, Any], rows_of: Callable[[Multigraph], np.ndarray]) -> Iterator[str]:
    minor, stratum = row["minor"], row["stratum"]
    missing = [name for name in minor["rows"] if name not in claims.kept]
    if missing:
        yield f"{stratum}: the minor's rows {missing} are no invariants"
        return
    if not row["rank"] == len(minor["rows"]) == len(minor["columns"]):
        yield f"{stratum}: a minor of {len(minor['rows'])} rows does not prove rank {row['rank']}"
        return
    matrices = np.array([rows_of(claims.kept[name]) for name in minor["rows"]])
    trial, columns = minor["trial"], minor["columns"]
    if not 0 <= trial < matrices.shape[1] or not all(0 <= column < matrices.shape[2] for column in columns):
        yield f"{stratum}: the minor names a trial or a column that does not exist"
        return
    prime = int(claims.points.primes[trial])
    value = determinant(matrices[:, trial, columns], prime)
    if value == 0 or value != minor["value"]:
        yield f"{stratum}: the minor is {value} modulo {prime}, not {minor['value']}"


def _ranks(claims: Claims) -> Iterator[str]:
    expected = _expected_strata(claims)
    if [tuple(row["stratum"]) for row in claims.strata] != expected:
        yield f"the strata are not {expected}"
    for row in claims.strata:
        if row["bound"] != degrees_of_freedom(tuple(row["stratum"])):
            yield f"{row['stratum']}: {row['bound']} is not the number of degrees of freedom"
        rank = _rank(claims.within(row["stratum"]), row["stratum"], _fresh(claims))
        if rank != row["rank"]:
            yield f"{row['stratum']}: the kept invariants have rank {rank}, not {row['rank']}"


def _expected_strata(claims: Claims) -> list[tuple[int, ...]]:
    return [step.stratum for step in FAMILIES[claims.family](claims.max_rank)]


def rank_on(stratum: Sequence[int], basis: Basis) -> int:
    """The rank of a basis on a stratum, at random points."""
    points = Points.random(stratum, FRESH_PRIMES, FRESH_SEED)
    return _rank([graph for graph in basis.graphs if graph != SCALAR], stratum, points)


def _rank(graphs: Sequence[Multigraph], stratum: Sequence[int], points: Points) -> int:
    trials = Trials(points.primes)
    for graph in graphs:
        trials.add(gradients(graph, points, stratum))
    return trials.rank


def _completeness(claims: Claims) -> Iterator[str]:
    """Every graph up to the number of vertices is tried again, unless the rank is the most there can be."""
    for row in claims.strata:
        stratum = tuple(row["stratum"])
        if row["known_by"] == "limit of the family":
            if claims.family != "hiphop" or len(stratum) != 2:
                yield f"{stratum}: the family {claims.family} has no limit there"
        elif row["rank"] != degrees_of_freedom(stratum):
            rank = _rank(list(_all_graphs(stratum, claims.vertices)), stratum, _fresh(claims))
            if rank != row["rank"]:
                yield f"{stratum}: all graphs together have rank {rank}, not {row['rank']}"
    if claims.family == "connected":
        everything = set(_all_graphs(tuple(range(1, claims.max_rank + 1)), claims.vertices))
        if everything != set(claims.kept.values()) - {SCALAR}:
            yield f"there are {len(everything)} connected graphs, not {len(claims.kept) - 1}"


def _all_graphs(stratum: tuple[int, ...], vertices: int) -> Iterator[Multigraph]:
    for positions in strata(len(stratum)):
        support = tuple(stratum[position - 1] for position in positions)
        for order in range(2, vertices + 1):
            yield from connected_graphs(support, order)


def _linear_ranks(claims: Claims) -> Iterator[str]:
    for row in claims.strata:
        dimension = invariant_dimension(Counter(rank for rank in row["stratum"] if rank))
        if not row["bound"] == row["rank"] == dimension:
            yield f"{row['stratum']}: the Molien-Weyl dimension is {dimension}, not {row['rank']}"


def _linear_counts(claims: Claims) -> Iterator[str]:
    """Each multidegree with invariants is there, with as many as its dimension."""
    kept = Counter(tuple(sorted(graph.ranks)) for graph in claims.kept.values())
    listed = {tuple(row["stratum"]): row["rank"] for row in claims.strata}
    expected = {}
    for ranks in _multisets(claims.max_rank, claims.vertices):
        if dimension := invariant_dimension(Counter(rank for rank in ranks if rank)):
            expected[ranks] = dimension
    if listed != expected:
        yield "the multidegrees listed are not those that have invariants"
    for ranks, dimension in expected.items():
        if kept[ranks] < dimension:
            yield f"{list(ranks)}: {kept[ranks]} of {dimension} invariants"


def _multisets(max_rank: int, vertices: int) -> Iterator[tuple[int, ...]]:
    def grown(start: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        for rank in range(start[-1] if start else 0, max_rank + 1):
            yield (*start, rank)
            if len(start) + 1 < vertices:
                yield from grown((*start, rank))

    return grown(())


def _minimality(claims: Claims) -> Iterator[str]:
    """As many invariants as the ranks need, and no more; a census is not minimal."""
    if claims.family == "linear":
        listed = {tuple(row["stratum"]): row["rank"] for row in claims.strata}
        for ranks, count in Counter(tuple(sorted(graph.ranks)) for graph in claims.kept.values()).items():
            if count > listed.get(ranks, 0):
                yield f"{list(ranks)}: {count} invariants, {listed.get(ranks, 0)} would do"
    elif claims.family == "independent":
        rank = claims.strata[0]["rank"] if claims.strata else 0
        if len(claims.kept) - 1 != rank:
            yield f"{len(claims.kept) - 1} invariants besides the scalar, {rank} would do"
    elif claims.family in ("flexible", "hiphop"):
        for row in claims.strata:
            stratum = tuple(row["stratum"])
            own = [graph for graph in claims.within(stratum) if graph.support == stratum]
            below = _rank([g for g in claims.within(stratum) if g.support != stratum], stratum, _fresh(claims))
            if len(own) != row["rank"] - below:
                yield f"{stratum}: {len(own)} invariants of its own, {row['rank'] - below} would do"


def _reasons(claims: Claims) -> Iterator[str]:
    points = _fresh(claims)
    for graph, entry in claims.dropped:
        if graph in claims.kept.values():
            yield f"{graph} is dropped and kept"
        missing = [name for name in entry["on"] if name not in claims.kept]
        if missing:
            yield f"{graph} is said to depend on {missing}, which are no invariants"
            continue
        on = [claims.kept[name] for name in entry["on"]]
        if not _has_reason(graph, entry, on, points):
            yield f"{graph} is not {entry['kind']}"


def _has_reason(graph: Multigraph, entry: Mapping[str, Any], on: Sequence[Multigraph], points: Points) -> bool:
    match entry["kind"]:
        case "zero":
            return not np.any(values(graph, points))
        case "multiple":
            numerator, denominator = entry["factor"]
            difference = values(graph, points) * denominator - values(on[0], points) * numerator
            return len(on) == 1 and not np.any(difference % points.primes)
        case "dependent":
            stratum = sorted({rank for g in (graph, *on) for rank in g.ranks})
            return _rank([*on, graph], stratum, points) == _rank(on, stratum, points)
    return False
