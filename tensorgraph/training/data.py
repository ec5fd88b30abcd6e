"""The structures of a training: read, split into parts, looked at for what goes wrong with data, and listed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tensorgraph.dataset import (
    LabelledStructure,
    key_of_no_structure,
    read_structures,
    repetition,
    unit_warnings,
)
from tensorgraph.errors import DataError, TrainingError
from tensorgraph.model.labels import TARGETS, LabelChoice
from tensorgraph.training.config import DataConfig, LossConfig, TrainConfig, ValidationConfig
from tensorgraph.training.progress import Tell
from tensorgraph.training.samples import Samples, list_samples
from tensorgraph.training.start import Subject


@dataclass(frozen=True)
class Data:
    """What the files of a config hold. The test structures are here for one reason: to tell which are trained on."""

    train: list[LabelledStructure]
    valid: list[LabelledStructure] | None
    test: list[LabelledStructure]


@dataclass(frozen=True)
class Parts:
    """The structures that a run sees. Of the validation part there may be none; nothing here is seen of the tests."""

    train: list[LabelledStructure]
    valid: list[LabelledStructure]


def label_choice(config: DataConfig) -> LabelChoice:
    """Which labels are read: all that there are."""
    return LabelChoice.of(TARGETS, TARGETS, config.keys)


def read_data(config: DataConfig, species: Sequence[int], tell: Tell) -> Data:
    """The files, read once for all seeds; `tell` is given warnings.

    Raises DataError and StructureError, naming file and frame, for what cannot be read or trained on.
    """
    structures = _read(config.train, config, species)
    if (missing := key_of_no_structure(structures, label_choice(config))) is not None:
        name, key = missing
        raise DataError(f"{', '.join(config.train)}: no structure has {key!r}, which {name}_key names")
    for warning in unit_warnings(structures):
        tell(f"warning: {warning}")
    valid = None if isinstance(config.valid, float) else _read(config.valid, config, species)
    test: list[LabelledStructure] = []
    if config.test is not None:
        test = read_structures(config.test, label_choice(config), config.group_key, species)
        if not any(_labelled(one) for one in test):
            raise DataError(
                f"{', '.join(config.test)}: no structure has an energy, forces or a stress; {_hint(config)}"
            )
    return Data(structures, valid, test)


def parts_of(data: Data, config: DataConfig, seed: int, tell: Tell) -> Parts:
    """The training and validation parts of a run with this seed; `tell` is given warnings of repetition."""
    if isinstance(config.valid, float):
        parts = _split(data.train, config.valid, seed)
    else:
        parts = Parts(data.train, data.valid or [])
    _warn_of_repetition(parts, data.test, tell)
    return parts


def listed_parts(
    parts: Parts, config: TrainConfig, subject: Subject, folder: Path, tell: Tell
) -> tuple[Samples, Samples | None]:
    """The parts with their pairs, in memory or in files in `folder`."""

    def listed(structures: list[LabelledStructure]) -> Samples:
        species = tuple(subject.species.values())
        return list_samples(structures, subject.cutoff, species, config.dtype, config.data.memory, folder)

    train, valid = listed(parts.train), listed(parts.valid) if parts.valid else None
    for name, samples in (("training", train), ("validation", valid)):
        if samples is not None:
            tell(_description(name, samples))
    _check_weights("loss", config.loss, train)
    if valid is not None:
        _check_weights("validation", config.validation, valid)
    return train, valid


def _check_weights(section: str, weights: LossConfig | ValidationConfig, samples: Samples) -> None:
    """Raises TrainingError where no label has a weight: nothing would be trained, or the first weights be the best."""
    counts = dict(zip(TARGETS, samples.has.sum(axis=0), strict=True))
    if not any(counts[name] and np.any(getattr(weights, name)) for name in TARGETS):
        there = ", ".join(name for name in TARGETS if counts[name])
        raise TrainingError(
            f"no label has a weight in `{section}`: the structures have {there}; allowed: a weight above 0"
        )


def _labelled(structure: LabelledStructure) -> bool:
    return any(getattr(structure.labels, name) is not None for name in TARGETS)


def _read(files: Sequence[str], data: DataConfig, species: Sequence[int]) -> list[LabelledStructure]:
    found = read_structures(files, label_choice(data), data.group_key, species)
    for one in found:
        if not _labelled(one):
            raise DataError(f"{one.origin}: there is no energy, no forces and no stress to train on; {_hint(data)}")
    return found


def _hint(data: DataConfig) -> str:
    named = [f"{name}_key: {key}" for name, key in data.keys.items() if key is not None]
    return f"looked for {', '.join(named)}" if named else "energy_key, forces_key and stress_key in `data` name labels"


def _split(structures: list[LabelledStructure], fraction: float, seed: int) -> Parts:
    """A fraction of the structures, at least one, for validation: one at random of each stretch of similar ones.

    Similar are those of a group whose forces are of a size, so that the few hot ones are in both parts.
    """
    if not fraction:
        return Parts(structures, [])
    n_valid = max(1, round(fraction * len(structures)))
    if n_valid >= len(structures):
        raise DataError(f"{len(structures)} structures cannot be split into training and validation; allowed: valid: 0")
    order = sorted(range(len(structures)), key=lambda index: (*_kind(structures[index]), index))
    random = np.random.default_rng(seed)
    chosen = {int(random.choice(stretch)) for stretch in np.array_split(np.array(order), n_valid)}
    train = [one for index, one in enumerate(structures) if index not in chosen]
    return Parts(train, [structures[index] for index in sorted(chosen)])


def _kind(one: LabelledStructure) -> tuple[str, float]:
    forces = one.labels.forces
    return one.group or "", 0.0 if forces is None else float(np.square(forces).mean())


def _warn_of_repetition(parts: Parts, test: list[LabelledStructure], tell: Tell) -> None:
    named = {"validation": parts.valid, "test": test}
    for remark in (repetition(parts.train), *(repetition(parts.train, others, name) for name, others in named.items())):
        if remark is not None:
            tell(f"warning: {remark}")


def _description(name: str, samples: Samples) -> str:
    n, n_atoms, n_pairs = len(samples), int(samples.atom_ends[-1]), int(samples.pair_ends[-1])
    labels = ", ".join(f"{label} {count}" for label, count in zip(TARGETS, samples.has.sum(axis=0), strict=True))
    place = "; pairs on disk" if samples.on_disk() else ""
    return f"{name}: {n:,} structures, {n_atoms:,} atoms, {n_pairs:,} pairs; structures with {labels}{place}"
