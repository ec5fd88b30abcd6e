"""Scheduling: a scalar program as machine-like instructions in an order that keeps few values alive.

Sums become chains of additions; terms whose coefficients agree up to sign are added before they are scaled, so a
coefficient costs one multiplication for the whole group. A product that only one sum needs is fused into its chain
(multiply-add). Values are computed depth first from the outputs, each right before its first use.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction

from tensorgraph.scalar.ir import ArrayRef, Input, Linear, One, Product, ScalarProgram, Sum, operands


class Opcode(Enum):
    """What an instruction does with its operands ``a, b, c`` and its constant ``k``."""

    LOAD = "array [ index ]"
    CONSTANT = "k"
    MULTIPLY = "a * b"
    SCALE = "k * a"
    ADD = "a + b"
    SUBTRACT = "a - b"
    MULTIPLY_ADD = "a + b * c"
    MULTIPLY_SUBTRACT = "a - b * c"


COST = {
    Opcode.LOAD: (0, 0),
    Opcode.CONSTANT: (0, 0),
    Opcode.MULTIPLY: (0, 1),
    Opcode.SCALE: (0, 1),
    Opcode.ADD: (1, 0),
    Opcode.SUBTRACT: (1, 0),
    Opcode.MULTIPLY_ADD: (1, 1),
    Opcode.MULTIPLY_SUBTRACT: (1, 1),
}
"""Additions and multiplications."""

ARITY: dict[Opcode, int] = {opcode: sum(word in "abc" for word in opcode.value.split()) for opcode in Opcode}


@dataclass(frozen=True)
class Instruction:
    """``target = opcode(operands, constant)``; a load names its array and index instead."""

    opcode: Opcode
    target: int
    operands: tuple[int, ...] = ()
    constant: Fraction = Fraction(1)
    source: Input | None = None

    def __str__(self) -> str:
        if self.source is not None:
            return f"x{self.target} = {self.source.array}[{self.source.index}]"
        names = dict(zip("abc", (f"x{operand}" for operand in self.operands), strict=False)) | {"k": str(self.constant)}
        return f"x{self.target} = " + " ".join(names.get(word, word) for word in self.opcode.value.split())


@dataclass(frozen=True)
class OperationCount:
    """Arithmetic of a program per (atom, channel); a fused multiply-add counts as two."""

    additions: int
    multiplications: int

    @property
    def total(self) -> int:
        """Additions and multiplications."""
        return self.additions + self.multiplications


@dataclass(frozen=True)
class Store:
    """Element ``index`` of output ``array`` is ``target``; None stores zero."""

    array: str
    index: int
    target: int | None

    def __str__(self) -> str:
        return f"{self.array}[{self.index}] = " + ("0" if self.target is None else f"x{self.target}")


@dataclass(frozen=True)
class StraightLine:
    """Instructions and stores in order; what the emitters print."""

    inputs: tuple[ArrayRef, ...]
    outputs: tuple[ArrayRef, ...]
    body: tuple[Instruction | Store, ...]

    def verify(self) -> None:
        """Checks that values are made once and before their use, and that every output element is stored once.

        Raises:
            ValueError: the first instruction or store that is wrong.
        """
        made: set[int] = set()
        for at, item in enumerate(self.body):
            if not made.issuperset(_reads(item)):
                raise ValueError(f"item {at} reads what is not there yet: {item}")
            if isinstance(item, Instruction):
                if item.target in made or len(item.operands) != ARITY[item.opcode]:
                    raise ValueError(f"item {at} is no instruction: {item}")
                made.add(item.target)
        stored = [(item.array, item.index) for item in self.body if isinstance(item, Store)]
        if sorted(stored) != sorted((array.name, index) for array in self.outputs for index in range(array.size)):
            raise ValueError("not every output element is stored exactly once")

    def __str__(self) -> str:
        return "\n".join(map(str, self.body))

    @property
    def operations(self) -> OperationCount:
        """What the body costs."""
        costs = [COST[item.opcode] for item in self.body if isinstance(item, Instruction)]
        return OperationCount(sum(a for a, _ in costs), sum(m for _, m in costs))

    @property
    def live_values(self) -> int:
        """The largest number of computed or loaded values that are needed at the same time."""
        last = {operand: at for at, item in enumerate(self.body) for operand in _reads(item)}
        ending = Counter(last.values())
        alive = peak = 0
        for at, item in enumerate(self.body):
            alive += isinstance(item, Instruction)
            peak = max(peak, alive)
            alive -= ending[at]
        return peak


def scheduled(program: ScalarProgram) -> StraightLine:
    """The instructions of a program."""
    scheduler = _Scheduler(program)
    for array, elements in program.outputs:
        for index, element in enumerate(elements):
            scheduler.store(array.name, index, element)
    line = StraightLine(program.inputs, tuple(array for array, _ in program.outputs), tuple(scheduler.body))
    line.verify()
    return line


def _reads(item: Instruction | Store) -> Iterable[int]:
    if isinstance(item, Store):
        return () if item.target is None else (item.target,)
    return item.operands


class _Scheduler:
    def __init__(self, program: ScalarProgram) -> None:
        self.nodes = program.nodes
        self.uses: Counter[int] = Counter(operand for node in program.nodes for operand in operands(node))
        self.uses.update(e.value for _, elements in program.outputs for e in elements if e.coefficient)
        self.body: list[Instruction | Store] = []
        self.where: dict[int, int] = {}
        self.scaled: dict[tuple[Fraction, int], int] = {}
        self.count = 0

    def emit(
        self,
        opcode: Opcode,
        *operands: int,
        constant: Fraction = Fraction(1),
        source: Input | None = None,
    ) -> int:
        self.body.append(Instruction(opcode, self.count, operands, constant, source))
        self.count += 1
        return self.count - 1

    def store(self, array: str, index: int, element: Linear) -> None:
        target = self.scaled_value(element.coefficient, element.value) if element.coefficient else None
        self.body.append(Store(array, index, target))

    def scaled_value(self, coefficient: Fraction, value: int) -> int:
        """A coefficient times a value, each such pair once."""
        if coefficient == 1:
            return self.value(value)
        if (coefficient, value) not in self.scaled:
            if isinstance(self.nodes[value], One):
                self.scaled[coefficient, value] = self.emit(Opcode.CONSTANT, constant=coefficient)
            else:
                self.scaled[coefficient, value] = self.emit(Opcode.SCALE, self.value(value), constant=coefficient)
        return self.scaled[coefficient, value]

    def value(self, value: int) -> int:
        """Where a value is, computing it if need be."""
        if value not in self.where:
            match self.nodes[value]:
                case One():
                    self.where[value] = self.emit(Opcode.CONSTANT)
                case Input() as source:
                    self.where[value] = self.emit(Opcode.LOAD, source=source)
                case Product(left, right):
                    factors = self.value(left), self.value(right)
                    self.where[value] = self.emit(Opcode.MULTIPLY, *factors)
                case Sum(terms):
                    self.where[value] = self.linear_combination(terms)
        return self.where[value]

    def linear_combination(self, terms: tuple[tuple[Fraction, int], ...]) -> int:
        """A sum grouped by the size of the coefficients; the IR's normal form gives the first group a positive term."""
        groups: dict[Fraction, list[tuple[bool, int]]] = {}
        for coefficient, value in terms:
            groups.setdefault(abs(coefficient), []).append((coefficient > 0, value))
        total: int | None = None
        for size, members in groups.items():
            if size == 1 or self.is_constant(members):
                for positive, value in sorted(members, key=lambda member: not member[0]):
                    total = self.accumulated(total, size, positive, value)
                continue
            sign = any(positive for positive, _ in members)
            part: int | None = None
            for positive, value in sorted(members, key=lambda member: member[0] != sign):
                part = self.accumulated(part, Fraction(1), positive == sign, value)
            assert part is not None
            part = self.emit(Opcode.SCALE, part, constant=size)
            if total is not None:
                part = self.emit(Opcode.ADD if sign else Opcode.SUBTRACT, total, part)
            total = part
        assert total is not None
        return total

    def is_constant(self, members: list[tuple[bool, int]]) -> bool:
        return len(members) == 1 and isinstance(self.nodes[members[0][1]], One)

    def accumulated(self, total: int | None, size: Fraction, positive: bool, value: int) -> int:
        """``total ± size · value``, fused where the value is a product that nothing else needs."""
        node = self.nodes[value]
        if total is None:
            return self.scaled_value(size if positive else -size, value)
        if isinstance(node, Product) and self.uses[value] == 1 and size == 1 and value not in self.where:
            factors = self.value(node.left), self.value(node.right)
            return self.emit(Opcode.MULTIPLY_ADD if positive else Opcode.MULTIPLY_SUBTRACT, total, *factors)
        return self.emit(Opcode.ADD if positive else Opcode.SUBTRACT, total, self.scaled_value(size, value))
