"""Programs with sums as Triton kernels: those with arrays of rows or of columns alone.

A kernel takes a tile of some rows and all columns. Sums over rows are left by tile and added in order afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from tensorgraph.emit.printing import expression, return_type, static_names, wrapped
from tensorgraph.scalar import ArrayRef, Axes, Derivatives, Opcode, Store, StraightLine

TILE = 512
"""Rows times columns of a tile."""
THREADS = 128
"""That work on one."""

SHELL = f'''\
import triton
import triton.language as tl
from torch import Tensor

from ._runtime.launching import launch

TILE = {TILE}
THREADS = {{programs}}


def tile(columns: int) -> tuple[int, int]:
    """The rows and columns of a tile."""
    width = triton.next_power_of_2(max(1, columns))
    return max(1, TILE // width), width


def _run(kernel, threads: int, rows: int, columns: int, tensors: tuple[Tensor, ...]) -> None:
    """Runs a kernel over all tiles of contiguous tensors; without columns it sums nothing to zeros."""
    if rows:
        height, width = tile(columns)
        sizes = {{{{"COLUMNS": columns, "HEIGHT": height, "WIDTH": width}}}}
        launch(kernel, threads, (triton.cdiv(rows, height),), (*tensors, rows), **sizes)'''

# Where the elements of an array begin, and how the others follow.
STARTS = {
    Axes.BOTH: "(row * {size})[:, None] * COLUMNS + column[None, :]",
    Axes.ROWS: "row * {size}",
    Axes.COLUMNS: "{tile}column",
}
STEPS = {Axes.BOTH: "{k} * COLUMNS", Axes.ROWS: "{k}", Axes.COLUMNS: "{k} * COLUMNS"}
LOADS = {
    Axes.BOTH: "tl.load({place}, mask=here, other=0.0)",
    Axes.ROWS: "tl.load({place}, mask=row < rows, other=0.0)[:, None]",
    Axes.COLUMNS: "tl.load({place}, mask=column < COLUMNS, other=0.0)[None, :]",
}
STORES = {
    Axes.BOTH: "tl.store({place}, {x}, mask=here)",
    Axes.ROWS: "tl.store({place}, tl.sum(tl.where(here, {x}, 0.0), axis=1), mask=row < rows)",
    Axes.COLUMNS: "tl.store({place}, tl.sum(tl.where(here, {x}, 0.0), axis=0), mask=column < COLUMNS)",
}
NEW = {
    Axes.BOTH: "new_empty((rows, {size}, columns))",
    Axes.ROWS: "new_empty((rows, {size}))",
    Axes.COLUMNS: "new_empty((triton.cdiv(rows, tile(columns)[0]), {size}, columns))",
}


def print_programs(opening: str, programs: Derivatives[StraightLine], patterns: Mapping[Opcode | str, str]) -> str:
    """The module with a kernel and a launching function for each program."""
    parts = [opening, SHELL.format(programs=repr(dict.fromkeys(programs._fields, THREADS)).replace("'", '"'))]
    for name, line in zip(programs._fields, programs, strict=True):
        parts += ["\n" + _kernel(name, line, patterns), "\n" + _launcher(name, line)]
    return "\n\n".join(parts) + "\n"


def _kernel(name: str, line: StraightLine, patterns: Mapping[Opcode | str, str]) -> str:
    pointers = [array.name for array in (*line.inputs, *line.outputs)]
    sizes = ["rows", "COLUMNS: tl.constexpr", "HEIGHT: tl.constexpr", "WIDTH: tl.constexpr"]
    operations = line.operations
    body = [
        '@triton.jit(do_not_specialize=["rows"])',
        *wrapped(f"def {name}_kernel(", [*pointers, *sizes], "):"),
        f"    # {operations.total} operations per row and column, {operations.functions} of them functions",
        "    tile = tl.program_id(0).to(tl.int64)",
        "    row = tile * HEIGHT + tl.arange(0, HEIGHT)",
        "    column = tl.arange(0, WIDTH)",
        "    here = (row < rows)[:, None] & (column < COLUMNS)[None, :]",
        *(f"    {text}" for text in (*_starts(line), *_body(line, patterns))),
    ]
    return "\n".join(body)


def _starts(line: StraightLine) -> Iterator[str]:
    for array in (*line.inputs, *line.outputs):
        tile = f"tile * ({array.size} * COLUMNS) + " if array in line.outputs else ""
        yield f"{array.name} += {STARTS[array.axes].format(size=array.size, tile=tile)}"


def _body(line: StraightLine, patterns: Mapping[Opcode | str, str]) -> Iterator[str]:
    names = static_names(line)
    axes = {array.name: array.axes for array in (*line.inputs, *line.outputs)}
    for item in line.body:
        if isinstance(item, Store):
            assert item.target is not None  # for zeros do not depend on rows and columns
            yield STORES[axes[item.array]].format(place=_place(item.array, item.index, axes), x=names[item.target])
        elif item.source is not None:
            source = item.source
            load = LOADS[axes[source.array]].format(place=_place(source.array, source.index, axes))
            yield f"{names[item.target]} = {load}"
        else:
            yield f"{names[item.target]} = {expression(patterns, item, names)}"


def _place(array: str, k: int, axes: Mapping[str, Axes]) -> str:
    return f"{array} + {STEPS[axes[array]].format(k=k)}" if k else array


def _launcher(name: str, line: StraightLine) -> str:
    inputs, outputs = ([array.name for array in arrays] for arrays in (line.inputs, line.outputs))
    body = [
        *wrapped(f"def {name}(", (f"{array}: Tensor" for array in inputs), f") -> {return_type(line)}:"),
        f'    """{line.operations.total} operations per row and column, fused into one kernel."""',
        f"    rows, columns = {_size(line.inputs, Axes.ROWS)}, {_size(line.inputs, Axes.COLUMNS)}",
        *(f"    {array} = {array}.contiguous()" for array in inputs),
        *(f"    {a.name} = {inputs[0]}.{NEW[a.axes].format(size=a.size)}" for a in line.outputs),
        *wrapped("    tensors = (", [*inputs, *outputs], ")"),
        f'    _run({name}_kernel, THREADS["{name}"], rows, columns, tensors)',
    ]
    results = (f"{a.name}.sum(0)" if a.axes is Axes.COLUMNS else a.name for a in line.outputs)
    return "\n".join([*body, f"    return {', '.join(results)}"])


def _size(arrays: Sequence[ArrayRef], axes: Axes) -> str:
    """How many rows or columns there are."""
    array = next(array for array in arrays if array.axes in (axes, Axes.BOTH))
    return f"{array.name}.shape[{0 if axes is Axes.ROWS else -1}]"
