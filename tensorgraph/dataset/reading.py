"""Labelled structures: what files hold of structures, energies, forces and stresses, with where each stands."""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from ase import Atoms

from tensorgraph.dataset.files import frames_of
from tensorgraph.dataset.structure import LabelledStructure, Origin
from tensorgraph.errors import DataError, StructureError
from tensorgraph.model.batch import check_species
from tensorgraph.model.labels import LabelChoice, read_labels

GROUP_KEYS = ("group", "config_type")


def read_structures(
    files: Sequence[str | Path],
    choice: LabelChoice,
    group_key: str | None = None,
    species: Iterable[int] | None = None,
) -> list[LabelledStructure]:
    """All structures of all files, in their order: anything that ASE reads, compressed files too.

    `choice` says which labels are read and which of them a structure may lack (`runtime.labels`), `group_key` which
    entry of `atoms.info` names its group, and `species` which atomic numbers are allowed (default: all). ASE's warnings
    are not held back.

    Raises DataError for a file that cannot be read (see `frames_of`), a structure without atoms and a `group_key` that
    no structure has; StructureError for positions, cells or labels that are not finite, an element not among `species`,
    and labels as `read_labels` does. Each message begins with the file and the frame.
    """
    if isinstance(files, str | Path):
        raise TypeError(f"files must be a list of files, not {type(files).__name__}")
    allowed = None if species is None else sorted(species)
    found = []
    for file in files:
        for frame, atoms in enumerate(frames_of(file)):
            found.append(_labelled(atoms, Origin(str(file), frame), choice, group_key, allowed))
    if group_key is not None and not any(one.group is not None for one in found):
        raise DataError(f"{', '.join(map(str, files))}: no structure carries the group key {group_key!r}")
    return found


def _labelled(
    atoms: Atoms, origin: Origin, choice: LabelChoice, group_key: str | None, species: list[int] | None
) -> LabelledStructure:
    if not len(atoms):
        raise DataError(f"{origin}: the structure has no atoms")
    try:
        _check_finite(atoms)
        if species is not None:
            check_species(atoms, species)
        labels = read_labels(atoms, choice)
    except StructureError as error:
        raise StructureError(f"{origin}: {error}") from None
    group = _group(atoms, origin, GROUP_KEYS if group_key is None else (group_key,))
    atoms.calc = None
    return LabelledStructure(atoms, labels, origin, group)


def _check_finite(atoms: Atoms) -> None:
    wrong = np.flatnonzero(~np.isfinite(atoms.positions).all(axis=1))
    if wrong.size:
        raise StructureError(f"the position of atom {wrong[0]} ({atoms.symbols[wrong[0]]}) is not finite")
    if not np.isfinite(atoms.cell.array[atoms.pbc]).all():
        raise StructureError("a periodic cell vector is not finite")


def _group(atoms: Atoms, origin: Origin, keys: Sequence[str]) -> str | None:
    for key in keys:
        if key in atoms.info:
            value = atoms.info[key]
            if not isinstance(value, str | numbers.Number | np.generic):
                raise DataError(f"{origin}: info[{key!r}] is {type(value).__name__}; allowed: text or a number")
            return str(value)
    return None


def key_of_no_structure(structures: Sequence[LabelledStructure], choice: LabelChoice) -> tuple[str, str] | None:
    """The first label whose key the caller named, with that key, that no structure has; None where all are there."""
    for name, key in choice.keys.items():
        target = "stress" if name == "virial" else name
        if all(getattr(one.labels, target) is None for one in structures):
            return name, key
    return None
