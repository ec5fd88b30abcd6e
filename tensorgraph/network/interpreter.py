"""The meaning of a network: its statements one by one, by einsum and by the evaluation of scalar programs.

Slow and plain: every printed form is tested against it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import singledispatchmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tensorgraph.network.arrays import ATOM, PAIR, Array, Factor, Space, Term
from tensorgraph.network.statements import Call, Contract, Layer, Normalise, NormaliseAdjoint, Part, Place, Pointwise

Values = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Pairs:
    """Central atom and neighbour of each pair, int64 ``[n_pairs]``, and the number of atoms."""

    target: NDArray[np.int64]
    source: NDArray[np.int64]
    n_atoms: int


def run(layer: Layer, weights: Mapping[str, Values], inputs: Mapping[str, Values], pairs: Pairs) -> list[Values]:
    """The outputs of a layer.

    Args:
        layer: what is run.
        weights: by full name, as in a state dict.
        inputs: by the names of the layer's inputs.
        pairs: which atoms are neighbours.
    """
    interpreter = _Interpreter(weights, dict(inputs), pairs)
    for parameter in layer.parameters:
        interpreter.values[parameter.name] = np.asarray(weights[parameter.name], dtype=np.float64)
    for fixed in layer.fixed:
        values = np.zeros([space.extent for space in fixed.array.spaces])
        for position, value in fixed.values:
            values.flat[position] = value
        interpreter.values[fixed.name] = values
    for statement in layer.body:
        interpreter.run(statement)
    return [interpreter.values[output.name] for output in layer.outputs]


@dataclass(frozen=True, eq=False)
class _Interpreter:
    weights: Mapping[str, Values]
    values: dict[str, Values]
    pairs: Pairs

    @singledispatchmethod
    def run(self, statement: Any) -> None:
        raise TypeError(f"the interpreter does not know {type(statement).__name__}")

    @run.register
    def _(self, statement: Contract) -> None:
        shape = [self.extent(statement.result, letter) for letter in statement.result.letters]
        total = sum((self.term(term, statement.result) for term in statement.terms), np.zeros(shape))
        self.values[statement.result.array.name] = total

    @run.register
    def _(self, statement: Pointwise) -> None:
        program = statement.program
        given = {
            ref.name: self.elements(ref.size, array, statement)
            for ref, array in zip(program.inputs, statement.sources, strict=True)
        }
        found = program.run(given)
        for ref, array in zip(program.outputs, statement.results, strict=True):
            self.values[array.name] = self.gathered(found[ref.name], array, statement)

    @run.register
    def _(self, statement: Normalise) -> None:
        source, weight, bias = (self.values[array.name] for array in statement.sources)
        self.values[statement.result.name] = _standardised(source, statement.eps)[0] * weight + bias

    @run.register
    def _(self, statement: NormaliseAdjoint) -> None:
        source, weight, cotangent = (self.values[array.name] for array in statement.sources)
        normal, inverse = _standardised(source, statement.of.eps)
        slope = cotangent * weight
        centred = slope - slope.mean(-1, keepdims=True) - normal * (slope * normal).mean(-1, keepdims=True)
        found = (inverse * centred, (cotangent * normal).sum(0), cotangent.sum(0))
        self.values.update(zip((array.name for array in statement.results), found, strict=True))

    @run.register
    def _(self, statement: Part) -> None:
        taken = self.values[statement.source.name][:, statement.start : statement.start + statement.size]
        shape = [self.count(space) for space in statement.result.spaces]
        self.values[statement.result.name] = taken.reshape(shape)

    @run.register
    def _(self, statement: Place) -> None:
        start, size = statement.of.start, statement.of.size
        whole = np.zeros([self.count(space) for space in statement.result.spaces])
        source = self.values[statement.source.name]
        whole[:, start : start + size] = source.reshape(source.shape[0], size, *whole.shape[2:])
        self.values[statement.result.name] = whole

    @run.register
    def _(self, statement: Call) -> None:
        prefix, layer = f"{statement.child.path}.", statement.child.layer
        own = {name.removeprefix(prefix): value for name, value in self.weights.items() if name.startswith(prefix)}
        names = (array.name for array in layer.inputs)
        given = dict(zip(names, (self.values[array.name] for array in statement.sources), strict=True))
        results = run(layer, own, given, self.pairs)
        self.values.update(zip((array.name for array in statement.results), results, strict=True))

    def term(self, term: Term, result: Factor) -> Values:
        """One term, in the letters of the result."""
        over_pairs = "p" in term.letters or "p" in result.letters
        letters = [factor.letters for factor in term.factors]
        values = [self.at_pairs(factor) if over_pairs else self.values[factor.array.name] for factor in term.factors]
        if over_pairs:
            letters = [text.replace("i", "p").replace("j", "p") for text in letters]
            if not any("p" in text for text in letters):  # the same for every pair
                letters.append("p")
                values.append(np.ones(len(self.pairs.target)))
        group = next((x for x in "ij" if x in result.letters), "") if over_pairs else ""
        wanted = result.letters.replace(group, "p") if group else result.letters
        for letter in set(wanted) - set("".join(letters)):
            letters.append(letter)
            values.append(np.ones(self.extent(result, letter)))
        found = float(term.coefficient) * np.einsum(",".join(letters) + "->" + wanted, *values, optimize=True)
        return self.summed(found, wanted.index("p"), group) if group and "p" not in result.letters else found

    def at_pairs(self, factor: Factor) -> Values:
        """An array of atoms as one of pairs."""
        value = self.values[factor.array.name]
        for letter, atoms in (("i", self.pairs.target), ("j", self.pairs.source)):
            if letter in factor.letters:
                value = np.take(value, atoms, axis=factor.letters.index(letter))
        return value

    def summed(self, value: Values, axis: int, group: str) -> Values:
        """Pairs added to their central atoms, or to their neighbours."""
        rows = np.moveaxis(value, axis, 0)
        result = np.zeros((self.pairs.n_atoms, *rows.shape[1:]))
        np.add.at(result, self.pairs.target if group == "i" else self.pairs.source, rows)
        return np.moveaxis(result, 0, axis)

    def extent(self, factor: Factor, letter: str) -> int:
        return self.count(factor.array.spaces[factor.letters.index(letter)])

    def count(self, space: Space) -> int:
        """How many elements an index space has here."""
        counts = {PAIR: len(self.pairs.target), ATOM: self.pairs.n_atoms}
        return space.extent if space.size is not None else counts[space]

    def elements(self, size: int, array: Array, statement: Pointwise) -> list[Values]:
        """The elements of an array as a program reads them, each ``[rows, columns]`` or what broadcasts to that."""
        value = self.values[array.name]
        has_rows, has_columns = array.spaces[0] == statement.rows, array.spaces[-1] == statement.columns
        shape = (value.shape[0] if has_rows else 1, size, value.shape[-1] if has_columns else 1)
        return list(np.moveaxis(value.reshape(shape), 1, 0))

    def gathered(self, elements: list[Values], array: Array, statement: Pointwise) -> Values:
        """Elements as an array, summed over the rows or columns that it lacks."""
        rows = self.count(statement.rows)
        columns = 1 if statement.columns is None else statement.columns.extent
        stacked = np.stack([np.broadcast_to(np.asarray(value, dtype=float), (rows, columns)) for value in elements], 1)
        if array.spaces[:1] != (statement.rows,):
            stacked = stacked.sum(0)
        if statement.columns is not None and array.spaces[-1] != statement.columns:
            stacked = stacked.sum(-1)
        return stacked.reshape([rows if space.size is None else space.size for space in array.spaces])


def _standardised(source: Values, eps: float) -> tuple[Values, Values]:
    inverse = 1 / np.sqrt(source.var(-1, keepdims=True) + eps)
    return (source - source.mean(-1, keepdims=True)) * inverse, inverse
