"""The folder of a run: what it holds, whether it may be written to, and the checkpoints that a run writes there."""

from __future__ import annotations

import contextlib
import json
import platform
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from tensorgraph.atomic import write_atomically
from tensorgraph.errors import TrainingError
from tensorgraph.model.checkpoint import save_checkpoint
from tensorgraph.potential import WEIGHTS
from tensorgraph.training.config import TrainConfig
from tensorgraph.training.loop import STATE
from tensorgraph.training.samples import Samples
from tensorgraph.training.state import Progress, SavedState
from tensorgraph.version import __version__

BEST, LAST, CONFIG = WEIGHTS, "last.safetensors", "config.json"
WRITTEN = (STATE, BEST, LAST, CONFIG, "metrics.csv", "learning.png", "parity.png", "errors.png", "test.json")
FREE = ("out", "minutes", "epochs", "steps", "device", "threads", "log", "seed")
"""Keys of a config that may change when a run goes on; `seed` is compared by the folders of the members."""


@dataclass(frozen=True)
class Outcome:
    """What a run of training gave: the checkpoint, how far it got, and whether it was interrupted."""

    checkpoint: Path
    steps: int
    seconds: float
    best: float | None
    interrupted: bool


def check_out(config: TrainConfig, resume: bool, overwrite: bool) -> None:
    """Raises TrainingError for a run that stands in `out` where neither going on nor replacing it is asked for; for
    members there that the config does not have, which would count as its own; and for a model that the run replaces.
    """
    folders = list(config.member_folders.values())
    inside = {folder.resolve() for folder in (*_run_folders(config), *folders)}
    if Path(config.model).resolve().parent in inside and config.model.endswith(".safetensors"):
        raise TrainingError(f"model: {config.model} lies where the run is written; allowed: another `out`")
    if overwrite:
        return
    for folder in _run_folders(config):
        held = [name for name in (STATE, BEST, LAST) if (folder / name).exists()]
        if held and not resume:
            raise TrainingError(f"{folder} holds a run ({held[0]}); allowed: --resume, --overwrite, or another `out`")
        if held and folder not in folders:
            raise TrainingError(
                f"{folder} holds a run ({held[0]}) that is none of this config's, {', '.join(map(str, folders))}; "
                "allowed: --overwrite, or another `out`"
            )


def clear_out(config: TrainConfig) -> None:
    """Remove what earlier runs wrote in `out`, those of other seeds too. Raises TrainingError."""
    for folder in _run_folders(config):
        _remove_run(folder)
        if folder != Path(config.out):
            with contextlib.suppress(OSError):  # holds other files
                folder.rmdir()


def _run_folders(config: TrainConfig) -> list[Path]:
    """Where runs may stand in `out`: itself, and the members of a committee."""
    out = Path(config.out)
    return [out, *sorted(folder for folder in out.glob("seed-*") if folder.is_dir())]


def _remove_run(folder: Path) -> None:
    try:
        for name in WRITTEN:
            (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise TrainingError(f"cannot write to {folder}: {error.strerror or error}") from error


def prepare(folder: Path, config: TrainConfig, fabric: Any, replace: bool) -> None:
    """Remove what an earlier run left, with `replace` in all of `out`, and write the config down.

    Raises TrainingError.
    """
    if fabric.is_global_zero:
        clear_out(config) if replace else _remove_run(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(json.dumps(json.loads(config.canonical_json()), indent=2).encode(), folder / CONFIG)
        except OSError as error:
            raise TrainingError(f"cannot write to {folder}: {error.strerror or error}") from error
    fabric.barrier()


def check_same_run(saved: SavedState, config: TrainConfig, train: Samples) -> None:
    """Raises TrainingError where the state in a folder is of another config or of other data."""
    _check_keys_kept(saved.path, json.loads(saved.config), config)
    if saved.data != train.digest:
        raise TrainingError(f"{saved.path} is the state of a run on other structures or labels: the data changed")


def check_no_run(folder: Path) -> None:
    """Raises TrainingError for weights without the state that a run by gradients could go on from."""
    held = [name for name in (BEST, LAST) if (folder / name).exists()]
    if held:
        raise TrainingError(
            f"{folder} holds {held[0]} and no {STATE} to go on from; allowed: --overwrite, or another `out` with "
            f"`model: {folder / held[0]}`"
        )


def check_same_config(folder: Path, config: TrainConfig) -> None:
    """Of a run that is over and has left no state: what it wrote is not replaced by another run's (TrainingError)."""
    if (folder / STATE).exists():
        raise TrainingError(f"{folder} holds the state of a run with method: gradient; allowed: --overwrite")
    path = folder / CONFIG
    if not (folder / LAST).exists() or not path.exists():
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TrainingError(f"{path} cannot be read: {error}") from error
    _check_keys_kept(path, before, config)


def _check_keys_kept(path: Path, before: dict[str, Any], config: TrainConfig) -> None:
    now = json.loads(config.canonical_json())
    for key in sorted(set(before) | set(now)):
        if key not in FREE and before.get(key) != now.get(key):
            raise TrainingError(
                f"{path} is the state of a run with {key}: {before.get(key)!r}, not {now.get(key)!r}; "
                f"allowed to change with --resume: {', '.join(FREE)}"
            )


@dataclass(frozen=True)
class Keeper:
    """Writes checkpoints into the folder of a run, with how they came about."""

    config: TrainConfig
    package: ModuleType
    folder: Path
    seed: int
    progress: Progress

    def __call__(self, name: str, model: torch.nn.Module) -> None:
        """Write a model; of the best one, the step is that at which it was."""
        document = {
            "config": json.loads(self.config.canonical_json()) | {"seed": [self.seed]},
            "versions": versions(),
            "step": (self.progress.best_step if name == BEST else 0) or self.progress.step,
            "seconds": round(self.progress.seconds, 1),
            "score": self.progress.best,
        }
        save_checkpoint(model, self.package, self.folder / name, training=json.dumps(document, sort_keys=True))


def versions() -> dict[str, str]:
    """Of what decides the numbers of a run."""
    import ase

    found = {"tensorgraph": __version__, "torch": torch.__version__, "numpy": np.__version__}
    return found | {"ase": ase.__version__, "python": platform.python_version(), "machine": platform.machine()}
