"""Polynomials by tables of monomials as operators: value, gradient and double gradient, each one fused call.

A package of many long polynomials holds, in place of printed programs, a table STEM.json of its values: an element of
the result, a coefficient, and the elements that are multiplied. Tables of derivatives follow from it, with cotangents
as further inputs. One loop over its rows evaluates a table: in C on a CPU, as a Triton kernel on CUDA tensors; plain
PyTorch stands in where there is no C compiler or no triton, and for derivatives of order four and above.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from . import native, sources, trials
from .grouping import Grouping
from .operators import alike, derivatives, dispatch, operator
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
        places: ``[n_rows]``, int64, ascending.
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
        """From x and the cotangents of the results to the cotangent of x; its own `backward` is the double backward."""
        one, (n, m) = self.n_inputs, (self.n_inputs, self.n_outputs)
        factors = torch.where(self.factors == one, n + m, self.factors)  # the constant one behind the cotangents
        parts = []
        for k in range(self.degree):
            kept = self.factors[:, k] != one
            new = factors.clone()
            new[:, k] = n + self.places
            parts.append((factors[kept, k], new[kept], self.coefficients[kept]))
        places, factors, coefficients = map(torch.cat, zip(*parts, strict=True))
        keys, coefficients = _merged(torch.column_stack([places, factors.sort(dim=1).values]), coefficients)
        return Table(n + m, n, keys[:, 0].contiguous(), keys[:, 1:].contiguous(), coefficients)

    @functools.cached_property
    def plain(self) -> Plain:
        """What plain PyTorch makes of it."""
        return Plain(self)

    @property
    def degree(self) -> int:
        """How many factors a row has."""
        return self.factors.shape[1]


def _merged(rows: Tensor, coefficients: Tensor) -> tuple[Tensor, Tensor]:
    """The different rows, sorted, each with the sum of its coefficients."""
    different, which = _distinct(rows)
    return different, coefficients.new_zeros(len(different)).index_add_(0, which, coefficients)


def _distinct(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The different rows of small numbers that are not negative, sorted, and which of them each row is."""
    base = int(rows.max()) + 1 if rows.numel() else 1
    if base ** rows.shape[1] >= 2**63:
        different, which = torch.unique(rows, dim=0, return_inverse=True)
        return different, which
    powers = torch.tensor([base**k for k in reversed(range(rows.shape[1]))], device="cpu")
    numbers, which = torch.unique((rows * powers).sum(1), return_inverse=True)
    return numbers[:, None] // powers % base, which


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
class Plain:
    """What plain PyTorch makes of a table, on any device."""

    table: Table

    def summed(self, x: Tensor, *_terms: Tensor) -> Tensor:
        """The function of this name, some atoms at a time; what a kernel is given beside x is left aside."""
        step = max(1, BLOCK_ELEMENTS // max(1, self.table.places.shape[0] * x.shape[2]))
        parts = [summed(self.table, part) for part in x.split(step)]
        return (parts[0] if len(parts) == 1 else torch.cat(parts)).contiguous()

    def triple_backward(self, *given: Tensor) -> tuple[Tensor, ...]:
        """Cotangents of what the double backward takes: what derivatives of the fourth order and above are taken of."""
        n, m = self.table.n_inputs, self.table.n_outputs
        found = summed(self.table.backward.backward.backward, torch.cat(given, dim=1))
        return tuple(found.split((n, m, n), dim=1))


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
    def of(cls, table: Table, dtype: torch.dtype) -> Loops:
        """Groups by the last factor: of derivatives the cotangents, which stand behind the inputs."""
        rows = torch.column_stack([table.places, table.factors.flip(1)])
        keys, coefficients = _merged(rows, table.coefficients)
        pairs, counts = torch.unique_consecutive(keys[:, :2], dim=0, return_counts=True)
        sizes = torch.bincount(pairs[:, 0], minlength=table.n_outputs)
        factors = keys.int()
        inner = factors[:, 2:].contiguous()
        return cls(_ends(sizes), _ends(counts), pairs[:, 1].int(), inner, coefficients.to(dtype))


def _ends(sizes: Tensor) -> Tensor:
    return torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])


