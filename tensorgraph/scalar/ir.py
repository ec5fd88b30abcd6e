"""The scalar IR: sums and products of scalars in single-assignment form, every distinct value once.

Scope: values are the constant one, inputs, products of two values, linear combinations with exact rational
coefficients, and functions of one value (``functions``). A *reference* to a value is ``Linear``: a coefficient times a
value, so negation and scaling cost nothing until emission, and zero is the reference with coefficient 0. Construction
simplifies: products commute, like terms of a sum are merged, coefficients are pulled out, so equal expressions become
the same value (hash-consing). Symmetric components of a tensor thus collapse by themselves. Not in scope: branches,
loops.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from math import gcd, lcm
from typing import Any

import numpy as np

from tensorgraph.errors import BudgetError
from tensorgraph.scalar.functions import FUNCTIONS


@dataclass(frozen=True)
class One:
    """The constant one."""


@dataclass(frozen=True)
class Input:
    """Element ``index`` of the input array ``array``."""

    array: str
    index: int


@dataclass(frozen=True)
class Product:
    """The product of two values, the smaller number first."""

    left: int
    right: int


@dataclass(frozen=True)
class Sum:
    """A linear combination of values by ascending number.

    A builder makes them without a common factor and the first coefficient positive, so that multiples are one value. A
    finished program may compute a multiple (``scaling``), even that of a single value.
    """

    terms: tuple[tuple[Fraction, int], ...]


@dataclass(frozen=True)
class Applied:
    """A function, by its name in ``FUNCTIONS``, of a value."""

    function: str
    argument: int


Node = One | Input | Product | Sum | Applied


@dataclass(frozen=True)
class Linear:
    """A coefficient times a value: how values are referred to."""

    coefficient: Fraction
    value: int

    def __neg__(self) -> Linear:
        return Linear(-self.coefficient, self.value)

    def scaled(self, factor: Fraction | int | float) -> Linear:
        """The reference times a number; a float is the rational that it is."""
        exact = Fraction(factor) if isinstance(factor, float) else factor
        return Linear(self.coefficient * exact, self.value) if exact else ZERO


ZERO = Linear(Fraction(0), 0)


class Axes(Enum):
    """What an array has besides its elements. Programs run for rows (atoms or pairs) times columns (channels, say):
    an input that lacks one of these is the same along it, an output that lacks one is summed over it."""

    BOTH = "[rows, size, columns]"
    ROWS = "[rows, size]"
    COLUMNS = "[size, columns]"


@dataclass(frozen=True)
class ArrayRef:
    """An input or output array: its name, number of scalar elements, and axes."""

    name: str
    size: int
    axes: Axes = Axes.BOTH


@dataclass(frozen=True)
class ScalarProgram:
    """A finished program: live values in the order of computation, and for each output array its elements."""

    inputs: tuple[ArrayRef, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[tuple[ArrayRef, tuple[Linear, ...]], ...]

    @property
    def results(self) -> tuple[ArrayRef, ...]:
        """The output arrays."""
        return tuple(array for array, _ in self.outputs)

    def verify(self) -> None:
        """Checks single assignment, canonical form, and that every value is used.

        Raises:
            ValueError: the first value or output that is wrong.
        """
        sizes = {array.name: array.size for array in self.inputs}
        seen: set[Node] = set()
        for number, node in enumerate(self.nodes):
            if node in seen:
                raise ValueError(f"value {number} is computed twice: {node}")
            seen.add(node)
            if not all(0 <= operand < number for operand in operands(node)):
                raise ValueError(f"value {number} uses a later one: {node}")
            if not _is_canonical(node):
                raise ValueError(f"value {number} is not in canonical form: {node}")
            if isinstance(node, Input) and not 0 <= node.index < sizes.get(node.array, 0):
                raise ValueError(f"value {number} reads {node.array}[{node.index}], which is no input")
        roots = [element.value for _, elements in self.outputs for element in elements if element.coefficient]
        if not all(0 <= root < len(self.nodes) for root in roots):
            raise ValueError("an output refers to a value that does not exist")
        if len(_live(self.nodes, roots)) != len(self.nodes):
            raise ValueError("a value is computed that no output needs")
        for array, elements in self.outputs:
            if len(elements) != array.size:
                raise ValueError(f"output {array.name} has {len(elements)} elements, not {array.size}")

    def __str__(self) -> str:
        lines = [f"%{number} = {_text(node)}" for number, node in enumerate(self.nodes)]
        for array, elements in self.outputs:
            lines += [f"{array.name}[{k}] = {_linear_text([(e.coefficient, e.value)])}" for k, e in enumerate(elements)]
        return "\n".join(lines)


MAX_VALUES = 250_000
"""Values that a builder makes at most: a bound on minutes of compiling. Measured on one core for the family flexible,
body order 5: 23,000 values of rank 6 take 20 s, 50,000 of rank 7 take 45 s. Programs a tenth as long as the bound
overflow a GPU's registers."""


