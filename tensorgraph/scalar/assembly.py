"""Assembly: the instructions that take the steps of a selection in a given order."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from tensorgraph.scalar.instructions import Instruction, Opcode, Store, StraightLine
from tensorgraph.scalar.ir import Input
from tensorgraph.scalar.selection import Accumulation, Called, Constant, Scaled, Selection, Step


def assembled(selection: Selection, order: Sequence[Step]) -> StraightLine:
    """The program that takes these steps; inputs are loaded right before their first use, results stored at once."""
    return _Assembler(selection).program(order)


class _Assembler:
    def __init__(self, selection: Selection) -> None:
        self.selection = selection
        self.body: list[Instruction | Store] = []
        self.where: dict[int, int] = {}
        self.sums: dict[int, tuple[bool, int]] = {}
        self.terms = [len(v.terms) if isinstance(v, Accumulation) else 1 for v in selection.values]
        self.stores: dict[int | None, list[Store]] = {}
        for array, index, value in selection.stores:
            self.stores.setdefault(value, []).append(Store(array, index, None))
        self.count = 0

    def program(self, order: Sequence[Step]) -> StraightLine:
        """The instructions of all steps, and the stores that need none."""
        for step in order:
            self.take(step)
        for value in list(self.stores):  # zeros, and leaves that no step reads
            self.body.extend(self.stores.pop(None)) if value is None else self.value(value)
        return StraightLine(self.selection.inputs, self.selection.outputs, tuple(self.body))

    def emit(
        self,
        opcode: Opcode,
        *operands: int,
        constant: Fraction = Fraction(1),
        source: Input | None = None,
        function: str = "",
    ) -> int:
        self.body.append(Instruction(opcode, self.count, operands, constant, source, function))
        self.count += 1
        return self.count - 1

    def made(self, value: int, target: int) -> None:
        """Notes where a value is, and stores it if it is an output."""
        self.where[value] = target
        self.body += [Store(store.array, store.index, target) for store in self.stores.pop(value, ())]

    def value(self, value: int) -> int:
        """Where a value is, loading it if need be."""
        if value not in self.where:
            match self.selection.values[value]:
                case Input() as source:
                    self.made(value, self.emit(Opcode.LOAD, source=source))
                case Constant(number):
                    self.made(value, self.emit(Opcode.CONSTANT, constant=number))
                case Scaled() | Called() | Accumulation():
                    raise ValueError(f"value {value} is read before it is made")
        return self.where[value]

    def take(self, step: Step) -> None:
        """The instruction of one step; the first value of a sum needs none."""
        factors = tuple(self.value(factor) for factor in step.term.factors)
        match self.selection.values[step.target]:
            case Scaled(factor, _):
                self.made(step.target, self.emit(Opcode.SCALE, *factors, constant=factor))
            case Called(function, _):
                self.made(step.target, self.emit(Opcode.APPLY, *factors, function=function))
            case _:
                self.sums[step.target] = self.accumulated(self.sums.get(step.target), step.term.positive, factors)
                self.terms[step.target] -= 1
                if not self.terms[step.target]:
                    self.made(step.target, self.sums.pop(step.target)[1])

    def accumulated(self, total: tuple[bool, int] | None, positive: bool, factors: tuple[int, ...]) -> tuple[bool, int]:
        """A sign and a value that together are the total plus the term.

        A total of negative terms is held with its sign changed, until a positive term turns it.
        """
        if total is None:
            return positive, factors[0] if len(factors) == 1 else self.emit(Opcode.MULTIPLY, *factors)
        sign, value = total
        if positive and not sign:
            term = factors[0] if len(factors) == 1 else self.emit(Opcode.MULTIPLY, *factors)
            return True, self.emit(Opcode.SUBTRACT, term, value)
        if len(factors) == 2:
            opcode = Opcode.MULTIPLY_ADD if positive == sign else Opcode.MULTIPLY_SUBTRACT
        else:
            opcode = Opcode.ADD if positive == sign else Opcode.SUBTRACT
        return sign, self.emit(opcode, value, *factors)
