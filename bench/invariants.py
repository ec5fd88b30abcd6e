"""The 13 invariants of `hiphop5` against hippynn's, side by side: equal numbers first, then time.

Run with `python -m bench.invariants [--device cuda]`; hippynn comes with the test dependencies.
"""

from __future__ import annotations

import argparse
import importlib
import os
import statistics
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from typing import Any

import torch
from rich.console import Console
from rich.table import Column, Table
from torch import Tensor

from bench.runner import interleaved, kind_of, machine, store, summary
from generated import hiphop5

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # about optional packages
    from hippynn.layers.hiplayers import tensors as published

ORDER = {"forward": 0, "forward and backward": 1, "with double backward": 2}


def published_invariants(channels: int, device: str) -> Callable[[Tensor], Tensor]:
    """hippynn's layer on our layout `[atoms, components, channels]`, with the permutations that its own layer does."""
    layer = published.HopInvariantLayer(n_max=4, l_max=3).to(device)

    def apply(features: Tensor) -> Tensor:
        rows = features.permute(0, 2, 1).reshape(-1, features.shape[1])
        return layer(rows).reshape(features.shape[0], channels, -1).permute(0, 2, 1)

    return apply


def differentiated(function: Callable[[Tensor], Tensor], features: Tensor, order: int) -> Callable[[], Tensor]:
    """A run of the function and its derivatives up to `order`, of a scalar that weights all invariants."""

    def run() -> Tensor:
        inputs = features.detach().requires_grad_(order > 0)
        values = function(inputs)
        if order == 0:
            return values
        (slope,) = torch.autograd.grad(values.sum(), inputs, create_graph=order > 1)
        return torch.autograd.grad(slope.square().sum(), inputs)[0] if order > 1 else slope

    return run


def largest_difference(ours: Callable[[Tensor], Tensor], theirs: Callable[[Tensor], Tensor], features: Tensor) -> float:
    """Largest relative difference of values, gradient and double gradient; equal numbers come before time."""
    a, b = ours(features), theirs(features)
    # Match columns by value on these inputs: the order of the invariants differs.
    columns = torch.stack([(a - b[:, k : k + 1]).abs().amax(dim=(0, 2)).argmin() for k in range(b.shape[1])])
    if sorted(columns.tolist()) != list(range(b.shape[1])):
        raise SystemExit(f"the invariants are not those of the published code: {columns.tolist()}")
    values = ((a[:, columns] - b).abs().amax(dim=(0, 2)) / b.abs().amax(dim=(0, 2))).max()
    differences = [float(values)]
    for order in (1, 2):
        a, b = (differentiated(function, features, order)() for function in (ours, theirs))
        differences.append(float((a - b).abs().max() / b.abs().max()))
    return max(differences)