LARGEST_INTEGER = 2**40
"""Of the coefficients of a sum without their common factor: beyond it, as for lengths that are floats, that would leave
the range of float32."""


class Builder:
    """Makes values, each once. The only place where nodes come from; simplification happens here.

    Raises:
        BudgetError: by any method, once there are more than ``MAX_VALUES`` values.
    """

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self._numbers: dict[Node, int] = {}
        self.one = Linear(Fraction(1), self._number(One()))

    def _number(self, node: Node) -> int:
        if node not in self._numbers:
            if len(self.nodes) == MAX_VALUES:
                allowed = "a smaller body order or rank, or a family that keeps fewer graphs"
                raise BudgetError(f"a program of more than {MAX_VALUES} values; allowed: {allowed}")
            self._numbers[node] = len(self.nodes)
            self.nodes.append(node)
        return self._numbers[node]

    def forget(self, mark: int) -> None:
        """Unmakes the values from number ``mark`` on: a trial is taken back."""
        for node in self.nodes[mark:]:
            del self._numbers[node]
        del self.nodes[mark:]

    def input(self, array: str, index: int) -> Linear:
        """An element of an input array."""
        return Linear(Fraction(1), self._number(Input(array, index)))

    def product(self, left: Linear, right: Linear) -> Linear:
        """The product of two references; coefficients and the constant one are pulled out."""
        coefficient = right.coefficient if left.coefficient == 1 else left.coefficient * right.coefficient
        if not coefficient:
            return ZERO
        for factor, other in ((left, right), (right, left)):
            if factor.value == self.one.value:
                return Linear(coefficient, other.value)
        first, second = sorted((left.value, right.value))
        return Linear(coefficient, self._number(Product(first, second)))

    def sum(self, terms: Iterable[Linear]) -> Linear:
        """The sum of references; like terms merge, and the common factor is pulled out so that multiples are shared."""
        merged: dict[int, Fraction] = {}
        for term in terms:
            known = merged.get(term.value)
            merged[term.value] = term.coefficient if known is None else known + term.coefficient
        kept = [(coefficient, value) for value, coefficient in sorted(merged.items()) if coefficient]
        if not kept:
            return ZERO
        common = _common_factor([coefficient for coefficient, _ in kept])
        if len(kept) == 1:
            return Linear(*kept[0])
        if common != 1:
            kept = [(coefficient / common, value) for coefficient, value in kept]
        return Linear(common, self._number(Sum(tuple(kept))))

    def apply(self, function: str, argument: Linear) -> Linear:
        """A function, by its name in ``FUNCTIONS``, of a reference.

        Raises:
            ValueError: the argument is zero, where the function has no exact value.
        """
        if not argument.coefficient:
            at_zero = FUNCTIONS[function].at_zero
            if at_zero is None:
                raise ValueError(f"{function} of zero is no rational")
            return self.one.scaled(at_zero)
        value = argument.value
        if argument.coefficient != 1:
            value = self._number(Sum(((argument.coefficient, value),)))
        return Linear(Fraction(1), self._number(Applied(function, value)))

    def finish(self, inputs: Sequence[ArrayRef], outputs: Mapping[ArrayRef, Sequence[Linear]]) -> ScalarProgram:
        """The program that computes these outputs, without what they do not need."""
        roots = [element.value for elements in outputs.values() for element in elements if element.coefficient]
        live = _live(self.nodes, roots)
        number = {old: new for new, old in enumerate(live)}
        nodes = tuple(_renumbered(self.nodes[old], number) for old in live)
        program = ScalarProgram(
            tuple(inputs),
            nodes,
            tuple(
                (array, tuple(Linear(e.coefficient, number[e.value]) if e.coefficient else ZERO for e in elements))
                for array, elements in outputs.items()
            ),
        )
        program.verify()
        return program


