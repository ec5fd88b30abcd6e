"""Which multiples of its values a program computes, chosen so that few multiplications by constants are left.

A sum costs one multiplication for every size of its coefficients but 1. Doubling a sum changes the coefficients
wherever it is used, through products too, so often a coefficient that stands in many sums can be absorbed once. Every
sum, and every input as a factor, is free to be computed as a multiple of itself; changes of one such scale at a time
are taken while they help: first until as few terms as possible have a coefficient other than 1 (up to sign), then until
as few multiplications as possible are left. The outputs stay what they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from fractions import Fraction

from tensorgraph.scalar.ir import ZERO, Input, Linear, Node, One, Product, ScalarProgram, Sum

CANDIDATES = 4
"""Changes of one scale that are tried at a time."""


def rescaled(program: ScalarProgram) -> ScalarProgram:
    """The same outputs from conveniently scaled values."""
    search = _Search(program)
    for price_of_term in (1, 0):
        search.improve(price_of_term)
    return _with_scales(program, search.scales())


class _Logarithms:
    """Positive rationals as integers, so that they multiply by addition: digits are the exponents of primes."""

    BASE = 1 << 16

    def __init__(self) -> None:
        self.primes: list[int] = []

    def of(self, number: Fraction) -> int:
        return self._of_integer(number.numerator) - self._of_integer(number.denominator)

    def _of_integer(self, number: int) -> int:
        result, prime = 0, 2
        while number > 1:
            if number % prime:
                prime += 1
                continue
            if prime not in self.primes:
                self.primes.append(prime)
            result += self.BASE ** self.primes.index(prime)
            number //= prime
        return result

    def inverse(self, logarithm: int) -> Fraction:
        result = Fraction(1)
        for prime in self.primes:
            exponent = (logarithm + self.BASE // 2) % self.BASE - self.BASE // 2
            logarithm = (logarithm - exponent) // self.BASE
            result *= Fraction(prime) ** exponent
        return result


class _Search:
    """Scales of values, and ``combinations``: of each sum and output the coefficients' sizes as logarithms."""

    def __init__(self, program: ScalarProgram) -> None:
        self.nodes = program.nodes
        self.logarithms = _Logarithms()
        self.scale = {value: 0 for value, node in enumerate(program.nodes) if isinstance(node, Sum | Input)}
        self.combinations: list[list[int]] = []
        self.uses: dict[int, list[tuple[int, int, int]]] = {value: [] for value in self.scale}
        factors = _factors(program.nodes)
        for value, node in enumerate(program.nodes):
            if isinstance(node, Sum):
                self.uses[value] += [(len(self.combinations), at, 1) for at in range(len(node.terms))]
                self.add(node.terms, factors)
        for _, elements in program.outputs:
            for element in elements:
                if element.coefficient:
                    self.add([(element.coefficient, element.value)], factors)
        self.combinations_of = {v: list(dict.fromkeys(number for number, _, _ in u)) for v, u in self.uses.items()}
        self.scales_in: list[list[int]] = [[] for _ in self.combinations]
        for value, numbers in self.combinations_of.items():
            for number in numbers:
                self.scales_in[number].append(value)

    def add(self, terms: Iterable[tuple[Fraction, int]], factors: list[Counter[int]]) -> None:
        """One more combination. A term that is an input is always the input itself, not its scaled copy."""
        combination = []
        for at, (coefficient, value) in enumerate(terms):
            combination.append(self.logarithms.of(abs(coefficient)))
            if not isinstance(self.nodes[value], Input):
                for factor, power in factors[value].items():
                    self.uses[factor].append((len(self.combinations), at, -power))
        self.combinations.append(combination)

    def improve(self, price_of_term: int) -> None:
        """Changes one scale at a time while the cost falls, and looks again at those that a change concerns."""
        waiting = list(self.scale)
        while waiting:
            concerned: set[int] = set()
            for value in waiting:
                costs = {change: self.cost(value, change, price_of_term) for change in self.candidates(value)}
                best = min(costs, key=lambda change: (costs[change], change))
                if costs[best] < costs[0]:
                    self.change(value, best)
                    concerned.update(other for n in self.combinations_of[value] for other in self.scales_in[n])
            waiting = sorted(concerned)

    def candidates(self, value: int) -> list[int]:
        """No change, back to the value itself, and the changes that make the most coefficients 1."""
        wanted: Counter[int] = Counter()
        for number, at, power in self.uses[value]:
            logarithm = self.combinations[number][at]
            if logarithm % power == 0:
                wanted[-logarithm // power] += 1
        return list(dict.fromkeys((0, -self.scale[value], *(change for change, _ in wanted.most_common(CANDIDATES)))))

    def cost(self, value: int, change: int, price_of_term: int) -> int:
        """Multiplications in all combinations that a scale takes part in, and a price for each term multiplied.

        The scaled copy of an input is one multiplication.
        """
        self.change(value, change)
        cost = int(isinstance(self.nodes[value], Input) and self.scale[value] != 0)
        for number in self.combinations_of[value]:
            scaled = [logarithm for logarithm in self.combinations[number] if logarithm]
            cost += len(set(scaled)) + price_of_term * len(scaled)
        self.change(value, -change)
        return cost

    def change(self, value: int, change: int) -> None:
        self.scale[value] += change
        for number, at, power in self.uses[value]:
            self.combinations[number][at] += power * change

    def scales(self) -> dict[int, Fraction]:
        return {value: self.logarithms.inverse(logarithm) for value, logarithm in self.scale.items()}


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


def _with_scales(program: ScalarProgram, scale: Mapping[int, Fraction]) -> ScalarProgram:
    """The program of scaled values: ``factors`` are their numbers in it, ``terms`` references to the values."""
    nodes: list[Node] = []
    factors: list[int] = []
    terms: list[Linear] = []
    scales: list[Fraction] = []
    for value, node in enumerate(program.nodes):
        scales.append(scale.get(value, Fraction(1)))
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
