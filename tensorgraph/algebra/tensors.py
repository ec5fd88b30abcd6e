"""Independent components of a symmetric traceless tensor of rank l in three dimensions.

The component ``(a, b, c)`` is the tensor element with ``a`` indices x, ``b`` indices y and ``c`` indices z. Those
with ``c <= 1`` are independent, ``2 l + 1`` of them; tracelessness gives the others with integer coefficients,
``T(a, b, c) = -T(a+2, b, c-2) - T(a, b+2, c-2)``. Integer coefficients make graph polynomials exact over any ring.
"""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from itertools import product
from math import comb, factorial

import numpy as np
from numpy.typing import NDArray

Exponents = tuple[int, int, int]


def components(rank: int) -> tuple[Exponents, ...]:
    """The ``2 rank + 1`` independent components by their sorted indices: xx, xy, xz, yy, yz for rank 2."""
    return tuple((a, rank - a - c, c) for a in range(rank, -1, -1) for c in (0, 1) if a + c <= rank)


def component_name(exponents: Exponents) -> str:
    """The indices of a component, as ``xxy``."""
    return "".join(axis * count for axis, count in zip("xyz", exponents, strict=True))


@cache
def element(exponents: Exponents) -> tuple[tuple[int, int], ...]:
    """Any tensor element as ``(component, coefficient)`` pairs over the independent components of its rank."""
    a, b, c = exponents
    if c <= 1:
        return ((components(sum(exponents)).index(exponents), 1),)
    total: dict[int, int] = {}
    for part in ((a + 2, b, c - 2), (a, b + 2, c - 2)):
        for component, coefficient in element(part):
            total[component] = total.get(component, 0) - coefficient
    return tuple(sorted(total.items()))


@cache
def embedding(rank: int) -> NDArray[np.int64]:
    """The linear map from independent components to the full tensor, shape ``(3,)*rank + (2 rank + 1,)``, integers."""
    result = np.zeros((3,) * rank + (2 * rank + 1,), dtype=np.int64)
    for indices in product(range(3), repeat=rank):
        for component, coefficient in element((indices.count(0), indices.count(1), indices.count(2))):
            result[(*indices, component)] = coefficient
    result.setflags(write=False)
    return result


def projection(exponents: Exponents) -> dict[Exponents, Fraction]:
    """The component of ``[r̂ … r̂]_0`` for a unit vector, as coefficients of monomials ``x^a y^b z^c`` (leading one).

    Traces are subtracted in closed form: a term with ``k`` pairs of indices taken out of the ``l`` carries
    ``(-1)^k (2l-2k-1)!! / (2l-1)!!`` (Applequist, J. Phys. A 22, 4303, 1989), and ``|r̂| = 1``.
    """
    rank = sum(exponents)
    result: dict[Exponents, Fraction] = {}
    for pairs in product(*(range(count // 2 + 1) for count in exponents)):
        taken = sum(pairs)
        weight = Fraction((-1) ** taken * _odd_factorial(2 * rank - 2 * taken - 1), _odd_factorial(2 * rank - 1))
        for count, taken_here in zip(exponents, pairs, strict=True):
            weight *= comb(count, 2 * taken_here) * _odd_factorial(2 * taken_here - 1)
        a, b, c = (count - 2 * taken_here for count, taken_here in zip(exponents, pairs, strict=True))
        result[a, b, c] = weight
    return result


def _odd_factorial(number: int) -> int:
    """``number!! = 1 · 3 · … · number`` of an odd number, 1 for -1."""
    half = (number + 1) // 2
    return int(factorial(2 * half) // (2**half * factorial(half)))
