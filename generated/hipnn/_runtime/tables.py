"""Polynomials by tables of monomials as operators: value, gradient and double gradient, each one fused call.

A package of many long polynomials holds, in place of printed programs, a table STEM.json of its values: an element of
the result, a coefficient, and the elements that are multiplied. Tables of derivatives follow from it, with cotangents
as further inputs. One loop over its rows evaluates a table: in C on a CPU, as a Triton kernel on CUDA tensors; plain
PyTorch stands in where there is no C compiler or no triton, and for derivatives of order four and above.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from . import native, sources, trials
from .grouping import Grouping
from .operators import alike, check_shapes, check_types, derivatives, dispatch, operator
from .programs import Operators

KERNELS = f"{__package__}.tables_triton"

# Elements (rows of a table times channels of atoms) that plain PyTorch takes at a time.
BLOCK_ELEMENTS = 2**22

# What tables_cpu.c copies of each element at a time, in bytes: VECTORS vectors.
BLOCK_BYTES = 128

# Products of a table that are as much work as a row of other programs.
PRODUCTS_PER_ROW = 64


F = TypeVar("F", bound=Callable[..., Any])


def _never_inference(function: F) -> F:
    """What it makes is kept, for autograd too: never as tensors of `torch.inference_mode`."""

    @functools.wraps(function)
    def called(*arguments: Any) -> Any:
        with torch.inference_mode(False), torch.no_grad():
            return function(*arguments)

    return called  # type: ignore[return-value]


@dataclass(frozen=True, eq=False)
class Table:
    """``out[place] += coefficient · Π x[factor]`` for each row; behind the n_inputs elements of x stands the one.

    Attributes:
        n_inputs: elements of the inputs, all arrays one behind the other.
        n_outputs: elements of the results.
        places: ``[n_rows]``, int64.
        factors: ``[n_rows, degree]``, int64.
        coefficients: ``[n_rows]``, float64.
    """

    n_inputs: int
    n_outputs: int
    places: Tensor
    factors: Tensor
    coefficients: Tensor

    @classmethod
    @_never_inference
    def read(cls, text: bytes) -> Table:
        """The table of a package."""
        found = json.loads(text)
        rows = [row for rows in found["rows"] for row in rows]
        places = [place for place, rows in enumerate(found["rows"]) for _ in rows]
        return cls(
            found["inputs"],
            len(found["rows"]),
            torch.tensor(places, dtype=torch.int64, device="cpu"),
            torch.tensor([factors for _, *factors in rows], dtype=torch.int64, device="cpu"),
            torch.tensor([row[0] for row in rows], dtype=torch.float64, device="cpu"),
        )

    @functools.cached_property
    @_never_inference
    def backward(self) -> Table:
        """From x and the cotangents of the results to the cotangent of x."""
        (n, m), factors = (self.n_inputs, self.n_outputs), self._behind(self.n_outputs)
        parts = [self._rows(factors, factors[:, k], {k: n + self.places}) for k in range(self.degree)]
        return _merged(n + m, n, parts)

    @functools.cached_property
    @_never_inference
    def double_backward(self) -> Table:
        """From what `backward` takes and a cotangent of what it gives to the cotangents of what it takes."""
        (n, m), factors = (self.n_inputs, self.n_outputs), self._behind(self.n_outputs + self.n_inputs)
        directions = n + m + factors
        parts = [
            self._rows(factors, factors[:, j], {j: n + self.places, k: directions[:, k]})
            for j, k in permutations(range(self.degree), 2)
        ]
        parts += [self._rows(factors, n + self.places, {k: directions[:, k]}) for k in range(self.degree)]
        return _merged(2 * n + m, n + m, parts)

    @functools.cached_property
    def plain(self) -> InBlocks:
        """What stands in for compiled loops."""
        return InBlocks(self)

    @property
    def degree(self) -> int:
        """How many factors a row has."""
        return self.factors.shape[1]

    def _behind(self, further: int) -> Tensor:
        """The factors, with the constant one behind further inputs."""
        return torch.where(self.factors == self.n_inputs, self.n_inputs + further, self.factors)

    def _rows(self, factors: Tensor, places: Tensor, replaced: dict[int, Tensor]) -> Rows:
        """Rows with factors replaced, for a derivative by each of them: the constant one has none."""
        new, kept = factors.clone(), torch.ones_like(places, dtype=torch.bool)
        for k, column in replaced.items():
            kept &= self.factors[:, k] != self.n_inputs
            new[:, k] = column
        return places[kept], new[kept], self.coefficients[kept]


Rows = tuple[Tensor, Tensor, Tensor]


def _merged(n_inputs: int, n_outputs: int, parts: Sequence[Rows]) -> Table:
    """One table of many rows, equal products of a place added."""
    places, factors, coefficients = map(torch.cat, zip(*parts, strict=True))
    rows = torch.column_stack([places, factors.sort(dim=1).values])
    keys, number = _distinct(rows)
    total = coefficients.new_zeros(keys.shape[0]).index_add_(0, number, coefficients)
    return Table(n_inputs, n_outputs, keys[:, 0].contiguous(), keys[:, 1:].contiguous(), total)


def _distinct(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The different rows of small numbers that are not negative, sorted, and which of them each row is."""
    base = int(rows.max()) + 1 if rows.numel() else 1
    if base ** rows.shape[1] >= 2**63:
        different, which = torch.unique(rows, dim=0, return_inverse=True)
        return different, which
    powers = torch.tensor([base**k for k in reversed(range(rows.shape[1]))], device="cpu")
    numbers, which = torch.unique((rows * powers).sum(1), return_inverse=True)
    return numbers[:, None] // powers % base, which


