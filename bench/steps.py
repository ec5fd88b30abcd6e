"""Steps of `hiphop5` on water against hippynn's, side by side: one layer, energy and forces, and a training step.

Run with `python -m bench.steps [--device cuda]`: equal hyperparameters and weights, equal numbers first, then time in
turns, then the peak of memory of each, in a process of its own. The system is a cluster of 216 water molecules. hippynn
uses the fastest of its own kernels that are installed: numba on a CPU, Triton on a GPU.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import torch
from rich.console import Console
from rich.table import Column, Table
from torch import Tensor

from bench.published import base_layer, choose_kernels, equal_models
from bench.runner import difference, in_own_process, interleaved, kind_of, machine, peak_memory, store, summary
from bench.structures import water_cluster
from generated import hiphop5
from tensorgraph.model.batch import batch_structures
from tensorgraph.runtime.geometry import Geometry
from tensorgraph.runtime.grouping import PairGroups

CASES = ("one layer with gradient", "energy and forces", "training step")
TOLERANCE = 1e-9
"""Largest difference in float64 over the largest number."""


class Sides:
    """The two models with equal weights, and what each case runs on each."""

    def __init__(self, molecules_per_side: int, dtype: torch.dtype, device: str) -> None:
        constants = hiphop5.architecture
        self.kernels = choose_kernels(device)
        self.model, self.published = equal_models(hiphop5, 4, dtype, device)
        self.batch = batch_structures([water_cluster(molecules_per_side)], constants.CUTOFF, dtype, device)
        random = torch.Generator().manual_seed(1)
        shape = (len(self.batch.numbers), constants.FEATURES)
        self.features = torch.randn(shape, generator=random, dtype=torch.float64).to(device, dtype)
        self.forces = torch.randn((len(self.batch.numbers), 3), generator=random, dtype=torch.float64).to(device, dtype)

    def cases(self, case: str) -> dict[str, Callable[[], list[Tensor]]]:
        """What a case runs on either side; both return the same numbers."""
        ours, theirs = {
            CASES[0]: (self._layer_ours, self._layer_theirs),
            CASES[1]: (self._forces_ours, self._forces_theirs),
            CASES[2]: (self._training_ours, self._training_theirs),
        }[case]
        return {"tensorgraph": ours, "hippynn": theirs}

    def _layer_ours(self) -> list[Tensor]:
        def layer(features: Tensor, displacements: Tensor) -> Tensor:
            groups = PairGroups.of(self.batch.pairs, len(features))
            geometry = Geometry.of(groups, torch.zeros_like(self.batch.numbers), displacements, hiphop5.Model.CUTOFF)
            directions = hiphop5.tensor_components(geometry.unit_vectors)
            return self.model.blocks[1].interaction.layer(features, directions, geometry.radial, geometry)

        return self._with_gradient(layer)

    def _layer_theirs(self) -> list[Tensor]:
        def layer(features: Tensor, displacements: Tensor) -> Tensor:
            distances = displacements.norm(dim=1)
            directions = displacements / distances[:, None]
            tensors = torch.cat(self.published.network.tensor_extractor(directions)[:4], dim=-1)
            return base_layer(self.published.network.blocks[1][0])(features, *self.batch.pairs, distances, tensors)

        return self._with_gradient(layer)

    def _with_gradient(self, layer: Callable[[Tensor, Tensor], Tensor]) -> list[Tensor]:
        """Values, and the slopes of their sum of squares with respect to features and displacements."""
        inputs = [self.features.clone().requires_grad_(), self.batch.displacements.clone().requires_grad_()]
        values = layer(*inputs)
        return [values.detach(), *torch.autograd.grad(values.square().sum(), inputs)]

    def _forces_ours(self) -> list[Tensor]:
        found = self.model.energy_and_forces(*self.batch.inputs)
        return [found.energy, found.forces]

    def _forces_theirs(self) -> list[Tensor]:
        return list(self.published.energies_and_forces(self.batch))

    def _training_ours(self) -> list[Tensor]:
        found = self.model.energy_and_forces(*self.batch.inputs, create_graph=True)
        return self._loss_and_gradients(found.energy, found.forces, list(self.model.parameters()))

    def _training_theirs(self) -> list[Tensor]:
        energy, forces = self.published.energies_and_forces(self.batch, create_graph=True)
        return self._loss_and_gradients(energy, forces, self.published.parameters())

    def _loss_and_gradients(self, energy: Tensor, forces: Tensor, parameters: list[Tensor]) -> list[Tensor]:
        """A loss on energy and forces, and the norm of its gradient with respect to all weights together.

        Weights are laid out differently on the two sides, so their gradients are compared as a whole.
        """
        loss = (energy / len(forces)).square().sum() + (forces - self.forces).square().mean()
        wanted = [parameter for parameter in parameters if parameter.requires_grad]
        gradients = torch.autograd.grad(loss, wanted, allow_unused=True, materialize_grads=True)
        return [loss.detach(), sum(gradient.square().sum() for gradient in gradients).sqrt()]


def largest_difference(case: str, device: str) -> float:
    """Largest difference between the two sides over the largest number, on a smaller cluster in float64."""
    found, expected = (run() for run in Sides(3, torch.float64, device).cases(case).values())
    return difference(found, expected)


def compared(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Medians of alternating runs, after the numbers were found to agree."""
    sides = Sides(options.molecules, torch.float32, options.device)
    rows = []
    for case in CASES:
        agreed = largest_difference(case, options.device)
        if not agreed <= TOLERANCE:
            raise SystemExit(f"{case}: the two sides differ by {agreed:.1e}")
        seconds = interleaved(sides.cases(case), options.repeats, options.device)
        row: dict[str, Any] = {"case": case, "atoms": len(sides.batch.numbers), "pairs": sides.batch.pairs.shape[1]}
        row |= {"dtype": "float32", "kernels": sides.kernels}
        row |= {name: summary(times) for name, times in seconds.items()}
        row["ratio"] = row["hippynn"]["median_ms"] / row["tensorgraph"]["median_ms"]
        row["peak_kB_per_atom"] = {name: peak(case, name, options) for name in seconds}
        rows.append(row | {"largest_difference": agreed, "repeats": options.repeats} | machine(options.device))
    return rows


