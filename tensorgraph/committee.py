"""A committee of potentials: their mean as an ASE calculator, and how far they disagree."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import (
    Calculator,
    PropertyNotImplementedError,
    all_changes,
)
from ase.calculators.singlepoint import SinglePointCalculator
from numpy.typing import NDArray

from tensorgraph.calculator import ASE_KEYWORDS, SKIN, CheckedCalculator, TensorGraphCalculator
from tensorgraph.model.prediction import finite
from tensorgraph.neighbours.arguments import check_keywords, checked_cutoff, checked_device, checked_dtype
from tensorgraph.neighbours.skin import SkinnedNeighbours
from tensorgraph.potential import members_of

ALWAYS = ("energy", "free_energy", "energies", "forces", "stress")
AVERAGED = (*ALWAYS, "stresses")


class CommitteeCalculator(CheckedCalculator):
    """The mean of the members' results, and their standard deviation over members, component by component.

    `energy`, `free_energy`, `energies`, `forces`, `stress` and, on request, `stresses` are means, as far as all members
    have them; the mean of the forces is the exact gradient of the mean of the energies. `energy_std` (eV),
    `energies_std` [n_atoms], `forces_std` [n_atoms, 3] (eV/Å) and `stress_std` [6] are sample standard deviations, with
    n − 1 in the denominator (ddof=1), for the few members are a sample of all models that training could have given.

    ASE has no names for the latter: they stand in `calc.results` and `calc.get_property("forces_std", atoms)` gives
    them, but no writer of files knows them; put them into `atoms.info` and `atoms.arrays` first.
    """

    implemented_properties = [*AVERAGED, *(f"{name}_std" for name in AVERAGED if name != "free_energy")]  # noqa: RUF012

    def __init__(
        self,
        members: str | Path | Sequence[str | Path | Calculator],
        package_dir: str | Path | None = None,
        device: str | torch.device = "cpu",
        dtype: str | torch.dtype = "float64",
        skin: float = SKIN,
        **kwargs: Any,
    ) -> None:
        """`members`: at least two, each a checkpoint or an ASE calculator; or the folder with the checkpoints of a
        committee, `seed-*/model.safetensors`.

        Checkpoints are read with the generated package in `package_dir`, or each with the package of the spec inside
        it; `device`, `dtype` and `skin` concern them alone, and they share their pairs of atoms.

        Raises TypeError for other members and unknown keywords, ValueError for fewer than two members or the same one
        twice, and what `members_of` and `TensorGraphCalculator` raise.
        """
        allowed = ("members", "package_dir", "device", "dtype", "skin", *ASE_KEYWORDS)
        check_keywords(type(self).__name__, kwargs, allowed)
        if isinstance(members, str | PathLike):
            members = members_of(members)
        _check_members(members)
        if package_dir is not None and all(isinstance(member, Calculator) for member in members):
            raise TypeError(f"package_dir={str(package_dir)!r} is of no use: no member is a checkpoint")
        checked_device(device), checked_dtype(dtype), checked_cutoff(skin, "skin", zero=True)
        known = {"device": device, "dtype": dtype, "skin": skin}
        self.members = _shared([_member(member, package_dir, known) for member in members], made=members)
        self._used: list[dict[str, Any]] = []
        super().__init__(**kwargs)

    def reset(self) -> None:
        """Forget all results, those of the members too."""
        super().reset()
        for member in self.members:
            if not isinstance(member, SinglePointCalculator):  # which could not compute them again
                member.reset()

    def get_property(self, name: str, atoms: Atoms | None = None, allow_calculation: bool = True) -> Any:
        """As ASE's; without `atoms` too, results of members that have other weights now are computed anew."""
        return super().get_property(name, self.atoms if atoms is None else atoms, allow_calculation)

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """What changed since the results: all, where a member was reset, for it may have other weights now."""
        current = [member.results for member in self.members]
        if self._used and any(now is not used for now, used in zip(current, self._used, strict=True)):
            return list(all_changes)
        changes: list[str] = super().check_state(atoms, tol)
        return changes

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: str | Sequence[str] | None = ("energy",),
        system_changes: Sequence[str] | None = None,
    ) -> None:
        """Fill `results` with the means and deviations of every property that all members have."""
        atoms, names = self.begin(atoms, properties)
        wanted = [name.removesuffix("_std") for name in names]
        results: dict[str, Any] = {}
        for name in AVERAGED:
            if name in ALWAYS or name in wanted:
                values = self._values(atoms, name, required=name in wanted)
                results |= {} if values is None else _statistics(name, values)
        self.results, self._used = finite(results), [member.results for member in self.members]

    def _values(self, atoms: Atoms, name: str, required: bool) -> NDArray[np.float64] | None:
        """The members' values of a property [n_members, …], or None where one has it not and it is not required."""
        try:
            return np.array([member.get_property(name, atoms) for member in self.members], dtype=np.float64)
        except PropertyNotImplementedError:
            if required:
                raise
            return None


def _statistics(name: str, values: NDArray[np.float64]) -> dict[str, Any]:
    mean, deviation = values.mean(axis=0), values.std(axis=0, ddof=1)
    found = {name: mean} if name == "free_energy" else {name: mean, f"{name}_std": deviation}
    return {key: value if np.ndim(value) else float(value) for key, value in found.items()}


def _check_members(members: object) -> None:
    if not isinstance(members, list | tuple):
        raise TypeError(
            f"members must be a folder, or a list of checkpoints or calculators, not {type(members).__name__}"
        )
    for index, member in enumerate(members):
        if not isinstance(member, str | PathLike | Calculator):
            raise TypeError(f"member {index} is {type(member).__name__}; allowed: a checkpoint, or an ASE calculator")
    if len(members) < 2:
        raise ValueError(f"a committee needs at least two members, not {len(members)}")
    known = [Path(member).resolve() if isinstance(member, str | PathLike) else id(member) for member in members]
    for index, key in enumerate(known):
        if key in known[:index]:
            raise ValueError(f"members {known.index(key)} and {index} are the same, which would hide disagreement")


def _member(member: Any, package_dir: str | Path | None, known: dict[str, Any]) -> Calculator:
    if isinstance(member, Calculator):
        return member
    if package_dir is None:
        return TensorGraphCalculator(member, **known)
    return TensorGraphCalculator(package_dir, member, **known)


def _shared(calculators: list[Calculator], made: Sequence[Any]) -> list[Calculator]:
    """The calculators; those that were made here take the pairs of atoms of the first that has their cutoff."""
    lists: dict[float, SkinnedNeighbours] = {}
    for calculator, member in zip(calculators, made, strict=True):
        if calculator is not member and isinstance(calculator, TensorGraphCalculator):
            calculator.neighbours = lists.setdefault(calculator.neighbours.cutoff, calculator.neighbours)
    return calculators
