"""Colours, four dimensions, outputs with rank, pseudo-scalars: against published counts and exact algebra."""

import json
from collections import Counter
from fractions import Fraction
from itertools import combinations_with_replacement, permutations, product

import numpy as np
import pytest

from tensorgraph.algebra import (
    PRIMES,
    Layout,
    Points,
    RowSpace,
    component_count,
    components,
    contract,
    embedding,
    invariant_dimension,
    orbit_dimension,
    projection,
    traceless,
    values,
)
from tensorgraph.algebra.polynomials import polynomial
from tensorgraph.algebra.tensors import levi_civita
from tensorgraph.basis import Degree, derive
from tensorgraph.basis.verification import verify_basis
from tensorgraph.contractions import contraction_program, run
from tensorgraph.graphs import (
    Kind,
    Multigraph,
    canonical,
    connected_count,
    connected_graphs,
    multigraphs_of_degree_sequence,
)
from tensorgraph.scalar import evaluate, lower_invariants, lower_tensor_components

EPSILON = Kind(3, role="epsilon")
LEVEL = (2, 4, 1)  # of moment tensor potentials: 2 + 4 μ + ν for each factor
SIZES = {2: 1, 4: 2, 6: 5, 8: 9, 10: 16, 12: 29, 14: 52, 16: 92, 18: 163, 20: 288, 22: 500}
TWO_COLOURS = [Kind(rank, colour) for colour in (0, 1) for rank in (1, 2, 3)]


def span(kinds, points):
    """The dimension that all graphs of these vertices have together, at the points."""
    space = RowSpace(int(points.primes[0]))
    for graph in multigraphs_of_degree_sequence(kinds):
        space.add(values(graph, points))
    return space.rank


def at_random(kinds, count, dimension=3):
    return Points.random(kinds, PRIMES[:1] * count, 7, dimension)


