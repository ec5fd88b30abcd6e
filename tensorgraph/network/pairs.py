"""What networks know of pairs of atoms, as scalar programs: directions as tensors, distances, radial functions.

Lengths are in Å. Irrational constants are the rationals that their float64 values are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from tensorgraph.algebra import components, projection
from tensorgraph.scalar import ArrayRef, Builder, Derivatives, Linear, ScalarProgram
from tensorgraph.scalar.derivatives import Argument, derived


def lower_tensor_components(max_rank: int, dimension: int = 3) -> Derivatives[ScalarProgram]:
    """From a unit vector to all components of ``[u…u]_0`` of ranks 0 to ``max_rank``, and its derivatives."""
    builder = Builder()
    vectors = Argument.of(builder, ArrayRef("unit_vectors", dimension))
    values = []
    for rank in range(max_rank + 1):
        for component in components(rank, dimension):
            terms = projection(component).items()
            values.append(builder.sum(_monomial(builder, vectors.elements, e).scaled(factor) for e, factor in terms))
    return derived(builder, [vectors], ArrayRef("components", len(values)), values)


def _monomial(builder: Builder, axes: Sequence[Linear], exponents: Sequence[int]) -> Linear:
    """``x^a y^b z^c`` by repeated multiplication, so that lower monomials are shared."""
    result = builder.one
    for axis, exponent in zip(axes, exponents, strict=True):
        for _ in range(exponent):
            result = builder.product(result, axis)
    return result


def lower_unit_vectors() -> Derivatives[ScalarProgram]:
    """From displacements in Å to directions, ``x / |x|``."""
    builder = Builder()
    displacement = Argument.of(builder, ArrayRef("displacements", 3))
    inverse = builder.apply("reciprocal", _distance(builder, displacement.elements))
    units = [builder.product(x, inverse) for x in displacement.elements]
    return derived(builder, [displacement], ArrayRef("unit_vectors", 3), units)


def lower_radial(cutoff: float) -> Derivatives[ScalarProgram]:
    """From displacements in Å to 1/r and the cutoff function cos²(π r / 2 R_c), zero beyond R_c."""
    builder = Builder()
    displacement = Argument.of(builder, ArrayRef("displacements", 3))
    r, limit = _distance(builder, displacement.elements), builder.one.scaled(Fraction(cutoff))
    cosine = builder.apply("cos", r.scaled(Fraction(math.pi / 2 / cutoff)))
    inside = builder.apply("inside", builder.sum([limit, -r]))
    value = builder.product(builder.product(cosine, cosine), inside)
    return derived(builder, [displacement], ArrayRef("radial", 2), [builder.apply("reciprocal", r), value])


def lower_pointwise(function: str) -> Derivatives[ScalarProgram]:
    """A function of one variable: ``silu``, or one by its name in the table of the scalar programs."""
    builder = Builder()
    argument = Argument.of(builder, ArrayRef("x", 1))
    (x,) = argument.elements
    value = builder.product(x, builder.apply("sigmoid", x)) if function == "silu" else builder.apply(function, x)
    return derived(builder, [argument], ArrayRef("y", 1), [value])


def _distance(builder: Builder, displacement: Sequence[Linear]) -> Linear:
    return builder.apply("sqrt", builder.sum(builder.product(x, x) for x in displacement))


def lower_distance() -> Derivatives[ScalarProgram]:
    """From displacements in Å to distances in Å."""
    builder = Builder()
    displacement = Argument.of(builder, ArrayRef("displacements", 3))
    return derived(builder, [displacement], ArrayRef("distance", 1), [_distance(builder, displacement.elements)])
