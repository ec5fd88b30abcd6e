"""The families: published counts, ranks that do not depend on the prime, and dropped graphs with true reasons."""

from collections import Counter
from itertools import combinations_with_replacement, permutations

import numpy as np
import pytest

from tensorgraph.algebra import PRIMES, Points, Trials, combination, gradients, invariant_dimension, values
from tensorgraph.algebra.polynomials import polynomial
from tensorgraph.basis import FAMILIES, derive, products, search
from tensorgraph.basis.rule import degrees_of_freedom, strata
from tensorgraph.basis.search import why_dropped
from tensorgraph.basis.types import named
from tensorgraph.errors import BudgetError
from tensorgraph.graphs import Multigraph, canonical, graphs_of_degree_sequence, multigraphs_of_degree_sequence

HIPHOP = {1: [1, 1, 1, 1], 2: [1, 2, 3, 4], 3: [1, 2, 5, 7], 4: [1, 2, 6, 13]}
FLEXIBLE = {1: [1, 2, 2, 2, 2, 2], 2: [1, 3, 5, 6, 6, 6], 3: [1, 4, 8, 14, 16, 16]}
TARGETS = {
    (1,): (1, [1, 1, 1, 1, 1]),
    (2,): (2, [1, 2, 2, 2, 2]),
    (3,): (4, [1, 1, 2, 2, 3]),
    (1, 2): (5, [2, 4, 5, 5, 5]),
    (1, 3): (7, [2, 2, 6, 6, 7]),
    (2, 3): (9, [2, 4, 7, 9, 9]),
    (1, 2, 3): (12, [3, 7, 12, 12, 12]),
}

T, Q, V = 3, 2, 1
PUBLISHED = {
    "v·v": Multigraph((V, V), ((0, 1, 1),)),
    "q:q": Multigraph((Q, Q), ((0, 1, 2),)),
    "tr q³": Multigraph((Q, Q, Q), ((0, 1, 1), (0, 2, 1), (1, 2, 1))),
    "t⋮t": Multigraph((T, T), ((0, 1, 3),)),
    "b:b": Multigraph((T, T, T, T), ((0, 1, 2), (0, 3, 1), (1, 2, 1), (2, 3, 2))),
    "v·q·v": Multigraph((Q, V, V), ((0, 1, 1), (0, 2, 1))),
    "v·q²·v": Multigraph((Q, Q, V, V), ((0, 1, 1), (0, 2, 1), (1, 3, 1))),
    "t(v,v,v)": Multigraph((T, V, V, V), ((0, 1, 1), (0, 2, 1), (0, 3, 1))),
    "v·b·v": Multigraph((T, T, V, V), ((0, 1, 2), (0, 2, 1), (1, 3, 1))),
    "b:q": Multigraph((T, T, Q), ((0, 1, 2), (0, 2, 1), (1, 2, 1))),
    "b:q²": Multigraph((T, T, Q, Q), ((0, 1, 2), (0, 2, 1), (1, 3, 1), (2, 3, 1))),
    "e·e": Multigraph((T, T, Q, Q), ((0, 1, 1), (0, 2, 2), (1, 3, 2))),
}


@pytest.mark.parametrize("vertices", HIPHOP)
@pytest.mark.parametrize("max_rank", range(4))
def test_hiphop_counts(vertices, max_rank):
    assert len(derive("hiphop", vertices + 1, max_rank)) == HIPHOP[vertices][max_rank]


@pytest.mark.parametrize("vertices", range(1, 7))
@pytest.mark.parametrize("max_rank", FLEXIBLE)
def test_flexible_counts(vertices, max_rank):
    assert len(derive("flexible", vertices + 1, max_rank)) == FLEXIBLE[max_rank][vertices - 1]


@pytest.mark.parametrize("vertices", range(2, 7))
def test_flexible_reaches_the_targets_of_every_stratum(vertices):
    ranks = {
        ranks_of(row.stratum): (row.bound, row.rank) for row in derive("flexible", vertices + 1, 3).certificate.strata
    }
    assert ranks == {s: (freedom, targets[vertices - 2]) for s, (freedom, targets) in TARGETS.items()}


