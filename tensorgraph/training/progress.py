"""What a run tells while it goes on: lines with the time left, metrics.csv, and TensorBoard on request."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tensorgraph.atomic import write_atomically
from tensorgraph.errors import MissingToolError, TrainingError

Tell = Callable[[str], None]
FIGURES = ("energy_mev_per_atom", "forces_ev_per_angstrom", "stress_ev_per_angstrom3", "hierarchicality")
"""RMSE of energies per atom, forces and stresses, and the mean of HIP-NN's penalty per atom."""
COLUMNS = (
    "step", "epoch", "seconds", "rate", *(f"train_{name}" for name in FIGURES), *(f"valid_{name}" for name in FIGURES),
    "valid_score",
)  # fmt: skip


def duration(seconds: float) -> str:
    """Hours, minutes and seconds, as 1:02:03."""
    whole = max(0, round(seconds))
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def errors_line(figures: Mapping[str, float | None]) -> str:
    """Energy, force and stress errors in a few words."""
    units = zip(FIGURES[:3], ("meV/atom", "eV/Å", "eV/Å³"), strict=True)
    parts = [f"{value:.3g} {unit}" for name, unit in units if (value := figures.get(name)) is not None]
    return ", ".join(parts) or "no labels"


class Lines:
    """Lines about a run: what matters at once, the rest at most once every so many seconds."""

    def __init__(self, tell: Tell, seconds: float) -> None:
        self.tell, self.seconds, self.last = tell, seconds, time.monotonic()

    def step(self, make: Callable[[], str]) -> None:
        """A line, if it is time for one."""
        if time.monotonic() - self.last >= self.seconds:
            self.event(make())

    def event(self, line: str) -> None:
        """A line at once."""
        self.last = time.monotonic()
        self.tell(line)


class Metrics:
    """The rows of metrics.csv, and of TensorBoard's files beside it where they are wanted."""

    def __init__(self, folder: Path, tensorboard: bool, last_step: int) -> None:
        """Rows after `last_step`, written before a run was interrupted, are dropped: they are made again.

        Raises TrainingError for a metrics.csv that no training wrote, and MissingToolError without tensorboard.
        """
        self.path = folder / "metrics.csv"
        self.rows = [row for row in self._earlier() if last_step and int(row["step"]) <= last_step]
        self.writer = _summary_writer(folder / "tensorboard", last_step) if tensorboard else None

    def _earlier(self) -> list[dict[str, Any]]:
        if not self.path.is_file():
            return []
        with self.path.open(newline="", encoding="utf-8", errors="replace") as file:
            rows = list(csv.DictReader(file))
        if any(set(row) != set(COLUMNS) or not str(row["step"]).isdigit() for row in rows):
            raise TrainingError(f"{self.path} is not what a training wrote; move it away")
        return rows

    def add(self, row: Mapping[str, Any]) -> None:
        """One more row, by column; what is None stays empty. Raises TrainingError where it cannot be written."""
        self.rows.append({name: "" if row.get(name) is None else f"{row[name]:.8g}" for name in COLUMNS})
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        try:
            write_atomically(text.getvalue().encode(), self.path)
        except OSError as error:
            raise TrainingError(f"{self.path} cannot be written: {error.strerror or error}") from error
        if self.writer is not None:
            for name in COLUMNS[1:]:
                if row.get(name) is not None:
                    self.writer.add_scalar(name.replace("_", "/", 1), row[name], int(row["step"]))
            self.writer.flush()


def _summary_writer(folder: Path, last_step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingToolError(f"log.tensorboard needs tensorboard: pip install tensorboard ({error})") from None
    return SummaryWriter(str(folder), purge_step=last_step + 1)
