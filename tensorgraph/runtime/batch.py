"""Several structures as one input of a generated model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from torch import Tensor

from tensorgraph.errors import StructureError
from tensorgraph.runtime.neighbours import neighbour_pairs, species_name

FAR = 1e4  # Å; beyond any cutoff of a spec, far within the range of float32


@dataclass(frozen=True)
class Batch:
    """Structures side by side. `numbers` [n_atoms], `pairs` [2, n_pairs] (central atom i, neighbour j), `displacements`
    [n_pairs, 3] r_j − r_i in Å, `structure` [n_atoms] the index of each atom's structure; where targets were asked for,
    `energy` [n_structures] in eV, always float64 (total energies are large), and `forces` [n_atoms, 3] in eV/Å."""

    numbers: Tensor
    pairs: Tensor
    displacements: Tensor
    structure: Tensor
    n_structures: int
    energy: Tensor | None = None
    forces: Tensor | None = None

    @property
    def inputs(self) -> tuple[Tensor, Tensor, Tensor, Tensor, int]:
        """What a generated model takes: `model(*batch.inputs)`."""
        return self.numbers, self.pairs, self.displacements, self.structure, self.n_structures

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
        )

    def take(self, chosen: Tensor) -> Batch:
        """The batch of some of its structures, by their indices `chosen` [n] (int64), in that order.

        Atoms and pairs must be sorted by structure, as `batch_structures` makes them.
        """
        atom_counts = torch.bincount(self.structure, minlength=self.n_structures)
        pair_counts = torch.bincount(self.structure[self.pairs[0]], minlength=self.n_structures)
        atoms, pairs = _rows(atom_counts, chosen), _rows(pair_counts, chosen)
        moved = _starts(atom_counts[chosen]) - _starts(atom_counts)[chosen]
        return Batch(
            numbers=self.numbers[atoms],
            pairs=self.pairs[:, pairs] + moved.repeat_interleave(pair_counts[chosen]),
            displacements=self.displacements[pairs],
            structure=torch.arange(len(chosen), device=chosen.device).repeat_interleave(atom_counts[chosen]),
            n_structures=len(chosen),
            energy=None if self.energy is None else self.energy[chosen],
            forces=None if self.forces is None else self.forces[atoms],
        )


def batch_structures(
    structures: Sequence[Atoms],
    cutoff: float,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    targets: bool = False,
    species: Iterable[int] | None = None,
) -> Batch:
    """The structures with all pairs within `cutoff` (Å), and with `targets` the energies and forces they carry.

    Raises StructureError naming the structure and the atom: see `neighbour_pairs`; for an atomic number that is not in
    `species`, where those are given; and for a structure whose energy or forces are missing, or not finite, where
    `targets` asks for them.
    """
    species = None if species is None else tuple(species)  # read once per structure
    parts = [_part(index, atoms, cutoff, species, len(structures)) for index, atoms in enumerate(structures)]
    sizes = np.array([len(atoms) for atoms in structures], dtype=np.int64)
    offsets = np.cumsum(sizes) - sizes
    pairs = [pairs + offset for (pairs, _), offset in zip(parts, offsets, strict=True)]
    displacements = np.concatenate([np.zeros((0, 3)), *(part[1] for part in parts)])
    energy, forces = _targets(structures) if targets else (None, None)
    return Batch(
        numbers=torch.as_tensor(_joined([atoms.numbers for atoms in structures]), device=device),
        pairs=torch.as_tensor(np.concatenate([np.zeros((2, 0), np.int64), *pairs], axis=1), device=device),
        displacements=torch.as_tensor(displacements, dtype=dtype, device=device),
        structure=torch.as_tensor(np.repeat(np.arange(len(sizes)), sizes), device=device),
        n_structures=len(sizes),
        energy=None if energy is None else torch.as_tensor(energy, dtype=torch.float64, device=device),
        forces=None if forces is None else torch.as_tensor(forces, dtype=dtype, device=device),
    )


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


def _part(
    index: int, atoms: Atoms, cutoff: float, species: Iterable[int] | None, n_structures: int
) -> tuple[np.ndarray, np.ndarray]:
    try:
        if species is not None:
            check_species(atoms, species)
        return neighbour_pairs(atoms, cutoff)
    except StructureError as error:
        raise StructureError(f"structure {index}: {error}" if n_structures > 1 else str(error)) from None


def _joined(arrays: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.int64), *arrays]).astype(np.int64)


def _targets(structures: Sequence[Atoms]) -> tuple[np.ndarray, np.ndarray]:
    """Energies [n_structures] (eV) and forces [n_atoms, 3] (eV/Å) that the structures' calculators hold."""
    energies, forces = [], [np.zeros((0, 3))]
    for index, atoms in enumerate(structures):
        try:
            energies.append(atoms.get_potential_energy())
            forces.append(atoms.get_forces(apply_constraint=False))
        except (RuntimeError, PropertyNotImplementedError) as error:
            raise StructureError(f"structure {index} carries no energy and forces: {error}") from None
        if not (np.isfinite(energies[-1]) and np.isfinite(forces[-1]).all()):
            raise StructureError(f"structure {index} carries an energy or forces that are not finite")
    return np.array(energies, dtype=np.float64), np.concatenate(forces)
