"""Exact values: traceless tensors, contractions, gradients and ranks, against symbolic and floating-point oracles."""

from collections import Counter
from fractions import Fraction
from itertools import combinations_with_replacement, product

import numpy as np
import pytest
import sympy
from hypothesis import given
from hypothesis import strategies as st

from tensorgraph.algebra import (
    PRIMES,
    Points,
    RowSpace,
    Trials,
    combination,
    components,
    contract,
    contraction_cost,
    determinant,
    embedding,
    gradients,
    invariant_dimension,
    projection,
    values,
)
from tensorgraph.algebra.polynomials import polynomial
from tensorgraph.graphs import Multigraph, connected_graphs, multigraphs_of_degree_sequence

SUPPORTS = [(1,), (2,), (3,), (1, 2), (1, 3), (2, 3), (1, 2, 3)]
GRAPHS = [graph for order in (2, 3, 4) for support in SUPPORTS for graph in connected_graphs(support, order)]


def rational_rotation() -> np.ndarray:
    """A rotation by Euler-Rodrigues with quaternion (1, 2, 3, 4): entries in thirtieths."""
    a, b, c, d = 1, 2, 3, 4
    rows = [
        [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
        [2 * (b * c + a * d), a * a - b * b + c * c - d * d, 2 * (c * d - a * b)],
        [2 * (b * d - a * c), 2 * (c * d + a * b), a * a - b * b - c * c + d * d],
    ]
    return np.array([[Fraction(x, a * a + b * b + c * c + d * d) for x in row] for row in rows], dtype=object)


@pytest.mark.parametrize("rank", range(7))
def test_embedding_is_symmetric_traceless_and_of_full_rank(rank):
    tensor = embedding(rank)
    assert tensor.shape == (3,) * rank + (2 * rank + 1,)
    for axis in range(1, rank):
        np.testing.assert_array_equal(tensor, np.swapaxes(tensor, 0, axis))
    if rank >= 2:
        assert not np.any(np.trace(tensor, axis1=0, axis2=1))
    assert np.linalg.matrix_rank(tensor.reshape(-1, 2 * rank + 1)) == 2 * rank + 1


@pytest.mark.parametrize("rank", range(7))
def test_projection_of_a_unit_vector_is_the_traceless_part_of_its_powers(rank):
    """Symmetric, traceless and with leading coefficient one: the closed form agrees with tracelessness everywhere."""
    unit = [Fraction(2, 7), Fraction(-3, 7), Fraction(6, 7)]

    def monomial(exponents):
        return unit[0] ** exponents[0] * unit[1] ** exponents[1] * unit[2] ** exponents[2]

    elements = [sum(factor * monomial(powers) for powers, factor in projection(c).items()) for c in components(rank)]
    full = np.asarray(embedding(rank).astype(object) @ np.array(elements, dtype=object), dtype=object)
    for indices in product(range(3), repeat=rank):
        exponents = tuple(indices.count(axis) for axis in range(3))
        direct = sum(factor * monomial(powers) for powers, factor in projection(exponents).items())
        assert full[indices] == direct
        assert projection(exponents)[exponents] == 1


def test_low_ranks_are_those_of_the_interface():
    assert projection((2, 0, 0)) == {(2, 0, 0): 1, (0, 0, 0): Fraction(-1, 3)}
    assert projection((1, 1, 0)) == {(1, 1, 0): 1}
    assert projection((3, 0, 0)) == {(3, 0, 0): 1, (1, 0, 0): Fraction(-3, 5)}
    assert projection((2, 1, 0)) == {(2, 1, 0): 1, (0, 1, 0): Fraction(-1, 5)}


@pytest.mark.parametrize("graph", GRAPHS, ids=str)
def test_contraction_equals_one_naive_einsum(graph):
    random = np.random.default_rng(0)
    tensors = {kind: embedding(kind.rank) @ random.standard_normal(2 * kind.rank + 1) for kind in graph.support}
    naive = np.einsum(graph.einsum, *(tensors[kind] for kind in graph.kinds))
    np.testing.assert_allclose(contract(graph, tensors), naive, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("graph", GRAPHS[:16], ids=str)
def test_modular_values_and_gradients_are_those_of_the_exact_polynomial(graph):
    points = Points.random(graph.support, PRIMES, 7)
    exact = polynomial(graph)
    found, slopes = values(graph, points), gradients(graph, points, graph.support)
    for trial, prime in enumerate(PRIMES):
        numbers = [int(x) for kind in graph.support for x in points.components[kind][trial]]
        at = list(zip(exact.ring.gens, numbers, strict=True))
        assert int(found[trial]) == int(exact.evaluate(at)) % prime
        assert slopes[trial].tolist() == [int(exact.diff(x).evaluate(at)) % prime for x in exact.ring.gens]


@pytest.mark.parametrize("graph", GRAPHS[::3], ids=str)
def test_invariance_is_exact_under_a_rational_rotation(graph):
    rotation = rational_rotation()
    assert (rotation @ rotation.T == np.eye(3, dtype=int)).all()
    random = np.random.default_rng(1)
    tensors, rotated = {}, {}
    for kind in graph.support:
        components = random.integers(-9, 10, 2 * kind.rank + 1).astype(object)
        tensors[kind] = embedding(kind.rank).astype(object) @ components
        rotated[kind] = tensors[kind]
        for axis in range(kind.rank):
            rotated[kind] = np.moveaxis(np.tensordot(rotation, rotated[kind], axes=(1, axis)), 0, axis)
    assert contract(graph, tensors) == contract(graph, rotated)


def test_graph_without_a_rank_of_the_stratum_has_zero_gradient_there():
    graph = Multigraph((2, 1, 1), ((0, 1, 1), (0, 2, 1)))
    points = Points.random((1, 2), PRIMES[:2], 0)
    assert not gradients(graph, points, (1,)).any()
    assert gradients(graph, points, (1, 2)).any(axis=1).all()


def test_trials_count_the_largest_rank():
    trials = Trials(PRIMES[:2])
    rows = np.array([[[1, 0], [1, 0]], [[1, 0], [0, 1]]])
    assert [trials.add(row) for row in rows] == [True, True]
    assert [space.rank for space in trials.spaces] == [1, 2]


MOLIEN = [
    ({2: 2, 3: 2}, 3),
    ({3: 4}, 2),
    ({1: 1, 2: 2, 3: 1}, 2),
    ({3: 2, 4: 2}, 4),
    ({3: 6}, 3),
    ({1: 1, 2: 1}, 0),
    ({}, 1),
]


@pytest.mark.parametrize(("multidegree", "dimension"), MOLIEN, ids=str)
def test_published_molien_weyl_dimensions(multidegree, dimension):
    assert invariant_dimension(multidegree) == dimension


@pytest.mark.parametrize("order", range(2, 7))
def test_graphs_span_as_much_as_molien_and_weyl_say(order):
    """Every multidegree of up to rank 4: all loopless multigraphs, products included, against the integral."""
    for ranks in combinations_with_replacement((4, 3, 2, 1), order):
        dimension = invariant_dimension(Counter(ranks))
        graphs = multigraphs_of_degree_sequence(ranks) if sum(ranks) % 2 == 0 else ()
        points = Points.random(set(ranks), [PRIMES[0]] * (dimension + 2), 1)
        space = RowSpace(PRIMES[0])
        for graph in graphs:
            space.add(values(graph, points))
        assert space.rank == dimension, ranks


@given(st.integers(0, 6), st.integers(0, 2**32 - 1))
def test_determinant_is_that_of_sympy(size, seed):
    matrix = np.random.default_rng(seed).integers(-9, 10, (size, size))
    assert determinant(matrix, PRIMES[0]) == int(sympy.Matrix(matrix.tolist()).det()) % PRIMES[0]


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 6), st.integers(0, 2**32 - 1))
def test_row_space_has_the_rank_that_sympy_finds(rows, columns, inner, seed):
    random = np.random.default_rng(seed)
    matrix = random.integers(-3, 4, (rows, inner)) @ random.integers(-3, 4, (inner, columns))
    space = RowSpace(PRIMES[0])
    added = [space.add(row) for row in matrix]
    assert space.rank == sum(added) == sympy.Matrix(matrix.tolist()).rank()
    minor = matrix[[k for k, new in enumerate(added) if new]][:, space.pivots]
    assert determinant(minor, PRIMES[0]) == space.determinant != 0


@given(st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_combination_finds_the_coefficients(size, seed):
    random = np.random.default_rng(seed)
    rows, parts = random.integers(0, PRIMES[0], (size, size + 2)), random.integers(0, 3, size)
    assert combination(rows, parts @ rows, PRIMES[0]).tolist() == parts.tolist()


def test_combination_says_where_there_is_none():
    rows = np.array([[1, 0, 0], [0, 1, 0]])
    assert combination(rows, np.array([0, 0, 1]), PRIMES[0]) is None
    assert combination(np.array([[1, 2, 0], [2, 4, 0]]), np.array([1, 2, 0]), PRIMES[0]) is None


def test_primes_are_prime_and_small_enough_for_exact_sums():
    assert all(sympy.isprime(p) and p * p * 3**9 < 2**63 for p in PRIMES)


def test_cost_prefers_the_square_of_a_matrix_over_the_tetrahedron():
    chain, tetrahedron = sorted(connected_graphs((3,), 4), key=contraction_cost)
    assert 2 in {m for _, _, m in chain.edges}
    assert {m for _, _, m in tetrahedron.edges} == {1}
