"""The orders in which a layer can be contracted, what each costs, and the choice among those that are emitted."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from enum import Enum
from functools import cached_property
from typing import Any

from tensorgraph.network.machine import MACHINES, Machine
from tensorgraph.network.rewriting import contracted_first
from tensorgraph.network.statements import Call, Child, Contract, Layer, Member, Statement
from tensorgraph.network.term import FACTORS, LayerTerm, Operand, Step, operations, trees
from tensorgraph.spec import NetworkSpec, Spec

DENSITY = 0.1
"""Atoms per Å³, for the expected number of neighbours: water and organic matter; most metals have 0.05 to 0.09."""

ATOMS = 1000
"""What costs are for; they grow in proportion, but for the weights."""

_NUMBER_BYTES = 4


class Order(Enum):
    """The orders that the emitted layers know."""

    WEIGHTS_FIRST = "weights first"
    NEIGHBOURS_FIRST = "neighbours first"

    def __str__(self) -> str:
        return self.value


_EMITTED = {"(T·(S·(V·z)))": Order.WEIGHTS_FIRST, "((T·(S·z))·V)": Order.NEIGHBOURS_FIRST}
_NEEDS_SPECIES = {Order.NEIGHBOURS_FIRST}
"""Of features that are not species no sum comes before the weights: it is never cheaper."""


@dataclass(frozen=True)
class OrderCost:
    """What one order costs: energies, and their gradient as forces need it, of all atoms of the term.

    Attributes:
        path: the contraction, in parentheses.
        order: its name where it is emitted.
        operations: multiplications and additions.
        bytes: moved to and from memory, for each machine by name.
        seconds: on each machine by name, each step at the slower of its two rates.
    """

    path: str
    order: Order | None
    operations: int
    bytes: dict[str, int]
    seconds: dict[str, float]


@dataclass(frozen=True)
class LayerPlan:
    """All orders of one layer, the fastest on the first machine first, and the chosen one."""

    term: LayerTerm
    costs: tuple[OrderCost, ...]

    @cached_property
    def chosen(self) -> OrderCost:
        """The fastest that is emitted."""
        return next(cost for cost in self.costs if cost.order is not None)

    def __str__(self) -> str:
        return "\n".join(f"{cost.path}  {cost.operations} operations" for cost in self.costs)

    def to_json(self) -> dict[str, Any]:
        """Sizes of the term, and every order with its cost."""
        costs = [asdict(cost) | {"order": cost.order and str(cost.order)} for cost in self.costs]
        return {"term": asdict(self.term), "chosen": self.chosen.path, "orders": costs}


def expected_neighbours(network: NetworkSpec) -> int:
    """Within the cutoff, at the density of water and organic matter."""
    return max(1, round(DENSITY * 4 / 3 * math.pi * network.sensitivity.cutoff**3))


def plan_layers(spec: Spec, neighbours: int | None = None) -> tuple[LayerPlan, ...]:
    """A plan for every interaction of a spec's network, none without a network; `neighbours` of an atom, if known."""
    if spec.network is None:
        return ()
    network = spec.network
    count = neighbours or expected_neighbours(network)
    components = (spec.basis.max_rank + 1) ** 2

    def term(features: int, species: bool) -> LayerTerm:
        functions = network.sensitivity.functions
        return LayerTerm(ATOMS, count, components, functions, network.features, features, species)

    later = term(network.features, species=False)
    return (plan(term(len(network.species), species=True)), *(plan(later) for _ in range(network.interactions - 1)))


def plan(term: LayerTerm, machines: tuple[Machine, ...] = MACHINES) -> LayerPlan:
    """Costs of all orders of a layer."""
    factors = tuple(Operand(frozenset(name)) for name in FACTORS)
    costs = [_cost(steps, term, machines) for steps in trees(factors)]
    first = machines[0].name
    # Sums of equal times in another order may differ in their last bits.
    costs.sort(key=lambda cost: (float(f"{cost.seconds[first]:.6g}"), cost.order is None, cost.path))
    return LayerPlan(term, tuple(costs))


