"""How weights are changed: their groups, the schedules of rate and loss, and the moving average."""

from __future__ import annotations

import math
from fnmatch import fnmatchcase

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from tensorgraph.errors import TrainingError
from tensorgraph.training.config import LossConfig, OptimizerConfig
from tensorgraph.training.loss import TERMS


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


def decayed(name: str, parameter: Tensor) -> bool:
    """Whether weights decay: matrices do. Biases, norms, energies of species and radial functions do not.

    Decay of the centres and widths of sensitivities would drive them to zero.
    """
    return parameter.dim() > 1 and not name.startswith("energy_heads.of_species") and ".norm." not in name


def optimizer_of(model: torch.nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """AdamW over the parameters that are not frozen."""
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for name, p in trained if decayed(name, p)], "weight_decay": config.decay},
        {"params": [p for name, p in trained if not decayed(name, p)], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=config.rate, betas=config.betas)


def rate_at(config: OptimizerConfig, step: int, fraction: float) -> float:
    """The rate: a linear rise over the first steps, times a half cosine over the run."""
    cosine = config.last_rate + (1 - config.last_rate) * 0.5 * (1 + math.cos(math.pi * min(fraction, 1.0)))
    return config.rate * min(1.0, (step + 1) / max(1, config.warmup)) * cosine


def weights_at(config: LossConfig, fraction: float) -> dict[str, float]:
    """The weights of the loss: from first to last geometrically, or linearly where one of them is zero."""
    return {name: _between(*getattr(config, name), min(fraction, 1.0)) for name in TERMS}


def _between(first: float, last: float, fraction: float) -> float:
    if first == last:
        return first
    if first > 0 and last > 0:
        return first * (last / first) ** fraction
    return first + (last - first) * fraction


def averaged_model(model: torch.nn.Module, decay: float) -> AveragedModel:
    """The exponential moving average of the model's weights, which forgets its start faster than `decay` says."""

    def update(averages: list[Tensor], current: list[Tensor], n_averaged: Tensor | int) -> None:
        n = float(n_averaged)
        torch._foreach_lerp_(averages, current, 1 - min(decay, (1 + n) / (10 + n)))

    return AveragedModel(model, multi_avg_fn=update)
