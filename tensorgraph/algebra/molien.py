"""Dimensions of spaces of O(3) and O(4) invariants, by counting weights: an oracle that knows nothing of graphs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

from tensorgraph.graphs import Kind

Weight = tuple[int, int]
Counts = Mapping[Weight, int]
"""How often each weight occurs, those of sign -1 counted negative."""


def invariant_dimension(multidegree: Mapping[Kind | int, int], dimension: int = 3, pseudo: bool = False) -> int:
    """Linearly independent O(D) invariants of ``multidegree[kind]`` copies of each tensor, probes like any other.

    The Molien-Weyl integral written out (Weyl, The Classical Groups, ch. VII): over the rotations it is an alternating
    sum of numbers of weights in the product of symmetric powers, and over the improper elements, under which
    pseudo-scalars (``pseudo``) change their sign, a second one. Bare ranks stand for tensors of colour 0.
    """
    degrees = [(kind.rank if isinstance(kind, Kind) else kind, copies) for kind, copies in multidegree.items()]
    proper = _weights(degrees, _turned if dimension == 3 else _turned_twice)
    if dimension == 3:
        rotations = proper.get((0, 0), 0) - proper.get((2, 0), 0)
        # Improper elements are rotations times the inversion, which changes the sign of each tensor of odd rank.
        improper = -rotations if sum(rank * copies for rank, copies in degrees) % 2 else rotations
    else:
        rotations = proper.get((0, 0), 0) - proper.get((2, 0), 0) - proper.get((0, 2), 0) + proper.get((2, 2), 0)
        reflected = _weights(degrees, _reflected)
        improper = reflected.get((0, 0), 0) - reflected.get((2, 0), 0)
    return (rotations - improper if pseudo else rotations + improper) // 2


def _turned(rank: int) -> list[tuple[Weight, int]]:
    """Weights of the tensor of a rank in three dimensions, doubled, with their signs."""
    return [((2 * m, 0), 1) for m in range(-rank, rank + 1)]


def _turned_twice(rank: int) -> list[tuple[Weight, int]]:
    """In four dimensions the rotations are two groups SU(2), and the tensor has the spin rank/2 of both."""
    spins = range(-rank, rank + 1, 2)
    return [((a, b), 1) for a in spins for b in spins]


def _reflected(rank: int) -> list[tuple[Weight, int]]:
    """Eigenvalues of a turn by an angle and a reflection, which exchanges the two groups SU(2)."""
    spins = range(-rank, rank + 1, 2)
    return [(((a + b) // 2, 0), sign) for a in spins for b in spins if a <= b for sign in ((1, -1) if a < b else (1,))]


def _weights(degrees: list[tuple[int, int]], eigenvalues: Callable[[int], list[tuple[Weight, int]]]) -> Counts:
    counts: Counts = {(0, 0): 1}
    for rank, copies in sorted(degrees):
        counts = _convolved(counts, _symmetric_power(tuple(eigenvalues(rank)), copies))
    return counts


@cache
def _symmetric_power(eigenvalues: tuple[tuple[Weight, int], ...], copies: int) -> Counts:
    """Weights of the symmetric power: multisets of ``copies`` eigenvalues, by their product."""
    counts: dict[tuple[int, Weight], int] = {(0, (0, 0)): 1}
    for (u, v), sign in eigenvalues:
        grown: dict[tuple[int, Weight], int] = {}
        for (used, (a, b)), count in counts.items():
            for extra in range(copies - used + 1):
                key = used + extra, (a + extra * u, b + extra * v)
                grown[key] = grown.get(key, 0) + count * sign**extra
        counts = grown
    return {weight: count for (used, weight), count in counts.items() if used == copies}


def _convolved(a: Counts, b: Counts) -> dict[Weight, int]:
    result: dict[Weight, int] = {}
    for ((u, v), m), ((x, y), n) in ((p, q) for p in a.items() for q in b.items()):
        result[u + x, v + y] = result.get((u + x, v + y), 0) + m * n
    return result
