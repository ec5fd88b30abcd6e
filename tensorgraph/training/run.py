"""`tensorgraph train`: from a config to a checkpoint, or to a committee of them."""

from __future__ import annotations

from tensorgraph.model.memory import keep_freed_memory
from tensorgraph.training.by_gradient import train_by_gradient
from tensorgraph.training.by_least_squares import train_by_least_squares
from tensorgraph.training.config import TrainConfig
from tensorgraph.training.data import read_data
from tensorgraph.training.folder import Outcome, check_out
from tensorgraph.training.least_squares import check_keys
from tensorgraph.training.member import Member
from tensorgraph.training.processes import fabric_of
from tensorgraph.training.progress import Tell
from tensorgraph.training.start import subject_of
from tensorgraph.training.threads import threads

METHODS = {"gradient": train_by_gradient, "least_squares": train_by_least_squares}


def train(config: TrainConfig, *, resume: bool = False, overwrite: bool = False, tell: Tell = print) -> list[Outcome]:
    """Train one model for every seed of the config; `tell` is given lines about the progress.

    With `resume` a run goes on from the state in its folder, exactly as if it had not stopped; with `overwrite` one
    that stands there is replaced. Raises TrainingError where neither is asked for and a run stands there, and for what
    cannot be trained; DataError and StructureError for the data; and what reading a spec or checkpoint raises.
    """
    check_keys(config)
    folders = config.member_folders
    check_out(config, resume, overwrite)
    keep_freed_memory()
    fabric = fabric_of(config)
    say: Tell = tell if fabric.is_global_zero else lambda _: None
    subject = subject_of(config.model)
    data = read_data(config.data, tuple(subject.species.values()), say)
    outcomes: list[Outcome] = []
    with threads(None if config.threads == "auto" else config.threads):
        for seed, folder in folders.items():
            if len(folders) > 1:
                say(f"seed {seed}, {len(outcomes) + 1} of {len(folders)}: {folder}")
            replace = overwrite and not outcomes  # all members at once: an interrupted run is gone on from as a whole
            member = Member(fabric, config, subject, data, seed, folder, resume=resume, replace=replace, say=say)
            outcomes.append(METHODS[config.method](member))
            if outcomes[-1].interrupted:
                break
    return outcomes
