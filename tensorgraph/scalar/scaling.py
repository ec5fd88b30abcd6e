"""Which multiples of its values a program computes, chosen so that few multiplications by constants are left.

A sum costs one multiplication for every size of its coefficients but 1. Doubling a sum changes the coefficients
wherever it is used, through products too, so often a coefficient that stands in many sums can be absorbed once. Every
sum, and every input as a factor, is free to be computed as a multiple of itself; changes of one such scale at a time
are taken while they help: first until as few terms as possible have a coefficient other than 1 (up to sign), then until
as few multiplications as possible are left. The outputs stay what they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from tensorgraph.scalar.ir import ZERO, Input, Linear, Node, One, Product, ScalarProgram, Sum

PRIMES = (2, 3, 5)
DIGIT = 1000
"""A scale is a product of powers of ``PRIMES``; their exponents are digits of one integer, so scales multiply by adding
integers. Exponents stay below half of ``DIGIT``."""


def rescaled(program: ScalarProgram) -> ScalarProgram:
    """The same outputs from conveniently scaled values."""
    search = _Search(program)
    for price_of_term in (1, 0):
        search.improve(price_of_term)
    return _with_scales(program, search.scale)


@dataclass
class _Combination:
    """What one sum or output multiplies its terms by: of each, the coefficient's size without ``PRIMES`` and its scale."""

    sizes: list[Fraction]
    scales: list[int]

    def cost(self, price_of_term: int) -> int:
        """Multiplications by constants, and a price for each term that takes part in one."""
        scaled = [pair for pair in zip(self.sizes, self.scales, strict=True) if pair != (1, 0)]
        return len(set(scaled)) + price_of_term * len(scaled)


class _Search:
    def __init__(self, program: ScalarProgram) -> None:
        self.nodes = program.nodes
        self.factors = _factors(program.nodes)
        self.scale: dict[int, int] = {
            value: 0 for value, node in enumerate(program.nodes) if isinstance(node, Sum | Input)
        }
        self.combinations: list[_Combination] = []
        self.uses: dict[int, list[tuple[int, int, int]]] = {value: [] for value in self.scale}
        for value, node in enumerate(program.nodes):
            if isinstance(node, Sum):
                self.uses[value] += [(len(self.combinations), at, 1) for at in range(len(node.terms))]
                self.combine(node.terms)
        for _, elements in program.outputs:
            for element in elements:
                if element.coefficient:
                    self.combine(((element.coefficient, element.value),))

    def combine(self, terms: tuple[tuple[Fraction, int], ...]) -> None:
        """Notes which scales the coefficients of a sum depend on. A term that is an input is always the input itself."""
        for at, (_, value) in enumerate(terms):
            if not isinstance(self.nodes[value], Input):
                for factor, power in self.factors[value].items():
                    self.uses[factor].append((len(self.combinations), at, -power))
        parts = [_split(abs(coefficient)) for coefficient, _ in terms]
        self.combinations.append(_Combination([size for size, _ in parts], [scale for _, scale in parts]))

    def improve(self, price_of_term: int) -> None:
        """Changes one scale at a time while the cost falls."""
        improved = True
        while improved:
            improved = False
            for value in self.scale:
                best = min(self.candidates(value), key=lambda change: (self.cost(value, change, price_of_term), change))
                if best and self.cost(value, best, price_of_term) < self.cost(value, 0, price_of_term):
                    self.change(value, best)
                    improved = True

    def candidates(self, value: int) -> set[int]:
        """No change, back to the value itself, and changes that make a coefficient 1."""
        result = {0, -self.scale[value]}
        for number, at, power in self.uses[value]:
            wanted = -self.combinations[number].scales[at]
            if wanted % power == 0:
                result.add(wanted // power)
        return result

    def cost(self, value: int, change: int, price_of_term: int) -> int:
        """Of all combinations that a scale takes part in; the scaled copy of an input is one multiplication."""
        self.change(value, change)
        concerned = dict.fromkeys(number for number, _, _ in self.uses[value])
        cost = sum(self.combinations[number].cost(price_of_term) for number in concerned)
        copied = isinstance(self.nodes[value], Input) and self.scale[value] != 0
        self.change(value, -change)
        return cost + copied

    def change(self, value: int, change: int) -> None:
        self.scale[value] += change
        for number, at, power in self.uses[value]:
            self.combinations[number].scales[at] += power * change


def _factors(nodes: tuple[Node, ...]) -> list[Counter[int]]:
    """Of every value the sums and inputs that it is a product of, with their powers; a sum or input is its own."""
    result: list[Counter[int]] = []
    for value, node in enumerate(nodes):
        match node:
            case Product(left, right):
                result.append(result[left] + result[right])
            case Sum() | Input():
                result.append(Counter({value: 1}))
            case One():
                result.append(Counter())
    return result


def _with_scales(program: ScalarProgram, scale: Mapping[int, int]) -> ScalarProgram:
    """The program that computes the scaled values: numbers of scaled values as factors, references to values as terms."""
    nodes: list[Node] = []
    factors: list[int] = []
    terms: list[Linear] = []
    scales: list[Fraction] = []
    for value, node in enumerate(program.nodes):
        scales.append(_fraction(scale.get(value, 0)))
        match node:
            case Product(left, right):
                scales[value] = scales[left] * scales[right]
                nodes.append(Product(*sorted((factors[left], factors[right]))))
            case Sum(old):
                new = [terms[operand].scaled(coefficient * scales[value]) for coefficient, operand in old]
                nodes.append(Sum(tuple((term.coefficient, term.value) for term in sorted(new, key=lambda t: t.value))))
            case Input() | One():
                nodes.append(node)
        terms.append(Linear(1 / scales[value], len(nodes) - 1))
        if isinstance(node, Input):
            terms[value] = Linear(Fraction(1), len(nodes) - 1)
            if scales[value] != 1:
                nodes.append(Sum(((scales[value], len(nodes) - 1),)))
        factors.append(len(nodes) - 1)
    outputs = tuple(
        (array, tuple(terms[e.value].scaled(e.coefficient) if e.coefficient else ZERO for e in elements))
        for array, elements in program.outputs
    )
    result = ScalarProgram(program.inputs, tuple(nodes), outputs)
    result.verify()
    return result


def _split(size: Fraction) -> tuple[Fraction, int]:
    """A positive number as what is free of ``PRIMES`` and a scale."""
    scale = 0
    for digit, prime in enumerate(PRIMES):
        while size.numerator % prime == 0:
            size, scale = size / prime, scale + DIGIT**digit
        while size.denominator % prime == 0:
            size, scale = size * prime, scale - DIGIT**digit
    return size, scale


def _fraction(scale: int) -> Fraction:
    result = Fraction(1)
    for prime in PRIMES:
        exponent = (scale + DIGIT // 2) % DIGIT - DIGIT // 2
        scale = (scale - exponent) // DIGIT
        result *= Fraction(prime) ** exponent
    return result