@pytest.mark.parametrize("vertices", range(2, 5))
def test_targets_are_the_ranks_of_all_graphs(vertices):
    """The oracle that the greedy passes need: no graph outside the flexible set raises a rank."""
    census = derive("connected", vertices + 1, 3)
    for stratum, (_, targets) in TARGETS.items():
        assert rank_of(census.graphs[1:], stratum) == targets[vertices - 2]


def rank_of(graphs, stratum):
    points = Points.random(range(1, 4), PRIMES[:1], 5)
    trials = Trials(PRIMES[:1])
    for graph in graphs:
        trials.add(gradients(graph, points, stratum))
    return trials.rank


def ranks_of(stratum):
    return tuple(kind.rank for kind in stratum)


def test_hiphop5_is_the_published_set():
    graphs = set(derive("hiphop", 5, 3).graphs[1:])
    assert graphs == {canonical(graph) for graph in PUBLISHED.values()}


def test_flexible_adds_what_the_published_set_misses():
    (added,) = set(derive("flexible", 5, 3).graphs) - set(derive("hiphop", 5, 3).graphs)
    assert added.ranks == (3, 3, 3, 1)
    assert (3, 2, 1) in {graph.ranks for graph in derive("flexible", 4, 3).graphs}
    assert {ranks_of(row.stratum): row.rank for row in derive("hiphop", 5, 3).certificate.strata}[1, 3] == 5


def test_independent_has_as_many_invariants_as_the_generic_rank():
    assert [len(derive("independent", n + 1, 3)) for n in range(2, 5)] == [1 + r for r in TARGETS[1, 2, 3][1][:3]]


def test_connected_is_the_census():
    assert [len(derive("connected", n + 1, 3)) for n in range(1, 6)] == [1, 4, 8, 20, 42]


@pytest.mark.parametrize("prime", PRIMES)
def test_the_choice_does_not_depend_on_the_prime(prime):
    assert derive("flexible", 6, 3, (prime,)).invariants == derive("flexible", 6, 3).invariants


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("max_rank", range(5))
def test_every_basis_starts_with_the_scalar_and_has_unique_names(family, max_rank):
    basis = derive(family, 4, max_rank)
    assert basis.invariants[0].name == "s"
    assert len({invariant.name for invariant in basis.invariants}) == len(basis)
    assert all(graph.is_closed and canonical(graph) == graph for graph in basis.graphs)
    assert FAMILIES[family].candidates == "all" or all(graph.is_connected for graph in basis.graphs)
    assert [graph.order for graph in basis.graphs] == sorted(graph.order for graph in basis.graphs)


def test_dropped_graphs_are_dependent_on_exactly_those_named():
    """A dropped graph raises no rank when it is put first, and would if one of those named were missing."""
    basis = derive("flexible", 6, 3)
    named_graphs = {invariant.name: invariant.graph for invariant in basis.invariants}
    assert basis.dropped
    for dropped in basis.dropped:
        stratum, on = dropped.graph.support, [named_graphs[name] for name in dropped.on]
        assert rank_of(basis.graphs[1:], stratum) == rank_of((dropped.graph, *basis.graphs[1:]), stratum)
        assert rank_of(on, stratum) == rank_of((*on, dropped.graph), stratum) == len(on)
        for left_out in on:
            fewer = [graph for graph in on if graph != left_out]
            assert rank_of((*fewer, dropped.graph), stratum) == len(on)


def test_a_multiple_of_a_kept_graph_is_called_so():
    """At (4, 4, 4, 2) two graphs are equal up to a factor; the reason names the partner and the exact factor."""
    points = Points.random((2, 4), PRIMES[:3], 0)
    pairs = {}
    for kept, graph in permutations(graphs_of_degree_sequence((4, 4, 4, 2)), 2):
        dropped = why_dropped(graph, named([kept]), points, (2, 4))
        if dropped.kind == "multiple":
            pairs[kept, graph] = dropped.factor
    assert len(pairs) == 2
    for (kept, graph), factor in pairs.items():
        assert polynomial(graph) * factor.denominator == polynomial(kept) * factor.numerator != 0


LINEAR = {0: [1, 2, 3, 4], 1: [1, 3, 5, 8], 2: [1, 4, 9, 18], 3: [1, 5, 13, 36]}


