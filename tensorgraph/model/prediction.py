"""A model on many structures: batches of bounded size, results structure by structure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.stress import full_3x3_to_voigt_6_stress
from numpy.typing import NDArray

from tensorgraph.errors import StructureError
from tensorgraph.model.batch import ListedStructure, join_structures, list_structure
from tensorgraph.model.labels import cell_volume
from tensorgraph.model.unwrapping import unwrapped
from tensorgraph.neighbours.arguments import checked_count, checked_cutoff, each_structure

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class StructurePrediction:
    """What a model gives for a structure, in ASE's units and signs: `energy` in eV, `energies` [n_atoms], `forces`
    [n_atoms, 3] in eV/Å and `stress` [6] (Voigt order xx, yy, zz, yz, xz, xy) in eV/Å³, None without a volume."""

    energy: float
    energies: Floats
    forces: Floats
    stress: Floats | None


def predict(
    model: Any,
    structures: Atoms | Iterable[Atoms],
    cutoff: float,
    *,
    max_pairs: int = 100_000,
    max_atoms: int = 5_000,
) -> Iterator[StructurePrediction]:
    """Energies, forces and stresses of structures, in their order, with the device and dtype of `model`.

    `structures` is read as far as needed, and so may be a generator without end. At most `max_pairs` pairs and
    `max_atoms` atoms are evaluated at once, which bounds the memory; a single structure with more is evaluated alone.
    `cutoff` (Å) is the model's: `package.architecture.CUTOFF`.

    Raises StructureError as `batch_structures` does, the number of the structure in front, and for a result that is not
    finite; TypeError and ValueError for other arguments that are wrong, at once.
    """
    limits = checked_count("max_pairs", max_pairs), checked_count("max_atoms", max_atoms)
    return _predictions(model, each_structure(structures), checked_cutoff(cutoff), *limits)


def finite(results: dict[str, Any], name: str = "") -> dict[str, Any]:
    """The results. Raises StructureError for one that is not finite: atoms so close that the model overflows."""
    for property_, value in results.items():
        if value is not None and not np.isfinite(value).all():
            raise StructureError(f"{name}the model's {property_} is not finite: the structure is out of its range")
    return results


def _predictions(
    model: Any, structures: Iterator[Atoms], cutoff: float, max_pairs: int, max_atoms: int
) -> Iterator[StructurePrediction]:
    model = model if hasattr(model, "energy_and_forces") else unwrapped(model)
    species = model.species.tolist()
    held: list[ListedStructure] = []
    pairs = atoms = first = 0
    for index, structure in enumerate(structures):
        try:  # of a copy: a generator may change its structure in place
            listed = list_structure(structure.copy(), cutoff, species, name=f"structure {index}: ")
        except StructureError:
            yield from _of_batch(model, held, cutoff, first)
            raise
        if held and (pairs + listed.pairs.shape[1] > max_pairs or atoms + len(structure) > max_atoms):
            yield from _of_batch(model, held, cutoff, first)
            held, pairs, atoms, first = [], 0, 0, index
        held.append(listed)
        pairs, atoms = pairs + listed.pairs.shape[1], atoms + len(structure)
    yield from _of_batch(model, held, cutoff, first)


def _of_batch(model: Any, held: list[ListedStructure], cutoff: float, first: int) -> Iterator[StructurePrediction]:
    if not held:
        return
    batch = join_structures(held, cutoff, model.dtype, model.species.device)
    found = model.energy_and_forces(*batch.inputs)
    energy, energies, forces, virial = (
        tensor.cpu().numpy().astype(np.float64) for tensor in (found.energy, found.energies, found.forces, found.virial)
    )
    ends = np.cumsum([len(one.atoms) for one in held])
    for index, (one, end) in enumerate(zip(held, ends, strict=True)):
        mine, volume = slice(end - len(one.atoms), end), cell_volume(one.atoms)
        results = {
            "energy": float(energy[index]),
            "energies": energies[mine].copy(),
            "forces": forces[mine].copy(),
            "stress": None if volume is None else full_3x3_to_voigt_6_stress(virial[index] / volume),
        }
        yield StructurePrediction(**finite(results, f"structure {first + index}: "))
