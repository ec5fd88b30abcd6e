"""In which order an interaction layer is contracted: every order, its cost, and the cheapest that is emitted."""

from tensorgraph.layer.machine import MACHINES, Machine
from tensorgraph.layer.orders import LayerPlan, Order, OrderCost, expected_neighbours, plan_layers
from tensorgraph.layer.term import LayerTerm, Operand, Step

__all__ = [
    "MACHINES",
    "LayerPlan",
    "LayerTerm",
    "Machine",
    "Operand",
    "Order",
    "OrderCost",
    "Step",
    "expected_neighbours",
    "plan_layers",
]
