"""Generated potentials in torch-sim (`pip install 'tensorgraph[torch-sim]'`): many systems relaxed or moved at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from ase import Atoms
from torch import Tensor
from torch_sim import SimState
from torch_sim.models.interface import ModelInterface

from tensorgraph.calculator import TensorGraphCalculator
from tensorgraph.errors import StructureError
from tensorgraph.model.batch import check_species
from tensorgraph.model.labels import cell_volume
from tensorgraph.neighbours.lists import neighbour_tensors


class TensorGraphModel(ModelInterface):
    """Energies, forces and stresses of the systems of a torch-sim state, equal to those of `TensorGraphCalculator`.

    A call with a `SimState`, or the dictionary of its fields, gives `energy` [n_systems] in eV, `forces` [n_atoms, 3]
    in eV/Å and `stress` [n_systems, 3, 3] in eV/Å³, positive under tension as in ASE, all in the dtype of the model.
    States without a periodic direction, or with a cell without a volume, have no `stress`.

    Raises StructureError for an unknown species, coincident atoms, a position that is not finite, a singular cell
    or results that are not finite, and TypeError for a state of another dtype than the model's.
    """

    def __init__(
        self,
        package_dir: str | Path,
        checkpoint: str | Path | None = None,
        device: str | torch.device = "cpu",
        dtype: str | torch.dtype = torch.float64,
    ) -> None:
        """Arguments and errors are those of `TensorGraphCalculator`."""
        super().__init__()
        name = str(dtype).removeprefix("torch.")
        calculator = TensorGraphCalculator(package_dir, checkpoint, str(device), name)
        self.model, self._architecture = calculator.model, calculator.package.architecture
        self._device, self._dtype = torch.device(device), self.model.dtype
        self._compute_stress = self._compute_forces = True

    def forward(self, state: SimState | dict[str, Any], **_: Any) -> dict[str, Tensor]:
        """The properties of every system; see the class for shapes, units and errors."""
        if isinstance(state, dict):
            state = SimState(**{"masses": torch.ones_like(state["positions"][:, 0]), **state})
        check_species(Atoms(numbers=state.atomic_numbers.cpu().numpy()), [n for _, n in self._architecture.SPECIES])
        cells = state.cell.mT.detach()  # its columns are the vectors of the cell
        pairs, displacements = self._pairs(state, cells)
        numbers, structure = state.atomic_numbers.to(torch.int64), state.system_idx.to(torch.int64)
        result = self.model.energy_and_forces(numbers, pairs, displacements, structure, len(cells))
        properties = {"energy": result.energy.to(self.dtype), "forces": result.forces}
        _check_finite(properties["energy"], result.forces, structure)
        volumes = [cell_volume(Atoms(cell=cell, pbc=_periodic(state))) for cell in cells.double().cpu().numpy()]
        if None not in volumes:
            scale = torch.tensor(volumes, dtype=torch.float64, device=cells.device)
            properties["stress"] = (result.virial / scale[:, None, None]).to(self.dtype)
        return properties

    def _pairs(self, state: SimState, cells: Tensor) -> tuple[Tensor, Tensor]:
        """Pairs [2, n_pairs] and displacements [n_pairs, 3] of all systems, whose atoms stand one after another."""
        pairs, displacements, first = [], [], 0
        counts = torch.bincount(state.system_idx, minlength=len(cells)).tolist()
        for positions, cell in zip(state.positions.detach().split(counts), cells, strict=True):
            found, vectors = neighbour_tensors(positions, cell, _periodic(state), self._architecture.CUTOFF)
            pairs.append(found + first)
            displacements.append(vectors)
            first += len(positions)
        return torch.cat(pairs, dim=1), torch.cat(displacements)


def _check_finite(energy: Tensor, forces: Tensor, structure: Tensor) -> None:
    """Raises StructureError that names the first system whose energy or forces are not finite."""
    wrong = ~energy.isfinite()
    wrong[structure[~forces.isfinite().all(dim=1)]] = True
    if wrong.any():
        raise StructureError(f"system {int(wrong.nonzero()[0])}: the model's energy and forces are not finite")


def _periodic(state: SimState) -> list[bool]:
    """For each direction; torch-sim's states hold one value for all three, or one for each."""
    periodic: list[bool] = torch.as_tensor(state.pbc).expand(3).tolist()
    return periodic
