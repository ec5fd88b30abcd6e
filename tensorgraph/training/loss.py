"""The loss: weighted mean squared errors of energies per atom, forces and stresses, and HIP-NN's penalty.

Means are over all labels of a batch, on however many processes it is spread: each process sums over its own share, and
divides by what the whole batch has.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tensorgraph.model.batch import Batch

TERMS = ("energy", "forces", "stress", "hierarchicality")


def error_sums(model: Any, batch: Batch, terms: tuple[str, ...] = TERMS, create_graph: bool = False) -> Tensor:
    """The sums over a batch, [4] (float64), of TERMS; zero for those that `terms` leaves out.

    Squared errors of energies per atom (eV²) over structures, of forces (eV²/Å²) and stresses (eV²/Å⁶) over components,
    and HIP-NN's hierarchicality over structures.
    """
    if {"forces", "stress"} & set(terms):
        found = model.energy_and_forces(*batch.inputs, create_graph=create_graph)
    else:
        found = model(*batch.inputs)
    zero = found.energy.sum() * 0
    sums = {name: getattr(_Sums, name)(found, batch) if name in terms else zero for name in TERMS}
    return torch.stack([sums[name].double() for name in TERMS])


class _Sums:
    """One term each; structures without the label do not count."""

    @staticmethod
    def energy(found: Any, batch: Any) -> Any:
        n_atoms = torch.bincount(batch.structure, minlength=batch.n_structures).clamp(min=1)
        per_atom = (found.energy - batch.energy) / n_atoms
        return (per_atom.square() * batch.has_energy).sum()

    @staticmethod
    def forces(found: Any, batch: Any) -> Any:
        counted = batch.has_forces[batch.structure].unsqueeze(1)
        return ((found.forces - batch.forces).square() * counted).sum(dtype=torch.float64)

    @staticmethod
    def stress(found: Any, batch: Any) -> Any:
        stress = found.virial / batch.volume[:, None, None].to(found.virial.dtype)
        return ((stress - batch.stress).square() * batch.has_stress[:, None, None]).sum(dtype=torch.float64)

    @staticmethod
    def hierarchicality(found: Any, _batch: Any) -> Any:
        return found.hierarchicality.sum()


class LossModule(torch.nn.Module):
    """A model with its loss, as one module that `DistributedDataParallel` can wrap."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch, factors: Mapping[str, float]) -> tuple[Tensor, Tensor]:
        """The loss Σ factor · sum, and the sums [4]; terms whose factor is zero are not computed."""
        terms = tuple(name for name in TERMS if factors[name])
        sums = error_sums(self.model, batch, terms, create_graph=True)
        weights = torch.tensor([factors[name] for name in TERMS], dtype=sums.dtype, device=sums.device)
        loss = (sums * weights).sum()
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            # Processes wait for a gradient of every parameter, which a share without some labels would not give.
            loss = loss + sum(0.0 * p.sum() for p in self.model.parameters() if p.requires_grad)
        return loss, sums.detach()
