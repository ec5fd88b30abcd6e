"""Two-term sums that several sums contain, up to a factor, computed once.

Greedy, the most frequent pair first, until no pair saves anything (Hosangadi, Fallah and Kastner, IEEE Trans. CAD 25
(2006) 2012, for linear forms): sums of sums of pairs cover longer common parts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction
from heapq import heapify, heappop, heappush

from tensorgraph.scalar.bilinear import price
from tensorgraph.scalar.ir import ZERO, Builder, Input, Linear, One, Product, ScalarProgram, Sum, operands

Terms = dict[int, Fraction]
"""Values of a sum with their coefficients."""

Pair = tuple[int, int, Fraction]
"""Two values, the smaller number first, and the second's coefficient if the first's is one."""


def shared(program: ScalarProgram) -> ScalarProgram:
    """The same outputs with common two-term sums computed once."""
    pairs = _Pairs(
        {value: {v: c for c, v in node.terms} for value, node in enumerate(program.nodes) if isinstance(node, Sum)},
        len(program.nodes),
    )
    pairs.share()
    return _rebuilt(program, pairs.sums)


class _Pairs:
    """The sums of a program, and for every pair those that contain it."""

    def __init__(self, sums: dict[int, Terms], first_free: int) -> None:
        self.sums = sums
        self.free = first_free
        self.owners: dict[Pair, set[int]] = {}
        self.waiting: list[tuple[int, Pair]] = []
        for value in sums:
            self.enter(value)
        self.waiting = [(-len(owners), pair) for pair, owners in self.owners.items() if len(owners) > 1]
        heapify(self.waiting)

    def share(self) -> None:
        """Takes the most frequent pair out of its sums as long as that saves operations."""
        while self.waiting:
            count, pair = heappop(self.waiting)
            if -count == len(self.owners[pair]):
                self.take_out(pair)
            elif -count > len(self.owners[pair]) > 1:  # of a count that has grown there is a later entry
                heappush(self.waiting, (-len(self.owners[pair]), pair))

    def take_out(self, pair: Pair) -> None:
        first, second, ratio = pair
        owners = sorted(self.owners[pair])
        itself = [value for value in owners if len(self.sums[value]) == 2]
        part = self.sums[itself[0]] if itself else {first: Fraction(1), second: ratio}
        number = itself[0] if itself else self.free
        without = {value: _replaced(self.sums[value], part, number) for value in owners if value not in itself}
        saved = {value: _cost(self.sums[value]) - _cost(terms) for value, terms in without.items()}
        worthwhile = [value for value in without if saved[value] > 0]
        if sum(saved[value] for value in worthwhile) <= (0 if itself else _cost(part)):
            return
        for value in worthwhile:
            self.leave(value)
            self.sums[value] = without[value]
            self.enter(value)
        if not itself:
            self.sums[number] = part
            self.free += 1
            self.enter(number)

    def enter(self, value: int) -> None:
        for pair in _pairs(self.sums[value]):
            owners = self.owners.setdefault(pair, set())
            owners.add(value)
            if len(owners) > 1:
                heappush(self.waiting, (-len(owners), pair))

    def leave(self, value: int) -> None:
        for pair in _pairs(self.sums[value]):
            self.owners[pair].discard(value)


def _pairs(terms: Terms) -> Iterable[Pair]:
    ordered = sorted(terms.items())
    for at, (first, coefficient) in enumerate(ordered):
        for second, other in ordered[at + 1 :]:
            yield first, second, other / coefficient


def _replaced(terms: Terms, part: Terms, number: int) -> Terms:
    """The terms with a multiple of a part of them replaced by that multiple of its number, which may be a term too."""
    first = min(part)
    result = {value: coefficient for value, coefficient in terms.items() if value not in part}
    result[number] = result.get(number, Fraction(0)) + terms[first] / part[first]
    return {value: coefficient for value, coefficient in result.items() if coefficient}


def _cost(terms: Terms) -> int:
    return price([Sum(tuple((coefficient, value) for value, coefficient in terms.items()))])


def _rebuilt(program: ScalarProgram, sums: Mapping[int, Terms]) -> ScalarProgram:
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


def _operands(program: ScalarProgram, sums: Mapping[int, Terms], value: int) -> Iterable[int]:
    return sums[value] if value in sums else operands(program.nodes[value])


def _made(
    builder: Builder, program: ScalarProgram, sums: Mapping[int, Terms], value: int, made: Mapping[int, Linear]
) -> Linear:
    if value in sums:
        return builder.sum(made[v].scaled(coefficient) for v, coefficient in sums[value].items())
    match program.nodes[value]:
        case Product(left, right):
            return builder.product(made[left], made[right])
        case Input(array, index):
            return builder.input(array, index)
        case One():
            return builder.one
        case Sum():
            raise ValueError("a sum of the program is missing")
