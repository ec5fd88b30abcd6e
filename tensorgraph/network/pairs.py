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


def lower_chebyshev(functions: int, inner: float, cutoff: float) -> Derivatives[ScalarProgram]:
    """From a distance to ``T_n(ξ) (1 - r / R_c)²`` within the cutoff, ξ = -1 … 1 from the inner distance to the cutoff.

    The radial functions of moment tensor potentials (Shapeev, Multiscale Model. Simul. 14, 1153, 2016), scaled.
    """
    builder = Builder()
    distance = Argument.of(builder, ArrayRef("distance", 1))
    (r,), limit, least = distance.elements, Fraction(cutoff), Fraction(inner)
    x = builder.sum([r.scaled(2 / (limit - least)), builder.one.scaled(-(limit + least) / (limit - least))])
    inside = builder.apply("inside", builder.sum([builder.one.scaled(limit), -r]))
    short = builder.sum([builder.one, r.scaled(-1 / limit)])
    envelope = builder.product(builder.product(short, short), inside)
    polynomials = [builder.one, x]
    while len(polynomials) < functions:
        twice = builder.product(x, polynomials[-1]).scaled(2)
        polynomials.append(builder.sum([twice, -polynomials[-2]]))
    values = [builder.product(polynomial, envelope) for polynomial in polynomials[:functions]]
    return derived(builder, [distance], ArrayRef("radial_functions", functions), values)


def lower_bessel(functions: int, cutoff: float) -> Derivatives[ScalarProgram]:
    """From a distance to ``√(2 / R_c) sin(n π r / R_c) / r`` times an envelope of degree 6 (Gasteiger, Groß, Günnemann,
    ICLR 2020, eqs. 7 and 8); sines of multiples by recurrence.
    """
    builder = Builder()
    distance = Argument.of(builder, ArrayRef("distance", 1))
    (r,), d = distance.elements, distance.elements[0].scaled(1 / Fraction(cutoff))
    angle = d.scaled(Fraction(math.pi))
    sines, cosine = [builder.apply("sin", angle)], builder.apply("cos", angle)
    while len(sines) < functions:
        twice = builder.product(cosine, sines[-1]).scaled(2)
        sines.append(builder.sum([twice, *([-sines[-2]] if len(sines) > 1 else [])]))
    inside = builder.apply("inside", builder.sum([builder.one, -d]))
    weight = builder.product(builder.product(_envelope(builder, d), inside), builder.apply("reciprocal", r))
    norm = Fraction(math.sqrt(2 / cutoff))
    values = [builder.product(sine, weight).scaled(norm) for sine in sines]
    return derived(builder, [distance], ArrayRef("radial_functions", functions), values)


def _envelope(builder: Builder, d: Linear, degree: int = 6) -> Linear:
    """``1 - (p+1)(p+2)/2 d^p + p(p+2) d^(p+1) - p(p+1)/2 d^(p+2)``: one at zero, zero with two derivatives at one."""
    power, p = builder.one, degree
    for _ in range(p):
        power = builder.product(power, d)
    terms = [builder.one]
    for factor in (-Fraction((p + 1) * (p + 2), 2), Fraction(p * (p + 2)), -Fraction(p * (p + 1), 2)):
        terms.append(power.scaled(factor))
        power = builder.product(power, d)
    return builder.sum(terms)
