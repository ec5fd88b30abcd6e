"""An ASE calculator for generated packages."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from os import PathLike
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
from ase.outputs import Properties, all_outputs
from ase.stress import full_3x3_to_voigt_6_stress
from numpy.typing import NDArray

from tensorgraph.errors import PackageError
from tensorgraph.model.batch import Batch, ListedStructure, check_species, join_structures
from tensorgraph.model.checkpoint import load_checkpoint
from tensorgraph.model.derivatives import atomic_virials, hessian, layer_energies
from tensorgraph.model.labels import cell_volume
from tensorgraph.model.loading import load_package, package_directory
from tensorgraph.model.prediction import finite
from tensorgraph.neighbours.arguments import check_keywords, checked_cutoff, checked_device, checked_dtype
from tensorgraph.neighbours.skin import SkinnedNeighbours

ASE_KEYWORDS = ("atoms", "label", "directory")
"""What ASE's calculators take besides their own parameters."""

SKIN = 0.5
"""Å; of 0.3, 0.5, 1.0 and 1.5 the fastest for 20 to 1,500 atoms of water at 300 K, or close to it."""

ON_REQUEST = {"hessian": hessian, "layer_energies": layer_energies}
"""Properties that ASE has no names for."""


class CheckedCalculator(Calculator):
    """What calculators of potentials share: requests that are checked, and results that ASE has no names for."""

    ignored_changes = {"initial_charges", "initial_magmoms"}  # noqa: RUF012

    def set(self, **kwargs: Any) -> dict[str, Any]:
        """There are no parameters to set, so every keyword is a TypeError."""
        check_keywords(f"{type(self).__name__}.set()", kwargs, ())
        return {}

    def begin(self, atoms: Atoms | None, properties: str | Sequence[str] | None) -> tuple[Atoms, list[str]]:
        """Forget all results and take the atoms, by default those set before; they, and the properties by name.

        Raises PropertyNotImplementedError for a property that is not known, TypeError for what is no `Atoms`, and
        CalculatorSetupError where there are none.
        """
        self.results = {}  # an error must not leave the results of other atoms behind
        wanted = _checked_properties(self, properties)
        if not (atoms is None or isinstance(atoms, Atoms)):
            raise TypeError(f"calculate() needs ase.Atoms, not {type(atoms).__name__}")
        Calculator.calculate(self, atoms, wanted, list(all_changes))
        if self.atoms is None:
            raise CalculatorSetupError("calculate() needs atoms, here or set before")
        return self.atoms, wanted

    def export_properties(self) -> Properties:
        """The results that ASE has names for."""
        return Properties({name: value for name, value in self.results.items() if name in all_outputs})


