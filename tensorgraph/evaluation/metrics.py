"""Errors of predicted energies, forces and stresses, each over the structures that have the label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from ase.units import GPa
from numpy.typing import NDArray

from tensorgraph.dataset import LabelledStructure

DIRECTED = 0.1
"""eV/Å: only where the true force is larger, its direction and the relative error of its size are compared."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Predicted:
    """A structure with its labels, and what a potential gives for it: energy in eV, forces [n_atoms, 3] in eV/Å and
    stress [6] in Voigt order in eV/Å³, ASE's sign (None without a volume)."""

    structure: LabelledStructure
    energy: float
    forces: Floats
    stress: Floats | None

    @property
    def energy_error(self) -> float | None:
        """Predicted minus true energy, in eV."""
        true = self.structure.labels.energy
        return None if true is None else self.energy - true

    @property
    def energy_error_per_atom(self) -> float | None:
        """In eV."""
        error = self.energy_error
        return None if error is None else error / len(self.structure.atoms)

    @property
    def force_errors(self) -> Floats | None:
        """Predicted minus true forces [n_atoms, 3], in eV/Å."""
        true = self.structure.labels.forces
        return None if true is None else self.forces - true

    @property
    def stress_error(self) -> Floats | None:
        """Predicted minus true stress [6], in eV/Å³."""
        true = self.structure.labels.stress
        if true is None or self.stress is None:
            return None
        return self.stress - true[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]


@dataclass(frozen=True)
class EnergyErrors:
    """Over `n_structures`: of the energy per atom in meV/atom, and of the whole energy in meV."""

    n_structures: int
    mae_mev_per_atom: float
    rmse_mev_per_atom: float
    max_mev_per_atom: float
    mae_mev: float
    rmse_mev: float
    max_mev: float


@dataclass(frozen=True)
class ForceErrors:
    """Over the atoms of `n_structures`, in eV/Å.

    `mae`, `rmse` and `max` are of components, three of each atom; `norm_…` are of the length of the error vector, one
    of each atom. The mean angle between predicted and true force and the mean of ||F| − |F_true|| / |F_true| are over
    the `n_directed` atoms whose true force exceeds `directed_above`, None where there are none; an atom with no
    predicted force counts as 90°.
    """

    n_structures: int
    n_atoms: int
    n_components: int
    mae_ev_per_angstrom: float
    rmse_ev_per_angstrom: float
    max_ev_per_angstrom: float
    norm_mean_ev_per_angstrom: float
    norm_rms_ev_per_angstrom: float
    norm_max_ev_per_angstrom: float
    n_directed: int
    directed_above_ev_per_angstrom: float
    relative_magnitude_error: float | None
    angle_degrees: float | None


@dataclass(frozen=True)
class StressErrors:
    """Over the six components of `n_structures`, in eV/Å³ and in GPa."""

    n_structures: int
    n_components: int
    mae_ev_per_cubic_angstrom: float
    rmse_ev_per_cubic_angstrom: float
    max_ev_per_cubic_angstrom: float
    mae_gpa: float
    rmse_gpa: float
    max_gpa: float


@dataclass(frozen=True)
class Metrics:
    """Errors on `n_structures` with `n_atoms` together; None for labels that no structure has."""

    n_structures: int
    n_atoms: int
    energy: EnergyErrors | None
    forces: ForceErrors | None
    stress: StressErrors | None

    def to_json(self) -> dict[str, Any]:
        """The fields, with null for labels that no structure has."""
        return asdict(self)


def metrics_of(predictions: Sequence[Predicted]) -> Metrics:
    """The errors of all predictions together."""
    sizes = [len(one.structure.atoms) for one in predictions]
    return Metrics(
        len(predictions),
        sum(sizes),
        _energy_errors(predictions),
        _force_errors(predictions),
        _stress_errors(predictions),
    )


def _energy_errors(predictions: Sequence[Predicted]) -> EnergyErrors | None:
    known = [(one, error) for one in predictions if (error := one.energy_error) is not None]
    if not known:
        return None
    total = 1e3 * np.array([error for _, error in known])
    per_atom = total / [len(one.structure.atoms) for one, _ in known]
    return EnergyErrors(len(known), *_summary(per_atom), *_summary(total))


def _force_errors(predictions: Sequence[Predicted]) -> ForceErrors | None:
    known = [(one, true) for one in predictions if (true := one.structure.labels.forces) is not None]
    if not known:
        return None
    true, found = np.concatenate([true for _, true in known]), np.concatenate([one.forces for one, _ in known])
    norms = np.linalg.norm(found - true, axis=1)
    directed = np.linalg.norm(true, axis=1) > DIRECTED
    return ForceErrors(
        len(known), len(true), true.size,
        *_summary(found - true),
        float(norms.mean()), _rms(norms), float(norms.max()),
        int(directed.sum()), DIRECTED,
        *_direction(true[directed], found[directed]),
    )  # fmt: skip


def _direction(true: Floats, found: Floats) -> tuple[float | None, float | None]:
    """The mean relative error of the size of forces, and the mean angle between them in degrees."""
    if not len(true):
        return None, None
    sizes, predicted = np.linalg.norm(true, axis=1), np.linalg.norm(found, axis=1)
    products = sizes * predicted
    cosines = np.divide((true * found).sum(axis=1), products, out=np.zeros_like(products), where=products > 0)
    angles = np.degrees(np.arccos(np.clip(cosines, -1, 1)))
    return float((np.abs(predicted - sizes) / sizes).mean()), float(angles.mean())


def _stress_errors(predictions: Sequence[Predicted]) -> StressErrors | None:
    known = [error for one in predictions if (error := one.stress_error) is not None]
    if not known:
        return None
    errors = np.array(known)
    return StressErrors(len(known), errors.size, *_summary(errors), *_summary(errors / GPa))


def _summary(errors: Floats) -> tuple[float, float, float]:
    """The mean and the root mean square of the absolute values, and the largest of them."""
    return float(np.abs(errors).mean()), _rms(errors), float(np.abs(errors).max())


def _rms(values: Floats) -> float:
    return float(np.sqrt(np.square(values).mean()))
