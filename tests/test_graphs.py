"""Multigraphs: canonical forms against networkx, enumeration against published counts and brute force."""

import time
from collections import Counter
from itertools import combinations, product
from math import factorial

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorgraph.errors import BudgetError
from tensorgraph.graphs import (
    SCALAR,
    Multigraph,
    as_kinds,
    automorphism_count,
    canonical,
    canonical_labelling,
    connected_count,
    connected_graphs,
    degree_sequences,
    graphs_of_degree_sequence,
    to_networkx,
)
from tensorgraph.graphs.multigraph import sort_edges
from tests.strategies import multigraphs


def isomorphic(a: Multigraph, b: Multigraph) -> bool:
    return nx.is_isomorphic(
        to_networkx(a),
        to_networkx(b),
        node_match=lambda x, y: x["rank"] == y["rank"],
        edge_match=lambda x, y: x["multiplicity"] == y["multiplicity"],
    )


@given(multigraphs(), st.randoms(use_true_random=False))
def test_relabelling_does_not_change_the_canonical_form(graph, random):
    order = list(range(graph.order))
    random.shuffle(order)
    relabelled = graph.relabelled(order)
    assert canonical(relabelled) == canonical(graph)
    assert sorted(relabelled.legs) == sorted(graph.legs)


@given(st.sampled_from([(3, 3, 3, 3), (3, 3, 2, 2), (2, 2, 2, 2, 2, 2), (4, 4, 2, 2), (3, 3, 3, 2, 1)]), st.data())
def test_equal_canonical_forms_mean_isomorphic(ranks, data):
    """Pairs of random graphs of one degree sequence, which are isomorphic about as often as not."""
    slots = [vertex for vertex, rank in enumerate(ranks) for _ in range(rank)]
    graphs = []
    for _ in range(2):
        ends = data.draw(st.permutations(slots))
        joined = Counter(tuple(sorted(pair)) for pair in zip(ends[::2], ends[1::2], strict=True) if pair[0] != pair[1])
        graphs.append(Multigraph(ranks, sort_edges((u, v, m) for (u, v), m in joined.items())))
    assert (canonical(graphs[0]) == canonical(graphs[1])) == isomorphic(*graphs)


@given(multigraphs())
def test_canonical_form_is_isomorphic_idempotent_and_ordered_by_rank(graph):
    form = canonical(graph)
    assert isomorphic(form, graph)
    assert canonical(form) == form
    assert list(form.ranks) == sorted(form.ranks, reverse=True)
    assert sorted(canonical_labelling(graph)) == list(range(graph.order))


@given(multigraphs(max_order=5, max_multiplicity=2, open_legs=1))
def test_automorphisms_are_as_many_as_networkx_finds(graph):
    result = to_networkx(graph)
    matcher = nx.isomorphism.GraphMatcher(result, result, node_match=dict.__eq__, edge_match=dict.__eq__)
    assert automorphism_count(graph) == sum(1 for _ in matcher.isomorphisms_iter())


def test_automorphisms_of_symmetric_graphs():
    star = Multigraph((12, *[1] * 12), tuple((0, leaf, 1) for leaf in range(1, 13)))
    cycle = Multigraph((2,) * 8, tuple(sorted((min(k, (k + 1) % 8), max(k, (k + 1) % 8), 1) for k in range(8))))
    complete = Multigraph((5,) * 6, tuple((u, v, 1) for u, v in combinations(range(6), 2)))
    assert [automorphism_count(graph) for graph in (star, cycle, complete)] == [factorial(12), 16, 720]


def test_canonical_form_of_many_twins_is_quick():
    star = Multigraph((12, *[1] * 12), tuple((0, leaf, 1) for leaf in range(1, 13)))
    assert canonical(star).ranks == star.ranks


@pytest.mark.parametrize(
    ("max_rank", "counts"),
    [(1, [1, 0, 0, 0]), (2, [2, 2, 2, 2]), (3, [3, 4, 12, 22]), (4, [4, 9, 37]), (5, [5, 14, 93])],
)
def test_census_of_connected_multigraphs(max_rank, counts):
    """The counts of the mathematics page, which nauty's `geng -c | multig` confirms."""
    supports = [s for size in range(1, max_rank + 1) for s in combinations(range(1, max_rank + 1), size)]
    found = [sum(len(connected_graphs(s, order)) for s in supports) for order in range(2, 2 + len(counts))]
    assert found == counts


