"""The whole state of a run in one safetensors file, from which it goes on exactly. Nothing is ever unpickled."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from tensorgraph.atomic import write_atomically
from tensorgraph.errors import CheckpointError

FORMAT = "tensorgraph-training-1"


@dataclass
class Progress:
    """How far a run has got: steps taken; the epoch, and the batches of it that were seen; seconds of training; how
    many processes there were, and on how many threads it runs (None: not known yet).

    `best` is the lowest score of a validation (None: there was none yet), `best_step` its step, `since_best` how many
    validations there were after it, `validated` the fraction of the run at the last one. `sums` and `counts` [4] are
    the errors of training since then.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    seconds: float = 0.0
    best: float | None = None
    best_step: int = 0
    since_best: int = 0
    validated: float = 0.0
    processes: int = 1
    threads: int | None = None
    sums: list[float] = field(default_factory=lambda: [0.0] * 4)
    counts: list[float] = field(default_factory=lambda: [0.0] * 4)


@dataclass
class RunState:
    """What changes during a run: weights, their moving average, the best weights, the optimiser, the progress."""

    model: torch.nn.Module
    average: AveragedModel | None
    optimizer: torch.optim.Optimizer
    best: dict[str, Tensor]
    progress: Progress

    def evaluated(self) -> torch.nn.Module:
        """The model that is evaluated and written: the moving average, where there is one."""
        return self.model if self.average is None else self.average.module

    def tensors(self) -> dict[str, Tensor]:
        """Everything that is a tensor, by name."""
        named = {f"model/{name}": tensor for name, tensor in self.model.state_dict().items()}
        if self.average is not None:
            named |= {f"average/{name}": tensor for name, tensor in self.average.state_dict().items()}
        named |= {f"best/{name}": tensor for name, tensor in self.best.items()}
        for index, values in self.optimizer.state_dict()["state"].items():
            named |= {f"optimizer/{index}/{key}": tensor for key, tensor in values.items()}
        return named

    def save(self, path: Path, config: str, data: str) -> None:
        """Write the state, with the config and the digest of the data that it belongs to; atomically.

        Raises CheckpointError where `path` cannot be written, such as on a full disk; an earlier file stays whole.
        """
        tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in self.tensors().items()}
        metadata = {"format": FORMAT, "config": config, "data": data, "progress": json.dumps(asdict(self.progress))}
        try:
            write_atomically(safetensors.torch.save(tensors, metadata=metadata), path)
        except OSError as error:
            raise CheckpointError(f"{path} cannot be written: {error.strerror or error}") from error

    def load(self, saved: SavedState) -> None:
        """Go on from a saved state. Raises CheckpointError where it is one of another model or optimiser."""
        try:
            self.model.load_state_dict(dict(saved.part("model")))
            if self.average is not None:
                self.average.load_state_dict(dict(saved.part("average")))
            self._load_optimizer(saved)
            self.progress = Progress(**saved.progress)
        except (RuntimeError, KeyError, ValueError, TypeError) as error:
            reason = str(error).splitlines()[0]
            raise CheckpointError(f"{saved.path} is not the state of this training: {reason}") from error
        self.best = dict(saved.part("best"))

    def _load_optimizer(self, saved: SavedState) -> None:
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in saved.part("optimizer"):
            index, key = name.split("/")
            state.setdefault(int(index), {})[key] = tensor
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})


@dataclass(frozen=True)
class SavedState:
    """A state as it stands in a file."""

    path: Path
    config: str
    data: str
    progress: dict[str, Any]
    tensors: dict[str, Tensor]

    def part(self, prefix: str) -> Iterator[tuple[str, Tensor]]:
        """The tensors below a prefix, which their names lose."""
        start = prefix + "/"
        return ((name.removeprefix(start), x) for name, x in self.tensors.items() if name.startswith(start))


def read_state(path: Path) -> SavedState:
    """The state in a file. Raises CheckpointError for anything else."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise CheckpointError(
                    f"{path} is not the state of a training: its format is {metadata.get('format')!r}"
                )
            # Copies: a tensor in a file begins anywhere, and products may be rounded by where their factors begin.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        return SavedState(path, metadata["config"], metadata["data"], json.loads(metadata["progress"]), tensors)
    except (OSError, ValueError, KeyError, RuntimeError, safetensors.SafetensorError) as error:
        # RuntimeError: of a file that was replaced while it was opened
        raise CheckpointError(f"{path} cannot be read: {error}") from error
