"""Naive symmetric traceless tensors in D dimensions and their spinor form in four, in exact arithmetic."""

from fractions import Fraction
from itertools import permutations, product
from math import comb

import numpy as np
import pytest

from tests.naive_tensors import (
    as_real,
    contract,
    from_real,
    moment,
    pairing,
    spinor_components,
    spinor_contract,
    traceless,
    transvectant,
    triangle,
)

POINTS = [[Fraction(i, 3) for i in row] for row in ([1, -2, 2, 3], [0, 1, -1, 2], [-3, 1, 1, 1], [2, 2, -1, 0])]
RANKS = range(5)
TRIANGLES = [r for r in product(RANKS, repeat=3) if sum(r) % 2 == 0 and max(r) <= sum(r) - max(r)]


def exact(rank: int, seed: int = 0, dimension: int = 4) -> np.ndarray:
    """A traceless tensor with rational components, no multiple of a power of one vector."""
    points = np.array(POINTS, dtype=object)[:, :dimension]
    return traceless(moment(rank, points, [Fraction(1 + (seed + i) % 3, 1 + i) for i in range(len(points))]))


@pytest.mark.parametrize("rank", range(2, 6))
@pytest.mark.parametrize("dimension", range(2, 5))
def test_traceless_tensors_are_symmetric_and_traceless_in_any_dimension(rank, dimension):
    tensor = exact(rank, dimension=dimension)
    for axis in range(1, rank):
        assert np.array_equal(tensor, np.swapaxes(tensor, 0, axis))
    assert not np.any(np.trace(tensor))
    assert np.any(tensor)
    assert np.array_equal(traceless(tensor), tensor)


@pytest.mark.parametrize("rank", range(9))
def test_powers_of_unit_vectors_contract_to_chebyshev_polynomials_in_four_dimensions(rank):
    """T(u) · T(v) = 2^(-n) sin((n + 1) ω) / sin ω, where u · v = cos ω: Gegenbauer's polynomial of D/2 - 1 = 1."""
    u, v = (vector / np.linalg.norm(vector) for vector in np.random.default_rng(rank).normal(size=(2, 4)))
    angle = np.arccos(u @ v)
    tensors = [traceless(moment(rank, [vector], [1.0])) for vector in (u, v)]
    expected = np.sin((rank + 1) * angle) / np.sin(angle) / 2**rank
    np.testing.assert_allclose(contract(tensors, {(0, 1): rank}), expected, atol=1e-14)


@pytest.mark.parametrize("rank", RANKS)
def test_spinor_components_of_a_vector_are_powers_of_its_matrix(rank):
    """T(x, y) = (xᵀ M y)^n, M = u0 - i u·σ, for a null spinor pair of Gaussian integers and any u: traces drop out."""
    u, x, y = np.array([2, -1, 3, 5], dtype=object), (2 + 1j, -1 + 2j), (1 - 1j, 3 + 1j)
    real, imag = spinor_components(traceless(moment(rank, [u], [1])))
    matrix = np.array([[u[0] - 1j * u[3], -1j * u[1] - u[2]], [-1j * u[1] + u[2], u[0] + 1j * u[3]]])
    total = sum(
        comb(rank, a) * comb(rank, b) * (complex(real[a, b], imag[a, b]))
        * x[0] ** (rank - a) * x[1] ** a * y[0] ** (rank - b) * y[1] ** b
        for a, b in product(range(rank + 1), repeat=2)
    )  # fmt: skip
    np.testing.assert_allclose(total, complex(np.array(x) @ matrix @ np.array(y)) ** rank, rtol=1e-13)


@pytest.mark.parametrize("rank", RANKS)
def test_spinor_components_of_real_tensors_come_in_conjugate_pairs(rank):
    real, imag = spinor_components(exact(rank))
    signs = np.array([[(-1) ** (a + b) for b in range(rank + 1)] for a in range(rank + 1)])
    assert np.array_equal(real[::-1, ::-1], signs * real)
    assert np.array_equal(imag[::-1, ::-1], -signs * imag)
    assert np.array_equal(from_real(as_real((real, imag))), (real, imag))