def peak(case: str, side: str, options: argparse.Namespace) -> float:
    """By how much a run raises the memory of a process of its own, at most, in kB per atom."""
    return float(in_own_process("steps", f"print_peak({case!r}, {side!r}, {options.molecules}, {options.device!r})"))


def print_peak(case: str, side: str, molecules: int, device: str) -> None:
    """The peak of a run above what its process held before, when small runs had loaded all that has to be loaded."""
    small, sides = (Sides(count, torch.float32, device) for count in (1, molecules))
    for _ in range(3):
        small.cases(case)[side]()
    print(peak_memory(sides.cases(case)[side], device) / len(sides.batch.numbers))


FIRST_CALLS = """
import sys, time
import torch
from bench import steps
sides = steps.Sides(6, torch.float32, sys.argv[1])
forces, training = (sides.cases(case)["tensorgraph"] for case in steps.CASES[1:])
start = time.perf_counter(); forces()
middle = time.perf_counter(); training()
print(middle - start, time.perf_counter() - middle)
"""


def first_calls(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Seconds of the first step with forces of a process, and of the first training step after it."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"TENSORGRAPH_CACHE": f"{folder}/cpu", "TRITON_CACHE_DIR": f"{folder}/gpu"}
        for cache in ("cold", "warm"):
            command = [sys.executable, "-c", FIRST_CALLS, options.device]
            done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
            forces, training = map(float, done.stdout.splitlines()[-1].split())
            row = {"case": f"first steps, {cache} cache", "forces_s": forces, "training_s": training}
            rows.append(row | machine(options.device))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--molecules", type=int, default=6, help="per side of the cube")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    rows, first = compared(options), first_calls(options)
    path = store(f"steps-{kind_of(options.device)}", [*rows, *first])
    show(rows)
    for row in first:
        print(f"{row['case']}: forces {row['forces_s']:.2f} s, then training {row['training_s']:.2f} s")
    print(path)


def show(rows: list[dict[str, Any]]) -> None:
    columns = ("tensorgraph ms", "hippynn ms", "times faster", "tensorgraph kB/atom", "hippynn kB/atom")
    table = Table("case", *(Column(h, justify="right") for h in columns))
    sizes = f"{rows[0]['atoms']} atoms, {rows[0]['pairs']} pairs, {rows[0]['threads']} threads"
    table.title = f"{sizes}; hippynn with its {rows[0]['kernels']} kernels"
    for row in rows:
        medians = [f"{row[name]['median_ms']:.1f}" for name in ("tensorgraph", "hippynn")]
        peaks = [f"{row['peak_kB_per_atom'][name]:.0f}" for name in ("tensorgraph", "hippynn")]
        table.add_row(row["case"], *medians, f"{row['ratio']:.1f}", *peaks)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
