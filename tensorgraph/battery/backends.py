"""Agreement of all that can run a model: in energies, forces, virials, and gradients with respect to weights.

Programs (C, Triton, and plain PyTorch in float32) are compared with plain PyTorch in float64, of the same weights: what
is measured is one's own error, and neither is hidden by the other's rounding. Recorded models (compiled, traced,
exported, reloaded) run the same programs in another order at most, so that they are compared with the model as it is.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch.export import ExportedProgram

from tensorgraph.battery import recording
from tensorgraph.battery.bounds import machinery_bound
from tensorgraph.battery.check import Check, worst
from tensorgraph.battery.interpreted import interpreted_kernels
from tensorgraph.battery.subject import Subject
from tensorgraph.battery.switching import c_programs
from tensorgraph.battery.training import Problem, Results, deviations, problem, trainable
from tensorgraph.errors import one_line

SIZES = (6, 1, 5)
"""Atoms of the structures; one has no neighbours."""

FEW = (3, 1)
"""The same for an interpreter."""

SECONDS = 180.0
"""What the interpreter may take, else its check is skipped; the committed packages take 13, more on a busy machine."""

CPU = torch.device("cpu")


def check_backends(subject: Subject) -> tuple[Check, ...]:
    """One check of each backend: programs first, then ways of recording; the worst result of each, relative.

    While it runs, other threads must not use generated packages, nor PyTorch's compiler. The model has to be a
    torch module that can be copied and called. What a backend raises fails its check, and is in `where`.
    """
    return (*check_programs(subject), *check_recorded(subject))


def check_programs(subject: Subject) -> tuple[Check, ...]:
    """Those of `check_backends` that are about programs: C, Triton, and plain PyTorch where it is not the reference."""
    given = problem(subject, SIZES)
    with trainable(given.model):
        return tuple(_programs(subject, given))


def check_recorded(subject: Subject) -> tuple[Check, ...]:
    """Those of `check_backends` that are about recorded models: compiled, traced, exported, and reloaded."""
    given = problem(subject, SIZES)
    with trainable(given.model):
        return tuple(_recorded(given))


def _programs(subject: Subject, given: Problem) -> Iterator[Check]:
    exact, interaction = _reference(subject, given)
    on_cpu = given.converted(CPU, subject.dtype)
    if subject.dtype != torch.float64:
        with c_programs(allowed=False):
            check = _compared("backend: plain PyTorch", on_cpu.results, exact, interaction, subject.dtype)
        yield check
    with c_programs() as ran:
        check = _compared("backend: programs in C", on_cpu.results, exact, interaction, subject.dtype)
    if ran.missing or not ran.programs:
        missing = f"not compiled, see the warnings: {ran.missing}"
        yield _skipped(check.name, ran.why_not) if ran.why_not else replace(check, measured=math.inf, where=missing)
    else:
        yield check
    name = "backend: Triton kernels"
    if importlib.util.find_spec("triton") is None:
        yield _skipped(name, "triton is not installed")
    elif not ran.programs:
        yield _skipped(name, ran.why_not)
    elif subject.device.type == "cuda":
        yield _compared(name, given.results, exact, interaction, subject.dtype)
    else:
        yield _interpreted(f"{name}, interpreted", subject)


def _reference(subject: Subject, given: Problem) -> tuple[Results, float]:
    """What plain PyTorch gives in float64, and the interaction (eV) that energies are compared with."""
    exact = given.exact()
    with c_programs(allowed=False):
        return exact.results(), exact.interaction()


def _interpreted(name: str, subject: Subject) -> Check:
    given = _heard_by_one(problem(subject, FEW))
    exact, interaction = _reference(subject, given)
    with interpreted_kernels(subject.package, SECONDS) as interpreter:
        check = _compared(name, given.results, exact, interaction, subject.dtype)
    return _skipped(name, f"not done within {SECONDS:g} s") if interpreter.expired else check


def _heard_by_one(given: Problem) -> Problem:
    """Of all pairs those of the first central atom: the interpreter takes a second or more for each atom with pairs.

    Backends have to agree on any list of pairs, and one atom with several neighbours needs every kernel.
    """
    batch = given.batch
    kept = batch.pairs[0] == 0
    return Problem(given.model, replace(batch, pairs=batch.pairs[:, kept], displacements=batch.displacements[kept]))


def _recorded(given: Problem) -> Iterator[Check]:
    expected, interaction = given.results(), given.interaction()
    dtype = given.batch.displacements.dtype
    programs: list[ExportedProgram] = []

    def exported() -> Results:
        programs.append(recording.export(given))
        return recording.exported(given, programs[0])

    def reloaded() -> Results:
        if not programs:
            raise RuntimeError("there is nothing to save: it cannot be exported")
        return recording.reloaded(given, programs[0])

    ways: tuple[tuple[str, Callable[[], Results]], ...] = (
        ("torch.compile", lambda: recording.compiled(given)),
        ("make_fx", lambda: recording.traced(given)),
        ("torch.export", exported),
        ("exported, saved and reloaded", reloaded),
    )
    for name, run in ways:
        yield _compared(f"backend: {name}", run, expected, interaction, dtype)


def _compared(
    name: str, run: Callable[[], Results], expected: Results, interaction: float, dtype: torch.dtype
) -> Check:
    """Whatever a backend raises is what is wrong with it."""
    bound = machinery_bound(name, dtype)
    try:
        found = run()
    except Exception as error:
        return Check(name, float("inf"), bound, "", one_line(f"{type(error).__name__}: {_first_line(error)}"))
    return worst(name, deviations(found, expected, interaction), bound)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "no message")


def _skipped(name: str, reason: str) -> Check:
    return Check(name, None, None, "", f"skipped: {reason}")
