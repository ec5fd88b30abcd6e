"""Linear algebra over a prime field: random points on strata, and row spaces that grow one row at a time."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from tensorgraph.algebra.tensors import embedding

PRIMES = (16777213, 16777199, 16777183, 16777153, 16777141)
"""The five largest primes below 2**24: contractions of residues then stay within 63 bits (see ``contraction``)."""


def random_point(stratum: Iterable[int], seed: int, modulus: int) -> dict[int, NDArray[np.int64]]:
    """Independent components of a random tensor for each rank, uniform residues; the seed decides, not the platform."""
    generator = np.random.Generator(np.random.PCG64(seed))
    return {rank: generator.integers(0, modulus, 2 * rank + 1, dtype=np.int64) for rank in sorted(stratum)}


def full_tensors(point: dict[int, NDArray[np.int64]], modulus: int) -> dict[int, NDArray[np.int64]]:
    """The full tensors, shape ``(3,)*l``, of independent components."""
    return {rank: embedding(rank) @ values % modulus for rank, values in point.items()}


class RowSpace:
    """The span of rows over a prime field, in echelon form; it says of each new row whether it adds a dimension."""

    def __init__(self, modulus: int) -> None:
        self.modulus = modulus
        self.pivots: list[int] = []
        """Column of the leading entry of each independent row, in the order of adding: the columns of a minor."""
        self._rows: list[NDArray[np.int64]] = []

    @property
    def rank(self) -> int:
        """Number of independent rows so far."""
        return len(self._rows)

    def add(self, row: NDArray[np.int64]) -> bool:
        """Adds a row; True if it is independent of those before it."""
        row = row % self.modulus
        for pivot, basis_row in zip(self.pivots, self._rows, strict=True):
            row = (row - row[pivot] * basis_row) % self.modulus
        nonzero = np.flatnonzero(row)
        if not len(nonzero):
            return False
        pivot = int(nonzero[0])
        self._rows.append(row * pow(int(row[pivot]), -1, self.modulus) % self.modulus)
        self.pivots.append(pivot)
        return True
