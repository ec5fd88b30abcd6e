"""Instructions: a scalar program in machine-like steps, each value made right where the order puts it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction

from tensorgraph.scalar.ir import ArrayRef, Axes, Input


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
    APPLY = "f a"


COST = {
    Opcode.LOAD: (0, 0, 0),
    Opcode.CONSTANT: (0, 0, 0),
    Opcode.MULTIPLY: (0, 1, 0),
    Opcode.SCALE: (0, 1, 0),
    Opcode.ADD: (1, 0, 0),
    Opcode.SUBTRACT: (1, 0, 0),
    Opcode.MULTIPLY_ADD: (1, 1, 0),
    Opcode.MULTIPLY_SUBTRACT: (1, 1, 0),
    Opcode.APPLY: (0, 0, 1),
}
"""Additions, multiplications and functions."""

ARITY: dict[Opcode, int] = {opcode: sum(word in "abc" for word in opcode.value.split()) for opcode in Opcode}


@dataclass(frozen=True)
class Instruction:
    """``target = opcode(operands, constant)``; a load names its array and index, an application its function."""

    opcode: Opcode
    target: int
    operands: tuple[int, ...] = ()
    constant: Fraction = Fraction(1)
    source: Input | None = None
    function: str = ""

    def __str__(self) -> str:
        if self.source is not None:
            return f"x{self.target} = {self.source.array}[{self.source.index}]"
        names = dict(zip("abc", (f"x{operand}" for operand in self.operands), strict=False)) | {
            "k": str(self.constant),
            "f": self.function,
        }
        return f"x{self.target} = " + " ".join(names.get(word, word) for word in self.opcode.value.split())


@dataclass(frozen=True)
class OperationCount:
    """Arithmetic of a program per row and column; a fused multiply-add counts as two."""

    additions: int
    multiplications: int
    functions: int

    @property
    def total(self) -> int:
        """Additions, multiplications and functions."""
        return self.additions + self.multiplications + self.functions


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

        Where the program sums, it has no constants, and all that it stores depends on rows and columns: targets would
        differ in the shape, and so in the sum, of anything else.

        Raises:
            ValueError: the first instruction or store that is wrong.
        """
        made: set[int] = set()
        for at, item in enumerate(self.body):
            if not made.issuperset(reads(item)):
                raise ValueError(f"item {at} reads what is not there yet: {item}")
            if isinstance(item, Instruction):
                if item.target in made or len(item.operands) != ARITY[item.opcode]:
                    raise ValueError(f"item {at} is no instruction: {item}")
                made.add(item.target)
        stored = [(item.array, item.index) for item in self.body if isinstance(item, Store)]
        if sorted(stored) != sorted((array.name, index) for array in self.outputs for index in range(array.size)):
            raise ValueError("not every output element is stored exactly once")
        if self.sums:
            self._verify_axes()

    def _verify_axes(self) -> None:
        of_array = {array.name: array.axes for array in self.inputs}
        axes: dict[int | None, set[Axes]] = {None: set()}
        for at, item in enumerate(self.body):
            if isinstance(item, Instruction):
                if item.opcode is Opcode.CONSTANT:
                    raise ValueError(f"item {at} is a constant in a program that sums: {item}")
                own = {of_array[item.source.array]} if item.source else set()
                axes[item.target] = own.union(*(axes[operand] for operand in item.operands))
            elif Axes.BOTH not in axes[item.target] and axes[item.target] != {Axes.ROWS, Axes.COLUMNS}:
                raise ValueError(f"item {at} stores what does not depend on rows and columns: {item}")

    def __str__(self) -> str:
        return "\n".join(map(str, self.body))

    @property
    def sums(self) -> bool:
        """Whether some array has rows or columns alone, so that there are sums."""
        return any(array.axes is not Axes.BOTH for array in (*self.inputs, *self.outputs))

    @property
    def operations(self) -> OperationCount:
        """What the body costs."""
        costs = [COST[item.opcode] for item in self.body if isinstance(item, Instruction)]
        return OperationCount(*(sum(cost[kind] for cost in costs) for kind in range(3)))

    @property
    def live_profile(self) -> list[int]:
        """How many computed or loaded values are needed at the same time, at each item."""
        last = {operand: at for at, item in enumerate(self.body) for operand in reads(item)}
        ending = Counter(last.values())
        profile = []
        alive = 0
        for at, item in enumerate(self.body):
            alive += isinstance(item, Instruction)
            profile.append(alive)
            alive -= ending[at]
        return profile

    @property
    def live_values(self) -> int:
        """The largest number of computed or loaded values that are needed at the same time."""
        return max(self.live_profile, default=0)


def reads(item: Instruction | Store) -> tuple[int, ...]:
    """The values that an instruction or store needs, as often as it names them."""
    if isinstance(item, Store):
        return () if item.target is None else (item.target,)
    return item.operands
