"""The contraction program and its meaning.

Scope: straight-line programs of pairwise contractions. Values ``0 … max_rank`` are the input tensors of those ranks;
value ``max_rank + 1 + k`` is the result of step ``k``, an open-legged multigraph whose axes are its legs in the
order of its vertices. Not in scope: sums, scalings, anything that is no contraction of two operands.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tensorgraph.graphs import Multigraph
from tensorgraph.graphs.multigraph import rank_letter

Array = NDArray[Any]


@dataclass(frozen=True)
class Operand:
    """A value and the index letter on each of its axes."""

    value: int
    indices: str


@dataclass(frozen=True)
class Step:
    """The contraction of two operands over the indices that they share; ``result`` orders what is left."""

    graph: Multigraph
    left: Operand
    right: Operand
    result: str

    @property
    def einsum(self) -> str:
        """The step as an einsum equation."""
        return f"{self.left.indices},{self.right.indices}->{self.result}"


@dataclass(frozen=True)
class ContractionProgram:
    """Steps in the order of their computation; ``outputs[k]`` is the value of invariant ``k``."""

    max_rank: int
    steps: tuple[Step, ...]
    outputs: tuple[int, ...]

    def name(self, value: int) -> str:
        """How a value is written: inputs by their rank's letter, intermediates as ``w1, w2, …``."""
        return rank_letter(value) if value <= self.max_rank else f"w{value - self.max_rank}"

    def legs(self, value: int) -> int:
        """Number of axes of a value."""
        return value if value <= self.max_rank else len(self.steps[value - self.max_rank - 1].result)

    def verify(self) -> None:
        """Checks that operands come before their use, axes fit, and every step computes the graph that it names.

        Raises:
            ValueError: the first step that is wrong.
        """
        for number, step in enumerate(self.steps):
            for operand in (step.left, step.right):
                if not 0 <= operand.value <= self.max_rank + number:
                    raise ValueError(f"step {number} uses value {operand.value} before it is computed")
                if len(operand.indices) != self.legs(operand.value):
                    raise ValueError(f"step {number} gives {operand.indices!r} to {self.name(operand.value)}")
            shared = set(step.left.indices) & set(step.right.indices)
            if sorted(step.result) != sorted(set(step.left.indices + step.right.indices) - shared):
                raise ValueError(f"step {number}: {step.einsum} is no contraction of two operands")
            if len(step.result) != sum(step.graph.legs):
                raise ValueError(f"step {number} has {len(step.result)} axes, its graph {sum(step.graph.legs)} legs")
        if any(self.legs(value) for value in self.outputs):
            raise ValueError("an output has open legs")

    def describe(self, step: Step, value: int) -> str:
        """One step in index notation with the graph that it computes."""
        left, right = (self.name(o.value) + (f"[{o.indices}]" if o.indices else "") for o in (step.left, step.right))
        result = self.name(value) + (f"[{step.result}]" if step.result else "")
        return f"{result} = {left} {right}    # {step.graph}"

    def __str__(self) -> str:
        first = self.max_rank + 1
        lines = [self.describe(step, first + number) for number, step in enumerate(self.steps)]
        return "\n".join([*lines, "return " + ", ".join(self.name(value) for value in self.outputs)])


def run(program: ContractionProgram, tensors: Mapping[int, Array]) -> list[Array]:
    """The meaning of a program: the invariants of full tensors of shape ``(3,)*l``, by einsum, step by step."""
    values: list[Array] = [np.asarray(tensors[rank]) for rank in range(program.max_rank + 1)]
    for step in program.steps:
        values.append(np.einsum(step.einsum, values[step.left.value], values[step.right.value]))
    return [values[value] for value in program.outputs]
