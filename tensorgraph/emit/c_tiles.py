"""Programs with sums as C: those with arrays of rows or of columns alone.

Each thread takes blocks of rows, and of every row one vector of columns after the other. Sums over columns are taken as
a row ends; sums over rows are left by block, for the caller to add in order, so no result depends on the threads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tensorgraph.emit.printing import expression, static_names, wrapped
from tensorgraph.scalar import ArrayRef, Axes, Instruction, Opcode, Store, StraightLine

HEAD = """\
/* COLUMNS and BLOCK, the rows whose sums are left together, are constants: loops over vectors are unrolled. */
#define VECTORS ((int)((COLUMNS + LANES - 1) / LANES))

static inline __attribute__((always_inline)) vector load(const real *from, int64_t lanes)
{
    if (lanes >= LANES)
        return *(const unaligned_vector *)from;
    vector part = {0};
    memcpy(&part, from, lanes * sizeof(real));
    return part;
}

static inline __attribute__((always_inline)) void store(real *to, vector value, int64_t lanes)
{
    memcpy(to, &value, (lanes < LANES ? lanes : LANES) * sizeof(real));
}

/* The first lanes of a vector, the rest zero, whatever is there. */
static inline __attribute__((always_inline)) vector first(vector value, int64_t lanes)
{
    return lanes < LANES ? load((const real *)&value, lanes) : value;
}

static inline __attribute__((always_inline)) real sum_of(vector value)
{
    real parts[LANES];
    memcpy(parts, &value, sizeof(value));
#pragma GCC unroll 8
    for (int half = LANES / 2; half; half /= 2)
#pragma GCC unroll 16
        for (int k = 0; k < half; k++)
            parts[k] += parts[k + half];
    return parts[0];
}"""

# How an element is read, and where one is written, by the axes of its array.
LOADS = {
    Axes.BOTH: "load({array} + (row * {size} + {k}) * COLUMNS + column, lanes)",
    Axes.ROWS: "{array}[row * {size} + {k}] - (vector){{0}}",
    Axes.COLUMNS: "load({array} + {k} * COLUMNS + column, lanes)",
}
STORES = {
    Axes.BOTH: "store({array} + (row * {size} + {k}) * COLUMNS + column, {x}, lanes);",
    Axes.ROWS: "{array}_sums[{k}] += first({x}, lanes);",
    Axes.COLUMNS: "{array}_sums[{k}][v] += {x};",
}


def program(name: str, line: StraightLine, patterns: Mapping[Opcode | str, str]) -> str:
    """A function ``(rows, threads, inputs…, outputs…)`` of contiguous arrays, with loops and sums around the body.

    Outputs of columns alone are ``[blocks, size, columns]``.
    """
    arrays = [f"const real *{a.name}" for a in line.inputs] + [f"real *{a.name}" for a in line.outputs]
    of_rows, of_columns = ([a for a in line.outputs if a.axes is axes] for axes in (Axes.ROWS, Axes.COLUMNS))
    operations = line.operations
    pieces = [
        f"/* {operations.total} operations per row and column, {operations.functions} of them functions. */",
        *wrapped(f"void {name}(", ["int64_t rows", "int threads", *arrays], ")", last=""),
        "{",
        "#pragma omp parallel for num_threads(threads) schedule(static)",
        "    for (int64_t block = 0; block < (rows + BLOCK - 1) / BLOCK; block++) {",
        *(f"        vector {a.name}_sums[{a.size}][VECTORS] = {{{{{{0}}}}}};" for a in of_columns),
        "        for (int64_t row = block * BLOCK; row < rows && row < (block + 1) * BLOCK; row++) {",
        *(f"            vector {a.name}_sums[{a.size}] = {{{{0}}}};" for a in of_rows),
        "#pragma GCC unroll 64",
        "            for (int v = 0; v < VECTORS; v++) {",
        "                const int64_t column = v * LANES, lanes = COLUMNS - column;",
        *(f"                {text}" for text in _body(line, patterns)),
        "            }",
        *(f"            {text}" for array in of_rows for text in _ending_row(array)),
        "        }",
        *(f"        {text}" for array in of_columns for text in _ending_block(array)),
        "    }",
        "}",
    ]
    return "\n".join(pieces)


def _body(line: StraightLine, patterns: Mapping[Opcode | str, str]) -> Iterator[str]:
    names = static_names(line)
    arrays = {array.name: array for array in (*line.inputs, *line.outputs)}
    for item in line.body:
        if isinstance(item, Store):
            assert item.target is not None  # for zeros do not depend on rows and columns
            array, value = arrays[item.array], names[item.target]
            yield STORES[array.axes].format(array=array.name, size=array.size, k=item.index, x=value)
        else:
            yield f"const vector {names[item.target]} = {_right_hand_side(item, names, arrays, patterns)};"


def _right_hand_side(
    item: Instruction, names: Mapping[int, str], arrays: Mapping[str, ArrayRef], patterns: Mapping[Opcode | str, str]
) -> str:
    if item.source is None:
        return expression(patterns, item, names)
    array = arrays[item.source.array]
    return LOADS[array.axes].format(array=array.name, size=array.size, k=item.source.index)


def _ending_row(array: ArrayRef) -> Iterator[str]:
    yield f"for (int k = 0; k < {array.size}; k++)"
    yield f"    {array.name}[row * {array.size} + k] = sum_of({array.name}_sums[k]);"


def _ending_block(array: ArrayRef) -> Iterator[str]:
    yield f"for (int k = 0; k < {array.size}; k++) {{"
    yield f"    real *left = {array.name} + (block * {array.size} + k) * COLUMNS;"
    yield "    for (int64_t column = 0; column < COLUMNS; column += LANES)"
    yield f"        store(left + column, {array.name}_sums[k][column / LANES], COLUMNS - column);"
    yield "}"
