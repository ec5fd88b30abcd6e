"""Programs as Triton kernels: one thread per (atom, channel), one pass over memory.

Every value is a register as far as there are any: in float32 all fit up to rank 4, in float64 up to rank 3;
`tensorgraph kernels` tells which programs spill.
"""

from __future__ import annotations

from tensorgraph.emit import triton_tiles
from tensorgraph.emit.printing import (
    Commentary,
    Labels,
    expression,
    return_type,
    sections,
    static_names,
    wrapped,
)
from tensorgraph.scalar import Derivatives, Instruction, Opcode, Store, StraightLine
from tensorgraph.scalar.functions import FUNCTIONS

PATTERNS: dict[Opcode | str, str] = {
    Opcode.CONSTANT: "tl.full((BLOCK,), {k}, dtype)",
    Opcode.MULTIPLY: "{a} * {b}",
    Opcode.SCALE: "{k} * {a}",
    Opcode.ADD: "{a} + {b}",
    Opcode.SUBTRACT: "{a} - {b}",
    Opcode.MULTIPLY_ADD: "{a} + {b} * {c}",
    Opcode.MULTIPLY_SUBTRACT: "{a} - {b} * {c}",
    **{name: function.triton for name, function in FUNCTIONS.items()},
}

SHELL = '''\
import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 128


def options(lanes: int) -> dict:
    """How kernels are compiled for warps of so many lanes: one row for each thread, products fused into sums."""
    return {"num_warps": BLOCK // lanes, "enable_fp_fusion": True}


def launch(kernel, tensors: list[Tensor]) -> None:
    """Runs a kernel over all (atom, channel) rows of contiguous tensors ``[atoms, size, channels]``."""
    atoms, _, channels = tensors[0].shape
    rows = atoms * channels
    if rows > 2**31 - BLOCK:
        raise ValueError(f"{atoms} atoms of {channels} channels are more than 2**31 - {BLOCK} rows; split the call")
    if rows:
        device = tensors[0].device
        lanes = torch.cuda.get_device_properties(device).warp_size if device.type == "cuda" else 32
        with torch.cuda.device_of(tensors[0]):
            kernel[(triton.cdiv(rows, BLOCK),)](*tensors, rows, channels, BLOCK, **options(lanes))'''


def print_programs(programs: Derivatives[StraightLine], commentary: Commentary) -> str:
    """The module with a kernel and a launching function for each program."""
    opening = f'"""{commentary.subject} as fused Triton kernels.\n\n{commentary.notes}\n"""'
    if any(line.sums for line in programs):
        return triton_tiles.print_programs(opening, programs, PATTERNS)
    parts = [opening, SHELL]
    for name, line in zip(programs._fields, programs, strict=True):
        parts += ["\n" + _kernel(name, line, commentary.labels), "\n" + _launcher(name, line)]
    return "\n\n".join(parts) + "\n"


def _kernel(name: str, line: StraightLine, labels: Labels) -> str:
    pointers = [array.name for array in (*line.inputs, *line.outputs)]
    operations = line.operations
    numbers = sum(array.size for array in (*line.inputs, *line.outputs))
    body = [
        "@triton.jit",
        *wrapped(f"def {name}_kernel(", [*pointers, "rows", "channels: tl.constexpr", "BLOCK: tl.constexpr"], "):"),
        f"    # {operations.additions} additions, {operations.multiplications} multiplications,"
        f" {numbers} numbers moved per (atom, channel)",
        "    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)",
        "    mask = row < rows",
        "    # Rows fit 32 bits, offsets may not: one row is many numbers.",
        "    atom = (row // channels).to(tl.int64)",
        "    channel = row % channels",
        f"    dtype = {line.inputs[0].name}.dtype.element_ty",
    ]
    body += [f"    {a.name} += atom * ({a.size} * channels) + channel" for a in (*line.inputs, *line.outputs)]
    names = static_names(line)
    for comment, items in sections(line, labels):
        body.append(f"    # {comment}")
        for item in items:
            body.append("    " + (_store(item, names) if isinstance(item, Store) else _assignment(item, names)))
    return "\n".join(body)


def _assignment(item: Instruction, names: dict[int, str]) -> str:
    if item.source is not None:
        return f"{names[item.target]} = tl.load({_at(item.source.array, item.source.index)}, mask=mask, other=0.0)"
    return f"{names[item.target]} = {expression(PATTERNS, item, names)}"


def _store(item: Store, names: dict[int, str]) -> str:
    value = "tl.zeros((BLOCK,), dtype)" if item.target is None else names[item.target]
    return f"tl.store({_at(item.array, item.index)}, {value}, mask=mask)"


def _at(array: str, index: int) -> str:
    return f"{array} + {index} * channels" if index else array


def _launcher(name: str, line: StraightLine) -> str:
    inputs = [array.name for array in line.inputs]
    outputs = [array.name for array in line.outputs]
    body = [
        f"def {name}({', '.join(f'{array}: Tensor' for array in inputs)}) -> {return_type(line)}:",
        f'    """{line.operations.total} operations per (atom, channel), fused into one kernel."""',
    ]
    body += [f"    {array} = {array}.contiguous()" for array in inputs]
    body += [
        f"    {a.name} = {inputs[0]}.new_empty(({inputs[0]}.shape[0], {a.size}, {inputs[0]}.shape[2]))"
        for a in line.outputs
    ]
    body += [f"    launch({name}_kernel, [{', '.join([*inputs, *outputs])}])", f"    return {', '.join(outputs)}"]
    return "\n".join(body)
