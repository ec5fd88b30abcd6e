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

    The first call, which may compile programs, is not timed.
    """
    best, least = 1, 0.0
    with threads(1):
        step()
        least = _seconds(step, float("inf"))
    for number in sorted({min(2**k, most) for k in range(1, most.bit_length() + 1)} - {1}):
        with threads(number):
            seconds = _seconds(step, least)
        if seconds > GAIN * least:
            tell(f"threads: {best}; on {number} a step takes {seconds / least:.2g} times as long")
            return best
        best, least = number, seconds
    tell(f"threads: {best}")
    return best


def _seconds(step: Callable[[], object], least: float) -> float:
    """The shortest of several times; of one, where it is long, or twice the least of fewer threads."""
    found = float("inf")
    started = time.perf_counter()
    for _ in range(REPEATS):
        begun = time.perf_counter()
        step()
        now = time.perf_counter()
        found = min(found, now - begun)
        if now - started > PATIENCE or found > 2 * least:
            break
    return found
