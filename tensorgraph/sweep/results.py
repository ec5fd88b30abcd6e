"""What a sweep finds: a row for each combination, the Pareto fronts, and the files that keep finished rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tensorgraph.atomic import write_file
from tensorgraph.errors import TrainingError
from tensorgraph.sweep.grid import Combination
from tensorgraph.sweep.timing import StepTime

RESULT = "result.json"
"""In the folder of a combination: written when its training begins, and again when it is done."""


@dataclass(frozen=True)
class Errors:
    """RMSE on structures: of the energy per atom in meV/atom and of force components in eV/Å; None without labels."""

    energy: float | None
    forces: float | None


@dataclass(frozen=True)
class Row:
    """A combination's place in the table. `failed` says why there is nothing else; `seconds` are of training."""

    values: dict[str, Any]
    folder: str
    digest: str
    finished: bool = False
    failed: str | None = None
    parameters: int | None = None
    seconds: float | None = None
    valid: Errors = Errors(None, None)
    test: Errors = Errors(None, None)
    time: StepTime | None = None
    energy_front: bool = False
    forces_front: bool = False

    def point(self, name: str) -> tuple[float, float] | None:
        """Its place in the picture of `energy` or `forces`: time and validation error, if both were measured."""
        error = getattr(self.valid, name)
        return None if self.time is None or error is None else (self.time.median, error)

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        return asdict(self)


def new_row(combination: Combination, data_digest: str) -> Row:
    """The row of a combination that was not trained yet."""
    values = {value.key: value.value for value in combination.values}
    return Row(values, combination.folder.name, digest_of(combination, data_digest))


def digest_of(combination: Combination, data_digest: str) -> str:
    """Of all that decides what a combination's training gives: the spec, the config and the data.

    Not of where it stands, nor of what it logs and on how many threads it runs.
    """
    config = json.loads(combination.config.canonical_json())
    kept = {key: value for key, value in config.items() if key not in ("model", "out", "log", "threads")}
    text = json.dumps([combination.spec.canonical_json(), kept, data_digest], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def files_digest(files: Sequence[str]) -> str:
    """Of the contents of files. Raises TrainingError for one that cannot be read."""
    digests = []
    for file in files:
        try:
            with open(file, "rb") as stream:
                digests.append(hashlib.file_digest(stream, "sha256").hexdigest())
        except OSError as error:
            raise TrainingError(f"{file} cannot be read: {error.strerror or error}") from error
    return hashlib.sha256(" ".join(digests).encode()).hexdigest()


def keep_row(row: Row, folder: Path) -> None:
    """Write a row into the folder of its combination, without what is measured anew. Raises TrainingError."""
    kept = replace(row, time=None, energy_front=False, forces_front=False)
    write_file(json.dumps(kept.to_json(), indent=2, allow_nan=False), folder / RESULT, TrainingError)


def kept_row(folder: Path) -> Row | None:
    """The row that `keep_row` wrote there, if any. Raises TrainingError for a file that it did not write."""
    path = folder / RESULT
    if not path.exists():
        return None
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        held |= {"valid": Errors(**held["valid"]), "test": Errors(**held["test"]), "time": None}
        return Row(**held)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise TrainingError(f"{path} is not what a sweep wrote ({error}); allowed: --overwrite") from None


def pareto(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Whether each point is on the front: no other is at most as large in both values and smaller in one."""
    best, on = float("inf"), [False] * len(points)
    held: tuple[float, float] | None = None
    for index in sorted(range(len(points)), key=lambda k: points[k]):
        if points[index][1] < best or points[index] == held:
            best, held, on[index] = points[index][1], points[index], True
    return on


def with_fronts(rows: Sequence[Row]) -> list[Row]:
    """The rows, those marked whose validation error no other reaches in less time."""
    energy, forces = _front(rows, "energy"), _front(rows, "forces")
    return [replace(row, energy_front=k in energy, forces_front=k in forces) for k, row in enumerate(rows)]


def _front(rows: Sequence[Row], name: str) -> set[int]:
    points = {k: point for k, row in enumerate(rows) if (point := row.point(name)) is not None}
    return {k for k, on in zip(points, pareto(list(points.values())), strict=True) if on}
