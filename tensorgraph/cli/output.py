"""What commands share: specs from files, progress, tables and files."""

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from tensorgraph.atomic import obstacle
from tensorgraph.errors import BasisError, BudgetError, CheckpointError, SpecError, TensorGraphError, one_line

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tensorgraph.spec import AnySpec

Result = TypeVar("Result")

PLAIN_WIDTH = 120  # of a table that goes to a file or a pipe
CHECKPOINT = ".safetensors"  # how the name of a file ends whose spec stands inside


def fail(message: str, status: int) -> int:
    print(message, file=sys.stderr)
    return status


def load(file: str) -> "AnySpec":
    """The spec in a YAML file, or the one inside a checkpoint."""
    if file.endswith(CHECKPOINT):
        from tensorgraph.potential import read_spec

        return read_spec(file)
    from tensorgraph.spec import load_spec

    return load_spec(file)


def within_budget(file: str, work: Callable[[Callable[[str], None]], Result]) -> Result:
    """What `work` gives, its progress shown where stderr is a terminal.

    A basis too large to derive, or empty, is a mistake in the spec, reported with the line of its body order, or of its
    layers.
    """
    from tensorgraph.spec import GeneralSpec, line_of, load_spec

    try:
        with progress() as tell:
            return work(tell)
    except (BudgetError, BasisError) as error:
        if file.endswith(CHECKPOINT):
            raise CheckpointError(f"{file}: {error}") from None
        keys = ("layers",) if isinstance(load_spec(file), GeneralSpec) else ("basis", "body_order")
        raise SpecError(file, line_of(file, keys), str(error)) from None


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """What shows its argument on stderr, where that is a terminal, until it is given another."""
    from rich.console import Console

    with Console(stderr=True).status("…") as status:
        yield status.update


@contextmanager
def warnings_in_lines() -> Iterator[None]:
    """Python's warnings, ASE's among them, as lines on stderr without the place in the code."""

    def show(message: Warning | str, *_: object, **__: object) -> None:
        print(f"tensorgraph: warning: {one_line(str(message))}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def print_table(table: "RenderableType") -> None:
    from rich.console import Console

    width = None if sys.stdout.isatty() else PLAIN_WIDTH
    Console(file=sys.stdout, width=width).print(table)


def refuse_all_but_files(path: Path) -> None:
    if reason := obstacle(path):
        raise TensorGraphError(f"cannot write {path}: {reason}; allowed: a file, or a path where one can be made")
