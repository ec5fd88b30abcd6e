"""Programs as C: one pass over memory, one vector register of channels at a time, on all cores.

A package carries the text; ``native.py`` of the runtime has the user's own compiler build it for the machine at hand.
Vector types are spelled out, so that nothing depends on what a compiler recognises as a loop, and compiling is a matter
of tenths of a second. It takes more than linear time for very long basic blocks; such programs are cut into parts, and
what a part leaves for later ones is kept in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tensorgraph.emit import c_functions, c_tiles
from tensorgraph.emit.printing import Commentary, Labels, expression, functions_of, static_names, wrapped
from tensorgraph.scalar import Derivatives, Instruction, Opcode, Store, StraightLine
from tensorgraph.scalar.functions import FUNCTIONS
from tensorgraph.scalar.instructions import reads

PATTERNS: dict[Opcode | str, str] = {
    Opcode.CONSTANT: "(vector){{0}} + (real){k}",
    Opcode.MULTIPLY: "{a} * {b}",
    Opcode.SCALE: "(real){k} * {a}",
    Opcode.ADD: "{a} + {b}",
    Opcode.SUBTRACT: "{a} - {b}",
    Opcode.MULTIPLY_ADD: "{a} + {b} * {c}",
    Opcode.MULTIPLY_SUBTRACT: "{a} - {b} * {c}",
    **{name: function.c or f"lanes_of_{name}({{a}})" for name, function in FUNCTIONS.items()},
}

PART = 6000
"""Instructions and stores of one part: about two seconds of compiling."""

HEAD = """\
#include <stdint.h>
#include <string.h>

/* REAL is float or double; FORWARD, BACKWARD or DOUBLE_BACKWARD selects a program. */
typedef REAL real;

/* One vector register of channels, or of what else the columns are. */
#if defined(__AVX512F__)
#define VECTOR_BYTES 64
#elif defined(__AVX__)
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16
#endif
#define LANES ((int64_t)(VECTOR_BYTES / sizeof(real)))
typedef real vector __attribute__((vector_size(VECTOR_BYTES)));
typedef real unaligned_vector __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(real)), may_alias));"""

COPIES = """\
/* Channels of element k of an array [size, channels] whose rows are stride numbers apart. */
#define LOAD(array, k) (*(const unaligned_vector *)((array) + (k) * stride))
#define STORE(array, k, value) (*(unaligned_vector *)((array) + (k) * stride) = (value))

/* The first channels of each row. */
static void copy_lanes(int size, int64_t lanes, real *to, int64_t to_stride, const real *from, int64_t from_stride)
{
    for (int k = 0; k < size; k++)
        memcpy(to + k * to_stride, from + k * from_stride, lanes * sizeof(real));
}

/* Rows of an array [rows, size] to lanes of a block [size, LANES], and back. */
static void rows_to_lanes(int size, int64_t lanes, real *block, const real *rows)
{
    for (int64_t lane = 0; lane < lanes; lane++)
        for (int k = 0; k < size; k++)
            block[k * LANES + lane] = rows[lane * size + k];
}

