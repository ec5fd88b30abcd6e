"""How many threads a training on a CPU runs on: as many as make its own steps the fastest.

A step on few atoms is many small operators. On more threads than there are idle cores each of them waits for the
threads that do not run: beside one busy core of two, a step of 20 ms took more than two seconds.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

import torch

from tensorgraph.training.progress import Tell

REPEATS = 3
PATIENCE = 1.0
"""Seconds after which a number of threads is not timed again."""
GAIN = 0.9
"""More threads are taken where they bring the time of a step below this part."""
HOPELESS = 10
"""A first step that takes so many times as long is the only one: threads do not start that slowly."""


@contextlib.contextmanager
def threads(number: int | None) -> Iterator[None]:
    """So many threads in PyTorch and in compiled programs, inside; None leaves them as they are."""
    before = torch.get_num_threads()
    try:
        if number is not None:
            torch.set_num_threads(number)
        yield
    finally:
        torch.set_num_threads(before)


def fastest(step: Callable[[], object], most: int, tell: Tell) -> int:
    """Of 1, 2, 4, … and `most` threads, with how many `step` is fastest; more are not tried once they do not help.

    The first call of each number, which starts its threads and may compile programs, does not count, unless it is
    hopelessly slow.
    """
    best, least = 1, float("inf")
    for number in sorted({min(2**k, most) for k in range(most.bit_length() + 1)}):
        with threads(number):
            seconds = _seconds(step, least)
        if seconds > GAIN * least:
            tell(f"threads: {best}; on {number} a step takes {seconds / least:.2g} times as long")
            return best
        best, least = number, seconds
    tell(f"threads: {best}")
    return best


def _seconds(step: Callable[[], object], least: float) -> float:
    """The shortest of several times; `least` is that of fewer threads."""
    started = time.perf_counter()
    step()
    if (first := time.perf_counter() - started) > HOPELESS * least:
        return first
    found, started = float("inf"), time.perf_counter()
    for _ in range(REPEATS):
        begun = time.perf_counter()
        step()
        now = time.perf_counter()
        found = min(found, now - begun)
        if now - started > PATIENCE:
            break
    return found