@pytest.mark.parametrize("order", range(1, 7))
def test_the_count_is_that_of_the_enumeration(order):
    for support in (s for size in (1, 2, 3, 4) for s in combinations((1, 2, 3, 4), size)):
        assert connected_count(support, order) == len(connected_graphs(support, order))


@pytest.mark.parametrize(("support", "order"), [((1, 4), 30), ((2,), 15), ((1,), 24), ((3, 4, 5, 6, 7), 8)])
def test_what_takes_too_long_to_count_is_refused(support, order):
    """Also where there are few: one cycle of 15 vertices, and no graph of 24 vertices of degree 1."""
    message = f"{order} vertices of rank up to {max(support)} take too long to count; allowed: a smaller body order"
    with pytest.raises(BudgetError, match=message):
        connected_count(support, order)


def test_counts_within_the_budget_take_seconds():
    """The largest that the documentation cites: 1.7 s. With more ranks than vertices there is nothing to count."""
    start = time.process_time()
    assert connected_count(tuple(range(1, 9)), 6) == 0
    assert time.process_time() - start < 0.1
    assert connected_count((7,), 8) == 90614
    assert time.process_time() - start < 20


@pytest.mark.parametrize("ranks", [(2, 2, 1, 1), (3, 3, 2), (3, 3, 3, 3), (3, 3, 2, 2), (4, 2, 2), (2, 2, 2, 2)])
def test_enumeration_equals_brute_force(ranks):
    """Every symmetric matrix with these row sums, up to isomorphism by networkx."""
    pairs = list(combinations(range(len(ranks)), 2))
    classes: list[Multigraph] = []
    for multiplicities in product(range(max(ranks) + 1), repeat=len(pairs)):
        edges = tuple((u, v, m) for (u, v), m in zip(pairs, multiplicities, strict=True) if m)
        degrees = [sum(m for u, v, m in edges if vertex in (u, v)) for vertex in range(len(ranks))]
        if tuple(degrees) == ranks:
            graph = Multigraph(ranks, edges)
            if graph.is_connected and not any(isomorphic(graph, other) for other in classes):
                classes.append(graph)
    assert sorted(map(canonical, classes)) == list(graphs_of_degree_sequence(ranks))


def test_enumerated_graphs_are_closed_connected_and_have_the_asked_support():
    for graph in connected_graphs((1, 2, 3), 5):
        assert graph.is_closed
        assert graph.is_connected
        assert graph.support == as_kinds((1, 2, 3))
        assert nx.is_connected(to_networkx(graph))


def test_degree_sequences_leave_out_what_no_loopless_graph_has():
    found = {tuple(kind.rank for kind in kinds) for kinds in degree_sequences((1, 3), 4)}
    assert found == {(3, 1, 1, 1), (3, 3, 1, 1), (3, 3, 3, 1)}
    assert list(degree_sequences((3, 1), 2)) == []


def test_scalar_stands_alone():
    assert connected_graphs((0,), 1) == (SCALAR,)
    assert str(SCALAR) == "s"


def test_formula_and_einsum():
    graph = Multigraph((3, 3, 2), ((0, 1, 2), (0, 2, 1), (1, 2, 1)))
    assert graph.formula == "t_abc t_abd q_cd"
    assert graph.einsum == "abc,abd,cd->"
    assert graph.induced((0, 1)).einsum == "abc,abd->cd"
    assert graph.induced((0, 1)).legs == (1, 1)


def test_empty_graphs_are_refused():
    with pytest.raises(ValueError, match="at least one vertex"):
        Multigraph(())


@pytest.mark.parametrize(
    ("ranks", "edges"),
    [
        ((1,), ((0, 0, 1),)),
        ((1, 1), ((1, 0, 1),)),
        ((1, 1), ((0, 1, 2),)),
        ((1, 1), ((0, 2, 1),)),
        ((2,), ((0, 1, 0),)),
    ],
)
def test_impossible_graphs_are_refused(ranks, edges):
    with pytest.raises(ValueError, match="edge"):
        Multigraph(ranks, edges)
