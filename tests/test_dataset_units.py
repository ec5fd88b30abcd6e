"""Units and signs that look wrong are reported with the factor, and right ones never are."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.stress import voigt_6_to_full_3x3_stress

from tensorgraph.dataset import LabelledStructure, Origin, read_structures, unit_warnings
from tensorgraph.model.labels import LabelChoice, Labels

ANY = LabelChoice.of(("energy", "forces", "stress"), ("energy", "forces", "stress"), {})
DATA = os.environ.get("TENSORGRAPH_DATA")
HARTREE, BOHR, KCAL, GPA = 27.211386, 0.52917721, 0.0433641, 1 / 160.21766


def labelled(atoms: Atoms, frame: int) -> LabelledStructure:
    atoms.calc = EMT()
    stress = voigt_6_to_full_3x3_stress(atoms.get_stress()) if atoms.pbc.all() else None
    labels = Labels(atoms.get_potential_energy(), atoms.get_forces(), stress)
    atoms.calc = None
    return LabelledStructure(atoms, labels, Origin("made.xyz", frame))


def molecules(sizes: tuple[str, ...] = ("C2H6",)) -> list[LabelledStructure]:
    """Rattled, turned and moved as a trajectory of a free molecule may be."""
    random, found = np.random.default_rng(0), []
    for frame in range(16 * len(sizes)):
        atoms = molecule(sizes[frame % len(sizes)])
        atoms.positions += random.normal(scale=0.04, size=atoms.positions.shape)
        atoms.rotate(random.uniform(0, 360), random.normal(size=3))
        atoms.positions += random.normal(size=3)
        found.append(labelled(atoms, frame))
    return found


def crystals(strain: float = 0.0) -> list[LabelledStructure]:
    """Copper whose atoms cross the faces of the cell, and whose cell is strained at random."""
    random, found = np.random.default_rng(1), []
    for frame in range(16):
        atoms = bulk("Cu", cubic=True)
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + strain * random.uniform(-1, 1, (3, 3))), scale_atoms=True)
        atoms.positions += random.normal(scale=0.03, size=atoms.positions.shape)
        atoms.wrap()
        found.append(labelled(atoms, frame))
    return found


def scaled(structures: list[LabelledStructure], length: float = 1.0, **factors: float) -> list[LabelledStructure]:
    found = []
    for one in structures:
        changed = {name: getattr(one.labels, name) * factor for name, factor in factors.items()}
        atoms = one.atoms.copy()
        atoms.set_cell(atoms.cell * length)
        atoms.positions *= length
        found.append(dataclasses.replace(one, atoms=atoms, labels=dataclasses.replace(one.labels, **changed)))
    return found


MADE = {"molecules": molecules(), "crystals": crystals(), "strained": crystals(0.02)}


@pytest.mark.parametrize("name", MADE)
def test_right_units_are_not_warned_of(name: str) -> None:
    assert unit_warnings(MADE[name]) == []
    assert unit_warnings(MADE[name][:3]) == unit_warnings([]) == []


@pytest.mark.parametrize("name", ["molecules", "crystals"])
@pytest.mark.parametrize(
    ("factors", "said"),
    [
        ({"forces": -1}, "times the work of the forces (median), of the opposite sign; expected: eV and eV/Å"),
        ({"forces": BOHR / HARTREE}, "energies in eV and forces in Hartree/bohr"),
        ({"forces": 1 / HARTREE}, "energies in eV and forces in Hartree/Å"),
        ({"energy": 1 / HARTREE, "forces": BOHR / HARTREE}, "energies in Hartree and forces in Hartree/bohr"),
        ({"energy": 1 / HARTREE}, "energies in Hartree and forces in eV/Å"),
        ({"forces": 1 / KCAL}, "energies in eV and forces in kcal/mol/Å"),
        ({"forces": -1 / KCAL}, "of the opposite sign, as with energies in eV and forces in kcal/mol/Å"),
        ({"energy": 1 / KCAL}, "energies in kcal/mol and forces in eV/Å"),
        ({"forces": 5.0}, "times the work of the forces (median); expected: eV and eV/Å"),
    ],
)
def test_forces_that_do_not_fit_energies(name: str, factors: dict[str, float], said: str) -> None:
    (warning,) = unit_warnings(scaled(MADE[name], **factors))
    assert warning.startswith("energies do not fit the forces: between ")
    assert said in warning


def test_energies_per_atom() -> None:
    structures = molecules(("C2H6", "H2O"))
    per_atom = [scaled([one], energy=1 / len(one.atoms))[0] for one in structures]
    (warning,) = unit_warnings(per_atom)
    assert "as energies per atom do" in warning
    assert unit_warnings(structures) == []


@pytest.mark.parametrize(
    ("factor", "said"),
    [(-1.0, "of the opposite sign; expected: eV/Å³"), (1 / GPA, "stresses in GPa"), (-10 / GPA, "stresses in kbar")],
)
def test_stresses_that_do_not_fit_energies(factor: float, said: str) -> None:
    (warning,) = unit_warnings(scaled(MADE["strained"], stress=factor))
    assert warning.startswith("energies do not fit the stresses: between ")
    assert said in warning


def test_stresses_that_are_too_large_where_no_cells_are_similar() -> None:
    structures = scaled(MADE["crystals"], stress=1000.0)
    (warning,) = unit_warnings(structures)
    assert "in GPa or kbar they would be 160.2 or 1602 times as large" in warning


@pytest.mark.parametrize(("length", "said"), [(1 / BOHR, "in bohr would be 1.89"), (0.1, "nm"), (BOHR, "0.53 times")])
@pytest.mark.parametrize("name", ["molecules", "crystals"])
def test_lengths_in_other_units(name: str, length: float, said: str) -> None:
    consistent = scaled(MADE[name], length, forces=1 / length)
    (warning,) = unit_warnings(consistent)
    assert warning.startswith("lengths look wrong: ")
    assert said in warning


def test_noble_gases_and_isolated_atoms_have_no_bonds() -> None:
    argon = [Atoms("Ar2", [[0, 0, 0], [0, 0, length]]) for length in (3.6, 3.8, 4.0)]
    far = [*argon, Atoms("Cu"), Atoms("Cu2", [[0, 0, 0], [0, 0, 50]])]
    structures = [LabelledStructure(atoms, Labels(), Origin("made.xyz", k)) for k, atoms in enumerate(far)]
    assert unit_warnings(structures) == []


@pytest.mark.skipif(not DATA, reason="TENSORGRAPH_DATA is not set")
def test_no_false_alarm_on_published_data() -> None:
    for file in sorted(Path(DATA).glob("*/*.xyz")):
        structures = read_structures([file], ANY)
        assert unit_warnings(structures) == [], file
    for element, factor in {"Mo": -1.0, "Si": HARTREE / BOHR}.items():
        structures = read_structures([Path(DATA) / "mlearn" / f"{element}_train.xyz"], ANY)
        assert len(unit_warnings(scaled(structures, forces=1 / factor))) == 1
