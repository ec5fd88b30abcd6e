"""Polynomials as tables of monomials: what straight-line code would be too long for.

A table is a second form of a scalar program, for large sums of products of few factors, which one loop over its rows
evaluates. Tables are closed under derivatives: cotangents are further inputs. Not in scope: sharing of products among
monomials, functions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tensorgraph.algebra.spinors import Monomial
from tensorgraph.errors import BudgetError
from tensorgraph.scalar.derivatives import Derivatives, cotangent_of
from tensorgraph.scalar.instructions import OperationCount
from tensorgraph.scalar.ir import ArrayRef

MAX_MONOMIALS = 250_000
"""Of a table of values, without derivatives: some seconds of work, and some MB in a package."""


@dataclass(frozen=True, eq=False)
class Table:
    """``results[k] = Σ coefficient · Π inputs[factor]`` over the rows of k; elements are counted over all arrays.

    Attributes:
        inputs: arrays, one behind the other; behind the last of their elements is the constant one.
        results: arrays, one behind the other.
        places: int64 ``[n_rows]``, ascending: the element that a row is added to.
        factors: int64 ``[n_rows, degree]``: the elements that are multiplied, filled up with the constant one.
        coefficients: float64 ``[n_rows]``.
    """

    inputs: tuple[ArrayRef, ...]
    results: tuple[ArrayRef, ...]
    places: NDArray[np.int64]
    factors: NDArray[np.int64]
    coefficients: NDArray[np.float64]

    @classmethod
    def of(cls, inputs: ArrayRef, results: ArrayRef, polynomials: Sequence[Mapping[Monomial, Fraction]]) -> Table:
        """The table of polynomials, one for each element of the result, as coefficients by monomial.

        Raises:
            BudgetError: there are more than ``MAX_MONOMIALS`` monomials.
        """
        rows = [(k, *term) for k, polynomial in enumerate(polynomials) for term in polynomial.items()]
        if len(rows) > MAX_MONOMIALS:
            allowed = f"at most {MAX_MONOMIALS}, by a smaller body order, rank or degree"
            raise BudgetError(f"a table of {len(rows)} monomials; allowed: {allowed}")
        degree = max((len(monomial) for _, monomial, _ in rows), default=1)
        factors = [(*monomial, *(inputs.size,) * (degree - len(monomial))) for _, monomial, _ in rows]
        return cls(
            (inputs,),
            (results,),
            np.array([k for k, *_ in rows], dtype=np.int64),
            np.array(factors, dtype=np.int64).reshape(len(rows), degree),
            np.array([float(coefficient) for *_, coefficient in rows]),
        )

    @property
    def operations(self) -> OperationCount:
        """Of one row of a batch, none shared."""
        one = sum(array.size for array in self.inputs)
        products = int((self.factors != one).sum()) - len(self.places) + int((np.abs(self.coefficients) != 1).sum())
        sums = len(self.places) - len(np.unique(self.places))
        return OperationCount(additions=sums, multiplications=products, functions=0)

    @property
    def live_values(self) -> int:
        """Values that are held at once: those of the inputs, and a sum."""
        return 1 + sum(array.size for array in self.inputs)

    def to_json(self) -> str:
        """Of a table with one input: how many elements it has, and for each of the results its rows, a line each."""
        columns = zip(self.places.tolist(), self.coefficients.tolist(), self.factors.tolist(), strict=True)
        rows: list[list[list[float]]] = [[] for _ in range(self.results[0].size)]
        for place, coefficient, factors in columns:
            rows[place].append([coefficient, *factors])
        lines = ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows)
        return f'{{"inputs":{self.inputs[0].size},"rows":[\n{lines}\n]}}\n'

    def __str__(self) -> str:
        inputs, results = _names(self.inputs), _names(self.results)
        rows = zip(self.places, self.coefficients, self.factors, strict=True)
        return "\n".join(
            " ".join([f"{results[place]} += {value:.17g}", *(inputs[k] for k in factors if k < len(inputs))])
            for place, value, factors in rows
        )


def _names(arrays: Sequence[ArrayRef]) -> list[str]:
    return [f"{array.name}[{k}]" for array in arrays for k in range(array.size)]


def table_derivatives(table: Table) -> Derivatives[Table]:
    """The programs that training on forces needs, of a table with one input and one output array."""
    backward = table_adjoint(table)
    return Derivatives(table, backward, table_adjoint(backward))


def table_adjoint(table: Table) -> Table:
    """From the inputs and a cotangent of each result to cotangents of the inputs, again as a table."""
    given, made = (sum(array.size for array in arrays) for arrays in (table.inputs, table.results))
    factors = np.where(table.factors == given, given + made, table.factors)  # the constant one behind the cotangents
    parts = []
    for k in range(table.factors.shape[1]):
        kept = table.factors[:, k] != given
        new = factors.copy()
        new[:, k] = given + table.places
        parts.append((factors[kept, k], np.sort(new[kept], axis=1), table.coefficients[kept]))
    places, factors, coefficients = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.lexsort((*factors.T[::-1], places))
    rows = np.column_stack([places, factors])[order]
    first = np.flatnonzero(np.any(np.diff(rows, axis=0, prepend=-1), axis=1))  # equal monomials are added
    total = np.add.reduceat(coefficients[order], first) if len(first) else coefficients
    slopes, cotangents = (tuple(map(cotangent_of, arrays)) for arrays in (table.inputs, table.results))
    return Table((*table.inputs, *cotangents), slopes, rows[first, 0], rows[first, 1:], total)


def evaluate_table(table: Table, arrays: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
    """The meaning of a table, element by element, in floats or arrays of floats that broadcast to each other."""
    given = [np.asarray(element, dtype=float) for ref in table.inputs for element in arrays[ref.name]]
    stacked = np.stack(np.broadcast_arrays(*given, np.ones(())))
    products = np.prod(stacked[table.factors], axis=1) * table.coefficients.reshape(-1, *(1,) * (stacked.ndim - 1))
    found = np.zeros((sum(ref.size for ref in table.results), *stacked.shape[1:]))
    np.add.at(found, table.places, products)
    ends = list(accumulate(ref.size for ref in table.results))
    return {ref.name: list(found[end - ref.size : end]) for ref, end in zip(table.results, ends, strict=True)}
