"""Programs as plain PyTorch functions: the path for CPUs, and the reference that every other target must equal."""

from __future__ import annotations

import textwrap

from tensorgraph.emit.printing import (
    LINE_LENGTH,
    Commentary,
    Labels,
    expression,
    functions_of,
    return_type,
    reused_names,
    sections,
    wrapped,
)
from tensorgraph.scalar import Axes, Derivatives, Instruction, Opcode, Store, StraightLine
from tensorgraph.scalar.functions import FUNCTIONS, LEAST_EXPONENT

PATTERNS: dict[Opcode | str, str] = {
    Opcode.CONSTANT: "torch.full_like({like}, {k})",
    Opcode.MULTIPLY: "{a} * {b}",
    Opcode.SCALE: "{k} * {a}",
    Opcode.ADD: "{a} + {b}",
    Opcode.SUBTRACT: "{a} - {b}",
    Opcode.MULTIPLY_ADD: "torch.addcmul({a}, {b}, {c})",
    Opcode.MULTIPLY_SUBTRACT: "torch.addcmul({a}, {b}, {c}, value=-1.0)",
    **{name: function.torch for name, function in FUNCTIONS.items()},
}

ELEMENTS = {Axes.BOTH: "{array}[:, {k}]", Axes.ROWS: "{array}[:, {k}, None]", Axes.COLUMNS: "{array}[{k}]"}
SUMS = {Axes.BOTH: "{x}", Axes.ROWS: "{x}.sum(1)", Axes.COLUMNS: "{x}.sum(0)"}
SHAPES = {
    Axes.BOTH: "{array} ``[n, {size}, ...]``",
    Axes.ROWS: "{array} ``[n, {size}]``",
    Axes.COLUMNS: "{array} ``[{size}, columns]``",
}

EXPONENTIAL = f'''
def exponential(exponents: Tensor) -> Tensor:
    """Of numbers that are not positive; exactly zero where they are below {LEAST_EXPONENT}."""
    values = torch.exp(exponents.clamp(min={LEAST_EXPONENT}.0))
    return values.masked_fill(exponents < {LEAST_EXPONENT}.0, 0.0)'''


IMPORTS = "import torch\nfrom torch import Tensor"


def print_programs(programs: Derivatives[StraightLine], commentary: Commentary) -> str:
    """The module with ``forward``, ``backward`` and ``double_backward``."""
    parts = [
        f'"""{commentary.subject} in plain PyTorch.\n\n{commentary.notes}\n"""',
        IMPORTS,
    ]
    if "exp" in functions_of(programs):
        parts.append(EXPONENTIAL)
    for name, line in zip(programs._fields, programs, strict=True):
        parts.append(
            "\n" + print_function(name, line, f"{line.operations.total} operations per row.", commentary.labels)
        )
    return "\n\n".join(parts) + "\n"


def print_function(name: str, line: StraightLine, summary: str, labels: Labels) -> str:
    """One function from tensors ``[n, size, ...]`` to stacked outputs, but see ``Axes``."""
    stores = [item for item in line.body if isinstance(item, Store)]
    names = reused_names(line, (item.target for item in stores if item.target is not None))
    like = f"{line.inputs[0].name}[:, 0]"
    axes = {array.name: array.axes for array in line.inputs}
    body = _signature(name, line, summary)
    for comment, items in sections(line, labels):
        body.append(f"    # {comment}")
        body += [
            f"    {names[item.target]} = {_right_hand_side(item, names, like, axes)}"
            for item in items
            if isinstance(item, Instruction)
        ]
    if any(item.target is None for item in stores):
        body.append(f"    zero = torch.zeros_like({like})")
    for array in line.outputs:
        own = sorted((store for store in stores if store.array == array.name), key=lambda store: store.index)
        values = ("zero" if store.target is None else names[store.target] for store in own)
        elements = [SUMS[array.axes].format(x=value) for value in values]
        closing = f"{',' if len(elements) == 1 else ''}), dim={0 if array.axes is Axes.COLUMNS else 1})"
        body += wrapped(f"    {array.name} = torch.stack((", elements, closing)
    body.append(f"    return {', '.join(array.name for array in line.outputs)}")
    return "\n".join(body)


def _signature(name: str, line: StraightLine, summary: str) -> list[str]:
    takes, gives = (
        ", ".join(SHAPES[array.axes].format(array=array.name, size=array.size) for array in arrays)
        for arrays in (line.inputs, line.outputs)
    )
    arguments = (f"{array.name}: Tensor" for array in line.inputs)
    return [
        *wrapped(f"def {name}(", arguments, f") -> {return_type(line)}:"),
        f'    """{summary}',
        "",
        "    Args:",
        *_filled(takes),
        "    Returns:",
        *_filled(gives),
        '    """',
    ]


def _filled(text: str) -> list[str]:
    return textwrap.wrap(text, LINE_LENGTH, initial_indent=" " * 8, subsequent_indent=" " * 8)


def _right_hand_side(item: Instruction, names: dict[int, str], like: str, axes: dict[str, Axes]) -> str:
    if item.source is not None:
        return ELEMENTS[axes[item.source.array]].format(array=item.source.array, k=item.source.index)
    return expression(PATTERNS, item, names, like)