@pytest.mark.parametrize("max_rank", LINEAR)
@pytest.mark.parametrize("vertices", range(1, 5))
def test_linear_counts_are_sums_of_molien_weyl_dimensions(max_rank, vertices):
    multidegrees = (m for n in range(1, vertices + 1) for m in combinations_with_replacement(range(max_rank + 1), n))
    total = sum(invariant_dimension(Counter(rank for rank in ranks if rank)) for ranks in multidegrees)
    assert len(derive("linear", vertices + 1, max_rank)) == total == LINEAR[max_rank][vertices - 1]


@pytest.mark.parametrize("number_kept", [0, 2])
def test_a_zero_polynomial_of_the_linear_family_is_called_so(monkeypatch, number_kept):
    """No graph of a few vertices is zero, so one is declared to be."""
    graphs = multigraphs_of_degree_sequence((2, 2, 2, 2))
    *kept, zero = graphs[: number_kept + 1]
    points = Points.random((2,), PRIMES[:1] * 4, 0)
    vanishing = {zero: np.zeros(4, dtype=np.int64)}
    monkeypatch.setattr(products, "values", lambda graph, at: vanishing.get(graph, values(graph, at)))
    found = products._why_dropped(zero, kept, {graph: graph.formula for graph in kept}, points)
    assert (found.kind, found.on, found.reason) == ("zero", (), "zero")


@pytest.mark.parametrize(("max_rank", "vertices", "count"), [(0, 1, 1), (1, 2, 2), (2, 4, 6), (3, 10, 15)])
@pytest.mark.parametrize("family", ["flexible", "hiphop"])
def test_complete_bases_have_full_rank_on_every_stratum(family, max_rank, vertices, count):
    """With all pure invariants at hand the published rule is complete too: pairs fix all relative orientations."""
    basis = derive(family, "complete", max_rank)
    assert (basis.vertices, len(basis)) == (vertices, count)
    for stratum in strata(range(1, max_rank + 1)):
        assert rank_of(basis.graphs[1:], stratum) == degrees_of_freedom(stratum)


def test_degrees_of_freedom_and_strata():
    assert {ranks_of(s): degrees_of_freedom(s) for s in strata((1, 2, 3))} == {
        s: freedom for s, (freedom, _) in TARGETS.items()
    }


@pytest.mark.parametrize(
    ("family", "body_order", "max_rank", "estimate"),
    [
        ("connected", 7, 5, "5847 graphs of 6 vertices of rank 1, 2, 3, 4, 5"),
        ("connected", 7, 8, "17035 graphs of 5 vertices"),
        ("linear", 6, 8, "6355 linearly independent invariants"),
    ],
)
def test_too_large_a_family_stops_with_an_estimate(family, body_order, max_rank, estimate):
    """Before the work: the counts are exact, and nothing of that order is enumerated."""
    with pytest.raises(BudgetError, match=rf"^{estimate}.*; allowed: at most 4000, by a smaller body order"):
        derive(family, body_order, max_rank)


@pytest.mark.parametrize("at", range(3))
def test_what_has_a_part_at_one_point_only_is_in_the_circuit(at):
    """A coefficient that vanishes modulo one prime, at one of the points, is no zero: any of the trials shows it."""
    graphs = derive("flexible", 4, 3).graphs[1:]
    kept = named(graph for graph in graphs if set(graph.ranks) <= {2})
    points, dropped = Points.random((2,), PRIMES[:3], 0), Multigraph((2, 2, 2, 2), ((0, 1, 2), (2, 3, 2)))
    true = [search._circuit(dropped, kept, points, (2,))]

    def but_for_two(rows, row, prime):
        part = combination(rows, row, prime)
        return part if prime == int(PRIMES[at]) else None if part is None else [0] * len(part)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "combination", but_for_two)
        true.append(search._circuit(dropped, kept, points, (2,)))
    assert [[other.graph.ranks for other in circuit] for circuit in true] == [[(2, 2)]] * 2


def test_progress_is_told_stratum_by_stratum():
    told = []
    derive("flexible", 5, 3, tell=told.append)
    assert told[0] == "basis: stratum 1 of 7, 1 invariants so far"
    assert told[-2:] == ["basis: stratum 7 of 7, 14 invariants so far", "basis: certificate"]
