"""Whether a model's energies and forces are affine in the parameters that are not frozen, tried in float64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tensorgraph.errors import TrainingError
from tensorgraph.model.batch import Batch
from tensorgraph.training.design import FreeParameters

ROUNDING = 1e-9  # relative to the largest energy or force: those of a perfect crystal are zero but for rounding


def check_affine(model: Any, free: FreeParameters, batch: Batch) -> None:
    """Raises TrainingError, naming what to freeze, where the float64 `model` is not affine in `free`."""
    if _is_affine(model, free, batch):
        return
    linear: list[tuple[str, torch.nn.Parameter]] = []
    for one in reversed(free.named):  # from the energy heads inwards
        if _is_affine(model, FreeParameters((one, *linear)), batch):
            linear.insert(0, one)
    kept = {name for name, _ in linear}
    frozen = _patterns([name for name, _ in free.named if name not in kept], kept)
    raise TrainingError(
        f"method: least_squares is for models that are affine in what is not frozen, and this one is not; "
        f"allowed: freeze: [{', '.join(frozen)}], or method: gradient"
    )


def _patterns(names: Sequence[str], kept: set[str]) -> list[str]:
    """The names, or `start.*` for all that start so."""
    found: dict[str, None] = {}
    for name in names:
        start = name.split(".")[0] + "."
        whole = "." in name and not any(other.startswith(start) for other in kept)
        found[f"{start}*" if whole else name] = None
    return list(found)


def _is_affine(model: Any, free: FreeParameters, batch: Batch) -> bool:
    """Whether f(θ₁ + θ₂) + f(0) = f(θ₁) + f(θ₂), for θ of the parameters' own sizes."""
    start = free.vector()
    one, two = _random_like(free, 1), _random_like(free, 2)
    try:
        values = [_values(model, free, batch, at) for at in (one + two, torch.zeros_like(one), one, two)]
    finally:
        free.set(start)
    largest = max(float(tensor.abs().max()) for tensors in values for tensor in tensors)
    for both, zero, first, second in zip(*values, strict=True):
        difference = (both + zero - first - second).abs()
        if not bool((difference <= ROUNDING * largest).all()):  # not so for NaN either
            return False
    return True


def _values(model: Any, free: FreeParameters, batch: Batch, at: Tensor) -> tuple[Tensor, Tensor]:
    free.set(at)
    found = model.energy_and_forces(*batch.inputs)
    return found.energy, found.forces


def _random_like(free: FreeParameters, seed: int) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    parts = []
    for _, parameter in free.named:
        size = float(parameter.detach().square().mean().sqrt()) or 1.0
        drawn = torch.randn(parameter.numel(), generator=random, dtype=parameter.dtype)
        parts.append(size * drawn.to(parameter.device))
    return torch.cat(parts)
