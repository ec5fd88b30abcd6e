"""What every benchmark shares: alternating timed runs, medians and spreads, rows with machine and versions."""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"


def interleaved(cases: Mapping[str, Callable[[], Any]], repeats: int, device: str) -> dict[str, list[float]]:
    """Seconds of each run of each case, in the order A B A B … after one uncounted round."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for counted in [False, *[True] * repeats]:
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
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def summary(seconds: list[float]) -> dict[str, float]:
    """Median, least and largest, in milliseconds."""
    values = [1e3 * s for s in seconds]
    return {"median_ms": statistics.median(values), "min_ms": min(values), "max_ms": max(values)}


def machine(device: str) -> dict[str, Any]:
    """Where a row was measured."""
    name = torch.cuda.get_device_name() if device.startswith("cuda") else processor()
    return {"device": name, "threads": torch.get_num_threads(), "versions": versions()}


def processor() -> str:
    """The processor's model, as far as the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Versions of what matters, where installed."""
    found = {"python": platform.python_version()}
    for package in ("tensorgraph", "torch", "triton", "hippynn"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def store(name: str, rows: list[dict[str, Any]]) -> Path:
    """Writes the rows of one benchmark as JSON lines, replacing those of the same benchmark and device."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
