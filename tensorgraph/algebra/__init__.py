"""Exact values: traceless tensors, graph polynomials over the integers and prime fields, and ranks of sets of them."""

from tensorgraph.algebra.contraction import contract, contraction_cost
from tensorgraph.algebra.field import PRIMES, RowSpace, random_point
from tensorgraph.algebra.jacobian import gradient
from tensorgraph.algebra.tensors import components, embedding, projection

__all__ = [
    "PRIMES",
    "RowSpace",
    "components",
    "contract",
    "contraction_cost",
    "embedding",
    "gradient",
    "projection",
    "random_point",
]
