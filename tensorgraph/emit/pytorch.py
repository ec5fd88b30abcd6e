"""Programs as plain PyTorch functions: the path for CPUs, and the reference that every other target must equal."""

from __future__ import annotations

from tensorgraph.emit.printing import Commentary, Labels, expression, return_type, reused_names, sections, wrapped
from tensorgraph.scalar import Derivatives, Instruction, Opcode, Store, StraightLine

PATTERNS = {
    Opcode.CONSTANT: "torch.full_like({like}, {k})",
    Opcode.MULTIPLY: "{a} * {b}",
    Opcode.SCALE: "{k} * {a}",
    Opcode.ADD: "{a} + {b}",
    Opcode.SUBTRACT: "{a} - {b}",
    Opcode.MULTIPLY_ADD: "torch.addcmul({a}, {b}, {c})",
    Opcode.MULTIPLY_SUBTRACT: "torch.addcmul({a}, {b}, {c}, value=-1.0)",
}


IMPORTS = "import torch\nfrom torch import Tensor"


def print_programs(programs: Derivatives[StraightLine], commentary: Commentary) -> str:
    """The module with ``forward``, ``backward`` and ``double_backward``."""
    parts = [
        f'"""{commentary.subject} in plain PyTorch.\n\n{commentary.notes}\n"""',
        IMPORTS,
    ]
    for name, line in zip(programs._fields, programs, strict=True):
        parts.append(
            "\n" + print_function(name, line, f"{line.operations.total} operations per row.", commentary.labels)
        )
    return "\n\n".join(parts) + "\n"


def print_function(name: str, line: StraightLine, summary: str, labels: Labels) -> str:
    """One function from ``[n, size, channels]`` tensors (or ``[n, size]``) to stacked outputs of the same layout."""
    stores = [item for item in line.body if isinstance(item, Store)]
    names = reused_names(line, (item.target for item in stores if item.target is not None))
    like = f"{line.inputs[0].name}[:, 0]"
    body = _signature(name, line, summary)
    for comment, items in sections(line, labels):
        body.append(f"    # {comment}")
        body += [
            f"    {names[item.target]} = {_right_hand_side(item, names, like)}"
            for item in items
            if isinstance(item, Instruction)
        ]
    if any(item.target is None for item in stores):
        body.append(f"    zero = torch.zeros_like({like})")
    for array in line.outputs:
        own = sorted((store for store in stores if store.array == array.name), key=lambda store: store.index)
        elements = ["zero" if store.target is None else names[store.target] for store in own]
        closing = ",), dim=1)" if len(elements) == 1 else "), dim=1)"
        body += wrapped(f"    {array.name} = torch.stack((", elements, closing)
    body.append(f"    return {', '.join(array.name for array in line.outputs)}")
    return "\n".join(body)


def _signature(name: str, line: StraightLine, summary: str) -> list[str]:
    arguments = ", ".join(f"{array.name}: Tensor" for array in line.inputs)
    takes, gives = (
        ", ".join(f"{array.name} ``[n, {array.size}, ...]``" for array in arrays)
        for arrays in (line.inputs, line.outputs)
    )
    return [
        f"def {name}({arguments}) -> {return_type(line)}:",
        f'    """{summary}',
        "",
        "    Args:",
        f"        {takes}",
        "    Returns:",
        f"        {gives}",
        '    """',
    ]


def _right_hand_side(item: Instruction, names: dict[int, str], like: str) -> str:
    if item.source is not None:
        return f"{item.source.array}[:, {item.source.index}]"
    return expression(PATTERNS, item, names, like)