static void lanes_to_rows(int size, int64_t lanes, real *rows, const real *block)
{
    for (int64_t lane = 0; lane < lanes; lane++)
        for (int k = 0; k < size; k++)
            rows[lane * size + k] = block[k * LANES + lane];
}"""


@dataclass(frozen=True)
class Part:
    """A piece of a program: what it takes from slots, its instructions and stores, and what it leaves in slots."""

    taken: tuple[tuple[int, int], ...]
    """Pairs of a value and its slot."""
    body: tuple[Instruction | Store, ...]
    left: tuple[tuple[int, int], ...]


def print_programs(programs: Derivatives[StraightLine], commentary: Commentary) -> str:
    """The source of all programs, each a function ``(atoms, channels, threads, inputs…, outputs…)`` of contiguous
    arrays ``[atoms, size, channels]``; of programs with arrays of rows or columns alone see ``c_tiles``.
    """
    pieces = [f"/* {commentary.subject} in C.\n\n{commentary.notes}\n*/", HEAD]
    pieces += c_functions.definitions(functions_of(programs))
    tiled = any(line.sums for line in programs)
    pieces.append(c_tiles.HEAD if tiled else COPIES)
    for name, line in zip(programs._fields, programs, strict=True):
        text = c_tiles.program(name, line, PATTERNS) if tiled else _program(name, line, commentary.labels)
        pieces.append(f"#ifdef {name.upper()}\n{text}\n#endif")
    return "\n\n".join(pieces) + "\n"


def cut(line: StraightLine, size: int) -> tuple[tuple[Part, ...], int]:
    """The program in parts of at most ``size`` instructions and stores, and the number of slots that they need.

    Loads are not counted: every part repeats those that it reads.
    """
    loads = {
        i.target: i for i in line.body if isinstance(i, Instruction) and i.opcode in (Opcode.LOAD, Opcode.CONSTANT)
    }
    work = [item for item in line.body if isinstance(item, Store) or item.target not in loads]
    pieces = [work[start : start + size] for start in range(0, len(work), size)]
    last = {value: number for number, piece in enumerate(pieces) for item in piece for value in reads(item)}
    slots: dict[int, int] = {}
    free: list[int] = []
    count, parts = 0, []
    for number, piece in enumerate(pieces):
        read = dict.fromkeys(value for item in piece for value in reads(item))
        taken = tuple((value, slots[value]) for value in read if value in slots)
        # A part reads all that it takes before it leaves anything, so a slot may change hands within it.
        free += [slots.pop(value) for value, _ in taken if last[value] == number]
        left = [item.target for item in piece if isinstance(item, Instruction) and last[item.target] > number]
        for value in left:
            if not free:
                free.append(count)
                count += 1
            slots[value] = free.pop()
        body = (*(loads[value] for value in read if value in loads), *piece)
        parts.append(Part(taken, body, tuple((value, slots[value]) for value in left)))
    return tuple(parts), count


def _program(name: str, line: StraightLine, labels: Labels) -> str:
    parts, slots = cut(line, PART)
    arrays = ["int64_t stride", *_arguments(line)]
    pieces = [f"/* {line.operations.total} operations per (atom, channel). */"]
    if len(parts) == 1:
        pieces.append(_function(f"{name}_vector", arrays, _body(parts[0], line, labels)))
    else:
        names = [f"{name}_{number}" for number in range(len(parts))]
        for part_name, part in zip(names, parts, strict=True):
            pieces.append(_function(part_name, [*arrays, "vector *kept"], _body(part, line, labels)))
        passed = ["stride", *(array.name for array in (*line.inputs, *line.outputs)), "kept"]
        calls = [call for part_name in names for call in wrapped(f"{part_name}(", passed, ");", last="")]
        pieces.append(_function(f"{name}_vector", arrays, [f"vector kept[{slots}];", *calls]))
    return "\n\n".join([*pieces, _driver(name, line)])


def _arguments(line: StraightLine) -> list[str]:
    return [f"const real *{array.name}" for array in line.inputs] + [f"real *{array.name}" for array in line.outputs]


def _function(name: str, arguments: Sequence[str], body: Sequence[str]) -> str:
    """A function that stays one: inlined, the parts of a program would be one long function again."""
    opening = f"static __attribute__((noinline)) void {name}("
    return "\n".join([*wrapped(opening, arguments, ")", last=""), "{", *(f"    {text}" for text in body), "}"])


def _body(part: Part, line: StraightLine, labels: Labels) -> list[str]:
    names = static_names(line)
    return [
        *(f"const vector {names[value]} = kept[{slot}];" for value, slot in part.taken),
        *(text for item in part.body for text in _item(item, names, labels)),
        *(f"kept[{slot}] = {names[value]};" for value, slot in part.left),
    ]


def _item(item: Instruction | Store, names: dict[int, str], labels: Labels) -> Iterator[str]:
    if isinstance(item, Store):
        yield f"/* {item.array}[{item.index}]: {labels[item.array][item.index]} */"
        value = "(vector){0}" if item.target is None else names[item.target]
        yield f"STORE({item.array}, {item.index}, {value});"
    elif item.source is not None:
        yield f"const vector {names[item.target]} = LOAD({item.source.array}, {item.source.index});"
    else:
        yield f"const vector {names[item.target]} = {expression(PATTERNS, item, names)};"


def _driver(name: str, line: StraightLine) -> str:
    """The exported function: blocks of one vector of one atom's channels, shared among threads.

    Where there is one channel, a vector holds as many atoms.
    """
    arguments = ["int64_t atoms", "int64_t channels", "int threads", *_arguments(line)]
    parallel = "#pragma omp parallel for num_threads(threads) schedule(static)"
    return "\n".join(
        [
            *wrapped(f"void {name}(", arguments, ")", last=""),
            "{",
            "    if (channels == 1) {",
            parallel,
            "        for (int64_t atom = 0; atom < atoms; atom += LANES) {",
            *(f"            {text}" for text in _block_of_atoms(name, line)),
            "        }",
            "        return;",
            "    }",
            "    const int64_t vectors = (channels + LANES - 1) / LANES;",
            parallel,
            "    for (int64_t block = 0; block < atoms * vectors; block++) {",
            *(f"        {text}" for text in _block_of_channels(name, line)),
            "    }",
            "}",
        ]
    )


def _blocks(line: StraightLine) -> list[str]:
    """A block of lanes for each array."""
    return [f"real {array.name}_lanes[{array.size} * LANES] = {{0}};" for array in (*line.inputs, *line.outputs)]


def _run_on_blocks(name: str, line: StraightLine) -> list[str]:
    padded = [f"{array.name}_lanes" for array in (*line.inputs, *line.outputs)]
    return wrapped(f"{name}_vector(", ["LANES", *padded], ");", last="")


def _block_of_atoms(name: str, line: StraightLine) -> list[str]:
    return [
        "const int64_t lanes = atoms - atom < LANES ? atoms - atom : LANES;",
        *_blocks(line),
        *(f"rows_to_lanes({a.size}, lanes, {a.name}_lanes, {a.name} + {a.size} * atom);" for a in line.inputs),
        *_run_on_blocks(name, line),
        *(f"lanes_to_rows({a.size}, lanes, {a.name} + {a.size} * atom, {a.name}_lanes);" for a in line.outputs),
    ]


def _block_of_channels(name: str, line: StraightLine) -> list[str]:
    here = {a.name: f"{a.name} + {a.size} * channels * atom + channel" for a in (*line.inputs, *line.outputs)}
    takes = (f"copy_lanes({a.size}, lanes, {a.name}_lanes, LANES, {here[a.name]}, channels);" for a in line.inputs)
    gives = (f"copy_lanes({a.size}, lanes, {here[a.name]}, channels, {a.name}_lanes, LANES);" for a in line.outputs)
    inner = [*_blocks(line), *takes, *_run_on_blocks(name, line), *gives]
    return [
        "const int64_t atom = block / vectors, channel = block % vectors * LANES, lanes = channels - channel;",
        "if (lanes >= LANES) {",
        *wrapped(f"    {name}_vector(", ["channels", *here.values()], ");", last=""),
        "} else { /* the last channels do not fill a vector */",
        *(f"    {text}" for text in inner),
        "}",
    ]
