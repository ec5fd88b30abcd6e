"""What networks know of pairs of atoms, as scalar programs: directions as tensors, distances, radial functions.

Lengths are in Å. Irrational constants are the rationals that their float64 values are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from tensorgraph.algebra import components, projection
from tensorgraph.scalar import ArrayRef, Axes, Builder, Derivatives, Linear, ScalarProgram
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


def lower_sensitivities() -> Derivatives[ScalarProgram]:
    """``exp(−½ σ² (u − κ)²) · c`` for rows of pairs and columns of functions, and its derivatives.

    ``radial`` holds u, the inverse distance, and c, the cutoff function; ``parameters`` κ, where u is most sensitive,
    and σ (Lubbers, Smith and Barros, J. Chem. Phys. 148, 241715, 2018, eq. 5, with κ = 1/μ).
    """
    builder = Builder()
    radial = Argument.of(builder, ArrayRef("radial", 2, Axes.ROWS))
    parameters = Argument.of(builder, ArrayRef("parameters", 2, Axes.COLUMNS))
    value = _inverse_gaussian(builder, radial.elements, parameters.elements)
    return derived(builder, [radial, parameters], ArrayRef("sensitivities", 1), [value])


def lower_inverse_gaussians() -> Derivatives[ScalarProgram]:
    """The same as `lower_sensitivities` with μ and σ apart, as they are trained."""
    builder = Builder()
    radial = Argument.of(builder, ArrayRef("radial", 2, Axes.ROWS))
    mu, sigma = (Argument.of(builder, ArrayRef(name, 1, Axes.COLUMNS)) for name in ("mu", "sigma"))
    center = builder.apply("reciprocal", mu.elements[0])
    value = _inverse_gaussian(builder, radial.elements, (center, sigma.elements[0]))
    return derived(builder, [radial, mu, sigma], ArrayRef("sensitivities", 1), [value])


def _inverse_gaussian(builder: Builder, radial: Sequence[Linear], parameters: Sequence[Linear]) -> Linear:
    (inverse_distance, cutoff), (center, sigma) = radial, parameters
    scaled = builder.product(sigma, builder.sum([inverse_distance, -center]))
    gaussian = builder.apply("exp", builder.product(scaled, scaled).scaled(Fraction(-1, 2)))
    return builder.product(gaussian, cutoff)


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
    """A function of one variable, by its name in the table of the scalar programs."""
    builder = Builder()
    x = Argument.of(builder, ArrayRef("x", 1))
    return derived(builder, [x], ArrayRef("y", 1), [builder.apply(function, x.elements[0])])


def _distance(builder: Builder, displacement: Sequence[Linear]) -> Linear:
    return builder.apply("sqrt", builder.sum(builder.product(x, x) for x in displacement))