@dataclass(frozen=True, eq=False)
class Functions:
    """What derivatives of the fourth order and above are taken of, on any device."""

    table: Table

    def triple_backward(self, *given: Tensor) -> tuple[Tensor, ...]:
        """The cotangents of what `double_backward` takes, from that and the cotangents of what it gives."""
        n, m = self.table.n_inputs, self.table.n_outputs
        found = summed(self.table.double_backward.backward, torch.cat(given, dim=1))
        return found[:, :n], found[:, n : n + m], found[:, n + m :]


def summed(table: Table, x: Tensor) -> Tensor:
    """[n, n_inputs, channels] -> [n, n_outputs, channels], by sums and gathers of one fixed order."""
    sums, gathers, coefficients = _groupings(table, x.device)
    n, _, channels = x.shape
    elements = x.movedim(1, 0).flatten(1)
    elements = torch.cat([elements, torch.ones_like(elements[:1])])
    rows = coefficients.to(x.dtype)[:, None].expand(-1, elements.shape[1])
    for gather in gathers:
        rows = rows * gather.spread(elements)
    found: Tensor = sums.sum(rows).unflatten(1, (n, channels)).movedim(0, 1)
    return found


@dataclass(frozen=True, eq=False)
class InBlocks:
    """What plain PyTorch makes of a table, some atoms at a time."""

    table: Table

    def summed(self, x: Tensor, *_terms: Tensor) -> Tensor:
        """[n, n_inputs, channels] -> [n, n_outputs, channels], what a kernel is given beside it left aside."""
        step = max(1, BLOCK_ELEMENTS // max(1, self.table.places.shape[0] * x.shape[2]))
        parts = [summed(self.table, part) for part in x.split(step)]
        return (parts[0] if len(parts) == 1 else torch.cat(parts)).contiguous()


@functools.lru_cache(maxsize=64)
@_never_inference
def _groupings(table: Table, device: torch.device) -> tuple[Grouping, tuple[Grouping, ...], Tensor]:
    """What rows are added to, what their factors are, and the coefficients, on a device."""
    sums = Grouping.of(table.places.to(device), table.n_outputs)
    gathers = (Grouping.of(column.contiguous().to(device), table.n_inputs + 1) for column in table.factors.unbind(1))
    return sums, tuple(gathers), table.coefficients.to(device)


class Loops(NamedTuple):
    """A table as the C program takes it: the products of a place in groups that share one factor."""

    groups: Tensor  # where those of each place begin, and the last ones end
    terms: Tensor  # where the products of each group begin, and the last ones end
    outer: Tensor  # the factor of each group
    inner: Tensor  # the other factors of each product
    coefficients: Tensor

    @classmethod
    @_never_inference
    def of(cls, table: Table) -> Loops:
        """Groups by the last factor: of derivatives the cotangents, which stand behind the inputs."""
        keys = torch.column_stack([table.places, table.factors.flip(1)])
        keys, order = _distinct(keys)
        coefficients = table.coefficients.new_zeros(len(keys)).index_add_(0, order, table.coefficients)
        pairs, counts = torch.unique_consecutive(keys[:, :2], dim=0, return_counts=True)
        sizes = torch.bincount(pairs[:, 0], minlength=table.n_outputs)
        factors = keys.int()
        return cls(_ends(sizes), _ends(counts), pairs[:, 1].int(), factors[:, 2:].contiguous(), coefficients)


def _ends(sizes: Tensor) -> Tensor:
    return torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])


_loops = functools.lru_cache(maxsize=64)(Loops.of)


