"""The kernels over pairs, of sensitivities and of the sum over neighbours: what each launch moves and does per pair."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tensorgraph.compiler import Compilation
from tensorgraph.emit.triton_tiles import TILE
from tensorgraph.scalar import Axes, Derivatives, StraightLine
from tensorgraph.spec import NetworkSpec, Spec

SENSITIVITIES, PAIRS, MOMENTS = "sensitivities_triton.py", "_runtime/pairs_triton.py", "_runtime/moments_triton.py"
MODULES = (SENSITIVITIES, PAIRS, MOMENTS, "_runtime/__init__.py", "_runtime/launching.py")
"""Of the package: those that the kernels are in, and what these import."""

NEIGHBOURS = 70
"""Pairs of an atom that bytes per pair are for: what an atom has once is shared by so many."""

_INDEX_BYTES = 8
_OTHERS = {
    "expand": ("other_factors", "other_matrix"),
    "dots": ("other_messages", "other_matrix"),
    "accumulate": ("other_factors", "other_messages"),
    "moments": ("other_tensors", "other_sensitivities"),
}


@dataclass(frozen=True)
class PairKernel:
    """One launch of a pair operator.

    Attributes:
        name: of its result.
        module: of the package, where its kernel is.
        kernel: what runs there.
        constants: the sizes that it is compiled for.
        by_source: whether it takes the pairs by their source.
        terms: how many products it adds: two for first-order changes.
        numbers: that it reads and writes per pair; what an atom has once, divided by its pairs.
        operations: additions, multiplications and exponentials per pair.
        indexed: whether it reads which atom a pair belongs to.
    """

    name: str
    module: str
    kernel: str
    constants: tuple[tuple[str, int], ...]
    by_source: bool
    terms: int
    numbers: float
    operations: int
    indexed: bool = True

    def bytes_per_pair(self, size: int) -> int:
        """For numbers of so many bytes, with the index of the pair."""
        return round(size * self.numbers + _INDEX_BYTES * self.indexed)

    def request(self) -> dict[str, Any]:
        """What the worker needs besides dtype and target."""
        others = _OTHERS.get(self.kernel, ()) if self.terms == 1 else ()
        absent = (*others, *(() if self.by_source else ("order",)))
        return {"module": self.module, "kernel": self.kernel, "constants": dict(self.constants), "absent": absent}


def pair_kernels(compilation: Compilation, channels: int) -> tuple[PairKernel, ...]:
    """All launches of a spec's pair operators; none where it has no network."""
    network = compilation.spec.network if isinstance(compilation.spec, Spec) else None
    if network is None:
        return ()
    components, functions = compilation.basis.components, network.sensitivity.functions
    return (
        *_sensitivities(compilation.programs["sensitivities"], functions),
        *_environment(components, functions, channels),
        *_moments(components, network),
    )


def _sensitivities(programs: Derivatives[StraightLine], functions: int) -> Iterator[PairKernel]:
    names = ("sensitivities", "sensitivities_backward", "sensitivities_2")
    rows = max(1, TILE // (1 << (functions - 1).bit_length()))
    for name, kernel, line in zip(names, programs._fields, programs, strict=True):
        # What belongs to functions alone is read from the cache, and written and read once for each tile.
        columns = {Axes.BOTH: functions, Axes.ROWS: 1, Axes.COLUMNS: 0}
        numbers: float = sum(array.size * columns[array.axes] for array in (*line.inputs, *line.outputs))
        numbers += sum(2 * a.size * functions / rows for a in line.outputs if a.axes is Axes.COLUMNS)
        operations = line.operations.total * functions
        constants = (("COLUMNS", functions),)
        yield PairKernel(name, SENSITIVITIES, kernel, constants, False, 1, numbers, operations, indexed=False)


def _environment(components: int, functions: int, channels: int) -> Iterator[PairKernel]:
    """Forward, backward and double backward of `environment`, in the order in which they first run."""
    for name, kernel, by_source, terms in (
        ("messages", "expand", True, 1),
        ("environment", "accumulate", False, 1),
        ("grad_T", "dots", False, 1),
        ("received", "expand", False, 1),
        ("grad_S", "dots", True, 1),
        ("grad_Q", "accumulate", True, 1),
        ("messages_2", "expand", True, 2),
        ("grad_G", "accumulate", False, 2),
        ("grad_S_2", "dots", True, 2),
        ("grad_Q_2", "accumulate", True, 2),
    ):
        size = functions if by_source else components
        per_pair = {"expand": terms * size + channels, "dots": terms * channels + size}
        per_atom = size * channels * (1 if kernel == "accumulate" else terms)
        numbers = per_pair.get(kernel, terms * (size + channels)) + per_atom / NEIGHBOURS
        constants = (("SIZE", size), ("CHANNELS", channels))
        yield PairKernel(name, PAIRS, kernel, constants, by_source, terms, numbers, 2 * terms * size * channels)


def _moments(components: int, network: NetworkSpec) -> Iterator[PairKernel]:
    """The same of `moments`, whose kinds are the species."""
    functions, kinds = network.sensitivity.functions, len(network.species)
    constants = (("COMPONENTS", components), ("FUNCTIONS", functions), ("KINDS", kinds))
    size, of_pair = components * functions, components + functions
    for name, kernel, terms, numbers, operations in (
        ("moments", "moments", 1, of_pair + size * kinds / NEIGHBOURS, 2 * size),
        ("moments_backward", "moments_backward", 1, 2 * of_pair + size * kinds / NEIGHBOURS, 4 * size),
        ("moments_2", "moments", 2, 2 * of_pair + size * kinds / NEIGHBOURS, 4 * size),
    ):
        yield PairKernel(name, MOMENTS, kernel, constants, False, terms, numbers, operations)
