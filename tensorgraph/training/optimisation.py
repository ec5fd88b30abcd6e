"""How weights are changed: their groups, the schedules of rate and loss, and the moving average."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from tensorgraph.errors import TrainingError
from tensorgraph.training.config import LossConfig, OptimizerConfig
from tensorgraph.training.loss import TERMS
from tensorgraph.training.soap import Scale, Soap


def freeze(model: torch.nn.Module, patterns: tuple[str, ...]) -> None:
    """Exclude from training the parameters whose name matches one of the patterns.

    Raises TrainingError for a pattern that matches none, and where nothing is left to train.
    """
    names = [name for name, _ in model.named_parameters()]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise TrainingError(f"freeze: {pattern!r} is the name of no parameter; allowed: {', '.join(names)}")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not any(fnmatchcase(name, pattern) for pattern in patterns))
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise TrainingError("freeze: nothing is left to train; allowed: patterns that leave some parameters")


def optimizer_of(
    model: torch.nn.Module, config: OptimizerConfig, scales: Mapping[Tensor, Scale] | None = None
) -> torch.optim.Optimizer:
    """The optimiser of the parameters that are not frozen; `scales` as for `Soap`.

    Matrices decay. Biases, norms, energies of species and radial functions do not: decay would drive the centres and
    widths of sensitivities to zero. Energies of species, which the data fixed, change at a tenth of the rate.
    """
    groups: dict[str, list[Tensor]] = {"mixing": [], "readout": [], "other": [], "species": []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups[_kind(name, parameter)].append(parameter)
    matrices = config.kind == "soap"
    options = {
        "mixing": {"weight_decay": config.decay, "matrices": matrices, "factor": 1.0},
        "readout": {"weight_decay": config.decay, "factor": 1.0},
        "other": {"factor": 1.0},
        "species": {"factor": 0.1},
    }
    chosen = [{"params": params, **options[kind]} for kind, params in groups.items() if params]
    return Soap(chosen, config.rate, config.betas, config.renewal, scales)


def _kind(name: str, parameter: Tensor) -> str:
    """Which group a parameter belongs to."""
    if name.startswith("energy_heads.of_species"):
        return "species"
    if parameter.dim() < 2 or ".norm." in name:
        return "other"
    single = 1 in parameter.shape[:2] or (parameter.dim() == 2 and 1 in parameter.shape)
    return "readout" if single else "mixing"


def rate_at(config: OptimizerConfig, step: int, fraction: float) -> float:
    """The rate: a linear rise over the first steps, times a half cosine over the run."""
    cosine = config.last_rate + (1 - config.last_rate) * 0.5 * (1 + math.cos(math.pi * min(fraction, 1.0)))
    return config.rate * min(1.0, (step + 1) / max(1, config.warmup)) * cosine


def weights_at(config: LossConfig, fraction: float) -> dict[str, float]:
    """The weights of the loss: from first to last geometrically, or linearly where one of them is zero."""
    return {name: _between(getattr(config, name), min(fraction, 1.0)) for name in TERMS}


def _between(ends: tuple[float, float], fraction: float) -> float:
    first, last = ends
    if first > 0 and last > 0:
        return first * math.exp(fraction * math.log(last / first))
    return first + (last - first) * fraction


def averaged_model(model: torch.nn.Module, decay: float) -> AveragedModel:
    """The exponential moving average of the model's weights, which forgets its start faster than `decay` says."""

    def update(averages: Sequence[Tensor], current: Sequence[Tensor], n_averaged: Tensor | int) -> None:
        n = float(n_averaged)
        for average, new in zip(averages, current, strict=True):
            average.lerp_(new, 1 - min(decay, (1 + n) / (10 + n)))

    return AveragedModel(model, multi_avg_fn=update)
