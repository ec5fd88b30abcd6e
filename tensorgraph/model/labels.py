"""Labels of a structure: the energy, forces and stress that a file holds for it. They are read, never computed.

They stand in one of three places, where ASE's readers put them: in the results of a `SinglePointCalculator`, in
`atoms.info` (energies, stresses, virials) and in `atoms.arrays` (forces). Energies are in eV and forces in eV/Å.

A stress is in eV/Å³ with ASE's sign, dE/d(strain) / V: positive where the cell wants to shrink. A virial is in eV with
the sign of QUIP, GAP and extended XYZ: −V · stress. Both may be [3, 3], its 9 numbers, or 6 in Voigt order
(xx, yy, zz, yz, xz, xy).

`energy` is what the code calls so. With smeared occupations VASP's is extrapolated to zero smearing (σ → 0), while its
forces are slopes of the free energy, which ASE's readers store as `free_energy`: `energy_key="free_energy"` reads it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.stress import voigt_6_to_full_3x3_stress
from numpy.typing import NDArray

from tensorgraph.errors import StructureError

TARGETS = ("energy", "forces", "stress")
PREFIXES = ("", "REF_", "dft_")
USUAL_KEYS = {
    name: tuple(prefix + key for prefix in PREFIXES for key in keys)
    for name, keys in {
        "energy": ("energy",),
        "forces": ("forces",),
        "stress": ("stress",),
        "virial": ("virial", "virials"),
    }.items()
}
ASYMMETRY = 1e-4  # of a stress or virial, relative to its largest component: what files round
AGREEMENT = 1e-5  # of a stress and a virial that stand side by side, likewise
FLAT = 1e-10  # volume of a cell over the product of its lengths: below it, rounding
NAMED_AT_MOST = 12

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Labels:
    """`energy` in eV, `forces` [n_atoms, 3] in eV/Å and `stress` [3, 3] in eV/Å³, ASE's sign; None: there is none."""

    energy: float | None = None
    forces: Floats | None = None
    stress: Floats | None = None


@dataclass(frozen=True)
class LabelChoice:
    """Which labels are read: `targets`, those of them that a structure may lack, and keys instead of the usual ones.

    `keys` maps "energy", "forces", "stress" and "virial" to the only key that is looked for.
    """

    targets: tuple[str, ...]
    optional: frozenset[str]
    keys: Mapping[str, str]

    @classmethod
    def of(
        cls, targets: bool | str | Iterable[str], optional: str | Iterable[str], keys: Mapping[str, str | None]
    ) -> LabelChoice:
        """`targets` True: energy and forces. Raises ValueError where the arguments contradict each other."""
        given = {name: key for name, key in keys.items() if key is not None}
        chosen = {True: ("energy", "forces"), False: ()}[targets] if isinstance(targets, bool) else _names(targets)
        choice = cls(tuple(name for name in TARGETS if name in chosen), frozenset(_names(optional)), given)
        if surplus := choice.optional - set(choice.targets):
            raise ValueError(f"optional {', '.join(sorted(surplus))} not among the targets {list(choice.targets)}")
        for name, key in given.items():
            if not isinstance(key, str):
                raise TypeError(f"{name}_key must be a string, not {type(key).__name__}")
            if ("stress" if name == "virial" else name) not in choice.targets:
                raise ValueError(f"{name}_key={key!r} is of no use with the targets {list(choice.targets)}")
        if {"stress", "virial"} <= given.keys():
            raise ValueError("stress_key and virial_key name the same target; allowed: one of them")
        return choice

    @property
    def by_key_alone(self) -> bool:
        """Whether the caller named a key for every target."""
        return all(name in self.keys or (name == "stress" and "virial" in self.keys) for name in self.targets)


def read_labels(atoms: Atoms, choice: LabelChoice) -> Labels:
    """The labels that `atoms` carries, as they were stored: constraints change neither energies nor forces.

    Raises StructureError for a label that is missing and not optional; of a wrong type or shape, not finite, or an
    asymmetric stress; for labels under several keys that differ; for results stored for other positions, cell, … than
    the atoms have now; for a stress without a volume; and for a calculator other than a `SinglePointCalculator`, which
    would compute labels, unless the caller named a key for every target.
    """
    if isinstance(atoms.calc, SinglePointCalculator):
        results = atoms.calc.results
    elif atoms.calc is None or choice.by_key_alone:
        results = {}
    else:
        raise StructureError(
            f"the structure has the calculator {type(atoms.calc).__name__}, which computes and holds no labels; store "
            "what it computed as labels (atoms.calc = SinglePointCalculator(atoms, energy=…, forces=…)), or remove it"
        )
    return Labels(**{name: _label(atoms, results, name, choice) for name in choice.targets})


def cell_volume(atoms: Atoms) -> float | None:
    """|det cell| in Å³, or None where a stress has no meaning: no periodic direction, or a cell without a volume."""
    if not np.isfinite(atoms.cell.array).all():
        return None  # a vector that is not periodic may be anything
    volume = abs(float(np.linalg.det(atoms.cell.array)))
    flat = FLAT * float(np.prod(np.linalg.norm(atoms.cell.array, axis=1)))
    return volume if atoms.pbc.any() and volume > flat else None


