"""Exact values: traceless tensors, graph polynomials over the integers and prime fields, and ranks of sets of them."""

from tensorgraph.algebra.contraction import contract, contraction_cost
from tensorgraph.algebra.field import PRIMES, RowSpace, Trials, combination, determinant
from tensorgraph.algebra.jacobian import Points, gradients, values
from tensorgraph.algebra.molien import invariant_dimension
from tensorgraph.algebra.tensors import components, embedding, projection

__all__ = [
    "PRIMES",
    "Points",
    "RowSpace",
    "Trials",
    "combination",
    "components",
    "contract",
    "contraction_cost",
    "determinant",
    "embedding",
    "gradients",
    "invariant_dimension",
    "projection",
    "values",
]
