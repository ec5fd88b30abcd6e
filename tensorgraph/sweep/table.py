"""The rows of a sweep as a table for people, as CSV and as JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tensorgraph.evaluation.result import short
from tensorgraph.sweep.grid import short_keys
from tensorgraph.sweep.results import Row

COLUMNS = (
    "parameters", "training_minutes", "valid_energy_mev_per_atom", "valid_forces_ev_per_angstrom",
    "test_energy_mev_per_atom", "test_forces_ev_per_angstrom", "us_per_atom_and_step", "us_spread",
    "energy_front", "forces_front", "failed", "folder",
)  # fmt: skip


def sweep_table(rows: Sequence[Row], caption: str) -> RenderableType:
    """A row for each combination; errors are RMSE. A combination that failed has its reason below the table."""
    keys = list(rows[0].values)
    labels, with_test = short_keys(keys), any(_known(row.test) for row in rows)
    table = Table(box=None, pad_edge=False)
    for key in keys:
        table.add_column(labels[key], justify="right", overflow="fold")
    headings = ["parameters", "minutes", "valid E\nmeV/atom", "valid F\neV/Å"]
    headings += ["test E\nmeV/atom", "test F\neV/Å"] if with_test else []
    for heading in [*headings, "µs per atom\nand step", "front"]:
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(*(Text(worded(value)) for value in row.values.values()), *_cells(row, with_test))
    failures = [Text(f"{row.folder}: {row.failed}") for row in rows if row.failed is not None]
    return Group(table, Text(""), Text(caption), *failures)


def _cells(row: Row, with_test: bool) -> list[str]:
    if row.failed is not None:
        return ["failed"]
    errors = [row.valid.energy, row.valid.forces, *((row.test.energy, row.test.forces) if with_test else ())]
    time = "" if row.time is None else f"{short(row.time.median)} ± {short(row.time.spread)}"
    front = " ".join(sign for sign, on in (("E", row.energy_front), ("F", row.forces_front)) if on)
    minutes = "" if row.seconds is None else f"{row.seconds / 60:.1f}"
    parameters = "" if row.parameters is None else f"{row.parameters:,}"
    return [parameters, minutes, *("" if one is None else short(one) for one in errors), time, front]


def _known(errors: Any) -> bool:
    return errors.energy is not None or errors.forces is not None


def worded(value: Any) -> str:
    """A value of the grid for people: of a section its values alone."""
    return " ".join(map(worded, value.values())) if isinstance(value, Mapping) else shown(value)


def shown(value: Any) -> str:
    """A value of the grid as the config may hold it."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def csv_text(rows: Sequence[Row]) -> str:
    """The rows with the dotted keys of the grid as first columns; empty where there is no value."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*rows[0].values, *COLUMNS])
    for row in rows:
        minutes = None if row.seconds is None else round(row.seconds / 60, 3)
        time = (None, None) if row.time is None else (row.time.median, row.time.spread)
        figures = [row.parameters, minutes, row.valid.energy, row.valid.forces, row.test.energy, row.test.forces, *time]
        cells = [f"{one:.6g}" if isinstance(one, float) else one for one in figures]
        fronts = [int(row.energy_front), int(row.forces_front)]
        writer.writerow([*map(shown, row.values.values()), *cells, *fronts, row.failed, row.folder])
    return text.getvalue()
