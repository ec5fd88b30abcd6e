"""The targets that scalar programs are printed for: the ending of a file's name, and the printer of its text.

To add a target is to add a row to ``TARGETS``: every program of every package is then printed for it too.
"""

from __future__ import annotations

from collections.abc import Callable

from tensorgraph.emit import c, pytorch, triton
from tensorgraph.emit.printing import Commentary
from tensorgraph.scalar import Derivatives, StraightLine

TARGETS: dict[str, Callable[[Derivatives[StraightLine], Commentary], str]] = {
    "_torch.py": pytorch.print_programs,
    "_cpu.c": c.print_programs,
    "_triton.py": triton.print_programs,
}


def add_target(ending: str, printer: Callable[[Derivatives[StraightLine], Commentary], str]) -> None:
    """One more target: a file of this ending for every program. Raises ValueError for an ending that is taken."""
    if ending in TARGETS:
        raise ValueError(f"{ending!r} is no new ending; there are {', '.join(TARGETS)}")
    TARGETS[ending] = printer
