"""Several structures as one input of a generated model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from ase import Atoms
from numpy.typing import NDArray
from torch import Tensor

from tensorgraph.errors import StructureError
from tensorgraph.model.labels import LabelChoice, Labels, cell_volume, read_labels
from tensorgraph.neighbours.arguments import checked_cutoff, checked_device, checked_dtype, each_structure
from tensorgraph.neighbours.lists import neighbour_pairs, species_name

FAR = 1e4  # Å; beyond any cutoff of a spec, far within the range of float32
NO_TARGETS = LabelChoice((), frozenset(), {})
NO_LABELS = Labels()
IN_DTYPE = ("displacements", "forces", "stress")  # what has the dtype of a batch; energies and volumes are float64


@dataclass(frozen=True)
class Batch:
    """Structures side by side. `numbers` [n_atoms], `pairs` [2, n_pairs] (central atom i, neighbour j), `displacements`
    [n_pairs, 3] r_j − r_i in Å, `structure` [n_atoms] the index of each atom's structure, `cutoff` (Å) the one within
    which pairs were listed, None if unknown: a model refuses a batch whose cutoff is smaller than its own.

    Of the targets that were asked for: `energy` [n_structures] in eV, always float64 (total energies are large),
    `forces` [n_atoms, 3] in eV/Å and `stress` [n_structures, 3, 3] in eV/Å³, ASE's sign. A model's virial divided by
    `volume` [n_structures] (Å³, float64) is what to compare the stress with. `has_energy`, `has_forces` and
    `has_stress` [n_structures] (bool) say which structures have the label; where one has none, zeros stand in its
    place, and a volume of 1.
    """

    numbers: Tensor
    pairs: Tensor
    displacements: Tensor
    structure: Tensor
    n_structures: int
    energy: Tensor | None = None
    forces: Tensor | None = None
    stress: Tensor | None = None
    volume: Tensor | None = None
    has_energy: Tensor | None = None
    has_forces: Tensor | None = None
    has_stress: Tensor | None = None
    cutoff: float | None = None

    @property
    def inputs(self) -> tuple[Tensor, Tensor, Tensor, Tensor, int, float | None]:
        """What a generated model takes: `model(*batch.inputs)`."""
        return self.numbers, self.pairs, self.displacements, self.structure, self.n_structures, self.cutoff

    def to(
        self,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        *,
        non_blocking: bool = False,
    ) -> Batch:
        """The batch on another device, or with another dtype of its displacements, forces and stresses, or both.

        Raises ValueError for a device that is not there and for a dtype other than float32 and float64.
        """
        place = None if device is None else checked_device(device)
        precision = None if dtype is None else checked_dtype(dtype)

        def moved(name: str, tensor: Tensor) -> Tensor:
            return tensor.to(place, precision if name in IN_DTYPE else None, non_blocking=non_blocking)

        return self._with_tensors(moved)

    def pin_memory(self) -> Batch:
        """The batch in memory that copies to a GPU faster; a `torch.utils.data.DataLoader` calls it."""
        return self._with_tensors(lambda _, tensor: tensor.pin_memory())

    def _with_tensors(self, change: Callable[[str, Tensor], Tensor]) -> Batch:
        held = {field.name: getattr(self, field.name) for field in fields(self)}
        changed: dict[str, Any] = {name: change(name, x) for name, x in held.items() if isinstance(x, Tensor)}
        return replace(self, **changed)

    def padded(self, n_atoms: int, n_pairs: int) -> Batch:
        """The batch with `n_atoms` atoms and `n_pairs` pairs, for what needs fixed shapes, such as a CUDA graph.

        The atoms that are added make up one more structure, which there always is, even if no atom is added. What a
        model gives for the atoms and structures that there were, it gives without the padding too, to rounding.
        Targets stay here.

        Raises ValueError for a batch without atoms, or one that has more atoms or pairs already.
        """
        atoms, pairs = n_atoms - len(self.numbers), n_pairs - self.pairs.shape[1]
        if atoms < 0 or pairs < 0 or not len(self.numbers):
            held = f"{len(self.numbers)} atoms and {self.pairs.shape[1]} pairs"
            least = f"at least {max(1, len(self.numbers))} atoms and {self.pairs.shape[1]} pairs, of a batch with atoms"
            raise ValueError(f"a batch of {held} cannot be padded to {n_atoms} and {n_pairs}; allowed: {least}")
        # Of the last atom with itself, so that pairs stay sorted and within one structure; too far apart to count.
        return Batch(
            numbers=torch.cat([self.numbers, self.numbers[:1].expand(atoms)]),
            pairs=torch.cat([self.pairs, self.pairs.new_full((2, pairs), n_atoms - 1)], dim=1),
            displacements=torch.cat([self.displacements, self.displacements.new_full((pairs, 3), FAR)]),
            structure=torch.cat([self.structure, self.structure.new_full((atoms,), self.n_structures)]),
            n_structures=self.n_structures + 1,
            cutoff=self.cutoff,
        )

    def take(self, chosen: Tensor) -> Batch:
        """The batch of some of its structures, by their indices `chosen` [n], in that order, or by a mask of them.

        Atoms and pairs must be sorted by structure, as `batch_structures` makes them. Raises TypeError for a tensor of
        another dtype, and ValueError for a mask of another length and for indices that do not exist.
        """
        chosen = self._indices(torch.as_tensor(chosen, device=self.structure.device))
        atom_counts = torch.bincount(self.structure, minlength=self.n_structures)
        pair_counts = torch.bincount(self.structure[self.pairs[0]], minlength=self.n_structures)
        atoms, pairs = _rows(atom_counts, chosen), _rows(pair_counts, chosen)
        moved = _starts(atom_counts[chosen]) - _starts(atom_counts)[chosen]

        def of(structures_or_atoms: Tensor, tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor[structures_or_atoms]

        per_structure = ("energy", "stress", "volume", "has_energy", "has_forces", "has_stress")
        return Batch(
            numbers=self.numbers[atoms],
            pairs=self.pairs[:, pairs] + moved.repeat_interleave(pair_counts[chosen]),
            displacements=self.displacements[pairs],
            structure=torch.arange(len(chosen), device=chosen.device).repeat_interleave(atom_counts[chosen]),
            n_structures=len(chosen),
            forces=of(atoms, self.forces),
            cutoff=self.cutoff,
            **{name: of(chosen, getattr(self, name)) for name in per_structure},
        )

    def _indices(self, chosen: Tensor) -> Tensor:
        """The indices of structures that a mask or a list of indices chooses."""
        if chosen.dtype == torch.bool:
            if chosen.shape != (self.n_structures,):
                raise ValueError(f"a mask of {list(chosen.shape)} for {self.n_structures} structures")
            return chosen.nonzero().flatten()
        if not chosen.numel():
            return chosen.to(torch.int64).flatten()
        if chosen.is_floating_point() or chosen.is_complex() or chosen.dim() != 1:
            raise TypeError(f"indices must be [n] of integers, not {list(chosen.shape)} of {chosen.dtype}")
        if not (int(chosen.min()) >= 0 and int(chosen.max()) < self.n_structures):
            raise ValueError(f"indices outside 0..{self.n_structures - 1}: {chosen.tolist()[:12]}")
        return chosen.to(torch.int64)


@dataclass(frozen=True)
class ListedStructure:
    """A structure with its pairs [2, n_pairs] and their displacements [n_pairs, 3] (Å), and the labels it carries."""

    atoms: Atoms
    pairs: NDArray[np.int64]
    displacements: NDArray[np.float64]
    labels: Labels = NO_LABELS


def batch_structures(
    structures: Atoms | Iterable[Atoms],
    cutoff: float,
    dtype: str | torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    targets: bool | str | Iterable[str] = False,
    species: Iterable[int] | None = None,
    *,
    optional: str | Iterable[str] = (),
    energy_key: str | None = None,
    forces_key: str | None = None,
    stress_key: str | None = None,
    virial_key: str | None = None,
) -> Batch:
    """The structures with all pairs within `cutoff` (Å), and the labels they carry.

    `structures` may be a single `Atoms`, and anything that can be iterated over. `targets` are names among "energy",
    "forces" and "stress"; True means energy and forces. Every structure must carry them, but for those in `optional`.
    `runtime.labels` tells where they are read, in which units and with which signs; a key given here is the only one
    that is looked for.

    Raises StructureError naming the structure and the atom: see `neighbour_pairs`; for an atomic number that is not in
    `species`, where those are given; and for labels that cannot be read: see `read_labels`. Raises TypeError and
    ValueError for other arguments that are wrong.
    """
    keys = {"energy": energy_key, "forces": forces_key, "stress": stress_key, "virial": virial_key}
    choice = LabelChoice.of(targets, optional, keys)
    cutoff, dtype, device = checked_cutoff(cutoff), checked_dtype(dtype), checked_device(device)
    species = None if species is None else tuple(species)  # read once per structure
    every = list(each_structure(structures))
    named = (lambda index: f"structure {index}: ") if len(every) > 1 else (lambda _: "")
    listed = [list_structure(atoms, cutoff, species, choice, named(index)) for index, atoms in enumerate(every)]
    return join_structures(listed, cutoff, dtype, device, choice)


def list_structure(
    atoms: Atoms, cutoff: float, species: Iterable[int] | None, choice: LabelChoice = NO_TARGETS, name: str = ""
) -> ListedStructure:
    """One structure of a batch; see `batch_structures` for the errors, which start with `name`."""
    try:
        if species is not None:
            check_species(atoms, species)
        pairs, displacements = neighbour_pairs(atoms, cutoff)
        return ListedStructure(atoms, pairs, displacements, read_labels(atoms, choice))
    except StructureError as error:
        raise StructureError(f"{name}{error}") from None


def join_structures(
    listed: Sequence[ListedStructure],
    cutoff: float,
    dtype: torch.dtype,
    device: torch.device,
    choice: LabelChoice = NO_TARGETS,
) -> Batch:
    """The batch of structures whose pairs are known."""
    sizes = np.array([len(one.atoms) for one in listed], dtype=np.int64)
    offsets = np.cumsum(sizes) - sizes
    pairs = [one.pairs + offset for one, offset in zip(listed, offsets, strict=True)]
    displacements = np.concatenate([np.zeros((0, 3)), *(one.displacements for one in listed)])
    numbers = np.concatenate([np.zeros(0, np.int64), *(one.atoms.numbers for one in listed)]).astype(np.int64)
    batch = Batch(
        numbers=torch.as_tensor(numbers),
        pairs=torch.as_tensor(np.concatenate([np.zeros((2, 0), np.int64), *pairs], axis=1)),
        displacements=torch.as_tensor(displacements),
        structure=torch.as_tensor(np.repeat(np.arange(len(sizes)), sizes)),
        n_structures=len(sizes),
        cutoff=cutoff,
        **_label_tensors(listed, choice.targets),
    )
    return batch.to(device, dtype)


def _label_tensors(listed: Sequence[ListedStructure], targets: Sequence[str]) -> dict[str, Tensor]:
    """The fields of a batch for these targets, with zeros for the labels that a structure does not have."""
    held = {name: [getattr(one.labels, name) for one in listed] for name in targets}
    fields = {f"has_{name}": np.array([label is not None for label in labels], bool) for name, labels in held.items()}
    if "energy" in held:
        fields["energy"] = np.array([label or 0.0 for label in held["energy"]], dtype=np.float64)
    if "forces" in held:
        filled = zip(listed, held["forces"], strict=True)
        forces = [np.zeros((len(one.atoms), 3)) if label is None else label for one, label in filled]
        fields["forces"] = np.concatenate([np.zeros((0, 3)), *forces])
    if "stress" in held:
        stresses = [np.zeros((3, 3)) if label is None else label for label in held["stress"]]
        fields["stress"] = np.array(stresses).reshape(-1, 3, 3)
        volumes = [1.0 if one.labels.stress is None else cell_volume(one.atoms) for one in listed]
        fields["volume"] = np.array(volumes, dtype=np.float64)
    return {name: torch.as_tensor(array) for name, array in fields.items()}


def check_species(atoms: Atoms, species: Iterable[int]) -> None:
    """Raise StructureError, naming the first atom whose atomic number is not in `species`."""
    known = sorted(species)
    unknown = np.flatnonzero(~np.isin(atoms.numbers, known))
    if unknown.size:
        index = int(unknown[0])
        symbols, unknown_name = " ".join(map(species_name, known)), species_name(int(atoms.numbers[index]))
        raise StructureError(f"atom {index} has the unknown species {unknown_name}; the model knows {symbols}")


def _starts(counts: Tensor) -> Tensor:
    """The first row of every structure, where structure s has `counts[s]` rows in a row."""
    return counts.cumsum(0) - counts


def _rows(counts: Tensor, chosen: Tensor) -> Tensor:
    """The rows of the chosen structures, where structure s has `counts[s]` rows in a row."""
    sizes = counts[chosen]
    moved = _starts(counts)[chosen] - _starts(sizes)
    return torch.arange(int(sizes.sum()), device=counts.device) + moved.repeat_interleave(sizes)