@pytest.mark.parametrize("limit", SIZES)
def test_moment_tensor_potentials_have_their_published_sizes(limit):
    """Levels 2, 4, … 22 of Shapeev's basis (Novikov, Gubaev, Podryabinkin, Shapeev, 2021, have the same numbers)."""
    max_rank, colours = max(0, (limit - 4) // 2), max(1, (limit - 2) // 4 + 1)
    degree = Degree(limit, *LEVEL)
    kinds = Layout.full(max_rank, colours).kinds
    multidegrees = (m for order in range(1, 5) for m in combinations_with_replacement(kinds, order) if degree.allows(m))
    assert sum(len(multigraphs_of_degree_sequence(kinds)) for kinds in multidegrees) == SIZES[limit]


def test_a_basis_of_a_level_is_that_set():
    basis = derive("products", 5, 6, colours=4, degree=Degree(16, *LEVEL))
    assert len(basis) == SIZES[16]
    assert all(basis.rule.degree.of(graph.kinds) <= 16 for graph in basis.graphs)
    assert len({invariant.name for invariant in basis.invariants}) == len(basis)


@pytest.mark.parametrize(("order", "count"), [(1, 2), (2, 9), (3, 26)])
def test_two_colours_span_what_linear_ace_has(order, count):
    kinds = Layout.full(2, 2).kinds
    points = at_random([kind for kind in kinds if kind.rank], 12)
    multidegrees = list(combinations_with_replacement(kinds, order))
    assert sum(span(chosen, points) for chosen in multidegrees) == count
    assert sum(invariant_dimension(Counter(chosen)) for chosen in multidegrees) == count
    assert len(derive("linear", order + 1, 2, colours=2)) == sum((2, 9, 26)[:order])


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_graphs_with_a_probe_span_the_covariants_of_molien_and_weyl(rank):
    probe = Kind(rank, role="probe")
    points = at_random((1, 2, 3, probe), 12)
    for order in (1, 2, 3):
        for kinds in combinations_with_replacement((1, 2, 3), order):
            given = (*map(Kind, kinds), probe)
            assert span(given, points) == invariant_dimension(Counter(given)), kinds


@pytest.mark.parametrize(("order", "count"), [(2, 0), (3, 6), (4, 64)])
def test_graphs_with_one_antisymmetric_tensor_span_the_pseudo_scalars(order, count):
    points = at_random(TWO_COLOURS, 20)
    multidegrees = list(combinations_with_replacement(TWO_COLOURS, order))
    assert sum(span((*kinds, EPSILON), points) for kinds in multidegrees) == count
    assert sum(invariant_dimension(Counter(kinds), pseudo=True) for kinds in multidegrees) == count


@pytest.mark.parametrize("order", [2, 3, 4])
def test_in_four_dimensions_graphs_span_what_molien_and_weyl_count(order):
    points = at_random((1, 2, 3), 16, dimension=4)
    for kinds in combinations_with_replacement((1, 2, 3), order):
        assert span(kinds, points) == invariant_dimension(Counter(kinds), 4), kinds


def test_every_colour_pattern_is_instantiated_whole():
    """Against all labelled ways to join legs: kinds with colours, products included."""
    kinds = (Kind(2, 5), Kind(2, 5), Kind(2, 3), Kind(1, 3), Kind(1, 7))
    found = set()
    pairs = [(u, v) for v in range(5) for u in range(v)]
    for multiplicities in product(range(3), repeat=len(pairs)):
        edges = tuple(sorted((u, v, m) for (u, v), m in zip(pairs, multiplicities, strict=True) if m))
        if all(sum(m for u, v, m in edges if k in (u, v)) == kind.rank for k, kind in enumerate(kinds)):
            found.add(canonical(Multigraph(kinds, edges)))
    assert set(multigraphs_of_degree_sequence(kinds)) == found


@pytest.mark.parametrize("order", [2, 3, 4])
def test_the_count_knows_colours(order):
    support = (Kind(1), Kind(2), Kind(2, 1))
    assert connected_count(support, order) == len(connected_graphs(support, order))


@pytest.mark.parametrize("dimension", [3, 4])
@pytest.mark.parametrize("rank", range(5))
def test_tensors_of_a_unit_vector_are_traceless_in_every_dimension(rank, dimension):
    unit = (
        [Fraction(2, 7), Fraction(-3, 7), Fraction(6, 7)]
        if dimension == 3
        else [Fraction(k, 10) for k in (1, 7, 5, -5)]
    )
    assert sum(x * x for x in unit) == 1

    def component(exponents):
        terms = projection(exponents).items()
        return sum(f * np.prod([x**k for x, k in zip(unit, powers, strict=True)]) for powers, f in terms)

    elements = np.array([component(exponents) for exponents in components(rank, dimension)], dtype=object)
    full = np.asarray(embedding(rank, dimension).astype(object) @ elements, dtype=object)
    assert len(elements) == component_count(rank, dimension) == (2 * rank + 1 if dimension == 3 else (rank + 1) ** 2)
    for indices in product(range(dimension), repeat=rank):
        assert full[indices] == component(tuple(indices.count(axis) for axis in range(dimension)))
    if rank >= 2:
        assert not np.any(np.trace(full))


def rotation_of_four() -> np.ndarray:
    """A rational element of O(4): left and right multiplication by unit quaternions, and a reflection."""

    def left(a, b, c, d):
        return np.array([[a, -b, -c, -d], [b, a, -d, c], [c, d, a, -b], [d, -c, b, a]], dtype=object)

    one, two = left(1, 2, 2, 4) / Fraction(5), left(2, -1, 4, 2).T / Fraction(5)
    return one @ two @ np.diag([Fraction(-1), Fraction(1), Fraction(1), Fraction(1)])


def rotated(tensor: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    for axis in range(tensor.ndim):
        tensor = np.moveaxis(np.tensordot(rotation, tensor, axes=(1, axis)), 0, axis)
    return tensor


@pytest.mark.parametrize("kinds", [(1, 1), (2, 2), (2, 1, 1), (2, 2, 2), (3, 2, 1), (3, 3, 2), (3, 2, 2, 1)], ids=str)
def test_invariance_is_exact_under_rational_rotations_of_four_dimensions(kinds):
    rotation, random = rotation_of_four(), np.random.default_rng(3)
    assert (rotation @ rotation.T == np.eye(4, dtype=int)).all()
    tensors, moved = {}, {}
    for kind in map(Kind, set(kinds)):
        elements = random.integers(-9, 10, component_count(kind.rank, 4)).astype(object)
        tensors[kind] = embedding(kind.rank, 4).astype(object) @ elements
        moved[kind] = rotated(tensors[kind], rotation)
    for graph in multigraphs_of_degree_sequence(kinds):
        assert contract(graph, tensors) == contract(graph, moved) != 0


def test_pseudo_scalars_change_their_sign_under_reflection_alone():
    graph = next(g for g in multigraphs_of_degree_sequence((Kind(1), Kind(1, 1), Kind(1, 2), EPSILON)))
    vectors = {Kind(1, c): np.array(x, dtype=object) for c, x in enumerate([(1, 2, 3), (0, 1, 4), (2, 2, -1)])}
    volume = contract(graph, {**vectors, EPSILON: levi_civita().astype(object)})
    assert abs(volume) == abs(round(np.linalg.det(np.array([v.astype(float) for v in vectors.values()]))))
    mirrored = {kind: -vector for kind, vector in vectors.items()}
    assert contract(graph, {**mirrored, EPSILON: levi_civita().astype(object)}) == -volume != 0


@pytest.mark.parametrize(
    ("ranks", "dimension", "orbit"), [((1,), 3, 2), ((2,), 3, 3), ((1,), 4, 3), ((1, 1), 4, 5), ((2,), 4, 6)]
)
def test_orbits_have_the_dimension_of_what_moves_them(ranks, dimension, orbit):
    assert orbit_dimension(ranks, dimension) == orbit


BASES = [
    ("linear", 4, 2, {"colours": 2}),
    ("linear", 4, 2, {"dimension": 4}),
    ("linear", 4, 2, {"outputs": (None, Kind(1, role="probe"), Kind(2, role="probe"))}),
    ("linear", 4, 2, {"colours": 2, "outputs": (None, EPSILON)}),
    ("linear", 5, 3, {"colours": 2, "degree": Degree(14, 2, 4, 1)}),
    ("products", 5, 3, {"colours": 2, "degree": Degree(12, 2, 4, 1)}),
    ("flexible", 4, 2, {"colours": 2}),
    ("flexible", 4, 2, {"dimension": 4}),
    ("connected", 4, 2, {"dimension": 4}),
    ("hiphop", 4, 2, {"colours": 2}),
]


@pytest.fixture(params=BASES, ids=lambda case: f"{case[0]}-{'-'.join(case[3])}")
def basis(request):
    family, body_order, max_rank, options = request.param
    return derive(family, body_order, max_rank, **options)


def test_certificates_are_accepted_from_the_manifest_alone(basis):
    read = json.loads(json.dumps(basis.to_json()))
    assert [problem for check in verify_basis(read) for problem in check.problems] == []


def test_a_graph_less_is_seen(basis):
    read = json.loads(json.dumps(basis.to_json()))
    name = read["invariants"].pop()["name"]
    for row in read["certificate"]["strata"]:
        row["minor"]["rows"] = [other for other in row["minor"]["rows"] if other != name]
    read["dropped"] = [entry for entry in read["dropped"] if name not in entry["on"]]
    assert any(problem for check in verify_basis(read) for problem in check.problems)


def features_of(layout: Layout, seed: int = 0) -> list[Fraction]:
    random = np.random.default_rng(seed)
    return [
        Fraction(int(n), int(d))
        for n, d in zip(random.integers(-9, 10, layout.size), random.integers(1, 6, layout.size), strict=True)
    ]


def closed_naively(graph: Multigraph, tensors, dimension: int) -> list[Fraction]:
    """An output from its definition: the gradient by the probe, projected; or the contraction with everything."""
    if graph.closing is None or graph.kinds[graph.closing].role == "epsilon":
        return [contract(graph, tensors)]
    rank = graph.kinds[graph.closing].rank
    open_value = np.asarray(contract(graph.opened, tensors), dtype=object)
    symmetric = sum(np.transpose(open_value, order) for order in permutations(range(rank))) * Fraction(
        1, len(list(permutations(range(rank))))
    )
    paired = np.tensordot(embedding(rank, dimension).astype(object), symmetric, axes=(range(rank), range(rank)))
    return list(np.array(traceless(rank, dimension), dtype=object) @ paired)


def test_programs_give_the_outputs_exactly(basis):
    """The interpreter of contractions and the scalar programs, over the rationals, against each graph alone."""
    layout, features = basis.layout, features_of(basis.layout)
    tensors = {
        kind: np.asarray(
            embedding(kind.rank, layout.dimension).astype(object) @ np.array(features[place], dtype=object)
        )
        for kind, place in layout.places.items()
    }
    tensors[Kind(layout.dimension, role="epsilon")] = levi_civita(layout.dimension).astype(object)
    expected = [closed_naively(graph, tensors, layout.dimension) for graph in basis.graphs]
    program = contraction_program(basis.graphs, layout)
    interpreted = [np.asarray(value, dtype=object).ravel().tolist() for value in run(program, tensors)]
    assert interpreted == expected
    flat = [element for elements in expected for element in elements]
    assert evaluate(lower_invariants(program).forward, {"features": features})["invariants"] == flat


def test_gradients_of_programs_are_exact(basis):
    """Along a direction: an output of degree d in t is a polynomial, whose derivative at 0 differences give exactly."""
    programs = lower_invariants(contraction_program(basis.graphs, basis.layout))
    features, direction = features_of(basis.layout), features_of(basis.layout, 1)
    count = programs.forward.outputs[0][0].size
    weights = [Fraction(k % 5 - 2) for k in range(count)]

    def along(t):
        moved = [x + t * d for x, d in zip(features, direction, strict=True)]
        found = evaluate(programs.forward, {"features": moved})["invariants"]
        return sum(w * v for w, v in zip(weights, found, strict=True))

    slope = (8 * (along(1) - along(-1)) - (along(2) - along(-2))) / 12
    gradient = evaluate(programs.backward, {"features": features, "grad_invariants": weights})["grad_features"]
    assert sum(g * d for g, d in zip(gradient, direction, strict=True)) == slope


def test_the_tensors_of_a_direction_are_printed_in_four_dimensions():
    unit = [Fraction(k, 10) for k in (1, 7, 5, -5)]
    found = evaluate(lower_tensor_components(2, 4).forward, {"unit_vectors": unit})["components"]
    expected = [
        sum(
            f * np.prod([x**k for x, k in zip(unit, powers, strict=True)])
            for powers, f in projection(exponents).items()
        )
        for rank in range(3)
        for exponents in components(rank, 4)
    ]
    assert found == expected


def test_a_graph_with_colours_is_written_with_them():
    graph = Multigraph((Kind(2), Kind(1, 1), Kind(1, role="probe")), ((0, 1, 1), (0, 2, 1)))
    assert graph.formula == "q_ab v1_a V_b"
    assert graph.composition == "v1qV"
    assert graph.opened == Multigraph((Kind(2), Kind(1, 1)), ((0, 1, 1),))
    assert eval(repr(graph), {"Multigraph": Multigraph, "Kind": Kind}) == graph
    assert str(polynomial(Multigraph((Kind(1), Kind(1, 1)), ((0, 1, 1),)))) == "v_x*v1_x + v_y*v1_y + v_z*v1_z"


@pytest.mark.parametrize("kinds", [(Kind(1, role="probe"), Kind(1, role="probe"))])
def test_two_probes_are_refused(kinds):
    with pytest.raises(ValueError, match="2 vertices that are no tensors"):
        _ = Multigraph(kinds, ((0, 1, 1),)).closing
