"""Timings that can be compared: cases that take turns in one process, so that what else the machine does hits all."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch


def interleaved(
    cases: Mapping[str, Callable[[], Any]], repeats: int, device: str, warm_ups: int
) -> dict[str, list[float]]:
    """Seconds of each run of each case, in the order A B A B … after uncounted rounds."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for counted in [False] * warm_ups + [True] * repeats:
        for name, case in cases.items():
            synchronise(device)
            start = time.perf_counter()
            case()
            synchronise(device)
            if counted:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def synchronise(device: str) -> None:
    """Waits for a GPU; timings without it measure launches."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
