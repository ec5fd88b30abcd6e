"""How many multigraphs there are, without making any: Burnside's lemma over the permutations of the vertices.

A permutation of cycle type ``l1, l2, …`` fixes the multigraphs whose multiplicities are equal along each orbit of
vertex pairs, so their generating function by degrees is a product of geometric series, one for each orbit (Read, J.
London Math. Soc. 34, 417 (1959), counts graphs of given degrees in this way).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import cache, lru_cache
from itertools import combinations
from math import comb, factorial, gcd, prod

import numpy as np

from tensorgraph.errors import BudgetError
from tensorgraph.graphs.kinds import Kind, as_kinds

MAX_WORK = 5 * 10**8
"""Additions to entries of tables that the identity alone may take, over all maximal ranks: up to 3 s and 200 MB."""

MAX_KEPT = 2 * 10**5
"""Entries of a table that is kept for other counts; larger ones belong to orders of which few supports are counted."""


def connected_count(support: Sequence[Kind | int], order: int) -> int:
    """Number of connected loopless multigraphs of ``order`` vertices, whose kinds are exactly those of ``support``.

    Raises:
        BudgetError: counting would take too long, whatever the number.
    """
    # Tensors of one rank differ in their names alone: a rank is repeated once for each of them.
    return _connected_count(tuple(kind.rank for kind in sorted(as_kinds(support))), order)


@cache
def _connected_count(degrees: tuple[int, ...], order: int) -> int:
    if len(degrees) > order:
        return 0
    if (max(degrees) + 1) ** order * comb(order, 2) * len(degrees) > MAX_WORK:
        allowed = "a smaller body order or rank, or a family that prunes"
        raise BudgetError(
            f"graphs of {order} vertices of rank up to {max(degrees)} take too long to count; allowed: {allowed}"
        )
    subsets = [chosen for size in range(1, len(degrees) + 1) for chosen in combinations(degrees, size)]
    return sum((-1) ** (len(degrees) - len(chosen)) * _connected(chosen, order) for chosen in subsets)


@cache
def _connected(degrees: tuple[int, ...], order: int) -> int:
    """Connected ones with degrees among these: what all have beyond the disjoint unions of smaller connected ones."""
    unions = [1] + [0] * order
    for size in range(1, order):
        graphs = _connected(degrees, size)
        # Multisets of them: the product over sizes of (1 - x**size) ** -graphs, up to x**order.
        unions = [
            sum(unions[total - size * k] * _multisets(graphs, k) for k in range(total // size + 1))
            for total in range(order + 1)
        ]
    return _all(degrees, order) - unions[order]


def _multisets(graphs: int, number: int) -> int:
    return comb(graphs + number - 1, number) if number else 1


def _all(degrees: tuple[int, ...], order: int) -> int:
    """Multigraphs of any number of components with degrees among these."""
    total = Fraction(0)
    for cycles in _partitions(order, order):
        top = max(degrees)
        fixed = _kept_table(cycles, top) if (top + 1) ** len(cycles) <= MAX_KEPT else _table(cycles, top)
        total += Fraction(int(fixed[np.ix_(*[degrees] * len(cycles))].sum()), _centraliser(cycles))
    return int(total)


def _table(cycles: tuple[int, ...], top: int) -> np.ndarray:
    """Labelled multigraphs that a permutation fixes, by the degrees (up to ``top``) of the vertices of its cycles."""
    table = np.zeros((top + 1,) * len(cycles), dtype=np.int64)
    table[(0,) * len(cycles)] = 1
    for a, b in combinations(range(len(cycles)), 2):
        shared = gcd(cycles[a], cycles[b])
        for _ in range(shared):
            _geometric(table, {a: cycles[b] // shared, b: cycles[a] // shared})
    for a, length in enumerate(cycles):
        for _ in range((length - 1) // 2):
            _geometric(table, {a: 2})
        if length % 2 == 0:
            _geometric(table, {a: 1})
    return table


_kept_table = lru_cache(maxsize=32)(_table)


def _geometric(table: np.ndarray, step: dict[int, int]) -> None:
    """Multiplies by ``1 / (1 - x**step)`` in place: an orbit of vertex pairs has any multiplicity."""
    axis, by = next(iter(step.items()))
    for degree in range(by, table.shape[axis]):
        here: list[slice | int] = [slice(None)] * table.ndim
        there: list[slice | int] = [slice(None)] * table.ndim
        for other, shift in step.items():
            here[other], there[other] = slice(shift, None), slice(None, -shift)
        here[axis], there[axis] = degree, degree - by
        table[tuple(here)] += table[tuple(there)]


def _centraliser(cycles: Sequence[int]) -> int:
    """Permutations that commute with one of this cycle type: ``order!`` over the size of its class."""
    return prod(length**number * factorial(number) for length, number in Counter(cycles).items())


def _partitions(total: int, largest: int) -> Iterator[tuple[int, ...]]:
    if total == 0:
        yield ()
    for part in range(min(total, largest), 0, -1):
        for rest in _partitions(total - part, part):
            yield (part, *rest)
