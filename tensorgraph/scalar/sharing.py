"""Two-term sums that several sums contain, up to a factor, computed once.

Greedy, the most frequent pair first, until no pair saves anything (Hosangadi, Fallah and Kastner, IEEE Trans. CAD 25
(2006) 2012, for linear forms): sums of sums of pairs cover longer common parts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from heapq import heapify, heappop, heappush

from tensorgraph.scalar.ir import ZERO, Applied, Builder, Input, Linear, One, Product, ScalarProgram, Sum, operands

Terms = dict[int, int]
"""Values of a sum with their coefficients, by number."""

Pair = tuple[int, int, int]
"""Two values, the smaller one first, and the second's coefficient, by number, if the first's is one."""


def shared(program: ScalarProgram) -> ScalarProgram:
    """The same outputs with common two-term sums computed once."""
    pairs = _Pairs(program)
    pairs.share()
    return _rebuilt(program, pairs.written())


class _Rationals:
    """Non-zero rationals by number, so that what is done with them often is done once."""

    def __init__(self) -> None:
        self.numbers: dict[Fraction, int] = {}
        self.rationals: list[Fraction] = []
        self.sizes: list[int] = []
        self.ratios: dict[tuple[int, int], int] = {}
        self.one = self.number(Fraction(1))

    def number(self, rational: Fraction) -> int:
        if rational not in self.numbers:
            self.numbers[rational] = len(self.rationals)
            self.rationals.append(rational)
            self.sizes.append(self.numbers[rational])
            if rational < 0:
                self.sizes[-1] = self.number(-rational)
        return self.numbers[rational]

    def size(self, number: int) -> int:
        """The absolute value."""
        return self.sizes[number]

    def ratio(self, number: int, other: int) -> int:
        key = number, other
        if key not in self.ratios:
            self.ratios[key] = self.number(self.rationals[number] / self.rationals[other])
        return self.ratios[key]


@dataclass(frozen=True)
class _Change:
    """Of one sum the values that leave it, and one that enters it or gets another coefficient (None: it leaves)."""

    out: tuple[int, ...]
    value: int
    coefficient: int | None


class _Pairs:
    """The sums of a program, and for every pair those that contain it.

    In ``waiting`` is every pair of several sums, the most frequent first, but those that were not worth taking out when
    their turn came: they wait, in ``refused``, until one of their sums changes.
    """

    def __init__(self, program: ScalarProgram) -> None:
        self.rationals = _Rationals()
        self.sums: dict[int, Terms] = {
            value: {operand: self.rationals.number(coefficient) for coefficient, operand in node.terms}
            for value, node in enumerate(program.nodes)
            if isinstance(node, Sum)
        }
        self.sizes = {value: Counter(map(self.rationals.size, terms.values())) for value, terms in self.sums.items()}
        self.free = len(program.nodes)
        self.owners: dict[Pair, set[int]] = {}
        self.refused: dict[int, set[Pair]] = {}
        for value, terms in self.sums.items():
            ordered = sorted(terms)
            for at, operand in enumerate(ordered):
                for pair in self.pairs(terms, operand, ordered[at + 1 :]):
                    self.owners.setdefault(pair, set()).add(value)
        self.waiting = [self.entry(pair) for pair, owners in self.owners.items() if len(owners) > 1]
        heapify(self.waiting)

    def written(self) -> dict[int, dict[int, Fraction]]:
        """The sums with their coefficients."""
        rationals = self.rationals.rationals
        return {value: {v: rationals[c] for v, c in terms.items()} for value, terms in self.sums.items()}

    def pairs(self, terms: Terms, operand: int, others: Iterable[int]) -> list[Pair]:
        """The pairs of one term with others."""
        ratio, mine = self.rationals.ratio, terms[operand]
        return [
            (operand, other, ratio(terms[other], mine))
            if operand < other
            else (other, operand, ratio(mine, terms[other]))
            for other in others
            if other != operand
        ]

    def entry(self, pair: Pair) -> tuple[int, int, int, Fraction, Pair]:
        """What a pair waits as; the order does not depend on how rationals are numbered."""
        first, second, ratio = pair
        return -len(self.owners[pair]), first, second, self.rationals.rationals[ratio], pair

    def share(self) -> None:
        """Takes the most frequent pair out of its sums as long as that saves operations."""
        while self.waiting:
            count, *_, pair = heappop(self.waiting)
            now = len(self.owners.get(pair, ()))
            if -count == now:
                self.take_out(pair)
            elif -count > now > 1:  # of a count that has grown there is a later entry
                heappush(self.waiting, self.entry(pair))

    def take_out(self, pair: Pair) -> None:
        first, second, ratio = pair
        owners = sorted(self.owners[pair])
        itself = [value for value in owners if len(self.sums[value]) == 2]
        part = self.sums[itself[0]] if itself else {first: self.rationals.one, second: ratio}
        number = itself[0] if itself else self.free
        changes = {value: self.replacement(value, part, number) for value in owners if value not in itself}
        saved = {value: self.saving(value, change) for value, change in changes.items()}
        worthwhile = [value for value in changes if saved[value] > 0]
        if sum(saved[value] for value in worthwhile) <= (0 if itself else self.cost(part)):
            self.refuse(pair)
            return
        for value in worthwhile:
            self.change(value, changes[value])
        if not itself:
            self.sums[number] = part
            self.sizes[number] = Counter(map(self.rationals.size, part.values()))
            self.free += 1
            self.enter(number, [pair])
        else:
            self.refuse(pair)

    def refuse(self, pair: Pair) -> None:
        """Has a pair wait for a change of one of the sums that contain it."""
        for value in self.owners.get(pair, ()):
            self.refused.setdefault(value, set()).add(pair)

    def cost(self, terms: Terms) -> int:
        """Additions and scalings."""
        sizes = {self.rationals.size(coefficient) for coefficient in terms.values()}
        return len(terms) - 1 + len(sizes - {self.rationals.one})

    def replacement(self, value: int, part: Terms, number: int) -> _Change:
        """A multiple of a part of a sum replaced by that multiple of its number, which may be a term already."""
        terms, rationals, first = self.sums[value], self.rationals, min(part)
        coefficient = rationals.ratio(terms[first], part[first])
        if number in terms:
            total = rationals.rationals[terms[number]] + rationals.rationals[coefficient]
            return _Change(tuple(part), number, rationals.number(total) if total else None)
        return _Change(tuple(part), number, coefficient)

    def saving(self, value: int, change: _Change) -> int:
        """The additions and scalings that a change saves: terms, and sizes of coefficients other than one."""
        terms, size = self.sums[value], self.rationals.size
        gone = [*change.out, *([change.value] if change.value in terms else [])]
        fewer = Counter(size(terms[operand]) for operand in gone)
        saved = len(gone)
        if change.coefficient is not None:
            saved -= 1
            fewer[size(change.coefficient)] -= 1
        sizes = self.sizes[value]
        for number, less in fewer.items():
            if number != self.rationals.one:
                saved += (sizes[number] > 0) - (sizes[number] - less > 0)
        return saved

    def change(self, value: int, change: _Change) -> None:
        """Changes a sum, and looks again at the pairs in it that were refused."""
        terms, sizes = self.sums[value], self.sizes[value]
        for operand in (*change.out, *([change.value] if change.value in terms else [])):
            self.leave(value, self.pairs(terms, operand, terms))
            sizes[self.rationals.size(terms.pop(operand))] -= 1
        if change.coefficient is not None:
            terms[change.value] = change.coefficient
            sizes[self.rationals.size(change.coefficient)] += 1
            self.enter(value, self.pairs(terms, change.value, terms))
        for pair in self.refused.pop(value, ()):
            if len(self.owners.get(pair, ())) > 1:
                heappush(self.waiting, self.entry(pair))

    def enter(self, value: int, pairs: Iterable[Pair]) -> None:
        for pair in pairs:
            owners = self.owners.setdefault(pair, set())
            owners.add(value)
            if len(owners) > 1:
                heappush(self.waiting, self.entry(pair))

    def leave(self, value: int, pairs: Iterable[Pair]) -> None:
        for pair in pairs:
            owners = self.owners[pair]
            owners.discard(value)
            if not owners:
                del self.owners[pair]


def _rebuilt(program: ScalarProgram, sums: Mapping[int, Mapping[int, Fraction]]) -> ScalarProgram:
    """A program of the same values, some of its sums now written with others."""
    builder = Builder()
    made: dict[int, Linear] = {}
    roots = [element.value for _, elements in program.outputs for element in elements if element.coefficient]
    waiting = sorted(set(roots), reverse=True)
    while waiting:
        value = waiting[-1]
        missing = sorted((v for v in _operands(program, sums, value) if v not in made), reverse=True)
        if missing:
            waiting += missing
            continue
        made[waiting.pop()] = _made(builder, program, sums, value, made)
    outputs = {
        array: [made[e.value].scaled(e.coefficient) if e.coefficient else ZERO for e in elements]
        for array, elements in program.outputs
    }
    return builder.finish(program.inputs, outputs)


def _operands(program: ScalarProgram, sums: Mapping[int, Mapping[int, Fraction]], value: int) -> Iterable[int]:
    return sums[value] if value in sums else operands(program.nodes[value])


def _made(
    builder: Builder,
    program: ScalarProgram,
    sums: Mapping[int, Mapping[int, Fraction]],
    value: int,
    made: Mapping[int, Linear],
) -> Linear:
    if value in sums:
        return builder.sum(made[v].scaled(coefficient) for v, coefficient in sums[value].items())
    match program.nodes[value]:
        case Product(left, right):
            return builder.product(made[left], made[right])
        case Applied(function, argument):
            return builder.apply(function, made[argument])
        case Input(array, index):
            return builder.input(array, index)
        case One():
            return builder.one
        case Sum():
            raise ValueError("a sum of the program is missing")
