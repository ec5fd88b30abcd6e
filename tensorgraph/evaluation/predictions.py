"""What a potential, or the mean of a committee, gives for labelled structures."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

from tensorgraph.dataset import LabelledStructure
from tensorgraph.errors import StructureError
from tensorgraph.evaluation.metrics import Predicted
from tensorgraph.model.batch import check_species
from tensorgraph.model.prediction import StructurePrediction, predict
from tensorgraph.potential import load_model, members_of, package_of_checkpoint


def species_of(checkpoint: str | Path) -> tuple[int, ...]:
    """The atomic numbers that all members of a checkpoint know, ascending. Raises what `members_of` and
    `package_of_checkpoint` do."""
    known = [set(_species(package_of_checkpoint(member))) for member in members_of(checkpoint)]
    return tuple(sorted(set.intersection(*known)))


def mean_predictions(
    members: Sequence[Path],
    structures: Sequence[LabelledStructure],
    device: torch.device,
    dtype: torch.dtype,
    max_pairs: int,
    tell: Callable[[str], None],
) -> list[Predicted]:
    """The mean of the members' energies, forces and stresses for each structure.

    One member after the other is in memory, with at most `max_pairs` pairs. Raises StructureError with the file and the
    frame in front.
    """
    found = []
    for index, member in enumerate(members):
        which = f"member {index + 1} of {len(members)}, " if len(members) > 1 else ""
        package = package_of_checkpoint(member)
        _check_species(structures, package)
        model = load_model(member, device, dtype, package=package)
        found.append(_predictions(model, package, structures, max_pairs, which, tell))
    return [_mean(structure, several) for structure, *several in zip(structures, *found, strict=True)]


def _species(package: ModuleType) -> list[int]:
    return [number for _, number in package.architecture.SPECIES]


def _check_species(structures: Sequence[LabelledStructure], package: ModuleType) -> None:
    for one in structures:
        try:
            check_species(one.atoms, _species(package))
        except StructureError as error:
            raise StructureError(f"{one.origin}: {error}") from None


def _predictions(
    model: torch.nn.Module,
    package: ModuleType,
    structures: Sequence[LabelledStructure],
    max_pairs: int,
    which: str,
    tell: Callable[[str], None],
) -> list[StructurePrediction]:
    found: list[StructurePrediction] = []
    try:
        for prediction in predict(
            model, (one.atoms for one in structures), package.architecture.CUTOFF, max_pairs=max_pairs
        ):
            found.append(prediction)
            tell(f"{which}structure {len(found)} of {len(structures)}")
    except StructureError as error:
        raise StructureError(_with_origin(str(error), structures)) from None
    return found


def _with_origin(message: str, structures: Sequence[LabelledStructure]) -> str:
    """The message with file and frame in the place of the number of the structure."""
    match = re.match(r"structure (\d+): ", message)
    return f"{structures[int(match[1])].origin}: {message[match.end() :]}" if match else message


def _mean(structure: LabelledStructure, several: Sequence[StructurePrediction]) -> Predicted:
    stresses = [one.stress for one in several if one.stress is not None]
    return Predicted(
        structure,
        energy=float(np.mean([one.energy for one in several])),
        forces=np.mean([one.forces for one in several], axis=0),
        stress=np.mean(stresses, axis=0) if stresses else None,
    )
