"""Independent components of a symmetric traceless tensor of rank l in three or four dimensions.

The component ``(a, b, c)`` is the tensor element with ``a`` indices x, ``b`` indices y and ``c`` indices z. Those with
at most one index along the last axis are independent, ``2 l + 1`` of them in three dimensions and ``(l + 1)²`` in four;
tracelessness gives the others with integer coefficients, ``T(a, b, c) = -T(a+2, b, c-2) - T(a, b+2, c-2)``. Integer
coefficients make graph polynomials exact over any ring. In four dimensions the first axis is called w.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from itertools import permutations, product
from math import comb, factorial

import numpy as np
from numpy.typing import NDArray

Exponents = tuple[int, ...]

AXES = {3: "xyz", 4: "wxyz"}
"""The names of the axes by dimension: those in which tensors are known."""


@cache
def components(rank: int, dimension: int = 3) -> tuple[Exponents, ...]:
    """The independent components by their sorted indices: xx, xy, xz, yy, yz for rank 2 in three dimensions."""
    return tuple(exponents for exponents in _exponents(rank, dimension) if exponents[-1] <= 1)


def component_count(rank: int, dimension: int = 3) -> int:
    """Number of independent components: ``2 l + 1`` in three dimensions, ``(l + 1)²`` in four."""
    return comb(rank + dimension - 1, dimension - 1) - comb(rank + dimension - 3, dimension - 1)


def _exponents(total: int, axes: int) -> Iterator[Exponents]:
    if axes == 1:
        yield (total,)
        return
    for first in range(total, -1, -1):
        for rest in _exponents(total - first, axes - 1):
            yield (first, *rest)


def component_name(exponents: Exponents) -> str:
    """The indices of a component, as ``xxy``."""
    return "".join(axis * count for axis, count in zip(AXES[len(exponents)], exponents, strict=True))


@cache
def element(exponents: Exponents) -> tuple[tuple[int, int], ...]:
    """Any tensor element as ``(component, coefficient)`` pairs over the independent components of its rank."""
    *others, last = exponents
    if last <= 1:
        return ((components(sum(exponents), len(exponents)).index(exponents), 1),)
    total: dict[int, int] = {}
    for axis in range(len(others)):
        moved = (*others[:axis], others[axis] + 2, *others[axis + 1 :], last - 2)
        for component, coefficient in element(moved):
            total[component] = total.get(component, 0) - coefficient
    return tuple(sorted(total.items()))


@cache
def embedding(rank: int, dimension: int = 3) -> NDArray[np.int64]:
    """The linear map from independent components to the full tensor, integers.

    Shape ``(dimension,)*rank + (n_components,)``.
    """
    result = np.zeros((dimension,) * rank + (len(components(rank, dimension)),), dtype=np.int64)
    for indices in product(range(dimension), repeat=rank):
        for component, coefficient in element(tuple(indices.count(axis) for axis in range(dimension))):
            result[(*indices, component)] = coefficient
    result.setflags(write=False)
    return result


@cache
def levi_civita(dimension: int = 3) -> NDArray[np.int64]:
    """The antisymmetric tensor of the space, shape ``(dimension,)*dimension``."""
    result = np.zeros((dimension,) * dimension, dtype=np.int64)
    for order in permutations(range(dimension)):
        swaps = sum(order[k] > order[m] for m in range(dimension) for k in range(m))
        result[order] = (-1) ** swaps
    result.setflags(write=False)
    return result


@cache
def traceless(rank: int, dimension: int = 3) -> tuple[tuple[Fraction, ...], ...]:
    """From what a tensor pairs with to a tensor: the inverse of the inner products of the components.

    The orthogonal projection of any tensor R to the symmetric traceless ones has the components ``traceless @ (Eᵀ R)``,
    with E the ``embedding``.
    """
    from sympy import Matrix  # takes a while to import, and few bases need it

    flat = embedding(rank, dimension).reshape(-1, len(components(rank, dimension)))
    inverse = Matrix((flat.T @ flat).tolist()).inv().tolist()
    return tuple(tuple(Fraction(int(x.p), int(x.q)) for x in row) for row in inverse)


def projection(exponents: Exponents) -> dict[Exponents, Fraction]:
    """The component of ``[u … u]_0`` for a unit vector, as coefficients of monomials ``x^a y^b z^c`` (leading one).

    Traces are subtracted in closed form: in D dimensions a term with ``k`` pairs of indices taken out of the ``l``
    carries ``(-1)^k / Π_{j=1}^{k} (2 l + D - 2 - 2 j)``, and ``|u| = 1`` (Applequist, J. Phys. A 22, 4303, 1989, for
    D = 3).
    """
    rank, dimension = sum(exponents), len(exponents)
    result: dict[Exponents, Fraction] = {}
    for pairs in product(*(range(count // 2 + 1) for count in exponents)):
        weight = Fraction(1)
        for taken in range(1, sum(pairs) + 1):
            weight /= -(2 * rank + dimension - 2 - 2 * taken)
        for count, taken_here in zip(exponents, pairs, strict=True):
            weight *= comb(count, 2 * taken_here) * _odd_factorial(2 * taken_here - 1)
        result[tuple(count - 2 * taken for count, taken in zip(exponents, pairs, strict=True))] = weight
    return result


def _odd_factorial(number: int) -> int:
    """``number!! = 1 · 3 · … · number`` of an odd number, 1 for -1."""
    half = (number + 1) // 2
    return int(factorial(2 * half) // (2**half * factorial(half)))
