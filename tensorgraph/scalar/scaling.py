"""Which multiples of its values a program computes, chosen so that few multiplications by constants are left.

A sum costs one multiplication for every size of its coefficients but 1. Doubling a sum changes the coefficients
wherever it is used, through products too, so often a coefficient that stands in many sums can be absorbed once. Every
sum but an exponent, and every input as a factor, is free to be computed as a multiple of itself; changes of one such
scale at a time are taken while they help: first until as few terms as possible have a coefficient other than 1 (up to
sign), then until as few multiplications as possible are left. The outputs stay what they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from fractions import Fraction

from tensorgraph.scalar.ir import ZERO, Applied, Input, Linear, Node, One, Product, ScalarProgram, Sum
from tensorgraph.scalar.selection import operations, selected

CANDIDATES = 4
"""Changes of one scale that are tried at a time."""

LARGEST = 1 << 32
"""Numerators and denominators up to which scales and coefficients may grow: far beyond those that tensors need."""


def rescaled(program: ScalarProgram) -> ScalarProgram:
    """The same outputs from conveniently scaled values."""
    search = _Search(program)
    for price_of_term in (1, 0):
        search.improve(price_of_term)
    scaled = _with_scales(program, search.scales())
    # The search counts a multiple of a value once for each sum; instructions make it once for all of them.
    return min(scaled, program, key=lambda candidate: operations(selected(candidate)))


class _Logarithms:
    """Positive rationals as integers, so that they multiply by addition: digits are the exponents of primes.

    What trial division up to ``LARGEST_PRIME`` leaves of a number counts as one more prime. Two numbers with a large
    common factor may then have a quotient that is not seen to be simple, but never one that is wrong.
    """

    BASE = 1 << 16
    LARGEST_PRIME = 1 << 8

    def __init__(self) -> None:
        self.primes: list[int] = []
        self.place: dict[int, int] = {}
        self.known: dict[Fraction, int] = {}

    def of(self, number: Fraction) -> int:
        if number not in self.known:
            self.known[number] = self._of_integer(number.numerator) - self._of_integer(number.denominator)
        return self.known[number]

    def _of_integer(self, number: int) -> int:
        result, prime = 0, 2
        while number > 1:
            if prime > self.LARGEST_PRIME:
                prime = number
            if number % prime:
                prime += 1
                continue
            if prime not in self.place:
                self.place[prime] = self.BASE ** len(self.primes)
                self.primes.append(prime)
            result += self.place[prime]
            number //= prime
        return result

    def exponents(self, logarithm: int) -> list[int]:
        """The digits, of either sign."""
        result = []
        while logarithm:
            result.append((logarithm + self.BASE // 2) % self.BASE - self.BASE // 2)
            logarithm = (logarithm - result[-1]) // self.BASE
        return result

    def root(self, logarithm: int, power: int) -> int | None:
        """The logarithm that is one ``power``-th of another, if every exponent can be divided."""
        if abs(power) > 1 and any(exponent % power for exponent in self.exponents(logarithm)):
            return None
        return logarithm // power

    def inverse(self, logarithm: int) -> Fraction:
        result = Fraction(1)
        for prime, exponent in zip(self.primes, self.exponents(logarithm), strict=False):
            result *= Fraction(prime) ** exponent
        return result

    def size(self, logarithm: int) -> int:
        """The larger one of numerator and denominator."""
        number = self.inverse(logarithm)
        return max(number.numerator, number.denominator)


Places = list[tuple[int, int]]
"""Where a scale enters a combination, and with which power."""


class _Combination:
    """The sizes of the coefficients of a sum or output, as logarithms; ``count`` is how many there are of each."""

    def __init__(self) -> None:
        self.logarithms: list[int] = []
        self.count: dict[int, int] = {}

    def add(self, logarithm: int) -> None:
        self.logarithms.append(logarithm)
        self.count[logarithm] = self.count.get(logarithm, 0) + 1

    def growth(self, places: Places, change: int, price_of_term: int) -> int:
        """What a change of the scale that enters at some places would add to the cost."""
        if len(places) == 1:  # as is most often so
            ((at, power),) = places
            return self._growth_of_one(self.logarithms[at], self.logarithms[at] + power * change, price_of_term)
        more: dict[int, int] = {}
        for at, power in places:
            old = self.logarithms[at]
            new = old + power * change
            more[old] = more.get(old, 0) - 1
            more[new] = more.get(new, 0) + 1
        growth, count = 0, self.count
        for logarithm, number in more.items():
            if logarithm:
                before = count.get(logarithm, 0)
                growth += (before + number > 0) - (before > 0) + price_of_term * number
        return growth

    def _growth_of_one(self, old: int, new: int, price_of_term: int) -> int:
        growth = 0
        if old:
            growth -= price_of_term + (self.count[old] == 1)
        if new:
            growth += price_of_term + (new not in self.count)
        return growth

    def change(self, places: Places, change: int) -> None:
        for at, power in places:
            old = self.logarithms[at]
            new = self.logarithms[at] = old + power * change
            self.count[new] = self.count.get(new, 0) + 1
            self.count[old] -= 1
            if not self.count[old]:
                del self.count[old]


class _Search:
    """Scales of values, as logarithms, and where they enter.

    ``combinations`` are the sums by definition, then the outputs; ``uses`` are for each scale the combinations that it
    enters, with the places there and the powers. The scale of a sum itself enters all places of its definition.
    """

    def __init__(self, program: ScalarProgram) -> None:
        self.nodes = program.nodes
        self.logarithms = _Logarithms()
        arguments = {node.argument for node in program.nodes if isinstance(node, Applied)}
        free = (value for value, node in enumerate(program.nodes) if isinstance(node, Sum | Input))
        self.scale = {value: 0 for value in free if value not in arguments}
        self.combinations: list[_Combination] = []
        self.uses: dict[int, dict[int, Places]] = {value: {} for value in self.scale}
        factors = _factors(program.nodes, arguments)
        for value, node in enumerate(program.nodes):
            if isinstance(node, Sum):
                if value in self.uses:
                    self.uses[value][len(self.combinations)] = [(at, 1) for at in range(len(node.terms))]
                self.add(node.terms, factors)
        for _, elements in program.outputs:
            for element in elements:
                if element.coefficient:
                    self.add([(element.coefficient, element.value)], factors)
        self.scales_in: list[list[int]] = [[] for _ in self.combinations]
        for value, uses in self.uses.items():
            for number in uses:
                self.scales_in[number].append(value)

    def add(self, terms: Iterable[tuple[Fraction, int]], factors: list[Counter[int]]) -> None:
        """One more combination. A term that is an input is always the input itself, not its scaled copy."""
        combination = _Combination()
        for at, (coefficient, value) in enumerate(terms):
            combination.add(self.logarithms.of(abs(coefficient)))
            if not isinstance(self.nodes[value], Input):
                for factor, power in factors[value].items():
                    self.uses[factor].setdefault(len(self.combinations), []).append((at, -power))
        self.combinations.append(combination)

    def improve(self, price_of_term: int) -> None:
        """Changes one scale at a time while the cost falls, and looks again at those that a change concerns."""
        waiting = list(self.scale)
        while waiting:
            concerned: set[int] = set()
            for value in waiting:
                growths = ((self.growth(value, change, price_of_term), change) for change in self.candidates(value))
                better = sorted((growth, change) for growth, change in growths if growth < 0)
                best = next((change for _, change in better if self.is_moderate(value, change)), None)
                if best is not None:
                    self.change(value, best)
                    concerned.update(other for n in self.uses[value] for other in self.scales_in[n])
            waiting = sorted(concerned)

    def candidates(self, value: int) -> list[int]:
        """Back to the value itself, and the changes that make the most coefficients 1."""
        wanted: Counter[int] = Counter()
        for number, places in self.uses[value].items():
            logarithms = self.combinations[number].logarithms
            for at, power in places:
                if (root := self.logarithms.root(logarithms[at], -power)) is not None:
                    wanted[root] += 1
        found = dict.fromkeys((-self.scale[value], *(change for change, _ in wanted.most_common(CANDIDATES))))
        return [change for change in found if change]

    def growth(self, value: int, change: int, price_of_term: int) -> int:
        """What a change of scale adds to the cost.

        That is the multiplications in all combinations that the scale enters, and a price for each term multiplied. The
        scaled copy of an input is one multiplication.
        """
        scale = self.scale[value]
        growth = (scale + change != 0) - (scale != 0) if isinstance(self.nodes[value], Input) else 0
        for number, places in self.uses[value].items():
            growth += self.combinations[number].growth(places, change, price_of_term)
        return growth

    def is_moderate(self, value: int, change: int) -> bool:
        """Whether no number that a change makes is beyond ``LARGEST``, unless it was larger before."""
        pairs = {(self.scale[value], self.scale[value] + change)}
        for number, places in self.uses[value].items():
            logarithms = self.combinations[number].logarithms
            pairs.update((logarithms[at], logarithms[at] + power * change) for at, power in places)
        size = self.logarithms.size
        return all(size(new) <= LARGEST or size(new) < size(old) for old, new in pairs)

    def change(self, value: int, change: int) -> None:
        self.scale[value] += change
        for number, places in self.uses[value].items():
            self.combinations[number].change(places, change)

    def scales(self) -> dict[int, Fraction]:
        return {value: self.logarithms.inverse(logarithm) for value, logarithm in self.scale.items()}


def _factors(nodes: tuple[Node, ...], exponents: Collection[int]) -> list[Counter[int]]:
    """Of every value the sums and inputs that it is a product of, with their powers; a sum or input is its own.

    Exponents, and exponentials, are what they are.
    """
    result: list[Counter[int]] = []
    for value, node in enumerate(nodes):
        match node:
            case Product(left, right):
                result.append(result[left] + result[right])
            case Sum() | Input():
                result.append(Counter({value: 1} if value not in exponents else {}))
            case One() | Applied():
                result.append(Counter())
    return result


def _itself(nodes: list[Node], reference: Linear) -> int:
    """The value that a reference means, as a multiple made if need be."""
    if reference.coefficient == 1:
        return reference.value
    node = Sum(((reference.coefficient, reference.value),))
    return nodes.index(node) if node in nodes else _put(nodes, node)


def _put(nodes: list[Node], node: Node) -> int:
    nodes.append(node)
    return len(nodes) - 1


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
                at = _put(nodes, Product(*sorted((factors[left], factors[right]))))
            case Sum(((coefficient, operand),)):
                at = _itself(nodes, terms[operand].scaled(coefficient * scales[value]))
            case Sum(old):
                new = [terms[operand].scaled(coefficient * scales[value]) for coefficient, operand in old]
                at = _put(nodes, Sum(tuple((t.coefficient, t.value) for t in sorted(new, key=lambda t: t.value))))
            case Applied(function, argument):
                at = _put(nodes, Applied(function, _itself(nodes, terms[argument])))
            case Input() | One():
                at = _put(nodes, node)
        terms.append(Linear(1 / scales[value], at))
        if isinstance(node, Input):
            terms[value] = Linear(Fraction(1), at)
            if scales[value] != 1:
                at = _put(nodes, Sum(((scales[value], at),)))
        factors.append(at)
    outputs = tuple(
        (array, tuple(terms[e.value].scaled(e.coefficient) if e.coefficient else ZERO for e in elements))
        for array, elements in program.outputs
    )
    result = ScalarProgram(program.inputs, tuple(nodes), outputs)
    result.verify()
    return result
