"""The naive SNAP bispectrum: its couplings, its symmetry, and that it is contraction graphs in four dimensions."""

from fractions import Fraction
from math import comb

import numpy as np
import pytest
from sympy import Rational
from sympy.physics.wigner import clebsch_gordan as of_sympy

from tests.naive_snap import (
    bispectrum,
    clebsch_gordan,
    coupled,
    density,
    environment,
    hyperspherical,
    squared_clebsch_gordan,
    triples,
)
from tests.naive_tensors import (
    bispectrum_factor,
    contract,
    moment,
    spinor_components,
    spinor_contract,
    traceless,
    triangle,
)

FACTORS = {
    (0, 0, 0): 1, (1, 0, 1): 2, (1, 1, 2): 4, (2, 0, 2): 4, (2, 1, 3): 8, (2, 2, 2): 8, (2, 2, 4): 16, (3, 0, 3): 8,
    (3, 1, 4): 16, (3, 2, 3): Fraction(96, 5), (3, 3, 4): 48, (4, 0, 4): 16, (4, 2, 4): Fraction(128, 3),
    (4, 4, 4): Fraction(768, 7),
}  # fmt: skip
"""B divided by the triangle graph of these ranks, as found from values of LAMMPS."""


def random_environment(seed: int, neighbours: int = 7) -> dict[str, np.ndarray | float]:
    """Arguments of `environment`, in Å: two elements with cutoffs and weights of their own, one neighbour too far."""
    random = np.random.default_rng(seed)
    directions = random.normal(size=(neighbours, 3))
    distances = np.append(random.uniform(1.2, 4.0, neighbours - 1), 5.0)
    second = random.integers(0, 2, neighbours)
    return {
        "displacements": distances[:, None] * directions / np.linalg.norm(directions, axis=1)[:, None],
        "elements": np.array([1.0, 0.7])[second],
        "cutoff": np.array([4.7, 4.2])[second],
        "rmin0": 0.3,
    }


def rotation(random: np.random.Generator, dimension: int) -> np.ndarray:
    """A rotation of determinant one."""
    matrix, _ = np.linalg.qr(random.normal(size=(dimension, dimension)))
    matrix[0] *= np.linalg.det(matrix)
    return matrix


@pytest.mark.parametrize("n1", range(9))
@pytest.mark.parametrize("n2", range(9))
def test_clebsch_gordan_coefficients_are_orthogonal(n1, n2):
    tables = [clebsch_gordan(n1, n2, n) for n in range(abs(n1 - n2), n1 + n2 + 1, 2)]
    matrix = np.concatenate(tables, axis=2).reshape((n1 + 1) * (n2 + 1), -1)
    np.testing.assert_allclose(matrix.T @ matrix, np.eye(len(matrix)), atol=1e-13)


@pytest.mark.parametrize("triple", triples(4))
def test_clebsch_gordan_coefficients_are_those_of_sympy(triple):
    n1, n2, n = triple
    j1, j2, j = (Rational(i, 2) for i in triple)
    for a1, a2, a in np.ndindex(n1 + 1, n2 + 1, n + 1):
        expected = of_sympy(j1, j2, j, j1 - a1, j2 - a2, j - a)
        square = squared_clebsch_gordan(n1, a1, n2, a2, n, a)
        assert expected * abs(expected) == Rational(square.numerator, square.denominator)


def test_components_and_their_order():
    assert triples(2) == [(0, 0, 0), (1, 0, 1), (1, 1, 2), (2, 0, 2), (2, 2, 2)]
    assert triples(4) == list(FACTORS)
    # As many as LAMMPS documents: 5, 14, 30, 55, 91 for twojmax 2, 4, 6, 8, 10.
    assert [len(triples(twojmax)) for twojmax in (2, 4, 6, 8, 10)] == [5, 14, 30, 55, 91]


@pytest.mark.parametrize("n", range(6))
def test_hyperspherical_functions_are_a_representation_of_unit_quaternions(n):
    a, b = (vector / np.linalg.norm(vector) for vector in np.random.default_rng(n).normal(size=(2, 4)))
    both = np.append(a[0] * b[0] - a[1:] @ b[1:], a[0] * b[1:] + b[0] * a[1:] + np.cross(a[1:], b[1:]))
    matrix = hyperspherical(n, a)
    np.testing.assert_allclose(matrix.conj().T @ matrix, np.eye(n + 1), atol=1e-13)
    np.testing.assert_allclose(matrix @ hyperspherical(n, b), hyperspherical(n, both), atol=1e-13)


