"""How many parameters rotations have on tensors: the dimension of a generic orbit, exactly modulo a prime."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from tensorgraph.algebra.field import PRIMES, RowSpace
from tensorgraph.algebra.jacobian import Points
from tensorgraph.graphs import Kind


def orbit_dimension(ranks: Sequence[int], dimension: int = 3) -> int:
    """The dimension of the rotations less that of those which fix generic tensors of these ranks.

    In three dimensions 2 for a single vector and else 3. It is the rank of what infinitesimal rotations do to random
    tensors, so a proved lower bound, which the dimension of the rotations bounds from above.
    """
    return _orbit_dimension(tuple(sorted(ranks)), dimension)


@cache
def _orbit_dimension(ranks: tuple[int, ...], dimension: int) -> int:
    kinds = [Kind(rank, colour) for colour, rank in enumerate(ranks)]
    points = Points.random(kinds, PRIMES[:1], 0, dimension)
    space = RowSpace(PRIMES[0])
    for plane in combinations(range(dimension), 2):
        space.add(np.concatenate([_turned(points.tensors[kind][0], plane).ravel() for kind in kinds]))
    return space.rank


def _turned(tensor: NDArray[np.int64], plane: tuple[int, int]) -> NDArray[np.int64]:
    """The first-order change of a tensor under the rotation in a plane of two axes."""
    result = np.zeros_like(tensor)
    for leg in range(tensor.ndim):
        changed, given = np.moveaxis(result, leg, 0), np.moveaxis(tensor, leg, 0)
        changed[plane[0]] += given[plane[1]]
        changed[plane[1]] -= given[plane[0]]
    return result
