"""Labelled structures with their pairs, listed once and kept as flat arrays: in memory, or on disk if they are many."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray

from tensorgraph.dataset import LabelledStructure
from tensorgraph.errors import DataError, StructureError
from tensorgraph.model.batch import Batch, list_structure
from tensorgraph.model.labels import TARGETS, cell_volume

Integers = NDArray[np.int64]
GIGABYTE = 2**30


@dataclass(frozen=True)
class Samples:
    """`n` structures. Of every atom: numbers [n_atoms] and forces [n_atoms, 3] in eV/Å; of every pair: pairs [n_pairs,
    2] (indices within its structure) and displacements [n_pairs, 3] in Å; of every structure: energy [n] in eV, stress
    [n, 3, 3] in eV/Å³, volume [n] in Å³, and has [n, 3]: whether it has an energy, forces and a stress.

    Atoms of structure s are those from `atom_ends[s]` to `atom_ends[s + 1]`; pairs likewise. `digest` is a SHA-256 of
    structures and labels.
    """

    numbers: NDArray[np.int64]
    forces: NDArray[np.floating]
    pairs: NDArray[np.int32]
    displacements: NDArray[np.floating]
    energy: NDArray[np.float64]
    stress: NDArray[np.float64]
    volume: NDArray[np.float64]
    has: NDArray[np.bool_]
    atom_ends: Integers
    pair_ends: Integers
    cutoff: float
    digest: str

    def __len__(self) -> int:
        return len(self.energy)

    @property
    def n_atoms(self) -> Integers:
        """Of every structure, [n]."""
        return np.diff(self.atom_ends)

    @property
    def n_pairs(self) -> Integers:
        """Of every structure, [n]."""
        return np.diff(self.pair_ends)

    def on_disk(self) -> bool:
        """Whether the pairs are read from the disk."""
        return isinstance(self.displacements, np.memmap)

    def batch(self, chosen: Sequence[int] | Integers, dtype: torch.dtype, device: torch.device) -> Batch:
        """The structures with these indices, in this order."""
        chosen = np.asarray(chosen, dtype=np.int64)
        sizes, n_pairs = (ends[chosen + 1] - ends[chosen] for ends in (self.atom_ends, self.pair_ends))
        offsets = np.repeat(np.cumsum(sizes) - sizes, n_pairs)
        has = torch.as_tensor(self.has[chosen])
        batch = Batch(
            numbers=torch.as_tensor(_rows(self.numbers, self.atom_ends, chosen)),
            pairs=torch.as_tensor((_rows(self.pairs, self.pair_ends, chosen) + offsets[:, None]).T.copy()),
            displacements=torch.as_tensor(_rows(self.displacements, self.pair_ends, chosen)),
            structure=torch.as_tensor(np.repeat(np.arange(len(chosen)), sizes)),
            n_structures=len(chosen),
            energy=torch.as_tensor(self.energy[chosen]),
            forces=torch.as_tensor(_rows(self.forces, self.atom_ends, chosen)),
            stress=torch.as_tensor(self.stress[chosen]),
            volume=torch.as_tensor(self.volume[chosen]),
            has_energy=has[:, 0],
            has_forces=has[:, 1],
            has_stress=has[:, 2],
            cutoff=self.cutoff,
        )
        return batch.to(device, dtype)

    def label_counts(self, chosen: Sequence[int] | Integers) -> dict[str, int]:
        """How many numbers the chosen structures have of each term of the loss."""
        chosen = np.asarray(chosen, dtype=np.int64)
        has, sizes = self.has[chosen], self.atom_ends[chosen + 1] - self.atom_ends[chosen]
        energy, forces, stress = has[:, 0].sum(), 3 * sizes[has[:, 1]].sum(), 9 * has[:, 2].sum()
        return {
            "energy": int(energy),
            "forces": int(forces),
            "stress": int(stress),
            "hierarchicality": int(sizes.sum()),
        }


def list_samples(
    structures: Iterable[LabelledStructure],
    cutoff: float,
    species: Iterable[int],
    dtype: DTypeLike,
    memory: float,
    folder: Path,
) -> Samples:
    """The structures with their pairs within `cutoff` (Å); beyond `memory` (GB), in unnamed files in `folder`.

    Raises DataError, naming file and frame, for a structure that the model cannot take, and where the disk is full.
    """
    columns = _Columns(memory * GIGABYTE, folder)
    species, digest, ends = tuple(species), hashlib.sha256(), [(0, 0)]
    per_structure: list[dict[str, Any]] = []
    for one in structures:
        atoms, labels = one.atoms, one.labels
        try:
            listed = list_structure(atoms, cutoff, species)
        except StructureError as error:
            raise DataError(f"{one.origin}: {error}") from None
        forces = np.zeros((len(atoms), 3)) if labels.forces is None else labels.forces
        columns.append("numbers", atoms.numbers.astype(np.int64))
        columns.append("forces", forces.astype(dtype))
        columns.append("pairs", listed.pairs.T.astype(np.int32))
        columns.append("displacements", listed.displacements.astype(dtype))
        per_structure.append(_scalars(one))
        ends.append((ends[-1][0] + len(atoms), ends[-1][1] + listed.pairs.shape[1]))
        for part in _identity(one):
            digest.update(part)
    atom_ends, pair_ends = np.array(ends, dtype=np.int64).T
    stacked = {key: np.array([one[key] for one in per_structure]) for key in ("energy", "stress", "volume", "has")}
    return Samples(**columns.finish(dtype), **stacked, atom_ends=atom_ends, pair_ends=pair_ends, cutoff=cutoff,
                   digest=digest.hexdigest())  # fmt: skip


def _scalars(one: LabelledStructure) -> dict[str, Any]:
    labels, volume = one.labels, cell_volume(one.atoms)
    return {
        "energy": 0.0 if labels.energy is None else labels.energy,
        "stress": np.zeros((3, 3)) if labels.stress is None else labels.stress,
        "volume": 1.0 if volume is None else volume,
        "has": [getattr(labels, name) is not None for name in TARGETS],
    }


def _identity(one: LabelledStructure) -> Iterator[bytes]:
    """The bytes by which the digest tells structures and labels apart."""
    atoms, labels = one.atoms, one.labels
    yield repr((len(atoms), atoms.pbc.tolist(), labels.energy)).encode()
    for array in (atoms.numbers, atoms.positions, atoms.cell.array, labels.forces, labels.stress):
        yield b"none" if array is None else np.ascontiguousarray(array).tobytes()


def _rows(array: NDArray[Any], ends: Integers, chosen: Integers) -> NDArray[Any]:
    """The rows of the chosen structures."""
    parts = [array[ends[index] : ends[index + 1]] for index in chosen]
    return np.concatenate(parts) if parts else np.array(array[:0])


class _Columns:
    """Arrays that grow row by row; on disk from when they are larger than `limit` bytes together."""

    NAMES: Mapping[str, int] = {"numbers": 1, "forces": 3, "pairs": 2, "displacements": 3}

    def __init__(self, limit: float, folder: Path) -> None:
        self.limit, self.folder, self.size = limit, folder, 0
        self.parts: dict[str, list[NDArray[Any]]] = {name: [] for name in self.NAMES}
        self.files: dict[str, Any] = {}

    def append(self, name: str, rows: NDArray[Any]) -> None:
        self.size += rows.nbytes
        self.parts[name].append(rows)
        if self.size > self.limit:
            self._to_disk()

    def _to_disk(self) -> None:
        try:
            for name, parts in self.parts.items():
                if name not in self.files:  # it has no name, so that nothing stays of a process that was killed
                    self.folder.mkdir(parents=True, exist_ok=True)
                    self.files[name] = tempfile.TemporaryFile(dir=self.folder)  # noqa: SIM115
                for part in parts:
                    self.files[name].write(np.ascontiguousarray(part).data)
                parts.clear()
        except OSError as error:
            raise DataError(f"the pairs cannot be kept in {self.folder}: {error.strerror or error}") from error

    def finish(self, dtype: DTypeLike) -> dict[str, NDArray[Any]]:
        """The whole arrays, those on disk mapped into memory."""
        types = {"numbers": np.int64, "forces": dtype, "pairs": np.int32, "displacements": dtype}
        shapes = {name: (-1, width) if width > 1 else (-1,) for name, width in self.NAMES.items()}
        if not self.files:
            empty = {name: np.zeros(0, dtype=types[name]) for name in self.NAMES}
            return {name: np.concatenate([empty[name].reshape(shapes[name]), *self.parts[name]]) for name in self.NAMES}
        self._to_disk()
        arrays: dict[str, NDArray[Any]] = {}
        for name, file in self.files.items():
            file.flush()
            arrays[name] = np.memmap(file, types[name], "r").reshape(shapes[name])
            file.close()  # the mapping stays
        return arrays
