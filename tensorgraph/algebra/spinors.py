"""Symmetric traceless tensors in four dimensions as forms of two spinors, and contractions of them as polynomials.

With σ = (1, -iσ1, -iσ2, -iσ3) and two-component x and y the vector xᵀ σ y is null, so a symmetric traceless tensor of
rank n is a form of degree n in x and in y. The power of a direction u is (xᵀ M y)^n, M = u0 - i u·σ; its components are

    (xᵀ M y)^n = Σ_ab binom(n, b) e_ab x0^(n-a) x1^a y0^(n-b) y1^b,

``(n + 1)²`` numbers e_ab that make a representation of the unit quaternions M without any root, one for the north pole.
They are the hyperspherical harmonics of SNAP (Bartók, Kondor, Csányi, Phys. Rev. B 87, 184115, 2013) times rationals.
A contraction of Cartesian tensors at rank 8 has tens of thousands of terms for each of their components; here every
shared index is a product of two determinants [x y] = x0 y1 - x1 y0, one in each spinor, and few products are left
(Penrose and Rindler, Spinors and Space-Time 1, 1984, ch. 3; Olver, Classical Invariant Theory, 1999, ch. 6).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from fractions import Fraction
from functools import cache, lru_cache
from itertools import combinations
from math import comb, prod

from tensorgraph.graphs import Multigraph

Monomial = tuple[int, ...]
"""The positions of its factors in the array of components, ascending."""


@cache
def spinor_components(rank: int) -> tuple[tuple[int, int, bool], ...]:
    """The independent real numbers of a real tensor, ``(rank + 1)²``: (a, b, whether it is the imaginary part).

    e[n-a, n-b] is ``(-1)^(a+b)`` times the complex conjugate of e[a, b], so of each such pair the first one counts;
    that in the middle, of even rank, is real.
    """
    return tuple(
        (a, b, imaginary)
        for a in range(rank + 1)
        for b in range(rank + 1)
        if (a, b) <= (rank - a, rank - b)
        for imaginary in ((False, True) if (a, b) != (rank - a, rank - b) else (False,))
    )


@cache
def spinor_places(rank: int) -> Mapping[tuple[int, int], tuple[tuple[int, int], ...]]:
    """For each e[a, b] its real and, where it has one, its imaginary part: position among the components, and sign."""
    position = {component: k for k, component in enumerate(spinor_components(rank))}
    places: dict[tuple[int, int], tuple[tuple[int, int], ...]] = {}
    for a in range(rank + 1):
        for b in range(rank + 1):
            own, partner = (a, b), (rank - a, rank - b)
            first, sign = min(own, partner), 1 if own <= partner else (-1) ** (a + b)
            parts = [(position[(*first, False)], sign)]
            if own != partner:
                parts.append((position[(*first, True)], sign if own < partner else -sign))
            places[own] = tuple(parts)
    return places


def spinor_polynomial(graph: Multigraph, starts: Mapping[int, int]) -> dict[Monomial, Fraction]:
    """A closed graph as a polynomial in the real components of its tensors, as coefficients by monomial.

    ``2^(-edges) Σ_{a, b} w(a) w(b) Π_i e^(i)[a_i, b_i] / binom(n_i, a_i)``, with the weights of `pairings`.

    Args:
        graph: of tensors, connected or not, of one colour.
        starts: where the components of each rank begin.
    """
    ranks, weights = graph.ranks, pairings(graph)
    total: dict[Monomial, Fraction] = {}
    scale = Fraction(1, 2 ** sum(multiplicity for *_, multiplicity in graph.edges))
    for left, of_left in weights.items():
        partner = tuple(n - a for n, a in zip(ranks, left, strict=True))
        if left > partner:  # the complex conjugate of what the partner gives
            continue
        divided = scale * of_left / prod(comb(n, a) for n, a in zip(ranks, left, strict=True))
        divided *= 2 if left < partner else 1
        for right, of_right in weights.items():
            weight = divided * of_right
            for monomial, sign in _real_part(ranks, left, right, starts):
                total[monomial] = total.get(monomial, 0) + sign * weight
    return {monomial: coefficient for monomial, coefficient in sorted(total.items()) if coefficient}


@lru_cache(maxsize=4096)
def pairings(graph: Multigraph) -> dict[tuple[int, ...], int]:
    """w(a) in the product of a determinant [x_i x_j] for every edge, by the degree a_i in the second of each x_i."""
    terms: Counter[tuple[int, ...]] = Counter({(0,) * graph.order: 1})
    for i, j, multiplicity in graph.edges:
        for _ in range(multiplicity):
            longer: Counter[tuple[int, ...]] = Counter()
            for degrees, weight in terms.items():
                for vertex, sign in ((j, 1), (i, -1)):
                    longer[(*degrees[:vertex], degrees[vertex] + 1, *degrees[vertex + 1 :])] += sign * weight
            terms = longer
    return {degrees: weight for degrees, weight in sorted(terms.items()) if weight}


def _real_part(
    ranks: tuple[int, ...], left: tuple[int, ...], right: tuple[int, ...], starts: Mapping[int, int]
) -> Iterator[tuple[Monomial, int]]:
    """The real part of a product of complex components, as monomials of real ones with their signs."""
    factors = [spinor_places(n)[a, b] for n, a, b in zip(ranks, left, right, strict=True)]
    complex_ones = [vertex for vertex, parts in enumerate(factors) if len(parts) == 2]
    for number in range(0, len(complex_ones) + 1, 2):
        for imaginary in combinations(complex_ones, number):
            chosen = [parts[vertex in imaginary] for vertex, parts in enumerate(factors)]
            monomial = sorted(starts[n] + position for n, (position, _) in zip(ranks, chosen, strict=True))
            yield tuple(monomial), (-1) ** (number // 2) * prod(sign for _, sign in chosen)