def evaluate(table: Table, x: Tensor) -> Tensor:
    """The same as `summed`, without derivatives: by a compiled loop where there is one."""
    arguments = (x, *_terms(table, x.device))
    found: Tensor = dispatch("summed", KERNELS, table.plain, arguments, lambda: _compiled(table, x))
    return found


@functools.lru_cache(maxsize=64)
@_never_inference
def _terms(table: Table, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Where the rows of each place begin, their factors and coefficients, on a device."""
    starts = _ends(torch.bincount(table.places, minlength=table.n_outputs))
    return starts.to(device), table.factors.contiguous().to(device), table.coefficients.to(device)


def _compiled(table: Table, x: Tensor) -> Tensor | None:
    """What the C program makes of it; None where there is none."""
    x, (atoms, size, channels) = x.contiguous(), x.shape
    loops = _loops(table)
    threads = max(torch.get_num_threads(), native.TRIAL_THREADS)
    scratch = torch.empty(threads * (size + 1) * BLOCK_BYTES, dtype=torch.uint8)
    arrays = (x, *loops[:-1], loops.coefficients.to(x.dtype), scratch)
    work = atoms * channels * (1 + table.places.shape[0] // PRODUCTS_PER_ROW)
    sizes, made = (atoms, channels, size, table.n_outputs), x.new_empty((atoms, table.n_outputs, channels))
    found: Tensor | None = native.results(SOURCE, "table", sizes, work, arrays, made, DEGREE=table.degree)
    return found


class Tables(Operators):
    """The table of a stem in a package, and its three operators.

    A fourth one, of third derivatives, keeps the numbers of tables out of what PyTorch's compiler records.
    """

    def __init__(self, package: str, stem: str) -> None:
        text = sources.table(package, stem)
        self.table = Table.read(text)
        code = {f"{stem}.json": text}
        super().__init__(self.table.n_inputs, self.table.n_outputs, Functions(self.table), code)
        vjp, fake = self._triple_backward_vjp, self._fake_triple_backward
        self.triple_backward = operator("triple_backward", self._triple_backward, fake, vjp, code)

    def _run(self, name: str, *tensors: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        found = evaluate(self.table if name == "forward" else getattr(self.table, name), torch.cat(tensors, dim=1))
        if name != "double_backward":
            return found
        return found[:, : self.n_inputs].contiguous(), found[:, self.n_inputs :].contiguous()

    def _double_backward_vjp(self, ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        found: tuple[Tensor, Tensor, Tensor] = self.triple_backward(*ctx.saved_tensors, *grads)
        return found

    def _triple_backward(
        self,
        inputs: Tensor,
        grad_outputs: Tensor,
        grad_grad_inputs: Tensor,
        grad_of_inputs: Tensor,
        grad_of_grad_outputs: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        given = (inputs, grad_outputs, grad_grad_inputs, grad_of_inputs, grad_of_grad_outputs)
        check_types("triple_backward", given)
        sizes = (self.n_inputs, self.n_outputs, self.n_inputs, self.n_inputs, self.n_outputs)
        check_shapes("triple_backward", given, [(inputs.shape[0], size, inputs.shape[2]) for size in sizes])
        found = evaluate(self.table.double_backward.backward, torch.cat(given, dim=1))
        first, second, third = found.split(sizes[:3], dim=1)
        return first.contiguous(), second.contiguous(), third.contiguous()

    def _fake_triple_backward(self, inputs, grad_outputs, grad_grad_inputs, grad_of_inputs, grad_of_grad_outputs):  # type: ignore[no-untyped-def]
        return alike(inputs, grad_outputs, grad_grad_inputs)

    def _triple_backward_vjp(self, ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Order four and above: differentiate sums and gathers, which PyTorch traces."""
        return derivatives(self.plain.triple_backward, ctx.saved_tensors, ctx.needs_input_grad, grads)


def _trial(name: str, macros: Mapping[str, int]) -> trials.Problem:
    """A table of products of so many factors, some of them the constant one."""
    return trials.both_layouts(functools.partial(evaluate, trial_table(macros["DEGREE"]))), trials.of_table()


def trial_table(degree: int) -> Table:
    """Small, of fixed numbers; each place has rows, and one has none."""
    generator = torch.Generator().manual_seed(degree)
    places = torch.arange(trials.ROWS, device="cpu") % (trials.OUTPUTS - 1)
    shape = (trials.ROWS, degree)
    factors = torch.randint(0, trials.INPUTS + 1, shape, generator=generator, device="cpu")
    coefficients = torch.rand(trials.ROWS, generator=generator, dtype=torch.float64, device="cpu")
    return _merged(trials.INPUTS, trials.OUTPUTS, [(places, factors, coefficients)])


SOURCE = native.Source.of("tables_cpu.c", sources.runtime()["tables_cpu.c"], _trial)