class TensorGraphCalculator(CheckedCalculator):
    """Energies, forces and stresses of a generated potential, in ASE's units (eV, Å) and signs.

    `energy` and `free_energy` (equal: there are no electrons here), `energies` [n_atoms], `forces` [n_atoms, 3], and
    `stress` [6] (Voigt order xx, yy, zz, yz, xz, xy): the strain derivative of the energy divided by the volume
    |det cell|, which includes the vacuum along directions that are not periodic. A system that is periodic in no
    direction, or whose cell has no volume, has no stress: asking for it raises PropertyNotImplementedError.

    Only on request, for they cost more: `stresses` [n_atoms, 6], which sum to the stress, and two that ASE has no names
    for and therefore writes to no file, `hessian` [3 n_atoms, 3 n_atoms] in eV/Å² and `layer_energies` [n_terms,
    n_atoms]: see `get_hessian` and `get_layer_energies`.

    Any mixture of periodic directions is allowed, and cells smaller than the cutoff. StructureError names the atom that
    has an unknown species, a position that is not finite, or the place of another atom, and tells of a singular cell.

    Copies and pickles carry the weights; a pickle needs the package in the same directory where it is read.
    """

    # ASE declares it on the instance, which a ClassVar would contradict.
    implemented_properties = ["energy", "free_energy", "energies", "forces", "stress", "stresses", *ON_REQUEST]  # noqa: RUF012

    def __init__(
        self,
        package_dir: str | Path,
        checkpoint: str | Path | None = None,
        device: str | torch.device = "cpu",
        dtype: str | torch.dtype = "float64",
        skin: float = SKIN,
        **kwargs: Any,
    ) -> None:
        """`package_dir`: a generated package, with the trained weights in `checkpoint` (None: `Model(seed=0)`); or a
        checkpoint alone, whose package is built from the spec inside it. `skin` (Å): pairs are listed this far beyond
        the cutoff, and again once an atom has moved by half of it; results are the same with any, also with 0, which
        lists them at every step. ASE's `atoms`, `label` and `directory` may be given too.

        Raises PackageError for a directory that holds no generated package with a network, CheckpointError for weights
        of another spec, ValueError for a dtype other than float32 and float64, for a device that is not there and for a
        skin that is not a number of at least 0 and up to 1e12 Å, and TypeError for any other keyword.
        """
        allowed = ("package_dir", "checkpoint", "device", "dtype", "skin", *ASE_KEYWORDS)
        check_keywords(type(self).__name__, kwargs, allowed)
        placed, precision, skin = checked_device(device), checked_dtype(dtype), checked_cutoff(skin, "skin", zero=True)
        self.package, weights = _opened(package_dir, checkpoint)
        self.model = _model(self.package, precision, placed)
        if weights is not None:
            load_checkpoint(self.model, self.package, weights)
        self.neighbours = SkinnedNeighbours(self.package.architecture.CUTOFF, skin)
        super().__init__(**kwargs)  # in the end, for it gives `atoms` this calculator

    def load(self, checkpoint: str | Path) -> None:
        """Take the weights of another checkpoint of the same spec; results of the old ones are cleared.

        Raises CheckpointError, and leaves weights and results as they were, where `load_checkpoint` refuses.
        """
        load_checkpoint(self.model, self.package, _checked_path("checkpoint", checkpoint))
        self.reset()

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
        """Raises PackageError where the package of the pickled calculator is gone, or was rebuilt for another spec, and
        ValueError where its device is not here."""
        self.__dict__.update(state["ase"])
        self.package = load_package(state["directory"])
        self.model = _model(self.package, state["dtype"], checked_device(state["device"]))
        if state["digest"] != self.model.SPEC_DIGEST:
            raise PackageError(f"{state['directory']} was rebuilt for another spec since the calculator was pickled")
        self.model.load_state_dict(state["weights"])

    @torch.inference_mode(False)  # for batches that Hessians differentiate
    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: str | Sequence[str] | None = ("energy",),
        system_changes: Sequence[str] | None = None,
    ) -> None:
        """Fill `results` with every property that the system has; see the class for errors."""
        atoms, wanted = self.begin(atoms, properties)
        volume = cell_volume(atoms)
        if volume is None and not {"stress", "stresses"}.isdisjoint(wanted):
            raise PropertyNotImplementedError("stress needs a cell with a volume and at least one periodic direction")
        batch = self._batch(atoms)
        prediction = self._predict(batch)
        energy = float(prediction.energy[0])
        results = {
            "energy": energy,
            "free_energy": energy,
            "energies": prediction.energies.cpu().numpy().astype(np.float64),
            "forces": prediction.forces.cpu().numpy().astype(np.float64),
        }
        if volume is not None:
            stress = prediction.virial[0].cpu().numpy().astype(np.float64) / volume
            results["stress"] = full_3x3_to_voigt_6_stress(stress)
        if volume is not None and "stresses" in wanted:
            virials = atomic_virials(self.model, batch).cpu().numpy().astype(np.float64)
            stresses = [full_3x3_to_voigt_6_stress(virial / volume) for virial in virials]
            results["stresses"] = np.array(stresses).reshape(-1, 6)
        for name, function in ON_REQUEST.items():
            if name in wanted:
                results[name] = function(self.model, batch).cpu().numpy().astype(np.float64)
        self.results = finite(results)

    def get_hessian(self, atoms: Atoms | None = None) -> NDArray[np.float64]:
        """d²E/dr² [3 n_atoms, 3 n_atoms] in eV/Å², as `ase.vibrations.VibrationsData.from_2d` takes it: see there."""
        found: NDArray[np.float64] = self.get_property("hessian", atoms)
        return found

    def get_layer_energies(self, atoms: Atoms | None = None) -> NDArray[np.float64]:
        """Energy terms [n_terms, n_atoms] in eV: of the species, of each block, and of a repulsion if there is one.

        They sum to `energies`.
        """
        found: NDArray[np.float64] = self.get_property("layer_energies", atoms)
        return found

    def _predict(self, batch: Batch) -> Any:
        return self.model.energy_and_forces(*batch.inputs)

    def _batch(self, atoms: Atoms) -> Batch:
        architecture = self.package.architecture
        check_species(atoms, [number for _, number in architecture.SPECIES])
        listed = ListedStructure(atoms, *self._neighbours(atoms))
        return join_structures([listed], architecture.CUTOFF, self.model.dtype, self.model.species.device)

    def _neighbours(self, atoms: Atoms) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Pairs and displacements as `neighbour_pairs` gives them: all pairs come from here."""
        return self.neighbours.pairs(atoms)


def _checked_properties(calculator: Calculator, properties: str | Sequence[str] | None) -> list[str]:
    """The names as a list; None means the energy. Raises PropertyNotImplementedError for a name it does not know."""
    wanted = [properties] if isinstance(properties, str) else list(("energy",) if properties is None else properties)
    for name in wanted:
        if name not in calculator.implemented_properties:
            known = ", ".join(calculator.implemented_properties)
            raise PropertyNotImplementedError(
                f"{name} is not a property of {type(calculator).__name__}: it has {known}"
            )
    return wanted


def _opened(package_dir: str | Path, checkpoint: str | Path | None) -> tuple[ModuleType, Path | None]:
    """The package and the checkpoint, if any: a file in place of the package is a checkpoint that says its spec."""
    path = _checked_path("package_dir", package_dir)
    weights = None if checkpoint is None else _checked_path("checkpoint", checkpoint)
    if path.is_dir():
        return load_package(path), weights
    from tensorgraph.potential import open_potential  # imports the compiler, which few need

    return open_potential(path, weights)


def _checked_path(name: str, path: object) -> Path:
    if not isinstance(path, str | PathLike):
        advice = "; CommitteeCalculator takes several" if isinstance(path, list | tuple) else ""
        raise TypeError(f"{name} must be one path, not {type(path).__name__}{advice}")
    return Path(path)


@torch.inference_mode(False)  # or its weights could never be differentiated by positions
def _model(package: ModuleType, dtype: torch.dtype, device: str | torch.device) -> Any:
    """A model of the package for use, not for training; weights come into it after its dtype, so that they keep theirs.

    Raises PackageError for a package without a network.
    """
    if not hasattr(package, "Model"):
        raise PackageError(f"{package_directory(package)} has no energies: its spec has no `network` section")
    model = package.Model(seed=0).to(device=device, dtype=dtype).requires_grad_(False)
    model.validate = False  # the neighbour list has checked everything, and said it in ASE's terms
    return model
