"""The 13 invariants of `hiphop5` against hippynn's, side by side: equal numbers first, then time.

Run with `python -m bench.invariants [--device cuda]`; hippynn comes with the test dependencies.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from bench.runner import interleaved, machine, store, summary
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--atoms", type=int, default=1000)
    parser.add_argument("--channels", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    torch.manual_seed(0)
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
    path = store(f"invariants-{options.device.split(':')[0]}", rows)
    show(rows)
    print(path)


def show(rows: list[dict[str, Any]]) -> None:
    table = Table(
        title=f"{rows[0]['rows']} rows, {rows[0]['device']}, {rows[0]['threads']} threads", title_justify="left"
    )
    for heading in ("case", "tensorgraph ms", "hippynn ms", "times faster"):
        table.add_column(heading, justify="left" if heading == "case" else "right")
    for row in rows:
        medians = [f"{row[name]['median_ms']:.2f}" for name in ("tensorgraph", "hippynn")]
        table.add_row(row["case"], *medians, f"{row['ratio']:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