def copying(size: int, device: str) -> Callable[[], Any]:
    """A copy that reads and writes so many bytes together, of arrays of its own."""
    source = torch.rand(size // 8, device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def operators(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Each operator by itself, in turns with a copy that moves the bytes that it must move, and their times' ratio."""
    programs = importlib.import_module("generated.hiphop5.invariants").PROGRAMS
    sizes = (hiphop5.architecture.N_COMPONENTS, hiphop5.architecture.N_INVARIANTS, hiphop5.architecture.N_COMPONENTS)
    rows = []
    for dtype in (torch.float32, torch.float64):
        inputs = [torch.randn(options.atoms, n, options.channels, device=options.device, dtype=dtype) for n in sizes]
        for count, name in enumerate(("forward", "backward", "double_backward"), 1):
            taken, operator = inputs[:count], getattr(programs, name)
            found = operator(*taken)
            moved = sum(tensor.nbytes for tensor in (*taken, *(found if isinstance(found, tuple) else (found,))))
            runs = {"tensorgraph": lambda f=operator, t=taken: f(*t), "copy": copying(moved, options.device)}
            seconds = interleaved(runs, options.repeats, options.device)
            ours, copied = (statistics.median(seconds[run]) for run in runs)
            row = {"case": f"operator {name}", "rows": options.atoms * options.channels, "dtype": str(dtype)[6:]}
            row |= {run: summary(times) for run, times in seconds.items()}
            row |= {"GB_per_s": moved / ours / 1e9, "of_copy": copied / ours}
            rows.append(row | {"repeats": options.repeats} | machine(options.device))
    return rows


FIRST_CALL = """
import os, sys, time
import torch
from generated import hiphop5
features = torch.randn(1000, 16, 128, requires_grad=True, device=sys.argv[1])
start = time.perf_counter()
values = hiphop5.invariants(features)
forward = time.perf_counter()
(slope,) = torch.autograd.grad(values.sum(), features, create_graph=True)
slope.square().sum().backward()
print(forward - start, time.perf_counter() - start)
"""


def first_calls(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Seconds of the first call of a process, all programs built anew or found in the cache."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"TENSORGRAPH_CACHE": f"{folder}/cpu", "TRITON_CACHE_DIR": f"{folder}/gpu"}
        for cache in ("cold", "warm"):
            command = [sys.executable, "-c", FIRST_CALL, options.device]
            done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
            forward, everything = map(float, done.stdout.split())
            row = {"case": f"first call, {cache} cache", "rows": 128_000, "dtype": "float32"}
            row |= {"forward_s": forward, "with_double_backward_s": everything}
            rows.append(row | machine(options.device))
    return rows


def against_hippynn(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Medians of alternating runs, after the numbers were found to agree."""
    features = torch.randn(options.atoms, 16, options.channels, device=options.device)
    ours, theirs = hiphop5.invariants, published_invariants(options.channels, options.device)
    difference = largest_difference(ours, theirs, features)
    rows = []
    for case, order in ORDER.items():
        runs = {
            "tensorgraph": differentiated(ours, features, order),
            "hippynn": differentiated(theirs, features, order),
        }
        seconds = interleaved(runs, options.repeats, options.device)
        ratio = summary(seconds["hippynn"])["median_ms"] / summary(seconds["tensorgraph"])["median_ms"]
        row = {"case": case, "rows": options.atoms * options.channels, "dtype": "float32", "ratio": ratio}
        row |= {name: summary(times) for name, times in seconds.items()}
        rows.append(row | {"largest_difference": difference, "repeats": options.repeats} | machine(options.device))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--atoms", type=int, default=1000)
    parser.add_argument("--channels", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    torch.manual_seed(0)
    compared, alone, first = against_hippynn(options), operators(options), first_calls(options)
    path = store(f"invariants-{kind_of(options.device)}", [*compared, *alone, *first])
    show(compared, alone, first)
    print(path)


def show(compared: list[dict[str, Any]], alone: list[dict[str, Any]], first: list[dict[str, Any]]) -> None:
    title = f"{compared[0]['rows']} rows, {compared[0]['device']}, {compared[0]['threads']} threads"
    table = Table("case", *(Column(h, justify="right") for h in ("tensorgraph ms", "hippynn ms", "times faster")))
    table.title, table.title_justify = title, "left"
    for row in compared:
        medians = [f"{row[name]['median_ms']:.2f}" for name in ("tensorgraph", "hippynn")]
        table.add_row(row["case"], *medians, f"{row['ratio']:.1f}")
    Console().print(table)
    table = Table("by itself", "dtype", *(Column(h, justify="right") for h in ("ms", "GB/s", "of a copy's rate")))
    for row in alone:
        rates = f"{row['GB_per_s']:.1f}", f"{row['of_copy']:.0%}"
        table.add_row(row["case"], row["dtype"], f"{row['tensorgraph']['median_ms']:.3f}", *rates)
    Console().print(table)
    for row in first:
        print(f"{row['case']}: {row['forward_s']:.2f} s, with double backward {row['with_double_backward_s']:.2f} s")


if __name__ == "__main__":
    main()
