"""One step of training, which every backend has to take alike: its values, and the gradients of a loss on them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tensorgraph.battery.structures import Maker
from tensorgraph.battery.subject import Subject
from tensorgraph.model.batch import Batch

Values = tuple[Tensor, Tensor, Tensor, Tensor]
"""Energy [n_structures] and energies [n_atoms] (eV), forces [n_atoms, 3] (eV/Å), virial [n_structures, 3, 3] (eV)."""

Step = Callable[[Tensor], Values]
"""The values for displacements [n_pairs, 3] (Å), differentiable with respect to the weights."""

Results = dict[str, Tensor]
"""By name: the values, and the gradient with respect to each weight."""

VALUES = ("energy", "energies", "forces", "virial")
LEAST_SCALE = 1e-3
"""Of a weight's gradient, beside the largest of all: what is small by cancellation has the rounding of large terms."""


@dataclass(frozen=True)
class Problem:
    """A model, a torch module, and the structures that it is given."""

    model: Any
    batch: Batch

    @property
    def weights(self) -> dict[str, Tensor]:
        """What is trained, by name."""
        return dict(self.model.named_parameters())

    def values(self, displacements: Tensor) -> Values:
        """A `Step`: the model as it is."""
        numbers, pairs, _, structure, n_structures, cutoff = self.batch.inputs
        found = self.model.energy_and_forces(
            numbers, pairs, displacements, structure, n_structures, cutoff, create_graph=True
        )
        return found.energy, found.energies, found.forces, found.virial

    def results(self, step: Step | None = None, weights: Mapping[str, Tensor] | None = None) -> Results:
        """What a step gives, and the gradients of a loss on its energies and forces with respect to all weights.

        `weights` are those that the step was made with, where these are not the model's own.
        """
        weights = self.weights if weights is None else weights
        with torch.enable_grad():
            # A leaf of its own: PyTorch's compiler would break its graph where the model made one.
            found = (step or self.values)(self.batch.displacements.clone().requires_grad_())
            gradients = _gradients(_loss(found[0], found[2]), weights)
        values = {name: value.detach() for name, value in zip(VALUES, found, strict=True)}
        return values | {f"gradient of {name}": gradient for name, gradient in gradients.items()}

    def exact(self) -> Problem:
        """The same weights and structures in float64, on the CPU."""
        return self.converted("cpu", torch.float64)

    def converted(self, device: str | torch.device, dtype: torch.dtype) -> Problem:
        """A copy of the model, and the structures, on this device and with this dtype; itself where nothing changes."""
        same = self.batch.displacements.dtype == dtype and self.batch.displacements.device == torch.device(device)
        if same:
            return self
        return Problem(copy.deepcopy(self.model).to(device=device, dtype=dtype), self.batch.to(device, dtype))

    def interaction(self) -> float:
        """The largest energy of an atom among its neighbours, less what it has without any (eV)."""
        numbers, pairs, displacements, structure, n_structures, cutoff = self.batch.inputs
        around = self.model.energy_and_forces(numbers, pairs, displacements, structure, n_structures, cutoff)
        alone = self.model.energy_and_forces(numbers, pairs[:, :0], displacements[:0], structure, n_structures, cutoff)
        return _largest(around.energies - alone.energies)


def _loss(energy: Tensor, forces: Tensor) -> Tensor:
    """Linear in energies: those of single atoms may be so large that their squares would hide the forces' share."""
    weights = 1 / torch.arange(1, len(energy) + 1, device=energy.device)
    return forces.square().sum() + (weights * energy).sum()


def _gradients(loss: Tensor, weights: Mapping[str, Tensor]) -> Results:
    """Zero for a weight that the loss does not depend on, as an optimiser takes it."""
    if not loss.requires_grad:
        return {name: torch.zeros_like(weight) for name, weight in weights.items()}
    found = torch.autograd.grad(loss, list(weights.values()), allow_unused=True, materialize_grads=True)
    return {name: gradient.detach() for name, gradient in zip(weights, found, strict=True)}


def deviations(found: Results, expected: Results, interaction: float) -> dict[str, float]:
    """The largest deviation of each result, relative to its largest element; energies, to the interaction (eV).

    A gradient that was not found is zero; NaN stands for a result of another shape.
    """
    gradients = [name for name in expected if name not in VALUES]
    least = LEAST_SCALE * max((_largest(expected[name]) for name in gradients), default=0.0)
    scales = {name: max(_largest(expected[name]), least) for name in gradients}
    scales |= {"energy": interaction, "energies": interaction}
    return {
        name: _deviation(found.get(name, torch.zeros_like(value)), value, scales.get(name, _largest(value)))
        for name, value in expected.items()
    }


def _deviation(found: Tensor, expected: Tensor, scale: float) -> float:
    if found.shape != expected.shape:
        return float("nan")
    return _largest(found.to(expected).double() - expected.double()) / (scale or 1.0)


def _largest(values: Tensor) -> float:
    """The largest absolute element; NaN propagates."""
    return float(values.detach().abs().max()) if values.numel() else 0.0


def problem(subject: Subject, sizes: Sequence[int]) -> Problem:
    """The subject's model with clusters of so many atoms."""
    makers = [Maker(np.random.default_rng(seed), subject.species, subject.cutoff) for seed in range(len(sizes))]
    clusters = [maker.lattice(size) for maker, size in zip(makers, sizes, strict=True)]
    return Problem(subject.model, subject.batch(clusters))


@contextmanager
def trainable(model: Any) -> Iterator[None]:
    """All weights ask for gradients, and no part of the model checks values, which no graph can hold, meanwhile."""
    asked = [(weight, weight.requires_grad) for weight in model.parameters()]
    checking = [part for part in model.modules() if getattr(part, "validate", False) is True]
    try:
        for weight, _ in asked:
            weight.requires_grad_()
        for part in checking:
            part.validate = False
        yield
    finally:
        for weight, before in asked:
            weight.requires_grad_(before)
        for part in checking:
            part.validate = True