@pytest.mark.parametrize("rank", RANKS)
def test_real_numbers_of_spinor_components_are_independent(rank):
    """As many as a symmetric traceless tensor in four dimensions has: (rank + 1)²."""
    points = np.random.default_rng(rank).integers(-3, 4, size=(2 * (rank + 1) ** 2, 4)).astype(object)
    rows = [as_real(spinor_components(traceless(moment(rank, [u], [1])))).ravel() for u in points]
    assert np.linalg.matrix_rank(np.array(rows, dtype=float)) == (rank + 1) ** 2


@pytest.mark.parametrize("ranks", TRIANGLES)
def test_triangles_of_spinor_components_equal_cartesian_contractions(ranks):
    tensors = [exact(rank, seed) for seed, rank in enumerate(ranks)]
    expected = contract(tensors, triangle(*ranks))
    assert expected
    assert spinor_contract([spinor_components(tensor) for tensor in tensors], triangle(*ranks)) == (expected, 0)


@pytest.mark.parametrize(
    ("ranks", "edges"),
    [
        ((3, 3, 3, 3), {(0, 1): 1, (0, 2): 1, (0, 3): 1, (1, 2): 1, (1, 3): 1, (2, 3): 1}),
        ((2, 2, 2, 2), {(0, 1): 1, (1, 2): 1, (2, 3): 1, (0, 3): 1}),
        ((3, 3, 2, 2), {(0, 1): 2, (0, 2): 1, (2, 3): 1, (1, 3): 1}),
        ((4, 2, 2), {(0, 1): 2, (0, 2): 2}),
    ],
)
def test_any_graph_is_two_pairings_of_spinor_components(ranks, edges):
    tensors = [exact(rank, seed) for seed, rank in enumerate(ranks)]
    expected = contract(tensors, edges)
    assert spinor_contract([spinor_components(tensor) for tensor in tensors], edges) == (expected, 0)


@pytest.mark.parametrize("ranks", TRIANGLES)
def test_pairings_are_odd_or_even_under_exchange_of_components(ranks):
    """So the terms of a contraction come in conjugate pairs: one half of them, real parts doubled, is enough."""
    weights = pairing(ranks, triangle(*ranks))
    half = sum(ranks) // 2
    assert all(sum(degrees) == half for degrees in weights)
    exchanged = {tuple(n - a for n, a in zip(ranks, degrees, strict=True)): w for degrees, w in weights.items()}
    assert exchanged == {degrees: (-1) ** half * w for degrees, w in weights.items()}


@pytest.mark.parametrize(
    ("n1", "n2", "order"),
    [(n1, n2, k) for n1, n2 in product(RANKS, repeat=2) for k in range(min(n1, n2) + 1) if n1 + n2 - 2 * k <= 4],
)
def test_transvectants_are_the_symmetric_traceless_parts_of_partial_contractions(n1, n2, order):
    first, second = exact(n1), exact(n2, 1)
    shared = np.tensordot(first, second, axes=(range(order), range(order)))
    orders = list(permutations(range(shared.ndim)))
    symmetric = sum(np.transpose(shared, axes) for axes in orders) * Fraction(1, len(orders))
    expected = spinor_components(traceless(np.asarray(symmetric, dtype=object)))
    found = transvectant(order, spinor_components(first), spinor_components(second))
    assert all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize(
    ("ranks", "edges"),
    [
        ((2, 2), {(0, 1): 2}),
        ((3, 2, 1), triangle(3, 2, 1)),
        ((2, 2, 2), triangle(2, 2, 2)),
        ((4, 2, 2), {(0, 1): 2, (0, 2): 2}),
    ],
)
def test_contractions_of_moment_tensors_are_sums_of_powers_of_dot_products(ranks, edges):
    """In three dimensions, traces and all: the scalars of Shapeev, Multiscale Model. Simul. 14, 1153 (2016)."""
    points = np.array(POINTS, dtype=object)[:, :3]
    weights = [Fraction(1 + i, 3) for i in range(len(points))]
    gram = points @ points.T
    expected = sum(
        np.prod([weights[i] for i in chosen])
        * np.prod([gram[chosen[i], chosen[j]] ** k for (i, j), k in edges.items()])
        for chosen in product(range(len(points)), repeat=len(ranks))
    )
    assert contract([moment(rank, points, weights) for rank in ranks], edges) == expected
