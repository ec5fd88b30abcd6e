"""What the printers share: constants as literals, names for values, and wrapping of long lines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from tensorgraph.scalar import Instruction, Opcode, Store, StraightLine
from tensorgraph.scalar.functions import FUNCTIONS

LINE_LENGTH = 120


Labels = Mapping[str, Sequence[str]]
"""What the elements of an output array are, for the comment above their computation."""


@dataclass(frozen=True)
class Commentary:
    """What a reader of printed programs is told: what they compute, notes on how, and labels of the outputs."""

    subject: str
    notes: str
    labels: Labels


def sections(line: StraightLine, labels: Labels) -> Iterator[tuple[str, list[Instruction | Store]]]:
    """The body cut behind every store, each piece with a comment that says what it computes."""
    piece: list[Instruction | Store] = []
    for item in line.body:
        piece.append(item)
        if isinstance(item, Store):
            yield f"{item.array}[{item.index}]: {labels[item.array][item.index]}", piece
            piece = []


def functions_of(programs: Iterable[StraightLine]) -> list[str]:
    """The functions that the programs apply, by name, in the order of their table."""
    used = {item.function for line in programs for item in line.body if isinstance(item, Instruction)}
    return [name for name in FUNCTIONS if name in used]


def literal(constant: Fraction) -> str:
    """A rational as a float literal, correctly rounded to double precision."""
    return repr(float(constant))


def expression(
    patterns: Mapping[Opcode | str, str], instruction: Instruction, names: Mapping[int, str], like: str = ""
) -> str:
    """The right-hand side of an instruction by the target's pattern, which of a function is under its name.

    ``like`` is an array of the result's shape.
    """
    operands = dict(zip("abc", (names[operand] for operand in instruction.operands), strict=False))
    return patterns[instruction.function or instruction.opcode].format(
        k=literal(instruction.constant), like=like, **operands
    )


def return_type(line: StraightLine) -> str:
    """The annotation of a function that returns a program's outputs as tensors."""
    return "Tensor" if len(line.outputs) == 1 else f"tuple[{', '.join(['Tensor'] * len(line.outputs))}]"


def static_names(line: StraightLine) -> dict[int, str]:
    """A name of its own for every value."""
    return {item.target: f"x{item.target}" for item in line.body if isinstance(item, Instruction)}


def reused_names(line: StraightLine, returned: Iterable[int]) -> dict[int, str]:
    """Names that are taken again once a value is dead, so that rebinding a name frees the memory behind it."""
    last: dict[int, int] = {}
    for at, item in enumerate(line.body):
        for operand in item.operands if isinstance(item, Instruction) else ():
            last[operand] = at
    last.update(dict.fromkeys(returned, len(line.body)))
    names: dict[int, str] = {}
    free: list[int] = []
    taken: dict[int, int] = {}
    for at, item in enumerate(line.body):
        if isinstance(item, Store):
            continue
        ending = [operand for operand in dict.fromkeys(item.operands) if last[operand] == at]
        free.extend(taken.pop(operand) for operand in ending)
        free.sort(reverse=True)
        register = free.pop() if free else len(taken)
        taken[item.target] = register
        names[item.target] = f"x{register}"
    return names


def wrapped(opening: str, items: Iterable[str], closing: str, last: str = ",") -> list[str]:
    """``opening item, item, … closing`` on one line if it fits, else one indented block of filled lines.

    ``last`` stands behind the last item of such a block.
    """
    parts = list(items)
    single = f"{opening}{', '.join(parts)}{closing}"
    if len(single) <= LINE_LENGTH:
        return [single]
    margin = opening[: len(opening) - len(opening.lstrip())]
    inner = margin + "    "
    lines, current = [opening], inner
    for part in parts:
        if len(current) + len(part) + 2 > LINE_LENGTH:
            lines.append(current.rstrip())
            current = inner
        current += part + ", "
    return [*lines, current.rstrip(", ") + last, margin + closing.lstrip(",")]
