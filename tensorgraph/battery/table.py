"""What the battery found, as a table for people."""

from __future__ import annotations

import math

from rich.table import Table
from rich.text import Text

from tensorgraph.battery.battery import Row, Verification


def verification_table(found: Verification) -> Table:
    """One row for each check: the largest value measured in each dtype, the bound, and where; faults in full."""
    weights = found.checkpoint or "Model(seed=0)"
    title = f"{found.package} with {weights} on {found.device}; values without a unit are relative"
    table = Table(title=Text(title), title_justify="left", box=None, pad_edge=False)
    for heading in ("", "check", "dtype", "measured", "bound", "unit", "largest at"):
        table.add_column(heading, justify="right" if heading in ("measured", "bound") else "left", overflow="fold")
    for row in found.rows:
        table.add_row(*map(Text, _cells(row)))
    count = sum(not row.check.passed for row in found.rows)
    skipped = sum(row.check.skipped for row in found.rows)
    passed = "all passed" if not skipped else f"all others passed, {skipped} skipped"
    table.caption = Text(passed if not count else f"{count} of {len(found.rows)} failed")
    table.caption_justify = "left"
    return table


def _cells(row: Row) -> tuple[str, ...]:
    check = row.check
    if check.measured is None:
        return ("skipped", check.name, row.dtype or "", "", "", "", check.where)
    numbers = (_short(check.measured), _short(check.bound))
    return ("ok" if check.passed else "WRONG", check.name, row.dtype or "", *numbers, check.unit, check.where)


def _short(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.0f}" if value in (0, 1, math.inf) else f"{value:.1e}"
