"""Instruction selection: what is computed from what, with the order of everything left open.

Sums become accumulations whose terms may come in any order; terms whose coefficients agree up to sign are added before
they are scaled, so a coefficient costs one multiplication for the whole group. A product that only one sum needs is a
term with two factors, a fused multiply-add. The count of operations is decided here and holds for every order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from tensorgraph.scalar.ir import Applied, ArrayRef, Input, One, Product, ScalarProgram, Sum, operands


@dataclass(frozen=True)
class Constant:
    """A number."""

    number: Fraction


@dataclass(frozen=True)
class Scaled:
    """``factor · value``."""

    factor: Fraction
    value: int


@dataclass(frozen=True)
class Called:
    """A function, by its name, of a value."""

    function: str
    value: int


@dataclass(frozen=True)
class Term:
    """Plus or minus one value, or the product of two."""

    positive: bool
    factors: tuple[int, ...]


@dataclass(frozen=True)
class Accumulation:
    """The sum of terms, in any order. At least one is positive, so no order needs a negation."""

    terms: tuple[Term, ...]

    def __post_init__(self) -> None:
        if not any(term.positive for term in self.terms):
            raise ValueError("a sum needs a positive term")


Selected = Input | Constant | Scaled | Called | Accumulation


@dataclass(frozen=True)
class Selection:
    """Values by ascending dependence, and where they are stored: array, index, value (None is zero)."""

    inputs: tuple[ArrayRef, ...]
    outputs: tuple[ArrayRef, ...]
    values: tuple[Selected, ...]
    stores: tuple[tuple[str, int, int | None], ...]


def selected(program: ScalarProgram) -> Selection:
    """The accumulations, products and scalings that compute a program."""
    selector = _Selector(program)
    stores = tuple(
        (array.name, index, selector.scaled(element.coefficient, element.value) if element.coefficient else None)
        for array, elements in program.outputs
        for index, element in enumerate(elements)
    )
    return Selection(program.inputs, tuple(array for array, _ in program.outputs), tuple(selector.values), stores)


@dataclass(frozen=True)
class Step:
    """Adds a term to an accumulation, or scales a value or takes a function of it."""

    target: int
    term: Term


def steps(selection: Selection) -> Iterator[Step]:
    """All steps, by ascending target."""
    for target, value in enumerate(selection.values):
        match value:
            case Scaled(_, operand) | Called(_, operand):
                yield Step(target, Term(True, (operand,)))
            case Accumulation(terms):
                yield from (Step(target, term) for term in terms)
            case Input() | Constant():
                pass


def operations(selection: Selection) -> int:
    """Additions, multiplications and functions, in whatever order they are done."""
    total = 0
    for value in selection.values:
        match value:
            case Scaled() | Called():
                total += 1
            case Accumulation(terms):
                total += sum(len(term.factors) for term in terms) - 1
            case Input() | Constant():
                pass
    return total


class _Selector:
    def __init__(self, program: ScalarProgram) -> None:
        self.nodes = program.nodes
        uses = Counter(operand for node in program.nodes for operand in operands(node))
        uses.update(e.value for _, elements in program.outputs for e in elements if e.coefficient)
        self.single = {value for value, count in uses.items() if count == 1}
        self.values: list[Selected] = []
        self.numbers: dict[Selected, int] = {}
        self.where: dict[int, int] = {}
        for value, node in enumerate(program.nodes):
            # Products for one sum alone are made within it, and numbers only where they are read.
            if not isinstance(node, One) and not (isinstance(node, Product) and value in self.single):
                self.where[value] = self.value(value)

    def number(self, value: Selected) -> int:
        """Where a value is, each once."""
        if value not in self.numbers:
            self.numbers[value] = len(self.values)
            self.values.append(value)
        return self.numbers[value]

    def value(self, value: int) -> int:
        """Where a value of the program is."""
        if value in self.where:
            return self.where[value]
        match self.nodes[value]:
            case One():
                return self.number(Constant(Fraction(1)))
            case Input() as source:
                return self.number(source)
            case Product():
                return self.number(Accumulation((Term(True, self.factors(value)),)))
            case Applied(function, argument):
                return self.number(Called(function, self.value(argument)))
            case Sum(((coefficient, operand),)):
                return self.scaled(coefficient, operand)
            case Sum(terms):
                return self.number(Accumulation(tuple(self.terms(terms))))

    def factors(self, value: int) -> tuple[int, ...]:
        """The two factors of a product that is read once, else the value itself."""
        node = self.nodes[value]
        if isinstance(node, Product) and value not in self.where:
            return (self.value(node.left), self.value(node.right))
        return (self.value(value),)

    def scaled(self, coefficient: Fraction, value: int) -> int:
        """Where a coefficient times a value is."""
        if isinstance(self.nodes[value], One):
            return self.number(Constant(coefficient))
        at = self.value(value)
        return at if coefficient == 1 else self.number(Scaled(coefficient, at))

    def terms(self, terms: tuple[tuple[Fraction, int], ...]) -> list[Term]:
        """The terms of a sum, those with a common coefficient other than one gathered into one term."""
        groups: dict[Fraction, list[tuple[bool, int]]] = {}
        for coefficient, value in terms:
            groups.setdefault(abs(coefficient), []).append((coefficient > 0, value))
        result: list[Term] = []
        for size, members in groups.items():
            if size == 1:
                result += [Term(positive, self.factors(value)) for positive, value in members]
            elif len(members) == 1:
                result += [Term(positive, (self.scaled(size, value),)) for positive, value in members]
            else:
                sign = any(positive for positive, _ in members)
                part = tuple(Term(positive == sign, self.factors(value)) for positive, value in members)
                result.append(Term(sign, (self.number(Scaled(size, self.number(Accumulation(part)))),)))
        return result
