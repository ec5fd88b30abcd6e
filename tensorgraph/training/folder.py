"""The folder of a run: what it holds, whether it may be written to, and the checkpoints that a run writes there."""

from __future__ import annotations

import json
import platform
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

import tensorgraph
from tensorgraph.atomic import write_atomically
from tensorgraph.errors import TrainingError
from tensorgraph.potential import WEIGHTS
from tensorgraph.runtime.checkpoint import save_checkpoint
from tensorgraph.training.config import TrainConfig
from tensorgraph.training.loop import STATE
from tensorgraph.training.samples import Samples
from tensorgraph.training.state import Progress, SavedState

BEST, LAST, CONFIG = WEIGHTS, "last.safetensors", "config.json"
FREE = ("out", "minutes", "epochs", "steps", "device", "log", "seed")
"""Keys of a config that may change when a run goes on; `seed` is compared by the folders of the members."""


@dataclass(frozen=True)
class Outcome:
    """What a run of training gave: the checkpoint, how far it got, and whether it was interrupted."""

    checkpoint: Path
    steps: int
    seconds: float
    best: float | None
    interrupted: bool


def check_folder(folder: Path, resume: bool, overwrite: bool) -> None:
    """Raises TrainingError where a run stands there, and neither going on nor replacing it is asked for."""
    held = [name for name in (STATE, BEST, LAST) if (folder / name).exists()]
    if held and not (resume or overwrite):
        raise TrainingError(f"{folder} holds a run ({held[0]}); allowed: --resume, --overwrite, or another `out`")


def prepare(folder: Path, config: TrainConfig, fabric: Any) -> None:
    """Remove what an earlier run left, and write the config down. Raises TrainingError."""
    if fabric.is_global_zero:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name in (STATE, BEST, LAST, "metrics.csv"):
                (folder / name).unlink(missing_ok=True)
            write_atomically(json.dumps(json.loads(config.canonical_json()), indent=2).encode(), folder / CONFIG)
        except OSError as error:
            raise TrainingError(f"cannot write to {folder}: {error.strerror or error}") from error
    fabric.barrier()


def check_same_run(saved: SavedState, config: TrainConfig, train: Samples) -> None:
    """Raises TrainingError where the state in a folder is of another config or of other data."""
    _check_keys_kept(saved.path, json.loads(saved.config), config)
    if saved.data != train.digest:
        raise TrainingError(f"{saved.path} is the state of a run on other structures or labels: the data changed")


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
        document = {
            "config": json.loads(self.config.canonical_json()) | {"seed": [self.seed]},
            "versions": versions(),
            "step": self.progress.step,
            "seconds": round(self.progress.seconds, 1),
            "score": self.progress.best,
        }
        save_checkpoint(model, self.package, self.folder / name, training=json.dumps(document, sort_keys=True))


def versions() -> dict[str, str]:
    """Of what decides the numbers of a run."""
    import ase

    found = {"tensorgraph": tensorgraph.__version__, "torch": torch.__version__, "numpy": np.__version__}
    return found | {"ase": ase.__version__, "python": platform.python_version(), "machine": platform.machine()}
