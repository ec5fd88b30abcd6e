"""An ASE calculator for generated packages."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import (
    Calculator,
    CalculatorSetupError,
    PropertyNotImplementedError,
    all_changes,
)
from ase.stress import full_3x3_to_voigt_6_stress

from tensorgraph.errors import PackageError
from tensorgraph.runtime.batch import batch_structures
from tensorgraph.runtime.checkpoint import load_checkpoint
from tensorgraph.runtime.loading import load_package, package_directory

DTYPES = {"float32": torch.float32, "float64": torch.float64}


class TensorGraphCalculator(Calculator):
    """Energies, forces and stresses of a generated potential, in ASE's units (eV, Å) and signs.

    `energy` and `free_energy` (equal: there are no electrons here), `energies` [n_atoms], `forces` [n_atoms, 3], and
    `stress` [6] (Voigt order xx, yy, zz, yz, xz, xy): the strain derivative of the energy divided by the volume
    |det cell|, which includes the vacuum along directions that are not periodic. A system that is periodic in no
    direction, or whose cell has no volume, has no stress: asking for it raises PropertyNotImplementedError.

    Any mixture of periodic directions is allowed, and cells smaller than the cutoff. StructureError names the atom that
    has an unknown species, a position that is not finite, or the place of another atom, and tells of a singular cell.

    Copies and pickles carry the weights; a pickle needs the package in the same directory where it is read.
    """

    # ASE declares both on the instance, which a ClassVar would contradict.
    implemented_properties = ["energy", "free_energy", "energies", "forces", "stress"]  # noqa: RUF012
    ignored_changes = {"initial_charges", "initial_magmoms"}  # noqa: RUF012

    def __init__(
        self,
        package_dir: str | Path,
        checkpoint: str | Path | None = None,
        device: str = "cpu",
        dtype: str = "float64",
        **kwargs: Any,
    ) -> None:
        """`package_dir`: a generated package; `checkpoint`: its trained weights, or None for `Model(seed=0)`.

        Raises PackageError for a directory that holds no generated package with a network, CheckpointError for weights
        of another spec, and ValueError for a dtype other than float32 and float64.
        """
        super().__init__(**kwargs)
        if dtype not in DTYPES:
            raise ValueError(f"unknown dtype {dtype!r}; allowed: {', '.join(DTYPES)}")
        self.package = load_package(package_dir)
        self.model = _model(self.package, DTYPES[dtype], device)
        if checkpoint is not None:
            load_checkpoint(self.model, self.package, checkpoint)

    def __deepcopy__(self, memo: dict[int, Any]) -> TensorGraphCalculator:
        twin: TensorGraphCalculator = type(self).__new__(type(self))
        memo[id(self)] = twin
        memo[id(self.package)] = self.package  # a module is code, and there is one of it
        twin.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return twin

    def __getstate__(self) -> dict[str, Any]:
        """The state without package and model, whose code pickle would look for in a module that only we can import."""
        state = {name: value for name, value in self.__dict__.items() if name not in ("package", "model")}
        weights = {name: tensor.cpu() for name, tensor in self.model.state_dict().items()}
        where = {"directory": package_directory(self.package), "device": str(self.model.species.device)}
        return {"ase": state, "weights": weights, "digest": self.model.SPEC_DIGEST, "dtype": self.model.dtype, **where}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Raises PackageError where the package of the pickled calculator is gone, or was rebuilt for another spec."""
        self.__dict__.update(state["ase"])
        self.package = load_package(state["directory"])
        self.model = _model(self.package, state["dtype"], state["device"])
        if state["digest"] != self.model.SPEC_DIGEST:
            raise PackageError(f"{state['directory']} was rebuilt for another spec since the calculator was pickled")
        self.model.load_state_dict(state["weights"])

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Fill `results` with every property that the system has; see the class for errors."""
        super().calculate(atoms, list(properties), list(system_changes))
        self.results = {}  # an error below must not leave the results of other atoms behind
        if self.atoms is None:
            raise CalculatorSetupError("calculate() needs atoms, here or set before")
        volume = _volume(self.atoms)
        if "stress" in properties and volume is None:
            raise PropertyNotImplementedError("stress needs a cell with a volume and at least one periodic direction")
        prediction = self._predict(self.atoms)
        energy = float(prediction.energy[0])
        self.results = {
            "energy": energy,
            "free_energy": energy,
            "energies": prediction.energies.cpu().numpy().astype(np.float64),
            "forces": prediction.forces.cpu().numpy().astype(np.float64),
        }
        if volume is not None:
            stress = prediction.virial[0].cpu().numpy().astype(np.float64) / volume
            self.results["stress"] = full_3x3_to_voigt_6_stress(stress)

    def _predict(self, atoms: Atoms) -> Any:
        architecture = self.package.architecture
        species = [number for _, number in architecture.SPECIES]
        where = {"dtype": self.model.dtype, "device": self.model.species.device}
        batch = batch_structures([atoms], architecture.CUTOFF, **where, species=species)
        return self.model.energy_and_forces(*batch.inputs)


def _model(package: ModuleType, dtype: torch.dtype, device: str) -> Any:
    """A model of the package for use, not for training; weights come into it after its dtype, so that they keep theirs.

    Raises PackageError for a package without a network.
    """
    if not hasattr(package, "Model"):
        raise PackageError(f"{package_directory(package)} has no energies: its spec has no `network` section")
    model = package.Model(seed=0).to(device=device, dtype=dtype).requires_grad_(False)
    model.validate = False  # the neighbour list has checked everything, and said it in ASE's terms
    return model


def _volume(atoms: Atoms) -> float | None:
    """|det cell| in Å³, or None where a stress has no meaning."""
    if not np.isfinite(atoms.cell.array).all():
        return None  # a vector that is not periodic may be anything
    volume = abs(float(np.linalg.det(atoms.cell.array)))
    return volume if atoms.pbc.any() and volume > 0 else None
