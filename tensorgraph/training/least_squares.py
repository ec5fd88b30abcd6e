"""Least squares: parameters in which the energy is affine are fitted exactly, by the trainer's own loss.

Rows of the linear problem are made batch by batch and merged into a triangular factor for each term of the loss. From
there every strength of the ridge costs next to nothing; which one is taken the validation part decides. The ridge pulls
towards the weights that the fit starts from: a checkpoint's, or zero for a new model.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tensorgraph.errors import TrainingError
from tensorgraph.neighbours.arguments import DTYPES
from tensorgraph.training.affinity import check_affine
from tensorgraph.training.batches import epoch_batches, share
from tensorgraph.training.config import BatchConfig, TrainConfig
from tensorgraph.training.design import FreeParameters, Triangle, design_rows
from tensorgraph.training.progress import Lines, Tell, duration, errors_line
from tensorgraph.training.samples import Samples
from tensorgraph.training.validation import LABELS, Means, figures_of, mean_errors, score_of

MOST = 20_000  # parameters: three triangles of so many rows take 10 GB
BATCH = BatchConfig(atoms=400)
TRIED = BatchConfig(structures=3)  # by which models are tried for being affine
AGREES = 0.01  # the loss of the model in its own dtype with that of the linear problem

UNUSED = ("minutes", "epochs", "steps", "optimizer", "batch")
"""Keys of a config without meaning here; so are some keys within `validation`, `loss` and `log`."""


def check_keys(config: TrainConfig) -> None:
    """Raises TrainingError for a key that was given and that the method of the config does not use."""
    given = config.model_fields_set
    if config.method == "gradient":
        unused = ["ridge"] if "ridge" in given else []
    else:
        unused = [key for key in UNUSED if key in given]
        unused += [f"validation.{key}" for key in ("times", "patience") if key in config.validation.model_fields_set]
        unused += ["log.save_seconds"] if "save_seconds" in config.log.model_fields_set else []
    if unused:
        raise TrainingError(f"method: {config.method} has no use for {', '.join(unused)}; allowed: leave it out")
    if config.method == "least_squares":
        _check_loss(config)


def _check_loss(config: TrainConfig) -> None:
    if any(config.loss.hierarchicality):
        raise TrainingError("method: least_squares cannot fit loss.hierarchicality, no square; allowed: 0")
    for name in LABELS:
        first, last = getattr(config.loss, name)
        if first != last and name in config.loss.model_fields_set:
            raise TrainingError(f"method: least_squares has no steps for loss.{name} to change over; allowed: a number")


@dataclass(frozen=True)
class Solution:
    """The fit with one strength of the ridge: by how much parameters change [n]; mean squares of training by term;
    the score and mean squares of validation, where there are any.
    """

    ridge: float
    change: Tensor
    train: Means
    valid: Means | None = None
    score: float | None = None


class Interrupted(Exception):  # no error
    """Ctrl-C ended the fit before there was a result."""


class LeastSquares:
    """One fit of a float64 `model`; `interrupted`, set from outside, ends it with the exception of that name."""

    def __init__(
        self,
        fabric: Any,
        config: TrainConfig,
        model: Any,
        samples: tuple[Samples, Samples | None],
        tell: Tell,
    ) -> None:
        self.fabric, self.config, self.model = fabric, config, model
        self.train, self.valid = samples
        self.free = FreeParameters.of(model)
        self.lines = Lines(tell, config.log.seconds)
        self.interrupted = False
        self._started = time.monotonic()
        self._counts = self.train.label_counts(np.arange(len(self.train)))
        self._weights = {
            name: getattr(config.loss, name)[-1] / self._counts[name] if self._counts[name] else 0.0 for name in LABELS
        }

    @property
    def seconds(self) -> float:
        """Since the fit began."""
        return time.monotonic() - self._started

    def fit(self, batch: BatchConfig = BATCH) -> tuple[list[Solution], Solution]:
        """All solutions, and the one whose weights the model has in the end, in the dtype of the config.

        Raises TrainingError for a model that is not affine, for too many parameters, and where no solution is sound.
        """
        if len(self.free) > MOST:
            raise TrainingError(f"least squares of {len(self.free):,} parameters; allowed: {MOST:,}: freeze more")
        check_affine(self.model, self.free, self._batch(self.train, epoch_batches(self.train, TRIED, 0, 0)[0]))
        self.lines.event(f"least squares of {len(self.free):,} parameters and {self._n_rows():,} labels")
        triangles = self._triangles(batch)
        solutions = solve(triangles, self._weights, self._counts, self.config.ridge)
        start = self.free.vector()
        self.model.to(DTYPES[self.config.dtype])
        if self.valid is not None:
            return self._validated(solutions, start, self.valid)
        return solutions, self._soundest(solutions, start)

    def _n_rows(self) -> int:
        return sum(self._counts[name] for name in LABELS if self._weights[name])

    def _batch(self, samples: Samples, chosen: Any) -> Any:
        return samples.batch(chosen, self.model.dtype, self.fabric.device)

    def _go_on(self) -> None:
        """Processes agree whether any of them was interrupted."""
        if self.fabric.world_size > 1:
            flag = self.fabric.all_reduce(torch.tensor(float(self.interrupted)), reduce_op="max")
            self.interrupted = bool(flag)
        if self.interrupted:
            raise Interrupted

    def _triangles(self, limits: BatchConfig) -> dict[str, Tensor]:
        """R of the training part by the term of the loss, from the rows of all processes."""
        width, rank, world = len(self.free) + 1, self.fabric.global_rank, self.fabric.world_size
        triangles = {name: Triangle(width, self.fabric.device) for name in LABELS if self._weights[name]}
        batches, seen = epoch_batches(self.train, limits, 0, 0), 0
        for chosen in batches:
            self._go_on()
            if len(mine := share(chosen, rank, world)):
                rows = design_rows(self.model, self.free, self._batch(self.train, mine))
                for name, triangle in triangles.items():
                    triangle.add(rows[name])
            seen += len(chosen)
            self.lines.step(lambda: self._line(seen / len(self.train)))  # noqa: B023
        return {name: self._joined(triangle.factor()) for name, triangle in triangles.items()}

    def _joined(self, factor: Tensor) -> Tensor:
        if self.fabric.world_size == 1:
            return factor
        width = factor.shape[1]
        square = factor.new_zeros(width, width)
        square[: len(factor)] = factor
        joined: Tensor = torch.linalg.qr(self.fabric.all_gather(square).flatten(0, 1), mode="r").R
        return joined

    def _line(self, fraction: float) -> str:
        left = self.seconds * (1 - fraction) / fraction
        return f"{100 * fraction:5.1f} % of the rows  {duration(self.seconds)}, {duration(left)} left"

    def _validated(self, solutions: list[Solution], start: Tensor, samples: Samples) -> tuple[list[Solution], Solution]:
        """The solutions with their errors on the validation part, and the best of them."""
        validated = []
        for one in solutions:
            self._set(start + one.change)
            means = mean_errors(self.fabric, self.model, samples, LABELS)
            score = score_of(self.config.validation, means)
            validated.append(Solution(one.ridge, one.change, one.train, means, score))
            self.lines.event(self._report(validated[-1]))
        sound = [one for one in validated if one.score is not None and math.isfinite(one.score)]
        if not sound:
            raise TrainingError("least squares: no ridge gives finite errors; allowed: dtype: float64, larger ridges")
        best = min(sound, key=lambda one: one.score or 0.0)
        self._set(start + best.change)
        if len(sound) > 1 and best.ridge == max(one.ridge for one in solutions):
            self.lines.event(f"the largest ridge, {best.ridge:g}, is the best: larger ones may be better")
        return validated, best

    def _soundest(self, solutions: list[Solution], start: Tensor) -> Solution:
        """Without a validation part: the smallest ridge whose loss rounding does not change."""
        for one in sorted(solutions, key=lambda one: one.ridge):
            self._set(start + one.change)
            predicted = sum(self._weights[name] * self._counts[name] * (one.train[name] or 0.0) for name in LABELS)
            means = mean_errors(self.fabric, self.model, self.train, LABELS)
            found = sum(self._weights[name] * self._counts[name] * (means[name] or 0.0) for name in LABELS)
            if abs(found - predicted) <= AGREES * predicted + torch.finfo(self.model.dtype).eps:
                self.lines.event(
                    f"no validation part: the smallest ridge that rounding allows, {one.ridge:g}, is taken"
                )
                return one
        raise TrainingError(f"least squares: no ridge is sound in {self.config.dtype}; allowed: float64, larger ridges")

    def _set(self, vector: Tensor) -> None:
        self._go_on()
        self.free.set(vector)

    def _report(self, one: Solution) -> str:
        parts = [f"train {errors_line(figures_of(one.train))}"]
        parts += [f"valid {errors_line(figures_of(one.valid))}"] if one.valid is not None else []
        return f"ridge {one.ridge:g}  {'  '.join(parts)}"


def solve(
    triangles: dict[str, Tensor], weights: dict[str, float], counts: dict[str, int], ridges: tuple[float, ...]
) -> list[Solution]:
    """The least-squares changes of parameters for every ridge, from the triangular factors [n, n + 1] of each term.

    Columns are scaled to norm one; a ridge is relative to the mean square of those. Directions that rounding cannot
    tell from zero stay as they are, as `torch.linalg.lstsq` with `gelsd` has it.
    """
    weighted = torch.cat([math.sqrt(weights[name]) * factor for name, factor in triangles.items()])
    if not bool(torch.isfinite(weighted).all()):
        raise TrainingError("least squares: energies, forces or labels are not finite")
    factor = torch.linalg.qr(weighted, mode="r").R
    columns, labels = factor[:, :-1], factor[:, -1]
    norms = columns.norm(dim=0)
    norms = torch.where(norms > 0, norms, 1.0)
    left, singular, right = torch.linalg.svd(columns / norms, full_matrices=False)
    kept = singular > max(columns.shape) * torch.finfo(singular.dtype).eps * singular.max()
    projected, mean = left.T @ labels, float(singular.square().mean())
    found = []
    for ridge in ridges:
        damped = singular / (singular.square() + ridge * mean)
        change = (right.T @ torch.where(kept, damped * projected, 0.0)) / norms
        found.append(Solution(ridge, change, _residuals(triangles, counts, change)))
    return found


def _residuals(triangles: dict[str, Tensor], counts: dict[str, int], change: Tensor) -> Means:
    """Mean squares by term."""
    found: Means = dict.fromkeys(LABELS)
    for name, factor in triangles.items():
        found[name] = float((factor[:, -1] - factor[:, :-1] @ change).square().sum()) / counts[name]
    return found
