"""Errors of a model on a part of the data: mean squares by the terms of the loss, as scores and in users' units."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from tensorgraph.training.batches import ordered_batches, share
from tensorgraph.training.config import ValidationConfig
from tensorgraph.training.loss import TERMS, error_sums
from tensorgraph.training.progress import FIGURES
from tensorgraph.training.samples import Samples

LABELS = TERMS[:3]

Means = dict[str, float | None]
"""By term: None where no structure has the label."""


def mean_errors(fabric: Any, model: Any, samples: Samples, terms: tuple[str, ...] = TERMS) -> Means:
    """The means over all samples of what `error_sums` sums up; each process takes its share of every batch."""
    sums = torch.zeros(len(TERMS), dtype=torch.float64)
    for chosen in ordered_batches(samples):
        if len(mine := share(chosen, fabric.global_rank, fabric.world_size)):
            sums += error_sums(model, samples.batch(mine, model.dtype, fabric.device), terms).detach().cpu()
    total = fabric.all_reduce(sums, reduce_op="sum") if fabric.world_size > 1 else sums
    return means_of(total.tolist(), samples.label_counts(np.arange(len(samples))))


def means_of(sums: list[float], counts: Mapping[str, float]) -> Means:
    """Sums in the order of TERMS over how many numbers each has."""
    return {name: total / counts[name] if counts[name] else None for name, total in zip(TERMS, sums, strict=True)}


def score_of(config: ValidationConfig, means: Means) -> float:
    """What chooses the best weights: the weighted mean squares of the labels that there are."""
    score: float = sum(getattr(config, name) * (means[name] or 0.0) for name in LABELS)
    return score


def figures_of(means: Means) -> dict[str, float | None]:
    """By name in FIGURES' units: RMSE from mean squares; the mean of the penalty stays. None for what is missing."""
    energy, forces, stress = (None if (mean := means.get(name)) is None else math.sqrt(mean) for name in LABELS)
    found = [None if energy is None else 1e3 * energy, forces, stress, means.get("hierarchicality")]
    return dict(zip(FIGURES, found, strict=True))