_loops = functools.lru_cache(maxsize=64)(Loops.of)


def evaluate(table: Table, x: Tensor) -> Tensor:
    """The same as `summed`, without derivatives: by a compiled loop where there is one."""
    arguments = (x, *_terms(table, x.device, x.dtype))
    found: Tensor = dispatch("summed", KERNELS, table.plain, arguments, lambda: _compiled(table, x))
    return found


@functools.lru_cache(maxsize=64)
@_never_inference
def _terms(table: Table, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Where the rows of each place begin, their factors and coefficients, on a device and of a dtype."""
    starts = _ends(torch.bincount(table.places, minlength=table.n_outputs))
    return starts.to(device), table.factors.contiguous().to(device), table.coefficients.to(device, dtype)


def _compiled(table: Table, x: Tensor) -> Tensor | None:
    """What the C program makes of it; None where there is none."""
    x, (atoms, size, channels) = x.contiguous(), x.shape
    threads = max(torch.get_num_threads(), native.TRIAL_THREADS)
    scratch = torch.empty(threads * (size + 1) * BLOCK_BYTES, dtype=torch.uint8)
    arrays = (x, *_loops(table, x.dtype), scratch)
    work = atoms * channels * (1 + table.places.shape[0] // PRODUCTS_PER_ROW)
    sizes, made = (atoms, channels, size, table.n_outputs), x.new_empty((atoms, table.n_outputs, channels))
    found: Tensor | None = native.results(SOURCE, "table", sizes, work, arrays, made, DEGREE=table.degree)
    return found


class Tables(Operators):
    """The table of a stem in a package, and its three operators.

    A fourth one, of third derivatives, keeps the numbers of tables out of what PyTorch's compiler records.
    """

    def __init__(self, package: str, stem: str, n_inputs: int, n_outputs: int) -> None:
        """Raises ValueError for a table of other sizes."""
        text = sources.table(package, stem)
        self.table = Table.read(text)
        if (found := (self.table.n_inputs, self.table.n_outputs)) != (n_inputs, n_outputs):
            raise ValueError(f"{package}/{stem}.json is of {found} inputs and outputs, not {(n_inputs, n_outputs)}")
        code = {f"{stem}.json": text}
        super().__init__(n_inputs, n_outputs, self.table.plain, code)
        vjp, fake = self._triple_backward_vjp, self._fake_triple_backward
        self.triple_backward = operator("triple_backward", self._triple_backward, fake, vjp, code)

    def _run(self, name: str, *tensors: Tensor) -> Tensor | tuple[Tensor, ...]:
        table = self.table
        for _ in range(("forward", "backward", "double_backward", "triple_backward").index(name)):
            table = table.backward
        found, (n, m) = evaluate(table, torch.cat(tensors, dim=1)), (self.n_inputs, self.n_outputs)
        sizes = {"double_backward": (n, m), "triple_backward": (n, m, n)}.get(name)
        return found if sizes is None else tuple(part.contiguous() for part in found.split(sizes, dim=1))

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
        found: tuple[Tensor, Tensor, Tensor] = self._checked("triple_backward", *given)
        return found

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
    places = torch.arange(trials.ROWS, device="cpu") * (trials.OUTPUTS - 1) // trials.ROWS
    shape = (trials.ROWS, degree)
    factors = torch.randint(0, trials.INPUTS + 1, shape, generator=generator, device="cpu")
    coefficients = torch.rand(trials.ROWS, generator=generator, dtype=torch.float64, device="cpu")
    return Table(trials.INPUTS, trials.OUTPUTS, places, factors, coefficients)


SOURCE = native.Source.of("tables_cpu.c", sources.runtime()["tables_cpu.c"], _trial)