def _names(given: str | Iterable[str]) -> tuple[str, ...]:
    names = (given,) if isinstance(given, str) else tuple(given)
    for name in names:
        if name not in TARGETS:
            raise ValueError(f"unknown target {name!r}; allowed: {', '.join(TARGETS)}")
    return names


def _label(atoms: Atoms, results: Mapping[str, Any], name: str, choice: LabelChoice) -> Any:
    kinds: tuple[str, ...] = ("stress", "virial") if name == "stress" else (name,)
    kinds = tuple(kind for kind in kinds if kind in choice.keys) or kinds
    keys = {kind: (choice.keys[kind],) if kind in choice.keys else USUAL_KEYS[kind] for kind in kinds}
    places = [(kind, *place) for kind in kinds for place in _places(atoms, results, kind, keys[kind])]
    if name == "stress" and name in choice.optional and cell_volume(atoms) is None:
        # Files of molecules and crystals hold zeros for the molecules.
        places = [place for place in places if not _is_zero(place[2])]
    found = [(where, _value(kind, value, where, atoms)) for kind, where, value in places]
    if not found:
        if name in choice.optional:
            return None
        raise StructureError(_missing(atoms, results, name, [key for kind in kinds for key in keys[kind]]))
    (first, value), *others = found
    for where, other in others:
        if not _same(name, value, other):
            raise StructureError(f"{first} and {where} differ: which is the {name}? {name}_key names one")
    return value


def _is_zero(value: Any) -> bool:
    try:
        return not np.any(np.asarray(value, dtype=np.float64))
    except (ValueError, TypeError):
        return False


def _places(atoms: Atoms, results: Mapping[str, Any], kind: str, keys: Iterable[str]) -> list[tuple[str, Any]]:
    """Where one of the keys is present, by name, with what stands there."""
    place, held = ("arrays", atoms.arrays) if kind == "forces" else ("info", atoms.info)
    found = []
    for key in keys:
        if key in results:
            _check_unchanged(atoms, key)
            found.append((f"calc.results[{key!r}]", results[key]))
        if key in held:
            found.append((f"{place}[{key!r}]", held[key]))
    return found


def _check_unchanged(atoms: Atoms, key: str) -> None:
    changed = atoms.calc.check_state(atoms)
    if changed:
        raise StructureError(
            f"the structure's {', '.join(changed)} changed since calc.results[{key!r}] was stored, "
            "which no longer belongs to it"
        )


def _missing(atoms: Atoms, results: Mapping[str, Any], name: str, keys: list[str]) -> str:
    held = set(atoms.arrays) - {"numbers", "positions"} if name == "forces" else set(atoms.info)
    present = sorted({*map(str, results), *map(str, held)})
    shown = ", ".join(present[:NAMED_AT_MOST]) + (", …" if len(present) > NAMED_AT_MOST else "") or "none"
    missing = f"the structure carries no {name}: no key {' or '.join(keys)}"
    return f"{missing} (keys present: {shown}); {name}_key names another"


def _value(kind: str, value: Any, where: str, atoms: Atoms) -> Any:
    """The label as a float, [n_atoms, 3] or [3, 3] numbers in our units and signs."""
    array = _numbers(value, where)
    if kind == "energy":
        _check_shape(array, [(), (1,)], where)
        return float(array.reshape(()))
    if kind == "forces":
        _check_shape(array, [(len(atoms), 3)], where)
        return array
    return _stress(kind, array, where, atoms)


def _stress(kind: str, array: Floats, where: str, atoms: Atoms) -> Floats:
    _check_shape(array, [(6,), (9,), (3, 3)], where)
    matrix = voigt_6_to_full_3x3_stress(array) if array.size == 6 else array.reshape(3, 3)
    if np.abs(matrix - matrix.T).max() > ASYMMETRY * np.abs(matrix).max():
        raise StructureError(f"{where} is not symmetric: {np.array2string(matrix.ravel(), max_line_width=1000)}")
    volume = cell_volume(atoms)
    if volume is None:
        raise StructureError(f"{where} is of a structure without a volume: no periodic direction, or a flat cell")
    symmetric: Floats = (matrix + matrix.T) / 2
    return -symmetric / volume if kind == "virial" else symmetric


def _numbers(value: Any, where: str) -> Floats:
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, RuntimeError):
        array = np.empty(0, dtype=object)
    if array.dtype.kind not in "iuf":
        raise StructureError(f"{where} is {type(value).__name__} ({array.dtype}): not real numbers")
    if not np.isfinite(array).all():
        raise StructureError(f"{where} is not finite")
    return np.array(array, dtype=np.float64)


def _check_shape(array: Floats, allowed: list[tuple[int, ...]], where: str) -> None:
    if array.shape not in allowed:
        shapes = " or ".join(str(list(shape)) for shape in allowed)
        raise StructureError(f"{where} has the shape {list(array.shape)}; allowed: {shapes}")


def _same(name: str, first: Any, second: Any) -> bool:
    tolerance = AGREEMENT * float(np.abs(first).max()) if name == "stress" else 0.0
    return bool((np.abs(np.subtract(first, second)) <= tolerance).all())
