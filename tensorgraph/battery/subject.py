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
from tensorgraph.model.batch import Batch, batch_structures
from tensorgraph.model.loading import package_directory
from tensorgraph.potential import load_model


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
    package: ModuleType,
    weights: str | Path | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float64,
) -> Subject:
    """The potential of a package and the weights in a checkpoint, such as `open_potential` gives; without, of
    `Model(seed=0)`.

    Raises PackageError for a package without a network, and CheckpointError as `load_model` does.
    """
    if weights is not None:
        return Subject(package, load_model(weights, device, dtype, package=package))
    if not hasattr(package, "Model"):
        raise PackageError(f"{package_directory(package)} has no Model; allowed: the package of a spec with a network")
    return Subject(package, package.Model(seed=0).to(device=device, dtype=dtype))
