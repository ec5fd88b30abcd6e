"""A sweep from its config to its rows: train every combination, evaluate, then measure all of them side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from tensorgraph.atomic import write_file
from tensorgraph.dataset import LabelledStructure, read_structures
from tensorgraph.errors import CheckpointError, MissingToolError, SpecError, TensorGraphError, TrainingError
from tensorgraph.evaluation import Metrics, Predicted, evaluate, metrics_of
from tensorgraph.model.memory import keep_freed_memory
from tensorgraph.neighbours.arguments import chosen_device
from tensorgraph.potential import load_model, members_of, package_of_spec
from tensorgraph.spec.elements import ATOMIC_NUMBERS
from tensorgraph.sweep.config import SweepConfig
from tensorgraph.sweep.grid import SPEC_FILE, Combination
from tensorgraph.sweep.results import (
    RESULT,
    Errors,
    Row,
    files_digest,
    keep_row,
    kept_row,
    new_row,
    with_fronts,
)
from tensorgraph.sweep.timing import step_times, timed_structure
from tensorgraph.training.config import TrainConfig
from tensorgraph.training.data import label_choice, parts_of, read_data
from tensorgraph.training.folder import clear_out
from tensorgraph.training.progress import Tell, duration
from tensorgraph.training.run import train

FAILURES = (TensorGraphError, MemoryError, torch.OutOfMemoryError)
"""What ends one combination and not the others."""


@dataclass(frozen=True)
class Found:
    """The rows in the order of the grid; how their times were measured, in words; whether the sweep was interrupted."""

    rows: tuple[Row, ...]
    measured: str
    interrupted: bool


def run_sweep(config: SweepConfig, *, resume: bool = False, overwrite: bool = False, tell: Tell = print) -> Found:
    """Train, evaluate and measure all combinations; `tell` is given lines about the progress.

    With `resume` finished combinations are kept, and the one that was interrupted goes on; with `overwrite` all are
    trained anew. A combination that cannot be trained is a row with the reason.

    Raises SpecError for a basis that is too large; DataError and StructureError for data that cannot be read;
    TrainingError for a device that is not there, where a sweep stands there and neither is asked for, or
    with `resume` one of another spec, config or data.
    """
    keep_freed_memory()
    device = _timing_device(config)
    rows = _starting_rows(config, resume, overwrite)
    _build_packages(config, tell)
    structures = _structures(config)
    if overwrite:  # all of them before the first is trained, so that --resume goes on from what is of this sweep
        for combination in config.combinations:
            clear_out(combination.config)
            (combination.folder / RESULT).unlink(missing_ok=True)
    _announce(config, rows, tell)
    for index, (combination, row) in enumerate(zip(config.combinations, rows, strict=True)):
        if row.finished:
            continue
        tell(f"{index + 1} of {len(rows)}: {combination.described}")
        trained = _trained(combination, row, resume, overwrite, tell)
        if trained is None:
            return Found(tuple(rows), "", interrupted=True)
        rows[index] = trained
    rows = [_tested(one, row, tell) for one, row in zip(config.combinations, rows, strict=True)]
    atoms = timed_structure([one.atoms for one in structures], config.time.atoms)
    good = {row.folder: config.out / row.folder for row in rows if row.failed is None}
    tell(f"time of steps of {len(atoms)} atoms, {len(good)} potentials in turns")
    options = {"dtype": config.time.dtype, "device": device}
    times = step_times(good, atoms, repeats=config.time.repeats, **options) if good else {}
    rows = with_fronts([replace(row, time=times.get(row.folder)) for row in rows])
    measured = _measured(config, len(atoms), bool(atoms.pbc.any()), device) + scatter_remark(rows)
    return Found(tuple(rows), measured, interrupted=False)


def _timing_device(config: SweepConfig) -> str:
    try:
        return str(chosen_device(config.time.device))
    except ValueError as error:
        raise TrainingError(f"time.device: {error}") from None


def _starting_rows(config: SweepConfig, resume: bool, overwrite: bool) -> list[Row]:
    """The rows of finished combinations as they were kept, the others without results."""
    rows = []
    digests = {files: files_digest(files) for files in {_files(one.config) for one in config.combinations}}
    for combination in config.combinations:
        row, folder = new_row(combination, digests[_files(combination.config)]), combination.folder
        held = None if overwrite else kept_row(folder)
        if held is not None and not resume:
            raise TrainingError(f"{folder} holds a part of a sweep; allowed: --resume, --overwrite, or another `out`")
        if held is not None and held.digest != row.digest:
            raise TrainingError(
                f"{folder / RESULT} is of another spec, config or data; allowed: --overwrite, or another `out`"
            )
        rows.append(held if held is not None and held.finished else row)
    return rows


def _files(config: TrainConfig) -> tuple[str, ...]:
    """All files that a training reads but its spec."""
    data = config.data
    named = data.valid if isinstance(data.valid, tuple) else ()
    isolated = [config.atomic_energies] if isinstance(config.atomic_energies, str) else []
    atoms = [file for file in isolated if file not in ("least_squares", "model")]
    return (*data.train, *named, *(data.test or ()), *atoms)


def _build_packages(config: SweepConfig, tell: Tell) -> None:
    """All packages before the first training: a basis that is too large is a mistake in the grid."""
    for spec, combination in {one.spec: one for one in config.combinations}.items():
        tell(f"package {spec.name}")
        try:
            package_of_spec(spec)
        except CheckpointError as error:
            lines = [value.lines[()] for value in combination.values if value.key.startswith("spec.basis")]
            raise SpecError(config.file, lines[0] if lines else 1, f"{combination.described}: {error}") from None


def _structures(config: SweepConfig) -> list[LabelledStructure]:
    """Read before anything is trained, and what steps are timed on."""
    first = config.combinations[0]
    data = first.config.data
    return read_structures(data.train, label_choice(data), data.group_key, _species(first))


def _species(combination: Combination) -> list[int]:
    network = combination.spec.network
    assert network is not None  # of every combination
    return [ATOMIC_NUMBERS[symbol] for symbol in network.species]


def _announce(config: SweepConfig, rows: list[Row], tell: Tell) -> None:
    left = [one for one, row in zip(config.combinations, rows, strict=True) if not row.finished]
    text = f"{len(rows)} combinations, {len(left)} to train"
    minutes = [one.config.minutes and one.config.minutes * len(one.config.seed) for one in left]
    if left and all(minutes):
        text += f", at most {duration(60 * sum(filter(None, minutes)))} of training together"
    tell(text)


def _trained(combination: Combination, row: Row, resume: bool, overwrite: bool, tell: Tell) -> Row | None:
    """The row with validation errors, or with the reason of a failure; None where the user interrupted it."""
    config, folder = combination.config, combination.folder
    keep_row(row, folder)
    write_file(combination.spec.to_yaml(), folder / SPEC_FILE, TrainingError)
    try:
        outcomes = train(config, resume=resume, overwrite=overwrite, tell=lambda line: tell(f"  {line}"))
        if outcomes[-1].interrupted:
            return None
        seconds = sum(one.seconds for one in outcomes)
        found = replace(
            row, finished=True, seconds=seconds, parameters=_parameters(folder), valid=_validated(combination)
        )
    except MissingToolError:
        raise
    except FAILURES as error:
        found = replace(row, failed=str(error) or type(error).__name__)
        tell(f"  failed: {found.failed}")
    keep_row(found, folder)
    return found


def _parameters(folder: Path) -> int:
    """Of all members of a committee together."""
    return sum(p.numel() for member in members_of(folder) for p in load_model(member).parameters())


def _validated(combination: Combination) -> Errors:
    """On the validation part, in the dtype of training.

    Where each member of a committee has a part of its own, which others were trained on, each is evaluated alone on its
    own part, and the errors are put together: no error is of structures that a potential was trained on.
    """
    config = combination.config
    data = read_data(config.data, _species(combination), lambda _: None)
    found: list[Predicted] = []
    members = [config.out] if isinstance(config.data.valid, tuple) else [str(p) for p in config.member_folders.values()]
    for seed, member in zip(config.seed, members, strict=False):
        if valid := parts_of(data, config.data, seed, lambda _: None).valid:
            found += evaluate(member, valid, dtype=config.dtype).predictions
    return _errors(metrics_of(found)) if found else Errors(None, None)


def _tested(combination: Combination, row: Row, tell: Tell) -> Row:
    """With errors on the test structures, if there are any, unless they were evaluated before."""
    data = combination.config.data
    if data.test is None or not row.finished or row.test != Errors(None, None):
        return row
    tell(f"test structures: {combination.described}")
    structures = read_structures(data.test, label_choice(data), data.group_key)
    found = evaluate(combination.config.out, structures, dtype=combination.config.dtype)
    tested = replace(row, test=_errors(found.total))
    keep_row(tested, combination.folder)
    return tested


def _errors(metrics: Metrics) -> Errors:
    energy, forces = metrics.energy, metrics.forces
    return Errors(
        None if energy is None else energy.rmse_mev_per_atom,
        None if forces is None else forces.rmse_ev_per_angstrom,
    )


def _measured(config: SweepConfig, n_atoms: int, periodic: bool, device: str) -> str:
    threads = torch.get_num_threads()
    place = f"{threads} thread{'s' if threads > 1 else ''}" if device == "cpu" else torch.cuda.get_device_name(device)
    kind = "periodic" if periodic else "not periodic"
    return (
        f"Errors are RMSE. Time of neighbour list, energy and forces of {n_atoms} atoms ({kind}), {config.time.dtype}, "
        f"{place}: median of {config.time.repeats} rounds ± half of the range of their middle half. "
        "Front: no other is faster with a smaller validation error of energies (E), of forces (F)."
    )


def scatter_remark(rows: Sequence[Row]) -> str:
    """A sentence where times differ by less than they scatter, so that which is the faster was not measured."""
    times = [row.time for row in rows if row.time is not None]
    close = sum(
        any(abs(one.median - other.median) < one.spread + other.spread for other in times if other is not one)
        for one in times
    )
    if not close:
        return ""
    return (
        f" {close} of {len(times)} times differ from another one by less than they scatter: which is the faster "
        "was not measured; more `time.repeats` on an idle machine tell more."
    )
