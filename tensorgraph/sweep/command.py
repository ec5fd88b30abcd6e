"""What `tensorgraph sweep` does: trains a grid, prints the table, and writes it beside the picture."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tensorgraph.atomic import write_file
from tensorgraph.errors import INTERRUPTED, TrainingError
from tensorgraph.sweep.config import load_sweep
from tensorgraph.sweep.picture import write_picture
from tensorgraph.sweep.run import Found, run_sweep
from tensorgraph.sweep.table import csv_text, sweep_table
from tensorgraph.training.command import stderr_line
from tensorgraph.training.folder import versions


def sweep_and_report(file: str, resume: bool, overwrite: bool, as_json: bool, show: Callable[[Any], None]) -> int:
    """The exit status of `tensorgraph sweep FILE`; `show` prints a table on stdout, progress goes to stderr."""
    config = load_sweep(file)
    found = run_sweep(config, resume=resume, overwrite=overwrite, tell=stderr_line)
    if found.interrupted:
        stderr_line(f"interrupted: `tensorgraph sweep {file} --resume` goes on")
        return INTERRUPTED
    document = json.dumps(_document(found), indent=2, allow_nan=False)
    write_file(document, config.out / "table.json", TrainingError)
    write_file(csv_text(found.rows), config.out / "table.csv", TrainingError)
    if as_json:
        print(document)
    else:
        show(sweep_table(found.rows, found.measured))
    picture = write_picture(found.rows, config.out / "pareto.png")
    stderr_line(str(picture or "no picture: nothing was measured with errors on a validation part"))
    return 1 if all(row.failed is not None for row in found.rows) else 0


def _document(found: Found) -> dict[str, Any]:
    return {"measured": found.measured, "versions": versions(), "rows": [row.to_json() for row in found.rows]}
