"""Training by gradients: one member from its parts to its checkpoints."""

from __future__ import annotations

import torch

from tensorgraph.errors import TrainingError
from tensorgraph.training.config import TrainConfig
from tensorgraph.training.folder import BEST, LAST, Keeper, Outcome, check_no_run, check_same_run
from tensorgraph.training.loop import STATE, Loop
from tensorgraph.training.member import Member
from tensorgraph.training.optimisation import averaged_model, freeze, optimizer_of
from tensorgraph.training.processes import interruptions
from tensorgraph.training.progress import Tell, duration
from tensorgraph.training.samples import Samples
from tensorgraph.training.start import Subject, set_atomic_energies, started_model
from tensorgraph.training.state import Progress, RunState, read_state


def train_by_gradient(member: Member) -> Outcome:
    """Train a member, with `resume` from the state in its folder. Raises what `run.train` does."""
    fabric, config, folder, say = member.fabric, member.config, member.folder, member.say
    saved = read_state(folder / STATE) if member.resume and (folder / STATE).exists() else None
    if member.resume and saved is None:
        check_no_run(folder)
        say(f"{folder} holds no state: it begins anew")
    samples = member.samples()
    if saved is not None:
        check_same_run(saved, config, samples[0])
    state = _starting_state(config, member.subject, member.seed, samples[0], fabric.device)
    if saved is None:
        member.prepare()  # what an earlier run left stays until this one can begin
    else:
        state.load(saved)
        if max(fabric.world_size, state.progress.processes) > 1:  # the file holds the first process's sums alone
            state.progress.sums, state.progress.counts = [0.0] * 4, [0.0] * 4
        say(f"going on from step {state.progress.step}, after {duration(state.progress.seconds)}")
    keep = member.keeper(state.progress)
    loop = Loop(fabric, config, member.seed, state, samples, folder, keep, say)
    with interruptions(loop, say):
        loop.fit()
    return _finish(loop, keep, say)


def _starting_state(config: TrainConfig, subject: Subject, seed: int, train: Samples, device: torch.device) -> RunState:
    model, scales = started_model(config, subject, seed, train, device)
    set_atomic_energies(model, subject, config, train)
    freeze(model, config.freeze)
    average = averaged_model(model, config.optimizer.average) if config.optimizer.average else None
    return RunState(model, average, optimizer_of(model, config.optimizer, scales), {}, Progress())


def _finish(loop: Loop, keep: Keeper, tell: Tell) -> Outcome:
    """Write the last weights, and the best where no validation chose any. Raises what writing raises."""
    state, progress = loop.state, loop.state.progress
    if loop.fabric.is_global_zero:
        keep(LAST, state.evaluated())
        if not state.best:
            keep(BEST, state.evaluated())
        elif loop.unkept or not (keep.folder / BEST).exists():
            best = keep.package.Model().to(state.model.dtype)
            best.load_state_dict(state.best)
            keep(BEST, best)
        if loop.trouble:
            raise TrainingError(loop.trouble)
        end = "interrupted" if loop.interrupted else "done"
        tell(f"{end} after {progress.step} steps, {progress.epoch} epochs, {duration(progress.seconds)}")
    loop.fabric.barrier()
    return Outcome(keep.folder / BEST, progress.step, progress.seconds, progress.best, loop.interrupted)