def _cost(steps: tuple[Step, ...], term: LayerTerm, machines: tuple[Machine, ...]) -> OrderCost:
    path = _path(steps)
    order = _EMITTED.get(path)
    if order in _NEEDS_SPECIES and not term.species:
        order = None
    products = list(_products(steps, term))
    moved = {m.name: sum(product.bytes(term, m) for product in products) for m in machines}
    seconds = {m.name: sum(product.seconds(term, m) for product in products) for m in machines}
    return OrderCost(path, order, sum(product.operations(term) for product in products), moved, seconds)


@dataclass(frozen=True)
class _Product:
    """One product of operands, in the forward or in the backward direction: cotangents have the shapes of values."""

    left: Operand
    right: Operand
    result: Operand

    @property
    def _over_pairs(self) -> bool:
        return any(operand.per_pair for operand in (self.left, self.right, self.result))

    def operations(self, term: LayerTerm) -> int:
        return operations(self.left, self.right, self.result, term)

    def bytes(self, term: LayerTerm, machine: Machine) -> int:
        """Factors, and what is not kept in registers, are read or written once; knowing a pair's species is free."""
        if self._over_pairs and not self.operations(term):
            return 0
        stored = (
            operand
            for operand in (self.left, self.right, self.result)
            if len(operand.factors) == 1 or not (machine.fused and operand.per_pair)
        )
        return _NUMBER_BYTES * sum(operand.extent(term) for operand in stored)

    def seconds(self, term: LayerTerm, machine: Machine) -> float:
        """At the slower of the two rates."""
        rate = machine.pairs if self._over_pairs else machine.matrix
        return max(self.operations(term) / rate, self.bytes(term, machine) / machine.bandwidth)


def _products(steps: tuple[Step, ...], term: LayerTerm) -> Iterator[_Product]:
    """Forward, then backward; what pairs hold between two steps is not kept meanwhile but computed again."""
    made_by = {step.result: step for step in steps}
    for step in steps:
        yield _Product(step.left, step.right, step.result)
    for step in reversed(steps):
        for wanted, other in ((step.left, step.right), (step.right, step.left)):
            if not wanted.needs_gradient(term):
                continue
            if other.per_pair and other in made_by:
                again = made_by[other]
                yield _Product(again.left, again.right, other)
            yield _Product(step.result, other, wanted)


def _path(steps: tuple[Step, ...]) -> str:
    texts = {Operand(frozenset(name)): name for name in FACTORS}
    for step in steps:
        texts[step.result] = f"({texts[step.left]}·{texts[step.right]})"
    return texts[steps[-1].result]


def contracted_in_order(layer: Layer, orders: Mapping[str, Order]) -> Layer:
    """The layer with its sums over neighbours taken in these orders, by the names of the layers that hold them.

    What belongs to atoms alone, or to pairs alone, is a statement of its own then; sums over pairs stay in one.
    """
    members = tuple(_inside(member, orders) for member in layer.members)
    children = {member.path: member for member in members if isinstance(member, Child)}
    body: list[Statement] = []
    for statement in layer.body:
        if isinstance(statement, Call):
            body.append(replace(statement, child=children[statement.child.path]))
        elif isinstance(statement, Contract) and layer.name in orders and _is_density(statement):
            names, result = _FIRST[orders[layer.name]]
            body += contracted_first(statement, names, result)
        else:
            body.append(statement)
    return replace(layer, members=members, body=tuple(body))


_FIRST = {Order.WEIGHTS_FIRST: (("weights", "z"), "Q"), Order.NEIGHBOURS_FIRST: (("T", "z", "S"), "D")}
"""Which factors are contracted first, and the name of what that gives."""


def _is_density(statement: Contract) -> bool:
    return len(statement.terms) == 1 and len(statement.terms[0].factors) == len(FACTORS)


def _inside(member: Member, orders: Mapping[str, Order]) -> Member:
    if isinstance(member, Child):
        return replace(member, layer=contracted_in_order(member.layer, orders))
    return member
