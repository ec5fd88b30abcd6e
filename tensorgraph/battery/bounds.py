"""The largest value that passes, of every check and in both dtypes: the one table to read and to argue about.

`docs/verify.md` shows it, and a test compares the two. Relative values are relative to the interaction of the same
structure: to Σ|E_i − E(single atom)|, to its largest force component, to its largest virial component.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tensorgraph.battery.check import Check, worst
from tensorgraph.battery.subject import Subject


@dataclass(frozen=True)
class Bound:
    """The bounds of a check in both dtypes, the unit (none: relative), and why they are what they are."""

    float64: float
    float32: float
    unit: str
    why: str

    def of(self, dtype: torch.dtype) -> float:
        """The bound for models of this dtype."""
        return self.float64 if dtype == torch.float64 else self.float32


_EXACT = "exact but for rounding, which the slope of a sensitivity, σ/r², multiplies"
_SLOPES = "extrapolated to a step of zero: what is left is rounding, divided by the step"
_SUMS = "no pair is shared; sums are rounded in another order"

BOUNDS: Mapping[str, Bound] = {
    "invariants: rotation and reflection": Bound(1e-12, 1e-4, "", "exact in theory; relative to each one's largest"),
    "rotation: energies": Bound(1e-12, 1e-4, "", _EXACT),
    "rotation: forces and virials": Bound(1e-11, 1e-3, "", _EXACT),
    "reflection: energies": Bound(1e-12, 1e-4, "", _EXACT),
    "reflection: forces and virials": Bound(1e-11, 1e-3, "", _EXACT),
    "translation: energies": Bound(1e-12, 1e-4, "", _EXACT),
    "translation: forces and virials": Bound(1e-11, 1e-3, "", _EXACT),
    "permutation: energies": Bound(1e-12, 1e-4, "", _EXACT),
    "permutation: forces and virials": Bound(1e-11, 1e-3, "", _EXACT),
    "choice of cell: energies": Bound(1e-12, 1e-4, "", _EXACT),
    "choice of cell: forces and virials": Bound(1e-11, 1e-3, "", _EXACT),
    "forces: slopes of the energy": Bound(1e-8, 5e-3, "", _SLOPES),
    "Hessian: symmetry": Bound(1e-11, 1e-3, "", "two orders of differentiation, equal but for rounding"),
    "Hessian: slopes of the forces": Bound(1e-8, 1e-2, "", _SLOPES),
    "virials: strain derivatives": Bound(1e-8, 5e-3, "", _SLOPES),
    "virials: symmetry": Bound(1e-11, 1e-3, "", "no torque without a change of the energy"),
    "cutoff: step of the energy": Bound(1e-10, 1e-3, "", "continuous in theory, as the cutoff function is"),
    "cutoff: step of the force": Bound(1e-7, 1e-3, "", "continuous in theory, as the cutoff function's slope is"),
    "cutoff: step of the force's slope": Bound(1.0, 1.0, "", "cos² has a step in its curvature: see `check_cutoff`"),
    "work of the force": Bound(1e-3, 1e-3, "", "what is left is the error of the integral, or rounding"),
    "energies of atoms: their sum": Bound(1e-12, 1e-4, "", "the energy is their sum, in float64 in either dtype"),
    "pairs beyond the cutoff": Bound(1e-12, 1e-4, "", "multiplied by zero; sums are rounded in another order"),
    "distant fragments": Bound(1e-12, 1e-4, "", _SUMS),
    "structures of a batch": Bound(1e-12, 1e-4, "", _SUMS),
    "single atoms: forces and virials": Bound(0.0, 0.0, "eV/Å, eV", "without pairs there is nothing to add up"),
    "single atoms: energies": Bound(1e-12, 1e-5, "", "one for each species, wherever the atom is"),
    "dimers beyond the cutoff": Bound(1e-12, 1e-5, "", "the sum of two atoms"),
    "close dimers": Bound(0.0, 0.0, "dimers", "finite, or refused with an error that names the atoms"),
    "drift of the energy": Bound(1e-6, 1e-5, "eV/atom/ps", "the integrator has none; what is left are forces' errors"),
}

MACHINERY_BOUNDS: Mapping[str, Bound] = {
    "backend: plain PyTorch": Bound(0.0, 1e-3, "", "in float64 it is the reference"),
    "backend: programs in C": Bound(1e-11, 1e-3, "", "rounding, of which random weights show 5e-14 and 9e-5"),
    "backend: Triton kernels": Bound(1e-11, 1e-3, "", "as those in C"),
    "backend: torch.compile": Bound(1e-12, 1e-4, "", "the same programs, in another order at most: 1e-15 and 4e-7"),
    "backend: make_fx": Bound(1e-12, 1e-4, "", "as compiled ones"),
    "backend: torch.export": Bound(1e-12, 1e-4, "", "as compiled ones"),
    "backend: exported, saved and reloaded": Bound(1e-12, 1e-4, "", "as compiled ones"),
    "float32: energies": Bound(1e-4, 1e-4, "", "rounding, of which random weights show up to 1.6e-5"),
    "float32: forces and virials": Bound(5e-4, 5e-4, "", "rounding, of which random weights show up to 6.5e-5"),
    "determinism: repeats": Bound(0.0, 0.0, "", "equal numbers for equal inputs"),
    "determinism: programs, 1 to 3 threads": Bound(0.0, 0.0, "", "each sum is taken by one thread in one order"),
    "determinism: model, 1 to 3 threads": Bound(1e-12, 1e-4, "", "PyTorch's products of matrices share their sums"),
}
"""Of what computes the surface; what values are relative to, the modules of these checks say."""


def machinery_bound(name: str, dtype: torch.dtype) -> float:
    """The bound of a row about backends, precision or determinism, for models of this dtype."""
    return MACHINERY_BOUNDS[name.removesuffix(", interpreted")].of(dtype)


def judged(subject: Subject, name: str, found: Mapping[str, float | Sequence[float]]) -> Check:
    """The check `name` of values, one or several for each thing they were found for, against its bound."""
    bound = BOUNDS[name]
    largest = {where: float(np.max(values)) for where, values in found.items()}  # NaN propagates
    return worst(name, largest, bound.of(subject.dtype), bound.unit)
