"""Networks that hippynn itself builds and evaluates, as whole graphs from species and positions to forces."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from ase import Atoms
from ase.data import atomic_numbers
from torch import Tensor

from bench.published import quiet_hippynn

with quiet_hippynn():
    hippynn = pytest.importorskip("hippynn", reason="hippynn is a test dependency")
    from hippynn.graphs import GraphModule, inputs, networks, physics, targets
    from hippynn.layers.hiplayers import tensors

CUTOFF = 4.5
SPECIES = ("H", "C", "N", "O")


@dataclass(frozen=True)
class Graph:
    """A graph of hippynn in float64 whose weights are all random, and the module of each of its parts."""

    module: torch.nn.Module
    network: torch.nn.Module
    heads: torch.nn.Module
    species: tuple[str, ...]

    def energies_and_forces(self, structures: list[Atoms]) -> tuple[Tensor, Tensor]:
        """Energies [n_structures] and forces [n_atoms, 3], differentiable, of structures without periodicity."""
        longest = max(map(len, structures))
        numbers = torch.zeros(len(structures), longest, dtype=torch.long)
        positions = torch.zeros(len(structures), longest, 3, dtype=torch.float64)
        for row, atoms in enumerate(structures):
            numbers[row, : len(atoms)] = torch.from_numpy(atoms.numbers)
            positions[row, : len(atoms)] = torch.from_numpy(atoms.positions)
        with quiet_hippynn():
            energies, forces = self.module(numbers, positions)
        return energies.squeeze(1), forces[numbers > 0]

    def bare_state(self) -> dict[str, Tensor]:
        """Of the network and its energy alone, which does not say which element each input feature is."""
        return torch.nn.ModuleDict({"network": self.network, "energy": self.heads}).state_dict()

    def save(self, file: Path, whole: bool = True) -> Path:
        """What training with hippynn writes as best_model.pt, or the bare network and its energy."""
        torch.save(self.module.state_dict() if whole else self.bare_state(), file)
        return file


def graph(
    n_max: int | None = None,
    l_max: int = 0,
    species: tuple[str, ...] = SPECIES,
    first_is_interacting: bool = False,
    seed: int = 0,
    **options: Any,
) -> Graph:
    """A HIP-HOP-NN, or a HIP-NN without `n_max`; `options` are those of its class in hippynn."""
    settings = {
        "possible_species": [0, *(atomic_numbers[symbol] for symbol in species)],
        "n_features": 6,
        "n_sensitivities": 5,
        "dist_soft_min": 0.8,
        "dist_soft_max": 4.0,
        "dist_hard_max": CUTOFF,
        "n_interaction_layers": 2,
        "n_atom_layers": 1,
        **options,
    }
    with quiet_hippynn(), torch.random.fork_rng():
        torch.manual_seed(seed)
        parents = inputs.SpeciesNode("numbers"), inputs.PositionsNode("positions")
        if n_max is None:
            node = networks.Hipnn("network", parents, module_kwargs=settings)
        else:
            node = networks.HipHopnn("network", parents, module_kwargs={**settings, "n_max": n_max, "l_max": l_max})
            node.torch_module.tensor_extractor = exact_extractor(l_max)
        energy = targets.HEnergyNode("energy", node, first_is_interacting=first_is_interacting)
        forces = physics.GradientNode("forces", (energy, parents[1]), sign=-1)
        module = GraphModule(parents, [energy.main_output, forces.main_output]).double()
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.data *= 1 + 0.1 * torch.randn_like(parameter)
                parameter.data += 0.1 * torch.randn_like(parameter) * (parameter == 0)
    return Graph(module, node.torch_module, energy.torch_module, species)


def exact_extractor(l_max: int) -> torch.nn.Module:
    """hippynn computes its projectors in float32; these are the same ones in float64."""
    maps = {0: torch.ones((1, 1), dtype=torch.float64)}
    for rank in (1, 2, 3):
        maps[rank] = tensors.pinv_project(tensors.cartesian_irreducible_mapping(rank).double())
    return tensors.TensorExtractor(l_max=l_max, pmaps=maps)
