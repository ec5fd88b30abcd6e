"""Training of the gold model: Adam on energies and forces, with a cosine schedule and fixed seeds."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor

from tensorgraph.runtime import Batch


@dataclass(frozen=True)
class Settings:
    """Chosen on another trajectory than the one that is reported."""

    steps: int = 6_000
    batch_size: int = 100
    learning_rate: float = 1e-2
    betas: tuple[float, float] = (0.9, 0.99)
    warmup_steps: int = 100
    gradient_norm: float = 10.0
    energy_weight: float = 1.0  # Å⁻²; of total energies in the loss, beside the forces
    seed: int = 0


@dataclass(frozen=True)
class SquaredErrors:
    """Mean squared errors of energy (eV²) and forces (eV²/Å²)."""

    energy: Tensor
    forces: Tensor

    def __str__(self) -> str:
        return f"{1e3 * self.energy.sqrt():.1f} meV {1e3 * self.forces.sqrt():.1f} meV/Å"


def initial_model(package: ModuleType, samples: Batch, settings: Settings) -> torch.nn.Module:
    """A new model whose energies of atoms start as the species' mean ones, by least squares over the samples."""
    model: torch.nn.Module = package.Model(seed=settings.seed)
    model.validate = False  # the neighbour lists were checked when they were made
    symbols, numbers = zip(*package.architecture.SPECIES, strict=True)
    is_species = (samples.numbers.unsqueeze(1) == torch.tensor(numbers)).double()
    counts = is_species.new_zeros(samples.n_structures, len(numbers)).index_add_(0, samples.structure, is_species)
    energies = torch.linalg.lstsq(counts, samples.energy.unsqueeze(1), driver="gelsd").solution.flatten()
    model.set_atomic_energies(dict(zip(symbols, energies.tolist(), strict=True)))
    return model


def errors_of(model: torch.nn.Module, batch: Batch) -> SquaredErrors:
    """The squared errors on a batch, differentiable."""
    result = model.energy_and_forces(*batch.inputs, create_graph=True)
    energy, forces = (result.energy - batch.energy).square(), (result.forces - batch.forces).square()
    return SquaredErrors(energy.mean(), forces.mean())


def train(
    package: ModuleType, samples: Batch, settings: Settings, steps: int, on_step: Callable[[str], object]
) -> torch.nn.Module:
    """A model trained for `steps` steps; `on_step` is called with the errors on the batch after every step."""
    model = initial_model(package, samples, settings)
    optimizer = torch.optim.Adam(model.parameters(), lr=settings.learning_rate, betas=settings.betas)
    for step, batch in zip(range(steps), minibatches(samples, settings), strict=False):
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * schedule(step, steps, settings.warmup_steps)
        errors = errors_of(model, batch)
        optimizer.zero_grad()
        (settings.energy_weight * errors.energy + errors.forces).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.gradient_norm)
        optimizer.step()
        on_step(str(errors))
    return model


def schedule(step: int, steps: int, warmup_steps: int) -> float:
    """The factor of the learning rate: a linear rise over the first steps, then a half cosine down to zero."""
    return min(1.0, (step + 1) / warmup_steps) * 0.5 * (1 + math.cos(math.pi * step / steps))


def minibatches(samples: Batch, settings: Settings) -> Iterator[Batch]:
    """Batches of the samples without end, in a new random order every time round."""
    random = torch.Generator().manual_seed(settings.seed)
    while True:
        order = torch.randperm(samples.n_structures, generator=random)
        for chosen in order.split(settings.batch_size):
            yield samples.take(chosen)


def affordable_steps(package: ModuleType, samples: Batch, settings: Settings, seconds: float) -> int:
    """The planned number of steps, or as many as fit into the time: judged by a few that leave no trace."""
    model, trials = initial_model(package, samples, settings), 10
    batches = minibatches(samples, settings)
    errors_of(model, next(batches)).forces.backward()
    started = time.perf_counter()
    for _ in range(trials):
        errors_of(model, next(batches)).forces.backward()
    return max(1, min(settings.steps, int(seconds * trials / (time.perf_counter() - started))))
