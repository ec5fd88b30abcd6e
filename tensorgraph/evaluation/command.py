"""What `tensorgraph evaluate` does between reading its arguments and printing."""

from __future__ import annotations

import warnings
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tensorgraph.dataset import key_of_no_structure, read_structures, unit_warnings
from tensorgraph.errors import DataError
from tensorgraph.evaluation.evaluation import evaluate
from tensorgraph.evaluation.predictions import species_of
from tensorgraph.evaluation.result import Evaluation
from tensorgraph.model.labels import TARGETS, LabelChoice
from tensorgraph.neighbours.arguments import checked_count, checked_device


@dataclass(frozen=True)
class Request:
    """The arguments of the command, checked."""

    checkpoint: str
    data: tuple[str, ...]
    train: tuple[str, ...] | None
    choice: LabelChoice
    group_key: str | None
    options: dict[str, Any]
    """Keywords of `evaluate`."""

    @classmethod
    def of(cls, arguments: Namespace) -> Request:
        """Raises ValueError for an argument that is wrong."""
        checked_device(arguments.device)
        for name in ("max_pairs", "worst"):
            checked_count(f"--{name.replace('_', '-')}", getattr(arguments, name))
        keys = {name: getattr(arguments, f"{name}_key") for name in ("energy", "forces", "stress", "virial")}
        choice = LabelChoice.of(TARGETS, TARGETS, keys)
        train = None if arguments.train is None else tuple(arguments.train)
        options = {name: getattr(arguments, name) for name in ("device", "dtype", "max_pairs", "worst")}
        return cls(arguments.checkpoint, tuple(arguments.data), train, choice, arguments.group_key, options)


def evaluate_files(request: Request, tell: Callable[[str], None]) -> Evaluation:
    """The errors of a checkpoint on files, with a UserWarning for everything that looks wrong with them.

    Raises what `read_structures` and `evaluate` raise, and DataError for a named label that no structure has.
    """
    tell("potential")
    species = species_of(request.checkpoint)
    tell("structures")
    structures = read_structures(request.data, request.choice, request.group_key, species)
    if (missing := key_of_no_structure(structures, request.choice)) is not None:
        name, key = missing
        raise DataError(f"{structures[0].origin.file}: no structure has the key {key!r}, named by --{name}-key")
    for text in unit_warnings(structures):
        warnings.warn(text, stacklevel=2)
    train = None if request.train is None else read_structures(request.train, request.choice)
    return evaluate(request.checkpoint, structures, train=train, tell=tell, **request.options)
