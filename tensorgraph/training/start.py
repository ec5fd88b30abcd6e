"""What a training starts from: a new model or a checkpoint, with energies per species that suit the data."""

from __future__ import annotations

import os
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from tensorgraph.dataset import read_structures
from tensorgraph.errors import PackageError, TrainingError
from tensorgraph.model.labels import LabelChoice
from tensorgraph.model.loading import load_package
from tensorgraph.neighbours.arguments import DTYPES
from tensorgraph.potential import load_model, package_of_checkpoint, package_of_spec
from tensorgraph.spec import load_spec
from tensorgraph.training.batches import epoch_batches, ordered_batches
from tensorgraph.training.config import BatchConfig, TrainConfig
from tensorgraph.training.samples import Samples
from tensorgraph.training.scaling import scale_to_data
from tensorgraph.training.soap import Scale

CHECKPOINT = ".safetensors"
SCALED_TO = BatchConfig(structures=64, pairs=200_000)  # what a new model's weights are scaled to


@dataclass(frozen=True)
class Subject:
    """The package of the model that is trained, and the checkpoint that it starts from, if any."""

    package: ModuleType
    checkpoint: str | None

    @property
    def cutoff(self) -> float:
        """In Å."""
        cutoff: float = self.package.architecture.CUTOFF
        return cutoff

    @property
    def species(self) -> dict[str, int]:
        """Atomic numbers by symbol, in the model's order."""
        return dict(self.package.architecture.SPECIES)

    def model(self, seed: int, dtype: torch.dtype, device: torch.device) -> torch.nn.Module:
        """The model as training starts: the checkpoint's, else with weights drawn from the seed."""
        if self.checkpoint is not None:
            return load_model(self.checkpoint, device, dtype, package=self.package)
        model: torch.nn.Module = self.package.Model(seed=seed).to(device, dtype)
        return model


def subject_of(path: str) -> Subject:
    """What `model: PATH` of a config means: a checkpoint, the folder of a package, or a spec.

    Raises PackageError for a package without a network, and what reading a spec, package or checkpoint raises.
    """
    checkpoint = path if path.endswith(CHECKPOINT) else None
    if checkpoint is not None:
        package = package_of_checkpoint(path)
    elif os.path.isdir(path):
        package = load_package(path)
    else:
        package = package_of_spec(load_spec(path))
    if not hasattr(package, "Model"):
        raise PackageError(f"{path} has no network, and so nothing to train; allowed: a spec with the key network")
    return Subject(package, checkpoint)


def set_atomic_energies(model: Any, subject: Subject, config: TrainConfig, samples: Samples) -> None:
    """Set the model's energies per species as the config asks.

    Raises TrainingError where species of the data are not among the energies that it gives.
    """
    given = config.atomic_energies
    if given == "model":
        if subject.checkpoint is None:
            raise TrainingError("atomic_energies: model is for checkpoints; a new model has no energies of atoms yet")
        return
    if given == "least_squares":
        energies = _least_squares(model, subject, samples)
    else:
        energies = _of_isolated_atoms(given, subject, config) if isinstance(given, str) else given
        numbers = set(samples.numbers.tolist())
        wanted = [symbol for symbol, number in subject.species.items() if number in numbers]
        if missing := [symbol for symbol in wanted if symbol not in energies]:
            raise TrainingError(f"atomic_energies lacks {', '.join(missing)}; the data have {', '.join(wanted)}")
        if unknown := [symbol for symbol in energies if symbol not in subject.species]:
            raise TrainingError(f"atomic_energies names {unknown[0]}; the model knows {', '.join(subject.species)}")
    model.set_atomic_energies(energies)


def _of_isolated_atoms(file: str, subject: Subject, config: TrainConfig) -> dict[str, float]:
    """The energies of single atoms in a file, by symbol."""
    keys = {"energy": config.data.energy_key}
    energies: dict[str, float] = {}
    for one in read_structures([file], LabelChoice.of("energy", (), keys)):
        symbols = one.atoms.get_chemical_symbols()
        if len(symbols) != 1:
            raise TrainingError(f"{one.origin}: {len(symbols)} atoms; allowed as atomic_energies: one atom a frame")
        if symbols[0] in energies:
            raise TrainingError(f"{one.origin}: a second energy of {symbols[0]}; allowed: one for each species")
        if symbols[0] in subject.species:
            assert one.labels.energy is not None
            energies[symbols[0]] = one.labels.energy
    return energies


def _least_squares(model: Any, subject: Subject, samples: Samples) -> dict[str, float]:
    """Energies of species with which the model's errors per atom are least, all else as it is.

    What the energies of the data do not determine, such as a species that is not in them, stays a checkpoint's, or is
    zero in a new model.
    """
    numbers = list(subject.species.values())
    before = torch.zeros(len(numbers), dtype=torch.float64)
    if subject.checkpoint is not None:
        before = model.energy_heads.of_species.weight.detach()[0].double().cpu().clone()
    model.set_atomic_energies(dict.fromkeys(subject.species, 0.0))  # else float32 would round what is left
    device = next(model.parameters()).device
    rows: list[Tensor] = []
    for chosen in ordered_batches(samples):
        batch = samples.batch(chosen, model.dtype, device)
        with torch.no_grad():
            rest = batch.energy - model(*batch.inputs).energy
        is_species = (batch.numbers.unsqueeze(1) == torch.tensor(numbers, device=device)).double()
        counts = is_species.new_zeros(batch.n_structures, len(numbers)).index_add_(0, batch.structure, is_species)
        row = torch.cat([counts, rest.unsqueeze(1)], dim=1) / counts.sum(dim=1, keepdim=True).clamp(min=1)
        rows.append(row[batch.has_energy].cpu())
    table = torch.cat(rows)
    change = torch.zeros_like(before)
    if len(table):
        rest = table[:, -1] - table[:, :-1] @ before
        least = torch.linalg.lstsq(table[:, :-1], rest.unsqueeze(1), driver="gelsd")  # the least change that fits
        change = least.solution.flatten()
    return dict(zip(subject.species, (before + change).tolist(), strict=True))


def started_model(
    config: TrainConfig, subject: Subject, seed: int, train: Samples, device: torch.device
) -> tuple[torch.nn.Module, dict[torch.Tensor, Scale] | None]:
    """The model, scaled to the data where it is new, and its scales."""
    model = subject.model(seed, DTYPES[config.dtype], device)
    model.validate = False  # type: ignore[assignment]  # the structures were checked when their pairs were listed
    scales = None
    if config.start.scaled and subject.checkpoint is None:
        chosen = epoch_batches(train, SCALED_TO, 0, 0)[0]
        batch = train.batch(chosen, DTYPES[config.dtype], device)
        scales = scale_to_data(model, subject.package, batch, config.start)
    return model, scales
