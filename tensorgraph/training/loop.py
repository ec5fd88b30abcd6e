"""Training by gradients: the loop over steps, on Lightning Fabric, which spreads it over devices and processes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tensorgraph.errors import CheckpointError, TrainingError
from tensorgraph.neighbours.arguments import DTYPES
from tensorgraph.potential import WEIGHTS
from tensorgraph.training.batches import Integers, epoch_batches, share
from tensorgraph.training.config import TrainConfig
from tensorgraph.training.loss import TERMS, LossModule
from tensorgraph.training.optimisation import rate_at, weights_at
from tensorgraph.training.progress import FIGURES, Lines, Metrics, Tell, duration, errors_line
from tensorgraph.training.samples import Samples
from tensorgraph.training.state import Progress, RunState
from tensorgraph.training.threads import fastest, threads
from tensorgraph.training.validation import figures_of, mean_errors, means_of, score_of

STEPS = 20_000  # of a run without any limit
STATE = "state.safetensors"


@dataclass(frozen=True)
class Limits:
    """When a run is over: at the first of the limits that are given."""

    minutes: float | None
    epochs: int | None
    steps: int | None

    @classmethod
    def of(cls, config: TrainConfig) -> Limits:
        """Those of a config; without any, 20,000 steps."""
        given = config.minutes, config.epochs, config.steps
        return cls(*given) if any(given) else cls(None, None, STEPS)

    def fraction(self, progress: Progress, n_batches: int) -> float:
        """How far a run has got, from 0 to 1."""
        parts = [0.0]
        if self.minutes is not None:
            parts.append(progress.seconds / (60 * self.minutes))
        if self.epochs is not None:
            parts.append((progress.epoch + progress.batch / max(1, n_batches)) / self.epochs)
        if self.steps is not None:
            parts.append(progress.step / self.steps)
        return min(1.0, max(parts))


class Loop:
    """One run of training. `fit` takes steps until a limit, patience or an interruption ends it.

    `state` is what changes. `keep` writes a model under the name of a file, and `tell` is given lines; both are called
    on the first of several processes alone. `trouble` is what the last attempt to write failed for, or empty.
    """

    def __init__(
        self,
        fabric: Any,
        config: TrainConfig,
        seed: int,
        state: RunState,
        samples: tuple[Samples, Samples | None],
        folder: Path,
        keep: Callable[[str, torch.nn.Module], None],
        tell: Tell,
    ) -> None:
        self.fabric, self.config, self.seed, self.state = fabric, config, seed, state
        self.train, self.valid = samples
        self.folder, self.keep = folder, keep
        self.limits = Limits.of(config)
        self.lines = Lines(tell, config.log.seconds)
        self.metrics = Metrics(folder, config.log.tensorboard, state.progress.step) if fabric.is_global_zero else None
        self.module, self.optimizer = fabric.setup(LossModule(state.model), state.optimizer)
        self.fraction = 0.0
        self.interrupted = False
        self.trouble = ""
        self.unkept = False  # whether the best weights are not the ones in the file
        state.progress.processes = fabric.world_size
        self._started = time.monotonic() - state.progress.seconds
        self._saved = time.monotonic()
        self._figures: dict[str, float | None] = {}

    def fit(self) -> None:
        """Take steps until the run is over. Raises TrainingError for a loss that is not finite."""
        progress, started = self.state.progress, time.monotonic()
        number = self._threads()
        progress.threads = number or progress.threads
        self._started += time.monotonic() - started  # no part of the run
        with threads(number):
            self._fit()

    def _threads(self) -> int | None:
        """On how many threads of a CPU it runs: as many as the config asks for, or a run that goes on had, or the
        fastest number; None where that is not for this process to say.
        """
        before, most = self.state.progress.threads, torch.get_num_threads()
        if self.config.threads != "auto":
            return most  # set already
        if self.fabric.device.type != "cpu" or self.fabric.world_size > 1:
            return None
        if before is not None and self.limits.minutes is None:
            return min(before, most)  # sums of another number of threads may be rounded in another way
        chosen = self._batches()[0]
        return 1 if most == 1 else fastest(lambda: self._tried(chosen), most, self.lines.event)

    def _tried(self, chosen: Integers) -> None:
        """A step that changes nothing."""
        self.fabric.backward(self._loss(chosen)[0])
        self.optimizer.zero_grad()

    def _fit(self) -> None:
        progress = self.state.progress
        batches = self._batches()
        self.fraction = self._agreed(len(batches))
        progress.validated = min(progress.validated, self.fraction)  # of a run that goes on with a later limit
        while self.fraction < 1 and not self.interrupted and not self._out_of_patience():
            self._step(batches[progress.batch])
            progress.step, progress.batch = progress.step + 1, progress.batch + 1
            if progress.batch == len(batches):
                progress.epoch, progress.batch = progress.epoch + 1, 0
                batches = self._batches()
            self.fraction = self._agreed(len(batches))
            if self.fraction >= 1 or self.fraction - progress.validated >= 1 / self.config.validation.times:
                self._validate()
            self.lines.step(self._line)
            self._save(self.config.log.save_seconds)
        self._save(0)

    def _batches(self) -> list[Integers]:
        return epoch_batches(self.train, self.config.batch, self.seed, self.state.progress.epoch)

    def _agreed(self, n_batches: int) -> float:
        """How far the run has got. Processes agree on the clock of the first one, and on an interruption of any."""
        progress = self.state.progress
        progress.seconds = time.monotonic() - self._started
        if self.fabric.world_size > 1:
            own = [progress.seconds if self.fabric.is_global_zero else 0.0, float(self.interrupted)]
            agreed = self.fabric.all_reduce(torch.tensor(own, dtype=torch.float64), reduce_op="max").tolist()
            progress.seconds, self.interrupted = agreed[0], bool(agreed[1])
        return self.limits.fraction(progress, n_batches)

    def _step(self, chosen: Integers) -> None:
        """One step on the structures with these indices, of which each process takes its share."""
        progress = self.state.progress
        loss, sums, counted = self._loss(chosen)
        self._descend(loss)
        progress.sums = [total + new for total, new in zip(progress.sums, sums.tolist(), strict=True)]
        progress.counts = [total + new for total, new in zip(progress.counts, counted, strict=True)]

    def _loss(self, chosen: Integers) -> tuple[Tensor, Tensor, list[float]]:
        """The loss of this process's share of the structures, its sums [4], and the labels of all of them [4]."""
        world = self.fabric.world_size
        counts, weights = self.train.label_counts(chosen), weights_at(self.config.loss, self.fraction)
        factors = {name: world * weights[name] / counts[name] if counts[name] else 0.0 for name in TERMS}
        mine = share(chosen, self.fabric.global_rank, world)
        batch = self.train.batch(mine, DTYPES[self.config.dtype], self.fabric.device)
        loss, sums = self.module(batch, factors)
        return loss, sums, [counts[name] if factors[name] else 0 for name in TERMS]

    def _descend(self, loss: Tensor) -> None:
        """Change the weights, and their average, along the gradient of the loss."""
        config, state = self.config.optimizer, self.state
        self.optimizer.zero_grad()
        self.fabric.backward(loss)
        trained = [parameter for parameter in state.model.parameters() if parameter.grad is not None]
        norm = float(torch.nn.utils.clip_grad_norm_(trained, config.clip))
        if not (math.isfinite(norm) and math.isfinite(float(loss.detach()))):
            self._diverged()
        rate = rate_at(config, state.progress.step, self.fraction)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        self.optimizer.step()
        if state.average is not None:
            state.average.update_parameters(state.model)

    def _diverged(self) -> None:
        raise TrainingError(
            f"step {self.state.progress.step}: the loss or its gradient is not finite; {self.folder} holds the last "
            f"good state; allowed: an optimizer.rate below {self.config.optimizer.rate:g}, data without outliers"
        )

    def _validate(self) -> None:
        """Errors on the validation part; the weights are kept where they are the best so far."""
        progress = self.state.progress
        sums = torch.tensor(progress.sums, dtype=torch.float64)
        sums = self.fabric.all_reduce(sums, reduce_op="sum") if self.fabric.world_size > 1 else sums
        train = figures_of(means_of(sums.tolist(), dict(zip(TERMS, progress.counts, strict=True))))
        row = {f"train_{name}": value for name, value in train.items()}
        progress.sums, progress.counts, progress.validated = [0.0] * 4, [0.0] * 4, self.fraction
        if self.valid is not None:
            means = mean_errors(self.fabric, self.state.evaluated(), self.valid)
            score = score_of(self.config.validation, means)
            row |= {f"valid_{name}": value for name, value in figures_of(means).items()} | {"valid_score": score}
            self._compare(score)
        self._figures = row
        rate = rate_at(self.config.optimizer, progress.step, self.fraction)
        at = {"step": progress.step, "epoch": progress.epoch, "seconds": progress.seconds, "rate": rate}
        if (metrics := self.metrics) is not None:
            self._attempt(lambda: metrics.add(at | row))
        self.lines.step(self._line)

    def _compare(self, score: float) -> None:
        progress, state = self.state.progress, self.state
        if not math.isfinite(score):
            self._diverged()
        if progress.best is not None and score >= progress.best:
            progress.since_best += 1
            return
        progress.best, progress.best_step, progress.since_best = score, progress.step, 0
        state.best = {name: tensor.detach().clone() for name, tensor in state.evaluated().state_dict().items()}
        if self.fabric.is_global_zero:
            self.unkept = not self._attempt(lambda: self.keep(WEIGHTS, state.evaluated()))

    def _out_of_patience(self) -> bool:
        patience = self.config.validation.patience
        return patience is not None and self.state.progress.since_best >= patience

    def _save(self, seconds: float) -> None:
        """Write the state, if the last time is so many seconds ago."""
        if self.fabric.is_global_zero and time.monotonic() - self._saved >= seconds:
            self._saved = time.monotonic()
            text = self.config.canonical_json()
            self._attempt(lambda: self.state.save(self.folder / STATE, text, self.train.digest))

    def _attempt(self, write: Callable[[], None]) -> bool:
        """Hours of training must not end because a disk is full for a while: told now, tried again, an error last."""
        try:
            write()
            self.trouble = ""
            return True
        except (CheckpointError, TrainingError) as error:
            self.trouble = str(error)
            self.lines.event(f"warning: {error}; training goes on and tries again")
            return False

    def _line(self) -> str:
        progress, row = self.state.progress, self._figures
        left = progress.seconds * (1 - self.fraction) / self.fraction if self.fraction else 0.0
        parts = [f"{100 * self.fraction:5.1f} %  step {progress.step}  epoch {progress.epoch}"]
        parts.append(f"{duration(progress.seconds)}, {duration(left)} left")
        for part in ("train", "valid"):
            known = {name: row.get(f"{part}_{name}") for name in FIGURES}
            if any(value is not None for value in known.values()):
                parts.append(f"{part} {errors_line(known)}")
        return "  ".join(parts)
