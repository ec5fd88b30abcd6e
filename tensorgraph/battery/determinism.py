"""Equal numbers for equal inputs: over repeats, and over numbers of threads."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from tensorgraph.battery.check import Check, worst
from tensorgraph.battery.subject import Subject
from tensorgraph.battery.switching import Dispatch, programs_by
from tensorgraph.battery.training import Problem, deviations, problem, trainable

REPEATS = 3
THREADS = (1, 2, 3)
ROUNDING = {torch.float64: 1e-12, torch.float32: 1e-4}
"""Of the whole model over numbers of threads, relative: PyTorch's products of matrices share their sums among threads.

Programs have no such bound: each of their sums is taken by one thread in one order.
"""

ROWS = 8192
"""Atoms times features from which a program runs on three threads."""

FEWEST, MOST = 27, 125
"""Atoms."""


def check_determinism(subject: Subject) -> tuple[Check, ...]:
    """Values and gradients with respect to weights: over repeats, and with 1, 2 and 3 threads.

    Repeats and the programs of the package have to give equal numbers, the whole model numbers that are equal to
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
    return worst("determinism: repeats", _largest(found), 0.0)


def _model(title: str, subject: Subject, given: Problem) -> Check:
    found = []
    with _threads_put_back():
        for count in THREADS:
            torch.set_num_threads(count)
            found.append(given.results())
    interaction = given.interaction()
    others = [deviations(other, found[0], interaction) for other in found[1:]]
    return worst(title, _largest(others), ROUNDING[subject.dtype])


def _programs(title: str, subject: Subject, given: Problem) -> Check:
    """Each program runs on the same inputs with every number of threads, wherever a step of training calls it."""
    found: dict[str, float] = {}

    def stand_in(dispatch: Dispatch) -> Dispatch:
        def run(name: str, kernels: str, *others: Any) -> Any:
            with _threads_put_back():
                results = [_with_threads(count, dispatch, name, kernels, *others) for count in THREADS]
            key = f"{name} of {kernels.removesuffix('_triton')}"
            found[key] = max(found.get(key, 0.0), *(_difference(results[0], other) for other in results[1:]))
            return results[0]

        return run

    with programs_by(subject.package, stand_in):
        given.results()
    if not found:
        return Check(title, None, None, "", "skipped: the model runs no program of its package")
    return worst(title, found, 0.0)


def _with_threads(count: int, dispatch: Any, *arguments: Any) -> Any:
    torch.set_num_threads(count)
    return dispatch(*arguments)


def _difference(first: Any, other: Any) -> float:
    """The largest, relative to the largest element of the result; where only NaN differs from itself, infinite."""
    pairs = [(first, other)] if isinstance(first, Tensor) else list(zip(first, other, strict=True))
    return max(float("inf") if _unlike(a, b) else _relative(a, b) for a, b in pairs)


def _unlike(first: Tensor, other: Tensor) -> bool:
    return first.shape != other.shape or bool((first - other).isnan().any())


def _relative(first: Tensor, other: Tensor) -> float:
    if torch.equal(first, other):
        return 0.0
    return float((first - other).abs().max() / first.abs().max())


def _largest(found: list[dict[str, float]]) -> dict[str, float]:
    """By result; NaN propagates."""
    return {name: max((each[name] for each in found), key=lambda x: (x != x, x)) for name in found[0]}


@contextmanager
def _threads_put_back() -> Iterator[None]:
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)
