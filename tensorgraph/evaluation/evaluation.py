"""A potential against labelled structures."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from tensorgraph.dataset import LabelledStructure, duplicates, repetition
from tensorgraph.errors import DataError
from tensorgraph.evaluation.metrics import Metrics, Predicted, metrics_of
from tensorgraph.evaluation.predictions import mean_predictions
from tensorgraph.evaluation.result import Evaluation, WorstStructure
from tensorgraph.neighbours.arguments import checked_count, checked_device, checked_dtype
from tensorgraph.potential import members_of

MAX_PAIRS = 100_000
WORST = 5

Tell = Callable[[str], None]


def evaluate(
    checkpoint: str | Path,
    structures: Sequence[LabelledStructure],
    *,
    train: Sequence[LabelledStructure] | None = None,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype = "float64",
    max_pairs: int = MAX_PAIRS,
    worst: int = WORST,
    tell: Tell | None = None,
) -> Evaluation:
    """Errors of the potential in `checkpoint` on structures, each label over the structures that have it.

    `checkpoint` is a file, or the folder of a run (`members_of`): of a committee the mean of all members is evaluated.
    With `train`, errors without those structures that stand in it too; a UserWarning says how many there are. At most
    `max_pairs` pairs are evaluated at once. The `worst` structures are listed. `tell` is given a line of progress.

    Raises DataError for no structures and for structures none of which has a label; StructureError, the file and the
    frame in front, for an element that a member does not know and for what `predict` refuses; CheckpointError and
    PackageError as `load_model` does; ValueError and TypeError for other arguments that are wrong.
    """
    place, precision = checked_device(device), checked_dtype(dtype)
    checked_count("max_pairs", max_pairs), checked_count("worst", worst)
    _check_labels(structures)
    members = members_of(checkpoint)
    said = tell or (lambda _: None)
    predictions = mean_predictions(members, structures, place, precision, max_pairs, said)
    in_training = None if train is None else _in_training(train, structures)
    left = [one for index, one in enumerate(predictions) if index not in (in_training or ())]
    return Evaluation(
        checkpoint=str(checkpoint),
        members=tuple(str(member) for member in members),
        device=str(place),
        dtype=str(precision).removeprefix("torch."),
        total=metrics_of(predictions),
        groups=_by_group(predictions),
        worst_energy=_worst(predictions, worst, lambda one: one.energy_mev_per_atom),
        worst_forces=_worst(predictions, worst, lambda one: one.force_rms_ev_per_angstrom),
        in_training=in_training,
        without_training=None if in_training is None else metrics_of(left),
        predictions=tuple(predictions),
    )


def _check_labels(structures: Sequence[LabelledStructure]) -> None:
    if not structures:
        raise DataError("there are no structures to evaluate")
    labels = [one.labels for one in structures]
    if not any(value is not None for one in labels for value in (one.energy, one.forces, one.stress)):
        raise DataError(
            f"none of the {len(structures)} structures, the first {structures[0].origin}, has an energy, forces or a "
            "stress under a usual key; allowed: keys that name them"
        )


def _in_training(train: Sequence[LabelledStructure], test: Sequence[LabelledStructure]) -> tuple[int, ...]:
    if remark := repetition(train, test):
        warnings.warn(remark, stacklevel=3)
    return tuple(sorted({second for _, second in duplicates(train, test)}))


def _by_group(predictions: Sequence[Predicted]) -> tuple[tuple[str | None, Metrics], ...]:
    names = {one.structure.group for one in predictions}
    if names == {None}:
        return ()
    ordered = sorted(names, key=lambda name: (name is None, name or ""))
    return tuple((name, metrics_of([one for one in predictions if one.structure.group == name])) for name in ordered)


def _worst(
    predictions: Sequence[Predicted], count: int, error: Callable[[WorstStructure], float | None]
) -> tuple[WorstStructure, ...]:
    sized = [(abs(value), one) for one in map(_described, predictions) if (value := error(one)) is not None]
    sized.sort(key=lambda pair: -pair[0])
    return tuple(one for _, one in sized[:count])


def _described(one: Predicted) -> WorstStructure:
    energy, forces, structure = one.energy_error_per_atom, one.force_errors, one.structure
    norms = None if forces is None else np.linalg.norm(forces, axis=1)
    return WorstStructure(
        file=structure.origin.file,
        frame=structure.origin.frame,
        n_atoms=len(structure.atoms),
        group=structure.group,
        energy_mev_per_atom=None if energy is None else 1e3 * energy,
        force_rms_ev_per_angstrom=None if forces is None else float(np.sqrt(np.square(forces).mean())),
        force_max_ev_per_angstrom=None if norms is None else float(norms.max()),
        force_atom=None if norms is None else int(norms.argmax()),
    )
