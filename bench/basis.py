"""How the derivation of bases grows with rank and order: counts, seconds and peak memory, each in a cold process.

Run with `python -m bench.basis`. The table goes to docs/flexible-bases.md by hand, the rows to `results/basis.jsonl`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.runner import growth_exponent, machine, store

MEASURED = """
import json, re, sys, time
from pathlib import Path
start = time.perf_counter()
from tensorgraph.basis import derive
from tensorgraph.errors import BudgetError
family, body_order, max_rank = json.loads(sys.argv[1])
try:
    basis = derive(family, body_order, max_rank)
    found = {"invariants": len(basis), "dropped": len(basis.dropped)}
except BudgetError as error:
    found = {"error": str(error)}
# Of this program alone: getrusage would count the process that started it.
peak = int(re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text()).group(1)) / 1024
print(json.dumps(found | {"seconds": time.perf_counter() - start, "peak_MiB": peak}))
"""

FLEXIBLE = [("flexible", vertices + 1, max_rank) for max_rank in range(1, 7) for vertices in range(2, 7)]
GOALS = [
    ("flexible", "complete", 3),
    ("flexible", 7, 4),
    ("flexible", 5, 6),
    ("hiphop", 5, 8),
    ("connected", 9, 3),
]
CORNERS = [
    ("hiphop", 7, 8),
    ("flexible", 7, 8),
    ("independent", 7, 8),
    ("connected", 7, 8),
    ("linear", 7, 8),
    ("flexible", "complete", 6),
    ("flexible", "complete", 8),
]
"""The largest that a spec may ask for: each ends, with a basis or with the reason why not."""


def measured(family: str, body_order: int | str, max_rank: int) -> dict[str, Any]:
    """One derivation in a process of its own, import included."""
    case = [family, body_order, max_rank]
    result = subprocess.run(
        [sys.executable, "-c", MEASURED, json.dumps(case)], check=True, capture_output=True, text=True, timeout=600
    )
    return {"family": family, "body_order": body_order, "max_rank": max_rank, **json.loads(result.stdout)}


def exponent(rows: list[dict[str, Any]]) -> float:
    """Of seconds against invariants, by least squares in the logarithms of the slower half of the cases."""
    slow = sorted((r for r in rows if "invariants" in r), key=lambda r: r["seconds"])[len(rows) // 2 :]
    return growth_exponent([r["invariants"] for r in slow], [r["seconds"] for r in slow])


def main() -> None:
    rows = [measured(*case) for case in [*FLEXIBLE, *GOALS, *CORNERS]]
    table = Table(title="bases, each in a cold process")
    for heading in ("family", "body order", "rank", "invariants", "dropped", "seconds", "peak MiB"):
        table.add_column(heading, justify="left" if heading == "family" else "right")
    for row in rows:
        counts = [str(row.get(key, "-")) for key in ("invariants", "dropped")]
        sizes = [f"{row['seconds']:.2f}", f"{row['peak_MiB']:.0f}"]
        table.add_row(row["family"], str(row["body_order"]), str(row["max_rank"]), *counts, *sizes)
    Console(width=100).print(table)
    print(f"seconds grow as invariants to the power {exponent(rows[: len(FLEXIBLE)]):.2f}")
    print(store("basis", [row | machine("cpu") for row in rows]))


if __name__ == "__main__":
    main()
