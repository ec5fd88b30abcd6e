"""Exact values: traceless tensors, graph polynomials over the integers and prime fields, and ranks of sets of them."""

from tensorgraph.algebra.contraction import contract, contraction_cost
from tensorgraph.algebra.field import PRIMES, RowSpace, Trials, combination, determinant
from tensorgraph.algebra.jacobian import Points, gradients, values
from tensorgraph.algebra.layout import Layout
from tensorgraph.algebra.molien import invariant_dimension
from tensorgraph.algebra.orbits import orbit_dimension
from tensorgraph.algebra.tensors import component_count, components, embedding, projection, traceless

__all__ = [
    "PRIMES",
    "Layout",
    "Points",
    "RowSpace",
    "Trials",
    "combination",
    "component_count",
    "components",
    "contract",
    "contraction_cost",
    "determinant",
    "embedding",
    "gradients",
    "invariant_dimension",
    "orbit_dimension",
    "projection",
    "traceless",
    "values",
]
