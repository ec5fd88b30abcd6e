"""Dimensions of spaces of O(3) invariants, by counting weights: an oracle that knows nothing of graphs."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache


def invariant_dimension(multidegree: Mapping[int, int]) -> int:
    """Linearly independent O(3) invariants of ``multidegree[l]`` copies of a rank-l tensor for each ``l``.

    Zero if the ranks sum to an odd number. Else the multiplicity of the trivial representation of SO(3) in the product
    of symmetric powers, which is the number of its weights 0 less that of its weights 1: the Molien-Weyl integral
    ``(1/π) ∫ (1 - cos θ) Π h_n(e^{imθ}) dθ`` written out (Weyl, The Classical Groups, ch. VII).
    """
    if sum(rank * copies for rank, copies in multidegree.items()) % 2:
        return 0
    weights: Mapping[int, int] = {0: 1}
    for rank, copies in sorted(multidegree.items()):
        weights = _convolved(weights, _symmetric_power(rank, copies))
    return weights.get(0, 0) - weights.get(1, 0)


@cache
def _symmetric_power(rank: int, copies: int) -> Mapping[int, int]:
    """Weights of the symmetric power: multisets of ``copies`` numbers from -rank … rank, by their sum."""
    counts: dict[tuple[int, int], int] = {(0, 0): 1}
    for weight in range(-rank, rank + 1):
        grown: dict[tuple[int, int], int] = {}
        for (used, total), count in counts.items():
            for extra in range(copies - used + 1):
                key = used + extra, total + extra * weight
                grown[key] = grown.get(key, 0) + count
        counts = grown
    return {total: count for (used, total), count in counts.items() if used == copies}


def _convolved(a: Mapping[int, int], b: Mapping[int, int]) -> dict[int, int]:
    result: dict[int, int] = {}
    for (u, m), (v, n) in ((x, y) for x in a.items() for y in b.items()):
        result[u + v] = result.get(u + v, 0) + m * n
    return result