def test_an_atom_without_neighbours_has_the_multiplicities():
    points, weights = environment(np.zeros((0, 3)), cutoff=4.7)
    np.testing.assert_allclose(bispectrum(8, points, weights), [n + 1 for _, _, n in triples(8)], rtol=1e-13)


def test_power_spectrum_of_two_atoms_is_a_chebyshev_polynomial_of_their_distance():
    """B_{j,0,j} = (s + h) ((n + 1) (s² + h²) + 2 s h sin((n + 1) θ0) / sin θ0), s the centre's weight, h = w f_c(r)."""
    distance, cutoff, rmin0, weight, wself = 2.5, 4.0, 0.5, 0.7, 1.3
    angle = 0.9 * np.pi * 2 / 3.5
    h = weight * (np.cos(np.pi * 2 / 3.5) + 1) / 2
    displacement = distance * np.array([[2.0, -1.0, 2.0]]) / 3
    arguments = {"cutoff": cutoff, "rfac0": 0.9, "rmin0": rmin0, "wself": wself}
    values = dict(zip(triples(8), bispectrum(8, *environment(displacement, weight, **arguments)), strict=True))
    for n in range(9):
        overlap = np.sin((n + 1) * angle) / np.sin(angle)
        expected = (wself + h) * ((n + 1) * (wself**2 + h**2) + 2 * wself * h * overlap)
        assert values[n, 0, n] == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("seed", range(2))
def test_bispectrum_is_invariant_under_rotations_and_reflections(seed):
    arguments = random_environment(seed)
    random = np.random.default_rng(seed)
    expected = bispectrum(8, *environment(**arguments))
    turn = rotation(random, 3)
    for matrix in (turn, -turn):
        turned = {**arguments, "displacements": arguments["displacements"] @ matrix.T}
        np.testing.assert_allclose(bispectrum(8, *environment(**turned)), expected, rtol=1e-12)
    points, weights = environment(**arguments)
    np.testing.assert_allclose(bispectrum(8, points @ rotation(random, 4).T, weights), expected, rtol=1e-12)


def test_bispectrum_divided_by_multiplicity_is_symmetric():
    points, weights = environment(**random_environment(2))
    u = [density(n, points, weights) for n in range(5)]
    expected = np.vdot(u[4], coupled((3, 1, 4), u[3], u[1])) / 5
    np.testing.assert_allclose(np.vdot(u[3], coupled((4, 1, 3), u[4], u[1])) / 4, expected, rtol=1e-12)
    np.testing.assert_allclose(np.vdot(u[1], coupled((3, 4, 1), u[3], u[4])) / 2, expected, rtol=1e-12)


def test_factors_of_triangle_graphs():
    assert [bispectrum_factor(*triple) for triple in FACTORS] == list(FACTORS.values())


@pytest.mark.parametrize("seed", range(3))
def test_bispectrum_is_the_triangle_graphs_of_traceless_tensors_in_four_dimensions(seed):
    points, weights = environment(**random_environment(seed))
    tensors = [traceless(moment(rank, points, weights)) for rank in range(9)]
    graphs = [contract([tensors[n] for n in triple], triangle(*triple)) for triple in triples(8)]
    factors = [float(bispectrum_factor(*triple)) for triple in triples(8)]
    np.testing.assert_allclose(bispectrum(8, points, weights), np.multiply(factors, graphs), rtol=1e-12)


def test_bispectrum_is_two_pairings_of_spinor_components():
    points, weights = environment(**random_environment(3))
    components = [spinor_components(traceless(moment(rank, points, weights))) for rank in range(9)]
    for triple, expected in zip(triples(8), bispectrum(8, points, weights), strict=True):
        real, imag = spinor_contract([components[n] for n in triple], triangle(*triple))
        factor = float(bispectrum_factor(*triple))
        assert factor * real == pytest.approx(expected, rel=1e-11)
        assert factor * imag == pytest.approx(0, abs=1e-11 * abs(expected))


@pytest.mark.parametrize("n", range(6))
def test_spinor_components_are_the_hyperspherical_functions_without_roots(n):
    points, weights = environment(**random_environment(n))
    real, imag = spinor_components(traceless(moment(n, points, weights)))
    roots = np.sqrt([comb(n, a) for a in range(n + 1)])
    expected = density(n, points, weights)
    np.testing.assert_allclose(np.outer(roots, roots) * (real + 1j * imag), expected, atol=1e-12)
