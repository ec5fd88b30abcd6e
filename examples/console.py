"""How the examples talk: results on stdout, progress on stderr, which a log file can hold too."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

SECONDS = 10.0  # between two lines in a log file
out, log = Console(), Console(stderr=True)


@contextmanager
def progress(title: str, total: int) -> Iterator[Callable[..., None]]:
    """Yields a function that tells of one more step, and of how things stand if it is given a text.

    By a bar on a terminal, else by a line now and then.
    """
    if not log.is_terminal:
        yield _Lines(title, total).advance
        return
    columns = TextColumn("{task.description:16}"), BarColumn(bar_width=20), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, TextColumn("{task.fields[state]}"), console=log) as bars:
        task = bars.add_task(title, total=total, state="")
        yield lambda state="": bars.update(task, advance=1, state=state)


class _Lines:
    def __init__(self, title: str, total: int) -> None:
        self.title, self.total, self.done = title, total, 0
        self.started = self.told = time.monotonic()

    def advance(self, state: str = "") -> None:
        self.done += 1
        now = time.monotonic()
        if self.done == self.total or now - self.told >= SECONDS:
            self.told, left = now, (now - self.started) * (self.total / self.done - 1)
            log.print(f"{self.title}: {self.done}/{self.total}, {left:.0f} s left {state}".rstrip(), soft_wrap=True)
