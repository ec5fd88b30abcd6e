"""Linear algebra over prime fields: row spaces that grow one row at a time, and determinants."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

PRIMES = (16777213, 16777199, 16777183, 16777153, 16777141)
"""The five largest primes below 2**24: contractions of residues then stay within 63 bits (see ``contraction``)."""


class RowSpace:
    """The span of rows over a prime field, in reduced echelon form; it says whether a new row adds a dimension."""

    def __init__(self, modulus: int) -> None:
        self.modulus = modulus
        self.pivots: list[int] = []
        """Column of the leading entry of each independent row, in the order of adding: the columns of a minor."""
        self.determinant = 1
        """The minor of the independent rows and the pivot columns, both in the order of adding."""
        self._rows = np.empty((0, 0), dtype=np.int64)

    @property
    def rank(self) -> int:
        """Number of independent rows so far."""
        return len(self.pivots)

    def add(self, row: NDArray[np.int64]) -> bool:
        """Adds a row; True if it is independent of those before it."""
        row = self.remainder(row)
        pivot = int(np.argmax(row != 0))
        if not row[pivot]:
            return False
        self.determinant = self.determinant * int(row[pivot]) % self.modulus
        row = row * pow(int(row[pivot]), -1, self.modulus) % self.modulus
        above = (self._rows - self._rows[:, pivot, None] * row) % self.modulus if self.pivots else row[None, :][:0]
        self._rows = np.vstack([above, row])
        self.pivots.append(pivot)
        return True

    def remainder(self, row: NDArray[np.int64]) -> NDArray[np.int64]:
        """The row less the combination of those before it that clears their pivot columns."""
        row = row % self.modulus
        # Each row has a one in its own pivot column and zeros in the others', so all are subtracted at once. A sum of
        # fewer than 2**15 products of residues below 2**24 fits 63 bits.
        return (row - row[self.pivots] @ self._rows) % self.modulus if self.pivots else row


class Trials:
    """Row spaces over several prime fields, fed side by side; each rank is a lower bound, so the largest counts."""

    def __init__(self, moduli: Iterable[int]) -> None:
        self.spaces = [RowSpace(int(modulus)) for modulus in moduli]

    @property
    def rank(self) -> int:
        """The largest rank found."""
        return max(space.rank for space in self.spaces)

    def add(self, rows: NDArray[np.int64]) -> bool:
        """Adds a row to each space, ``[trials, width]``; True if the rank has grown."""
        before = self.rank
        for space, row in zip(self.spaces, rows, strict=True):
            space.add(row)
        return self.rank > before


def combination(rows: NDArray[np.int64], row: NDArray[np.int64], modulus: int) -> NDArray[np.int64] | None:
    """The residues ``c`` with ``row = c @ rows``, for ``rows`` of shape ``[k, width]``.

    None where the rows are dependent, or the row is no combination of them.
    """
    space, (count, width) = RowSpace(modulus), rows.shape
    # Behind each row stands its name, a unit vector: what is left there tells how often it was subtracted.
    for named in np.concatenate([rows, np.eye(count, dtype=np.int64)], axis=1):
        space.add(named)
    rest = space.remainder(np.concatenate([row, np.zeros(count, dtype=np.int64)]))
    if any(pivot >= width for pivot in space.pivots) or np.any(rest[:width]):
        return None
    return -rest[width:] % modulus


def determinant(matrix: NDArray[np.int64], modulus: int) -> int:
    """The determinant of a square integer matrix modulo a prime, by elimination."""
    rows = [[int(x) % modulus for x in row] for row in matrix]
    result = 1
    for column in range(len(rows)):
        pivot = next((k for k in range(column, len(rows)) if rows[k][column]), None)
        if pivot is None:
            return 0
        if pivot != column:
            rows[column], rows[pivot] = rows[pivot], rows[column]
            result = -result
        result = result * rows[column][column] % modulus
        inverse = pow(rows[column][column], -1, modulus)
        for k in range(column + 1, len(rows)):
            factor = rows[k][column] * inverse % modulus
            rows[k] = [(a - factor * b) % modulus for a, b in zip(rows[k], rows[column], strict=True)]
    return result % modulus
