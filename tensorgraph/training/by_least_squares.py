"""Training by least squares: one member from its parts to its checkpoints."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from tensorgraph.training.config import TrainConfig
from tensorgraph.training.design import FreeParameters
from tensorgraph.training.folder import BEST, LAST, Outcome, check_same_config
from tensorgraph.training.least_squares import Interrupted, LeastSquares
from tensorgraph.training.member import Member
from tensorgraph.training.optimisation import freeze
from tensorgraph.training.processes import interruptions
from tensorgraph.training.progress import Metrics, duration
from tensorgraph.training.samples import Samples
from tensorgraph.training.start import Subject, set_atomic_energies, started_model
from tensorgraph.training.state import Progress
from tensorgraph.training.validation import figures_of


def train_by_least_squares(member: Member) -> Outcome:
    """Fit a member, with `resume` anew: it is over soon. Raises what `run.train` does."""
    fabric, config, folder, say = member.fabric, member.config, member.folder, member.say
    if member.resume:
        check_same_config(folder, config)
        say("least squares keeps no state between: it begins anew")
    exact = replace(member, config=config.model_copy(update={"dtype": "float64"}))
    samples = exact.samples()
    model = _exact_model(exact.config, member.subject, member.seed, samples[0], fabric.device)
    fit = LeastSquares(fabric, config, model, samples, say)
    progress = Progress()
    try:
        with interruptions(fit, say, "least squares ends without a result"):
            solutions, best = fit.fit()
    except Interrupted:
        return Outcome(folder / BEST, 0, fit.seconds, None, True)
    progress.step, progress.seconds, progress.best = len(solutions), fit.seconds, best.score
    progress.best_step = next(step for step, one in enumerate(solutions, 1) if one is best)
    member.prepare()  # what an earlier run left stays until there is something in its place
    if fabric.is_global_zero:
        metrics = Metrics(folder, config.log.tensorboard, 0)
        keep = member.keeper(progress)
        for step, one in enumerate(solutions, 1):
            row = {f"train_{name}": value for name, value in figures_of(one.train).items()}
            if one.valid is not None:
                row |= {f"valid_{name}": value for name, value in figures_of(one.valid).items()}
                row |= {"valid_score": one.score}
            metrics.add({"step": step, "epoch": 1, "seconds": progress.seconds, "rate": one.ridge} | row)
        keep(LAST, model)
        keep(BEST, model)
        say(f"done after {duration(fit.seconds)}: ridge {best.ridge:g}")
    fabric.barrier()
    return Outcome(folder / BEST, progress.step, progress.seconds, progress.best, False)


def _exact_model(config: TrainConfig, subject: Subject, seed: int, train: Samples, device: torch.device) -> Any:
    """The float64 model that a linear fit starts from: a checkpoint's weights, else zero for what is not frozen."""
    model = started_model(config, subject, seed, train, device)[0]
    freeze(model, config.freeze)
    if subject.checkpoint is None:
        free = FreeParameters.of(model)
        free.set(torch.zeros_like(free.vector()))
    set_atomic_energies(model, subject, config, train)
    return model
