"""A MACE model of comparable size, built from the classes of the package `mace-torch`, with random weights."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from tensorgraph.model.batch import batch_structures

CHANNELS = 128
SHAPE = {
    "hidden_irreps": f"{CHANNELS}x0e + {CHANNELS}x1o",
    "num_interactions": 2,
    "max_ell": 3,
    "correlation": 3,
    "num_bessel": 8,
    "num_polynomial_cutoff": 5,
    "MLP_irreps": "16x0e",
}


class MaceModel:
    """Energy and forces of one structure in float32; its pairs are found once, at construction."""

    def __init__(self, atoms: Atoms, species: Sequence[int], cutoff: float, device: str) -> None:
        self.batch = batch_structures([atoms], cutoff, torch.float32, device)
        self.data = self._data(atoms, species, device)
        n_neighbours = self.batch.pairs.shape[1] / max(len(atoms), 1)
        self.model = _network(species, cutoff, n_neighbours).to(device)
        for parameter in self.model.parameters():  # as its own calculator does: forces need no slopes of weights
            parameter.requires_grad = False

    def _data(self, atoms: Atoms, species: Sequence[int], device: str) -> dict[str, Tensor]:
        """What MACE takes: positions (Å), and for every pair the shift (Å) that makes their difference its vector."""
        pairs, displacements = self.batch.pairs, self.batch.displacements.double()
        positions = torch.as_tensor(atoms.positions, device=device)
        shifts = displacements - (positions[pairs[1]] - positions[pairs[0]])
        one_hot = self.batch.numbers[:, None] == torch.tensor(species, device=device)
        return {
            "positions": positions.float(),
            "node_attrs": one_hot.float(),
            "edge_index": pairs,
            "shifts": shifts.float(),
            "unit_shifts": torch.zeros_like(shifts).float(),  # read for stresses alone
            "cell": torch.zeros(3, 3, device=device),  # likewise
            "batch": self.batch.structure,
            "ptr": torch.tensor([0, len(atoms)], device=device),
        }

    def energy_and_forces(self) -> list[Tensor]:
        """Energy [1] (eV) and forces [n_atoms, 3] (eV/Å)."""
        found = self.model(dict(self.data), compute_force=True)
        return [found["energy"].detach(), found["forces"]]


def _network(species: Sequence[int], cutoff: float, n_neighbours: float) -> torch.nn.Module:
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")  # about optional packages, and about how e3nn makes its code
        torch.serialization.add_safe_globals([slice])  # e3nn reads a table of its own that has slices
        torch.manual_seed(0)
        from e3nn.o3 import Irreps
        from mace.modules import ScaleShiftMACE
        from mace.modules.blocks import RealAgnosticResidualInteractionBlock

        shape = {key: Irreps(value) if key.endswith("irreps") else value for key, value in SHAPE.items()}
        return ScaleShiftMACE(
            **shape,
            r_max=cutoff,
            atomic_numbers=list(species),
            num_elements=len(species),
            atomic_energies=np.zeros(len(species)),
            avg_num_neighbors=n_neighbours,
            interaction_cls=RealAgnosticResidualInteractionBlock,
            interaction_cls_first=RealAgnosticResidualInteractionBlock,
            gate=torch.nn.functional.silu,
            atomic_inter_scale=1.0,
            atomic_inter_shift=0.0,
        )
