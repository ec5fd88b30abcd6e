"""The layer as a contraction: every order gives the same numbers, costs follow formulas, the choice follows costs."""

import math
from dataclasses import replace

import numpy as np
import pytest

from tensorgraph.network.orders import MACHINES, LayerTerm, Operand, Order, Step, expected_neighbours, plan, plan_layers
from tensorgraph.network.term import FACTORS, operations, trees
from tensorgraph.spec import load_spec, parse_spec

DENSE = LayerTerm(atoms=5, neighbours=3, components=4, functions=2, channels=6, features=7, species=False)
SPECIES = replace(DENSE, species=True)
ORDERS = list(trees(tuple(Operand(frozenset(name)) for name in FACTORS)))


def factors(term: LayerTerm, random: np.random.Generator) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Numbers for every factor, each with an axis of rows in front, and the atoms of the pairs."""
    pairs, atoms = term.pairs, term.atoms
    features = random.normal(size=(atoms, term.features))
    if term.species:
        features = np.eye(term.features)[random.integers(term.features, size=atoms)]
    values = {
        "T": random.normal(size=(pairs, term.components)),
        "S": random.normal(size=(pairs, term.functions)),
        "V": random.normal(size=(1, term.functions, term.channels, term.features)),
        "z": features,
    }
    return values, random.integers(atoms, size=pairs), random.integers(atoms, size=pairs)


def product(step: Step, left: np.ndarray, right: np.ndarray, target: np.ndarray, source: np.ndarray, atoms: int):
    """A step as its definition says: a gather to pairs where needed, one product, and the sum over pairs."""
    over_pairs = step.left.per_pair or step.right.per_pair
    if over_pairs:
        left, right = (
            value if operand.per_pair else value[source if "z" in operand.factors else np.zeros_like(source)]
            for operand, value in ((step.left, left), (step.right, right))
        )
    # Rows are one or as many as there are: broadcast.
    rows = max(len(left), len(right))
    left, right = (np.broadcast_to(value, (rows, *value.shape[1:])) for value in (left, right))
    value = np.einsum(f"p{step.left.indices},p{step.right.indices}->p{step.result.indices}", left, right)
    if over_pairs and not step.result.per_pair:
        summed = np.zeros((atoms, *value.shape[1:]))
        np.add.at(summed, target, value)
        return summed
    return value


def test_there_are_fifteen_orders():
    assert len(ORDERS) == len(set(ORDERS)) == 15


@pytest.mark.parametrize("term", [DENSE, SPECIES], ids=["dense", "species"])
@pytest.mark.parametrize("steps", ORDERS, ids=range(15))
def test_every_order_gives_the_same_numbers(steps, term):
    values, target, source = factors(term, np.random.default_rng(0))
    expected = np.zeros((term.atoms, term.components, term.channels))
    for p, (i, j) in enumerate(zip(target, source, strict=True)):
        expected[i] += np.einsum("m,n,nab,b->ma", values["T"][p], values["S"][p], values["V"][0], values["z"][j])
    results = {Operand(frozenset(name)): value for name, value in values.items()}
    for step in steps:
        results[step.result] = product(step, results[step.left], results[step.right], target, source, term.atoms)
        if not term.species:
            assert results[step.result].size == step.result.extent(term)
    np.testing.assert_allclose(results[steps[-1].result], expected, rtol=1e-12, atol=1e-12)


def cost_of(term: LayerTerm, order: Order):
    (found,) = [cost for cost in plan(term).costs if cost.order is order]
    return found


def test_operations_of_the_weights_first():
    """Forward: weights, messages, sums; backward: as much for each operand with a derivative, and messages again."""
    t = DENSE
    weights = 2 * t.atoms * t.functions * t.channels * t.features
    messages, sums = 2 * t.pairs * t.functions * t.channels, 2 * t.pairs * t.components * t.channels
    # Cotangents of messages and of T from the sums; of S and of the weighted features from messages; of the features.
    assert cost_of(t, Order.WEIGHTS_FIRST).operations == weights + messages + sums + (messages + 2 * sums) + (
        2 * messages + weights
    )


def test_operations_of_the_neighbours_first():
    t = SPECIES
    moments = 2 * t.pairs * t.components * t.functions
    weights = 2 * t.atoms * t.components * t.functions * t.channels * t.features
    assert cost_of(t, Order.NEIGHBOURS_FIRST).operations == (moments + weights) + (2 * moments + weights)


def test_species_are_chosen_not_multiplied():
    table = Step(Operand(frozenset("V")), Operand(frozenset("z")))
    assert operations(table.left, table.right, table.result, SPECIES) == 0
    assert operations(table.left, table.right, table.result, DENSE) == 2 * 5 * 2 * 6 * 7


def test_costs_grow_in_proportion_to_pairs():
    """But for what is per atom."""
    few, many = (cost_of(replace(DENSE, neighbours=n), Order.WEIGHTS_FIRST).operations for n in (1000, 2000))
    assert many / few == pytest.approx(2, rel=0.03)


def test_neighbours_come_first_where_few_species_meet_many_channels():
    spec = load_spec("specs/hiphop5.yaml")
    first, second = plan_layers(spec)
    assert (first.chosen.order, second.chosen.order) == (Order.NEIGHBOURS_FIRST, Order.WEIGHTS_FIRST)
    assert first.chosen is first.costs[0]
    assert second.chosen is second.costs[0]
    weights_first = cost_of(first.term, Order.WEIGHTS_FIRST)
    for machine in MACHINES:
        assert weights_first.seconds[machine.name] > 3 * first.chosen.seconds[machine.name]


def test_weights_come_first_where_many_species_meet_few_channels():
    many = replace(SPECIES, atoms=1000, neighbours=10, components=16, functions=20, channels=4, features=80)
    assert plan(many).chosen.order is Order.WEIGHTS_FIRST
    assert plan(replace(many, channels=128, features=2)).chosen.order is Order.NEIGHBOURS_FIRST


def test_features_that_are_no_species_have_their_weights_first():
    for components in (4, 9, 16, 25):
        chosen = plan(replace(DENSE, atoms=1000, neighbours=50, components=components, functions=20)).chosen
        assert chosen.order is Order.WEIGHTS_FIRST


def test_expected_neighbours_are_those_of_water():
    network = load_spec("specs/hiphop5.yaml").network
    assert expected_neighbours(network) == round(0.1 * 4 / 3 * math.pi * 6.5**3) == 115


def test_a_spec_without_network_has_no_layers():
    assert plan_layers(parse_spec("name: a\nbasis: {family: hiphop, body_order: 3, max_rank: 1}\n", "a.yaml")) == ()
