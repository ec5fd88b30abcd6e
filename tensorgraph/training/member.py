"""One member of a training: a seed and its folder, with what all members share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tensorgraph.training.config import TrainConfig
from tensorgraph.training.data import Data, listed_parts, parts_of
from tensorgraph.training.folder import Keeper, prepare
from tensorgraph.training.progress import Tell
from tensorgraph.training.samples import Samples
from tensorgraph.training.start import Subject
from tensorgraph.training.state import Progress


@dataclass(frozen=True)
class Member:
    """What is trained, on what and where; with `resume` it goes on, with `replace` all of `out` is cleared first."""

    fabric: Any
    config: TrainConfig
    subject: Subject
    data: Data
    seed: int
    folder: Path
    resume: bool
    replace: bool
    say: Tell

    def samples(self) -> tuple[Samples, Samples | None]:
        """Its training and validation parts with their pairs. Raises what listing them raises."""
        parts = parts_of(self.data, self.config.data, self.seed, self.say)
        return listed_parts(parts, self.config, self.subject, self.folder, self.say)

    def prepare(self) -> None:
        """Make its folder ready to be written. Raises TrainingError."""
        prepare(self.folder, self.config, self.fabric, self.replace)

    def keeper(self, progress: Progress) -> Keeper:
        """What writes its checkpoints."""
        return Keeper(self.config, self.subject.package, self.folder, self.seed, progress)
