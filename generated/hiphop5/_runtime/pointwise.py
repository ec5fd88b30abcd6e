"""Printed programs over rows and columns as operators: arrays that lack rows or columns are the same along them.

The programs are printed from the scalar IR: the compiled ones take sums over columns and over rows within, and keep no
array of rows times columns besides the arguments, the values and their cotangents.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import native, trials
from .operators import alike, check_shapes, check_transforms, check_types, derivatives, dispatch, operator
from .programs import Printed

# Rows whose sums the C programs leave together: few enough that rounding does not add up over many rows.
BLOCK = 256

# Elements (rows times columns) that plain PyTorch takes at a time on a CPU: temporaries stay in its cache.
BLOCK_ELEMENTS = 65_536


Function = Callable[..., Any]


class Operand(NamedTuple):
    """An array of a program: elements of each row and column, and which of the two it has."""

    size: int
    rows: bool
    columns: bool

    def shape(self, rows: int, columns: int) -> tuple[int, ...]:
        """``[rows, size, columns]``, without what it lacks."""
        return (*((rows,) if self.rows else ()), self.size, *((columns,) if self.columns else ()))


class Pointwise:
    """The programs of a stem in a package as operators; called, the first of them.

    Takes the inputs and gives ``[rows, size, columns]``, differentiable to any order by ``torch.autograd``.
    """

    def __init__(self, package: str, stem: str, inputs: Sequence[Operand], output: Operand) -> None:
        self.stem, self.inputs, self.output = stem, tuple(inputs), output
        implementations: dict[str, Function] = {"forward": self._forward, "backward": self._backward}
        implementations["double_backward"] = self._double_backward
        self.printed = Printed(package, stem, trials.of_pointwise(implementations, self._operands))
        self.plain, self.source, code = self.printed.plain, self.printed.source, self.printed.texts

        def made(name: str, implementation: Function, fake: Function, vjp: Function, order: int) -> Any:
            return operator(name, implementation, fake, vjp, code, self._schema(order))

        self.forward = made(stem, self._forward, self._fake_forward, self._forward_vjp, 0)
        self.backward = made(f"{stem}_backward", self._backward, self._fake_backward, self._backward_vjp, 1)
        self.double_backward = made(
            f"{stem}_double_backward", self._double_backward, self._fake_double_backward, self._double_backward_vjp, 2
        )

    def __call__(self, *inputs: Tensor) -> Tensor:
        """The values. Raises ValueError for shapes, TypeError for dtypes, NotImplementedError for other derivatives."""
        check_transforms(self.stem, *inputs)
        self._check(self.stem, inputs)
        values: Tensor = self.forward(*inputs)
        return values

    def _operands(self, name: str) -> tuple[Operand, ...]:
        """What a program takes."""
        order = ("forward", "backward", "double_backward").index(name)
        return (self.inputs, (*self.inputs, self.output), (*self.inputs, self.output, *self.inputs))[order]

    def _made(self, name: str) -> tuple[Operand, ...]:
        """What a program gives."""
        if name == "forward":
            return (self.output,)
        return self.inputs if name == "backward" else (*self.inputs, self.output)

    def _schema(self, order: int) -> str:
        count = len(self.inputs)
        given = [f"Tensor x{k}" for k in range(count)] + ["Tensor grad"] * (order > 0)
        given += [f"Tensor change{k}" for k in range(count)] * (order > 1)
        made = ["Tensor"] * (1, count, count + 1)[order]
        return f"({', '.join(given)}) -> " + (made[0] if len(made) == 1 else f"({', '.join(made)})")

    def _forward(self, *given: Tensor) -> Tensor:
        return self._run("forward", given)[0]

    def _backward(self, *given: Tensor) -> tuple[Tensor, ...]:
        return self._run("backward", given)

    def _double_backward(self, *given: Tensor) -> tuple[Tensor, ...]:
        return self._run("double_backward", given)

    def _fake_forward(self, *given: Tensor) -> Tensor:
        return given[0].new_empty(self.output.shape(*self._sizes(given)))

    def _fake_backward(self, *given: Tensor) -> tuple[Tensor, ...]:
        return alike(*given[: len(self.inputs)])

    def _fake_double_backward(self, *given: Tensor) -> tuple[Tensor, ...]:
        return alike(*given[: len(self.inputs) + 1])

    def _forward_vjp(self, ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        slopes: tuple[Tensor, ...] = self.backward(*ctx.saved_tensors, grad)
        return slopes

    def _backward_vjp(self, ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        slopes: tuple[Tensor, ...] = self.double_backward(*ctx.saved_tensors, *grads)
        return slopes

    def _double_backward_vjp(self, ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Order three and above: PyTorch differentiates the plain functions."""
        return derivatives(self.plain.double_backward, ctx.saved_tensors, ctx.needs_input_grad, grads)

    def _sizes(self, given: Sequence[Tensor]) -> tuple[int, int]:
        """Rows and columns."""
        pairs = list(zip(given, self.inputs, strict=False))
        rows = next(tensor.shape[0] for tensor, operand in pairs if operand.rows)
        return rows, next(tensor.shape[-1] for tensor, operand in pairs if operand.columns)

    def _check(self, name: str, given: Sequence[Tensor]) -> None:
        """Compiled code does not check shapes: a mismatch would read out of bounds."""
        check_types(name, given)
        for tensor, operand in zip(given, self.inputs, strict=False):
            if tensor.dim() != 1 + operand.rows + operand.columns:
                raise ValueError(f"{name} needs {1 + operand.rows + operand.columns} axes, not {list(tensor.shape)}")
        operands = (*self.inputs, self.output, *self.inputs)
        check_shapes(name, given, [operand.shape(*self._sizes(given)) for operand in operands])

    def _run(self, name: str, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        self._check(f"{self.stem}, {name},", given)
        found = dispatch(name, self.printed.kernels, self.plain, given, lambda: self._on_cpu(name, given))
        return _as_tuple(found)

    def _on_cpu(self, name: str, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """By the C program, whose sums over rows are left by block; else by plain PyTorch, block by block."""
        rows, columns = self._sizes(given)
        made, blocks = self._made(name), -(-rows // BLOCK)
        outputs = [
            given[0].new_empty((*(() if operand.rows else (blocks,)), *operand.shape(rows, columns)))
            for operand in made
        ]
        inputs = [tensor.contiguous() for tensor in given]
        sizes = {"COLUMNS": columns, "BLOCK": BLOCK}
        if native.results(self.source, name, (rows,), rows * columns, inputs, tuple(outputs), **sizes) is None:
            return self._in_blocks(name, given)
        return tuple(t if o.rows else t.sum(0) for t, o in zip(outputs, made, strict=True))

    def _in_blocks(self, name: str, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """By a plain function over blocks of rows: results of rows side by side, of columns alone summed."""
        rows, columns = self._sizes(given)
        step, operands = max(1, BLOCK_ELEMENTS // max(1, columns)), self._operands(name)
        plain = getattr(self.plain, name)
        results = [
            _as_tuple(plain(*(t[k : k + step] if o.rows else t for t, o in zip(given, operands, strict=True))))
            for k in range(0, max(1, rows), step)
        ]
        return tuple(
            torch.cat(parts) if operand.rows else sum(parts[1:], parts[0])
            for parts, operand in zip(zip(*results, strict=True), self._made(name), strict=True)
        )


def _as_tuple(found: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return found if isinstance(found, tuple) else (found,)
