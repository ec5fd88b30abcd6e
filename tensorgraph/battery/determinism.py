"""Equal numbers for equal inputs: over repeats, and over numbers of threads."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tensorgraph.battery.bounds import machinery_bound
from tensorgraph.battery.check import Check, worst
from tensorgraph.battery.subject import Subject
from tensorgraph.battery.switching import Dispatch, c_programs, programs_by
from tensorgraph.battery.training import Problem, deviations, problem, trainable

REPEATS = 3
THREADS = (1, 2, 3)
ROWS = 8192
"""Atoms times features from which a program runs on three threads."""

FEWEST, MOST = 100, 125
"""Atoms; 100 have the 8,192 pairs from which programs over pairs run on three threads."""


def check_determinism(subject: Subject) -> tuple[Check, ...]:
    """Values and gradients with respect to weights: over repeats, and with 1, 2 and 3 threads.

    Repeats and the package's programs in C have to give equal numbers, the whole model numbers that are equal to
    rounding. Threads are of a CPU: on another device these two checks are skipped. The number of threads is put back.
    """
    given = problem(subject, (_atoms(subject), 1, 2))
    with trainable(given.model):
        checks = [_repeats(given)]
        for name, check in (("programs", _programs), ("model", _model)):
            title = f"determinism: {name}, 1 to 3 threads"
            on_cpu = subject.device.type == "cpu"
            reason = f"skipped: the model is on {subject.device}"
            checks.append(check(title, subject, given) if on_cpu else Check(title, None, None, "", reason))
    return tuple(checks)


def _atoms(subject: Subject) -> int:
    features: int = subject.package.architecture.FEATURES
    return min(max(math.ceil(ROWS / features), FEWEST), MOST)


def _repeats(given: Problem) -> Check:
    first, interaction = given.results(), given.interaction()
    found = [deviations(given.results(), first, interaction) for _ in range(REPEATS - 1)]
    return worst(name := "determinism: repeats", _largest(found), machinery_bound(name, first["forces"].dtype))


def _model(title: str, subject: Subject, given: Problem) -> Check:
    first, *others = _over_threads(given.results)
    interaction = given.interaction()
    found = [deviations(other, first, interaction) for other in others]
    return worst(title, _largest(found), machinery_bound(title, subject.dtype))


def _programs(title: str, subject: Subject, given: Problem) -> Check:
    """Each program runs on the same inputs with every number of threads, wherever a step of training calls it."""
    found: dict[str, float] = {}

    def stand_in(dispatch: Dispatch) -> Dispatch:
        def run(name: str, kernels: str, *others: Any) -> Any:
            first, *again = _over_threads(lambda: dispatch(name, kernels, *others))
            key = f"{name} of {kernels.rpartition('.')[2].removesuffix('_triton')}"
            found[key] = _greatest([found.get(key, 0.0), *(_difference(first, other) for other in again)])
            return first

        return run

    with c_programs() as ran, programs_by(stand_in):
        given.results()
    if ran.missing or not ran.programs:
        reason = ran.why_not or f"not compiled: {ran.missing}"
        return Check(title, None, None, "", f"skipped: {reason}")
    return worst(title, found, machinery_bound(title, subject.dtype))


def _over_threads(function: Callable[[], Any]) -> list[Any]:
    """What the function gives with each number of threads, which is put back afterwards."""
    before, found = torch.get_num_threads(), []
    try:
        for count in THREADS:
            torch.set_num_threads(count)
            found.append(function())
    finally:
        torch.set_num_threads(before)
    return found


def _difference(first: Any, other: Any) -> float:
    """The largest of a program's results, each relative to its largest element; NaN propagates."""
    if isinstance(first, Tensor):
        return 0.0 if torch.equal(first, other) else float((first - other).abs().max() / first.abs().max())
    return _greatest([_difference(a, b) for a, b in zip(first, other, strict=True)])


def _largest(found: list[dict[str, float]]) -> dict[str, float]:
    """By result."""
    return {name: _greatest([each[name] for each in found]) for name in found[0]}


def _greatest(values: list[float]) -> float:
    """The largest of numbers, above all of which NaN counts."""
    return max(values, key=lambda value: (value != value, value))
