"""What the battery is run on: a model of a generated package, on one device and in one dtype."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from ase import Atoms

from tensorgraph.errors import PackageError
from tensorgraph.potential import load_model, open_potential
from tensorgraph.runtime.batch import Batch, batch_structures


@dataclass(frozen=True)
class Subject:
    """A potential under test.

    `model` is a `Model` of `package` or whatever answers to `energy_and_forces`, `dtype` and `species` as it does:
    checks ask nothing else of it, so that the tests can give them one that is broken. Those of backends, precision and
    determinism also need a torch module, for its weights and to convert a copy of it.
    """

    package: ModuleType
    model: Any

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        found: torch.dtype = self.model.dtype
        return found

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        found: torch.device = self.model.species.device
        return found

    @property
    def cutoff(self) -> float:
        """In Å."""
        return float(self.package.architecture.CUTOFF)

    @property
    def species(self) -> list[int]:
        """Atomic numbers."""
        return [number for _, number in self.package.architecture.SPECIES]

    def batch(self, structures: Sequence[Atoms]) -> Batch:
        """The structures as input of the model."""
        return batch_structures(structures, self.cutoff, self.dtype, self.device)

    def predict(self, structures: Sequence[Atoms], create_graph: bool = False) -> Any:
        """The model's energy, energies, forces and virial: see `EnergyAndForces` of the package."""
        return self.model.energy_and_forces(*self.batch(structures).inputs, create_graph=create_graph)


def subject_of(
    path: str | Path,
    checkpoint: str | Path | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float64,
) -> Subject:
    """The potential in a package, in a package with a checkpoint, or in a checkpoint alone.

    A package without a checkpoint gets the weights of `Model(seed=0)`. Raises PackageError and CheckpointError as
    `open_potential` and `load_model` do.
    """
    package, weights = open_potential(path, checkpoint)
    if not hasattr(package, "Model"):
        raise PackageError(f"{path} has no Model; allowed: the package of a spec with a network")
    if weights is not None:
        return Subject(package, load_model(weights, device, dtype, package=package))
    return Subject(package, package.Model(seed=0).to(device=device, dtype=dtype))