def _is_canonical(node: Node) -> bool:
    match node:
        case Product(left, right):
            return left <= right
        case Sum(terms):
            values, coefficients = [value for _, value in terms], [coefficient for coefficient, _ in terms]
            return values == sorted(set(values)) and all(coefficients) and (len(terms) > 1 or coefficients != [1])
        case One() | Input() | Applied():
            return True


def operands(node: Node) -> tuple[int, ...]:
    """The values that a node reads."""
    match node:
        case Product(left, right):
            return (left, right)
        case Sum(terms):
            return tuple(value for _, value in terms)
        case Applied(_, argument):
            return (argument,)
        case One() | Input():
            return ()


def evaluate(program: ScalarProgram, arrays: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
    """The meaning of a program, element by element, in the arithmetic of the inputs (floats, fractions, arrays).

    Functions are those of numbers, as floats.
    """
    exact = all(isinstance(element, int | Fraction) for array in arrays.values() for element in array)
    values: list[Any] = []
    for node in program.nodes:
        match node:
            case One():
                values.append(Fraction(1) if exact else 1.0)
            case Input(array, index):
                values.append(arrays[array][index])
            case Product(left, right):
                values.append(values[left] * values[right])
            case Sum(terms):
                values.append(sum(_times(coefficient, values[value]) for coefficient, value in terms))
            case Applied(function, argument):
                values.append(_applied(FUNCTIONS[function].evaluate, values[argument]))
    return {
        array.name: [_times(e.coefficient, values[e.value]) if e.coefficient else 0 for e in elements]
        for array, elements in program.outputs
    }


def _applied(function: Callable[[float], float], argument: Any) -> Any:
    """Of a number, or of each element of an array."""
    if hasattr(argument, "shape") and argument.shape:
        return np.vectorize(function, otypes=[float])(argument)
    return function(argument)


def _times(coefficient: Fraction, value: Any) -> Any:
    """Numerator and denominator apart: integers stay exact in any arithmetic, and floats round once."""
    scaled = value * coefficient.numerator
    return scaled if coefficient.denominator == 1 else scaled / coefficient.denominator


def _common_factor(coefficients: Sequence[Fraction]) -> Fraction:
    """The largest rational that divides all into integers, with the sign of the first, or the first of wild ones."""
    factor = Fraction(gcd(*(c.numerator for c in coefficients)), lcm(*(c.denominator for c in coefficients)))
    if max(map(abs, coefficients)) > LARGEST_INTEGER * factor:
        return coefficients[0]
    return factor if coefficients[0] > 0 else -factor


def _live(nodes: Sequence[Node], roots: Iterable[int]) -> list[int]:
    reached: set[int] = set()
    frontier = list(roots)
    while frontier:
        value = frontier.pop()
        if value not in reached:
            reached.add(value)
            frontier.extend(operands(nodes[value]))
    return sorted(reached)


def _renumbered(node: Node, number: Mapping[int, int]) -> Node:
    match node:
        case Product(left, right):
            return Product(number[left], number[right])
        case Sum(terms):
            return Sum(tuple((coefficient, number[value]) for coefficient, value in terms))
        case Applied(function, argument):
            return Applied(function, number[argument])
        case One() | Input():
            return node


def _text(node: Node) -> str:
    match node:
        case One():
            return "1"
        case Input(array, index):
            return f"{array}[{index}]"
        case Product(left, right):
            return f"%{left} * %{right}"
        case Sum(terms):
            return _linear_text(terms)
        case Applied(function, argument):
            return f"{function} %{argument}"


def _linear_text(terms: Sequence[tuple[Fraction, int]]) -> str:
    return " + ".join(f"%{value}" if c == 1 else f"{c} %{value}" for c, value in terms)
