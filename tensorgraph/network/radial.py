"""Radial functions of pairs, as scalar programs: trained Gaussians of 1/r, Chebyshev polynomials, Bessel functions.

Lengths are in Å. To add a kind of fixed functions is to add a row to ``RADIAL`` (``add_radial`` from outside).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction

from tensorgraph.scalar import ArrayRef, Axes, Builder, Derivatives, Linear, ScalarProgram
from tensorgraph.scalar.derivatives import Argument, derived
from tensorgraph.spec import RadialSpec
from tensorgraph.spec.names import RADIAL_KINDS


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


RADIAL: dict[str, Callable[[RadialSpec], Derivatives[ScalarProgram]]] = {
    "chebyshev": lambda radial: lower_chebyshev(radial.functions, radial.soft_min, radial.cutoff),
    "bessel": lambda radial: lower_bessel(radial.functions, radial.cutoff),
}
"""Fixed radial functions by their kind: programs from the distance of a pair to all functions."""


def add_radial(kind: str, lower: Callable[[RadialSpec], Derivatives[ScalarProgram]]) -> None:
    """One more kind of fixed radial functions, for the general form. Raises ValueError for a name that is taken.

    ``lower`` makes, from the section ``radial`` of a spec, the program from ``distance`` (one element, Å) to
    ``radial_functions``, as many as the section says; use `derived` of `tensorgraph.scalar.derivatives`. They have to
    vanish, with their first derivatives, at the cutoff and beyond; training takes the later ones for the rougher ones.
    """
    RADIAL_KINDS.add(kind)
    RADIAL[kind] = lower
