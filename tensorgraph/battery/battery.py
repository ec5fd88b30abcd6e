"""The battery: every check of a model, in order, and what `tensorgraph verify` reports of a package or a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from tensorgraph.battery import backends, derivatives, determinism, dynamics, limits, precision, symmetry
from tensorgraph.battery.certificate import check_certificate, check_invariants
from tensorgraph.battery.check import Check
from tensorgraph.battery.subject import Subject, subject_of
from tensorgraph.errors import one_line
from tensorgraph.potential import open_potential

Tell = Callable[[str], None]
Checked = Check | tuple[Check, ...]

CERTIFICATE = "certificate"
PHYSICS: tuple[tuple[str, Callable[[Subject], Checked]], ...] = (
    ("rotation", symmetry.check_rotation),
    ("reflection", symmetry.check_reflection),
    ("translation", symmetry.check_translation),
    ("permutation", symmetry.check_permutation),
    ("cells", symmetry.check_cells),
    ("forces", derivatives.check_forces),
    ("hessian", derivatives.check_hessian),
    ("virial", derivatives.check_virial),
    ("cutoff", limits.check_cutoff),
    ("work", limits.check_work),
    ("additivity", limits.check_additivity),
    ("atoms", limits.check_single_atoms),
    ("dimers", limits.check_dimers),
    ("drift", dynamics.check_drift),
)
"""What holds for the energy surface, whatever computes it."""

MACHINERY: tuple[tuple[str, Callable[[Subject], Checked]], ...] = (
    ("programs", backends.check_programs),
    ("recorded", backends.check_recorded),
    ("precision", precision.check_precision),
    ("determinism", determinism.check_determinism),
)
"""What holds for everything that computes it: backends, precisions, repeats and threads."""

CHECKS = (*PHYSICS, *MACHINERY)
"""Of a model, in the order in which they run; the certificate of the package comes before them."""

NO_NETWORK = "the package has no network; the spec needs one for this check"
NAMES = (CERTIFICATE, *(name for name, _ in CHECKS))


@dataclass(frozen=True)
class Row:
    """A check, and the dtype of the model that it was made on; None for a check of the package."""

    dtype: str | None
    check: Check

    def to_json(self) -> dict[str, Any]:
        """The fields of the check, its dtype, and what is wrong, if anything is."""
        check = self.check
        return {"dtype": self.dtype, **check.to_json(), "problems": [] if check.passed else [check.where]}


@dataclass(frozen=True)
class Verification:
    """What the battery found of a package or a checkpoint."""

    package: str
    checkpoint: str | None
    device: str
    rows: tuple[Row, ...]

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return all(row.check.passed for row in self.rows)

    def to_json(self) -> dict[str, Any]:
        """One JSON document."""
        return {
            "package": self.package,
            "checkpoint": self.checkpoint,
            "device": self.device,
            "passed": self.passed,
            "checks": [row.to_json() for row in self.rows],
        }


def run_battery(subject: Subject, tell: Tell = lambda _: None, only: Iterable[str] = NAMES) -> tuple[Check, ...]:
    """All checks of a model, or those that `only` names.

    What a check raises is its failure, and the others go on: `measured` is infinite, `where` the message.
    """
    chosen = set(only)
    found: list[Check] = []
    for name, function in CHECKS:
        if name in chosen:
            tell(name)
            found += _guarded(name, function, subject)
    return tuple(found)


def _guarded(name: str, function: Callable[..., Checked], *arguments: Any) -> tuple[Check, ...]:
    try:
        found = function(*arguments)
    except Exception as error:
        return (Check(name, math.inf, 0.0, "", one_line(f"{type(error).__name__}: {error}")),)
    return found if isinstance(found, tuple) else (found,)


def verify(
    path: str | Path,
    checkpoint: str | Path | None = None,
    device: str | torch.device = "cpu",
    dtypes: Sequence[torch.dtype] = (torch.float64, torch.float32),
    only: Iterable[str] = NAMES,
    tell: Tell = lambda _: None,
) -> Verification:
    """The certificate and the battery of a package, of a package with a checkpoint, or of a checkpoint alone.

    Of a package without a network the certificate and the symmetry of its invariants are checked; the rest is skipped.
    Raises PackageError and CheckpointError as `open_potential` does, and PackageError for a manifest without a basis.
    """
    only = tuple(only)
    package, weights = open_potential(path, checkpoint)
    rows: list[Row] = []
    if CERTIFICATE in only:
        tell(CERTIFICATE)
        rows += [Row(None, check) for check in check_certificate(package)]
    for dtype in dtypes:
        name = str(dtype).removeprefix("torch.")
        tell_dtype = partial(_tell_with, tell, name)
        if CERTIFICATE in only:
            checks = _guarded("invariants", check_invariants, package, torch.device(device), dtype)
            rows += [Row(name, check) for check in checks]
        if hasattr(package, "Model") or weights is not None:
            subject = subject_of(package, weights, device, dtype)
            rows += [Row(name, check) for check in run_battery(subject, tell_dtype, only)]
    if not hasattr(package, "Model"):
        rows += [Row(None, Check(name, None, None, "", NO_NETWORK)) for name, _ in CHECKS if name in only]
    return Verification(str(path), None if weights is None else str(weights), str(device), tuple(rows))


def _tell_with(tell: Tell, dtype: str, what: str) -> None:
    tell(f"{what}, {dtype}")
