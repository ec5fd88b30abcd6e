"""The C programs on the CPU: built at their first call, tried, and kept for the next process; see `libraries.py`.

A new library has to agree with plain PyTorch on a small problem before anything relies on it; one that was kept is
trusted. ``TENSORGRAPH_CPU=pytorch`` does without.
"""

from __future__ import annotations

import contextvars
import ctypes
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from . import libraries, sources
from .trials import Trial, deviation

REALS = {torch.float32: "float", torch.float64: "double"}

# Threads of a trial, and how far its results may be from plain PyTorch in double precision; see `trials.deviation`.
TRIAL_THREADS = 3
TOLERANCES = {torch.float32: 2e-4, torch.float64: 1e-12}

# Rows (atoms or pairs, times channels) below which another thread costs more than it helps.
ROWS_PER_THREAD = 4096


@dataclass(frozen=True, eq=False)
class Source:
    """Programs in C: the name of their file, the text that is compiled, and what a new library has to solve."""

    name: str
    text: bytes
    trial: Trial

    @classmethod
    def of(cls, name: str, text: bytes, trial: Trial) -> Source:
        """Of a file's text, read already: the folder, or the zip file, of the package may be gone at the first call.

        Its header is left out, so that programs which are equal have one library in all packages.
        """
        return cls(name, sources.runtime()["prelude.h"] + sources.body(name, text), trial)

    def __str__(self) -> str:
        return self.name


def run(source: Source, name: str, sizes: Sequence[int], rows: int, arrays: Sequence[Tensor], **macros: int) -> bool:
    """Runs a program on contiguous CPU tensors, inputs (the first one real) before outputs; False where it cannot.

    `source` holds the program, whose name in capitals selects it there; `sizes` are what it takes before the
    arrays, `rows` says how much work it is, and `macros` what it is compiled for.
    """
    function = _function(source, name, arrays[0].dtype, **macros)
    if function is None:
        return False
    _call(function, sizes, min(torch.get_num_threads(), 1 + rows // ROWS_PER_THREAD), arrays)
    return True


def _call(function, sizes: Sequence[int], threads: int, arrays: Sequence[Tensor]) -> None:
    pointers = (ctypes.c_void_p(array.data_ptr()) for array in arrays)
    function(*map(ctypes.c_int64, sizes), ctypes.c_int(1 if _forked else threads), *pointers)


_forked = False


def _after_fork() -> None:
    """The threads of OpenMP are not there in a forked process; a team of several would wait for them forever."""
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def results(
    source: Source, name: str, sizes: Sequence[int], rows: int, inputs: Sequence[Tensor], outputs, **macros: int
):
    """The outputs, one tensor or several, as `run` fills them; None where it cannot."""
    made = (outputs,) if isinstance(outputs, Tensor) else outputs
    trial = _on_trial.get()
    if trial is not None:
        return outputs if trial((source, name, inputs[0].dtype, macros), sizes, inputs, made) else None
    return outputs if run(source, name, sizes, rows, (*inputs, *made), **macros) else None


def available(source: Source, name: str, dtype: torch.dtype, **macros: int) -> bool:
    """Whether the program runs compiled here; the first question builds it."""
    return _function(source, name, dtype, **macros) is not None


def _function(source: Source, name: str, dtype: torch.dtype, **macros: int):
    """The compiled program, or None where plain PyTorch runs, by choice (which holds at once) or for want of it."""
    chosen = os.environ.get("TENSORGRAPH_CPU", "native")
    if chosen not in ("native", "pytorch"):
        raise ValueError(f"TENSORGRAPH_CPU is {chosen!r}; allowed: native, pytorch")
    return None if chosen == "pytorch" else _compiled(source, name, dtype, **macros)


@functools.cache
def _compiled(source: Source, name: str, dtype: torch.dtype, **macros: int):
    """The compiled program, or None, said once, where there can be none."""
    defined = {"REAL": REALS[dtype], name.upper(): 1, **macros}
    try:
        library = libraries.library(
            source.text,
            f"{source.name.removesuffix('_cpu.c')}-{name}",
            [f"-D{key}={value}" for key, value in defined.items()],
            lambda new: _try(new, source, name, dtype, macros),
        )
    except (libraries.Unavailable, OSError) as error:
        libraries.say_once("no compiled CPU programs", str(error), "plain PyTorch runs instead, many times slower")
        return None
    return _program(library, name)


def _program(library: ctypes.CDLL, name: str):
    function = getattr(library, name)
    function.restype = None
    return function


# What runs in place of the programs that were built: during a trial, the new one, or none.
_on_trial: contextvars.ContextVar[Callable[..., bool] | None] = contextvars.ContextVar("_on_trial", default=None)


def _try(library: ctypes.CDLL, source: Source, name: str, dtype: torch.dtype, macros: Mapping[str, int]) -> None:
    """Raises Unavailable where a program does not compute what plain PyTorch does.

    An operator's implementation runs twice, with the new program and, in double precision, with none.
    """
    try:
        function = _program(library, name)
    except AttributeError:
        raise libraries.Unavailable(f"the C compiler leaves {name} out of {source}") from None

    def candidate(asked, sizes: Sequence[int], inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> bool:
        assert asked == (source, name, dtype, macros), f"{asked} is not the program on trial"
        for output in outputs:
            output.fill_(torch.nan)  # what a program leaves out is not right by chance
        _call(function, sizes, TRIAL_THREADS, (*inputs, *outputs))
        return True

    implementation, exact = source.trial(name, macros)
    given = [_real(value, dtype) for value in exact]
    found = _implemented(candidate, implementation, given)
    expected = _implemented(lambda *_: False, implementation, [_real(value, torch.float64) for value in given])
    if not (wrong := deviation(found, expected)) <= TOLERANCES[dtype]:  # NaN is not
        raise libraries.Unavailable(
            f"what the C compiler makes of {name} in {source} is wrong by {wrong:.1e} of its largest elements ({dtype})"
        )


def _implemented(stand_in: Callable[..., bool], implementation: Callable, arguments: Sequence) -> tuple[Tensor, ...]:
    """In a thread of its own: neither the caller's modes of PyTorch nor its team of OpenMP threads take part."""

    def results():
        _on_trial.set(stand_in)
        with torch.no_grad():
            return implementation(*arguments)

    with ThreadPoolExecutor(1) as thread:
        found = thread.submit(results).result()
    return (found,) if isinstance(found, Tensor) else found


def _real(value, dtype: torch.dtype):
    return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value
