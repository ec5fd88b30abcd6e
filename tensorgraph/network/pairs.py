"""What networks know of pairs of atoms, as scalar programs: directions as tensors, distances, radial functions.

Lengths are in Å. Irrational constants are the rationals that their float64 values are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction

from tensorgraph.algebra import components, projection
from tensorgraph.algebra.spinors import spinor_components
from tensorgraph.scalar import ArrayRef, Builder, Derivatives, Linear, ScalarProgram
from tensorgraph.scalar.derivatives import Argument, derived
from tensorgraph.scalar.ir import ZERO


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


def lower_spinor_components(max_rank: int) -> Derivatives[ScalarProgram]:
    """From a point of the 3-sphere to the real components of its powers of ranks 0 to ``max_rank``, and derivatives.

    The components are those of `tensorgraph.algebra.spinors`: of rank n from rank n - 1 by two products each, as for
    hyperspherical harmonics (Varshalovich, Moskalev, Khersonskii, Quantum Theory of Angular Momentum, 1988, 4.8).
    """
    builder = Builder()
    point = Argument.of(builder, ArrayRef("points", 4))
    w, x, y, z = point.elements
    matrix = (((w, -z), (-y, -x)), ((y, -x), (w, z)))  # of 1/2: u0 - i u·σ
    lower: dict[tuple[int, int], Complex] = {(0, 0): (builder.one, ZERO)}
    values = [builder.one]
    for n in range(1, max_rank + 1):
        here = {
            (a, b): _raised(builder, matrix, lower, n, a, b)
            for a, b, imaginary in spinor_components(n)
            if not imaginary
        }
        values += [here[a, b][imaginary] for a, b, imaginary in spinor_components(n)]
        partners = {(n - a, n - b): _partner(value, (-1) ** (a + b)) for (a, b), value in here.items()}
        lower = partners | here
    return derived(builder, [point], ArrayRef("components", len(values)), values)


Complex = tuple[Linear, Linear]
"""Real and imaginary part."""


def _raised(
    builder: Builder,
    matrix: Sequence[Sequence[Complex]],
    lower: Mapping[tuple[int, int], Complex],
    n: int,
    a: int,
    b: int,
) -> Complex:
    """A component of rank n: one of its factors has a fixed second index, and any first one that the others leave."""
    column, right = (0, b) if b < n else (1, b - 1)
    real: list[Linear] = []
    imaginary: list[Linear] = []
    for row, left in ((0, a), (1, a - 1)):
        if 0 <= left < n:
            (p, q), (r, s) = matrix[row][column], lower[left, right]
            real += [builder.product(p, r), -builder.product(q, s)]
            imaginary += [builder.product(p, s), builder.product(q, r)]
    return builder.sum(real), builder.sum(imaginary)


def _partner(value: Complex, sign: int) -> Complex:
    return value[0].scaled(sign), value[1].scaled(-sign)


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


def lower_hypersphere(cutoff: float, rfac0: float, rmin0: float) -> Derivatives[ScalarProgram]:
    """From displacements in Å to points of the 3-sphere, and SNAP's switching function.

    The point is (cos θ, sin θ x / r), θ = rfac0 π (r - rmin0) / (R_c - rmin0); the function, last of the five elements,
    is cos²(π/2 (r - rmin0) / (R_c - rmin0)) from rmin0 to the cutoff R_c, one below and zero beyond (Thompson, Swiler,
    Trott, Foiles and Tucker, J. Comput. Phys. 285, 316, 2015, and LAMMPS, compute sna/atom).
    """
    builder = Builder()
    displacement = Argument.of(builder, ArrayRef("displacements", 3))
    r, width = _distance(builder, displacement.elements), Fraction(cutoff) - Fraction(rmin0)
    along = builder.sum([r, builder.one.scaled(-Fraction(rmin0))]).scaled(1 / width)
    angle = along.scaled(Fraction(rfac0 * math.pi))
    short = builder.product(builder.apply("sin", angle), builder.apply("reciprocal", r))
    vector = [builder.product(x, short) for x in displacement.elements]
    cosine = builder.apply("cos", along.scaled(Fraction(math.pi / 2)))
    falling = builder.product(cosine, cosine)
    if rmin0:
        near = builder.sum([builder.one, -builder.apply("inside", along)])
        falling = builder.sum([falling, builder.product(near, builder.sum([builder.one, -falling]))])
    inside = builder.apply("inside", builder.sum([builder.one.scaled(Fraction(cutoff)), -r]))
    values = [builder.apply("cos", angle), *vector, builder.product(falling, inside)]
    return derived(builder, [displacement], ArrayRef("sphere", 5), values)


def _distance(builder: Builder, displacement: Sequence[Linear]) -> Linear:
    return builder.apply("sqrt", builder.sum(builder.product(x, x) for x in displacement))


def lower_distance() -> Derivatives[ScalarProgram]:
    """From displacements in Å to distances in Å."""
    builder = Builder()
    displacement = Argument.of(builder, ArrayRef("displacements", 3))
    return derived(builder, [displacement], ArrayRef("distance", 1), [_distance(builder, displacement.elements)])
