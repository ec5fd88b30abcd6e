"""Reverse-mode differentiation inside the IR: the vector-Jacobian product of a program is a program of the same kind.

Because values are hash-consed, the adjoint shares every subexpression with the program that it came from, and
differentiating again needs nothing new (Griewank and Walther, Evaluating Derivatives, 2008, ch. 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from tensorgraph.scalar.functions import FUNCTIONS
from tensorgraph.scalar.ir import ZERO, Applied, Builder, Input, Linear, One, Product, Sum


def vector_jacobian_product(
    builder: Builder, outputs: Sequence[Linear], cotangents: Sequence[Linear], inputs: Sequence[Linear]
) -> tuple[Linear, ...]:
    """The gradient of ``Σ cotangents · outputs`` with respect to input elements, as values of the same builder.

    Args:
        builder: where the outputs were built.
        outputs: references that are differentiated.
        cotangents: one reference for each output, constant under the differentiation.
        inputs: references to the elements, coefficient one, with respect to which it is taken.
    """
    pending: dict[int, list[Linear]] = {}
    for output, cotangent in zip(outputs, cotangents, strict=True):
        if output.coefficient:
            pending.setdefault(output.value, []).append(cotangent.scaled(output.coefficient))
    adjoints: dict[int, Linear] = {}
    # Values are numbered in the order of computation, so descending numbers meet every use before the value itself.
    for value in range(max(pending, default=-1), -1, -1):
        if value in pending:
            adjoints[value] = builder.sum(pending.pop(value))
            for operand, contribution in _contributions(builder, value, adjoints[value]):
                pending.setdefault(operand, []).append(contribution)
    return tuple(adjoints.get(element.value, ZERO) for element in inputs)


def _contributions(builder: Builder, value: int, adjoint: Linear) -> list[tuple[int, Linear]]:
    """What a value passes on to its operands."""
    match builder.nodes[value]:
        case Product(left, right):
            return [
                (left, builder.product(adjoint, Linear(Fraction(1), right))),
                (right, builder.product(adjoint, Linear(Fraction(1), left))),
            ]
        case Sum(terms):
            return [(operand, adjoint.scaled(coefficient)) for coefficient, operand in terms]
        case Applied(function, argument):
            slope = _slope(builder, function, argument, value)
            return [(argument, builder.product(adjoint, slope))] if slope.coefficient else []
        case One() | Input():
            return []


def _slope(builder: Builder, function: str, argument: int, value: int) -> Linear:
    """The derivative of a function, from its table: a sum of products of functions of the argument and the value."""
    known = {"argument": Linear(Fraction(1), argument), "value": Linear(Fraction(1), value)}
    terms = []
    for coefficient, factors in FUNCTIONS[function].slope:
        product = builder.one
        for factor in factors:
            *applied, of = factor.split()
            product = builder.product(product, builder.apply(applied[0], known[of]) if applied else known[of])
        terms.append(product.scaled(coefficient))
    return builder.sum(terms)
