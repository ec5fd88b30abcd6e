"""Labels are what the file says, or an error that names the structure: never computed, never altered."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms, Hookean
from ase.io import read, write
from ase.stress import full_3x3_to_voigt_6_stress

from tensorgraph.calculator import TensorGraphCalculator
from tensorgraph.errors import StructureError
from tensorgraph.model.batch import batch_structures
from tests.helpers import GENERATED, crystal, molecule

STRESS = np.array([[1.0, 0.4, 0.5], [0.4, 2.0, 0.6], [0.5, 0.6, 3.0]]) / 100  # eV/Å³


def labelled(seed: int = 1, atoms: Atoms | None = None, **changes: object) -> Atoms:
    """A structure with an energy of −1 eV and random forces, stored as ASE's readers do."""
    atoms = molecule(3, seed) if atoms is None else atoms
    forces = np.random.default_rng(seed).normal(size=(len(atoms), 3))
    atoms.calc = SinglePointCalculator(atoms, **{"energy": -1.0, "forces": forces, **changes})
    return atoms


def bare(**info: object) -> Atoms:
    """A structure whose labels stand in `info`, and whose forces in `arrays`."""
    atoms = molecule(3, 1)
    atoms.info.update(info)
    atoms.arrays["forces"] = np.ones((3, 3))
    return atoms


CONSTRAINTS = [Hookean(a1=0, a2=1, rt=0.1, k=5.0), FixAtoms([0, 1, 2])]


@pytest.mark.parametrize("constraint", CONSTRAINTS, ids=["Hookean", "FixAtoms"])
def test_constraints_change_no_label(constraint: object) -> None:
    atoms = labelled()
    stored = atoms.calc.results["forces"].copy()
    atoms.set_constraint(constraint)
    batch = batch_structures([atoms], 3.0, torch.float64, targets=True)
    assert batch.energy.tolist() == [-1.0]
    np.testing.assert_array_equal(batch.forces, stored)


def test_constraints_survive_a_file_and_change_no_label(tmp_path: Path) -> None:
    atoms = labelled()
    atoms.set_constraint(CONSTRAINTS)
    for name in ("frame.traj", "frame.xyz"):
        write(tmp_path / name, atoms)
        batch = batch_structures(read(tmp_path / name), 3.0, torch.float64, targets=True)
        assert batch.energy.tolist() == [-1.0]
        np.testing.assert_allclose(batch.forces, atoms.calc.results["forces"], atol=1e-8)


@pytest.mark.parametrize("calculator", [EMT, lambda: TensorGraphCalculator(GENERATED / "hipnn")], ids=["EMT", "ours"])
def test_labels_are_not_computed(calculator) -> None:
    atoms = molecule(3, 1, symbols="HCNO")
    atoms.calc = calculator()
    atoms.get_forces()  # results of a live calculator are no labels either
    with pytest.raises(
        StructureError, match=r"^the structure has the calculator .* which computes .* SinglePointCalculator\(atoms"
    ):
        batch_structures([atoms], 3.0, targets=True)
    with pytest.raises(StructureError, match=r"^structure 1: the structure has the calculator"):
        batch_structures([labelled(), atoms], 3.0, targets=True, optional=("energy", "forces"))
    atoms.info["mine"], atoms.arrays["f"] = -2.0, np.zeros((3, 3))
    named = batch_structures([atoms], 3.0, targets=True, energy_key="mine", forces_key="f")
    assert named.energy.tolist() == [-2.0]
    assert batch_structures([atoms], 3.0).energy is None


def test_labels_of_atoms_that_moved_are_refused() -> None:
    moved, grown = labelled(1), labelled(2, crystal(2))
    moved.positions[0, 0] += 1e-3
    grown.set_cell(grown.cell * 1.01)
    for atoms, what in ((moved, "positions"), (grown, "cell")):
        with pytest.raises(
            StructureError, match=rf"^structure 1: the structure's {what} changed since calc.results\['energy'\]"
        ):
            batch_structures([labelled(), atoms], 3.0, targets=True)
    moved.info["REF_energy"], moved.arrays["REF_forces"] = -3.0, np.zeros((3, 3))
    keys = {"energy_key": "REF_energy", "forces_key": "REF_forces"}
    assert batch_structures(moved, 3.0, targets=True, **keys).energy.tolist() == [-3.0]


@pytest.mark.parametrize("prefix", ["", "REF_", "dft_"])
def test_usual_keys_are_found(prefix: str) -> None:
    atoms = molecule(3, 1)
    atoms.info[f"{prefix}energy"] = -3
    atoms.arrays[f"{prefix}forces"] = np.arange(9).reshape(3, 3)  # integers are numbers
    batch = batch_structures([atoms], 3.0, targets=True)
    assert batch.energy.tolist() == [-3.0]
    assert batch.forces.dtype == torch.float32
    assert batch.forces.flatten().tolist() == list(range(9))


def test_labels_under_two_keys_must_agree_or_be_named() -> None:
    atoms = labelled()
    atoms.info["REF_energy"] = -1.0
    assert batch_structures([atoms], 3.0, targets=True).energy.tolist() == [-1.0]
    atoms.info["REF_energy"] = -2.0
    with pytest.raises(StructureError, match=r"calc.results\['energy'\] and info\['REF_energy'\] differ.*energy_key"):
        batch_structures([atoms], 3.0, targets=True)
    for key, value in (("REF_energy", -2.0), ("energy", -1.0)):
        assert batch_structures([atoms], 3.0, targets=True, energy_key=key).energy.tolist() == [value]
    atoms.info["energy"] = -5.0  # beside what the calculator stores
    with pytest.raises(StructureError, match=r"calc.results\['energy'\] and info\['energy'\] differ"):
        batch_structures([atoms], 3.0, targets=True, energy_key="energy")


def test_free_energies_are_read_by_name() -> None:
    atoms = labelled(free_energy=-1.5)
    assert batch_structures(atoms, 3.0, targets=True).energy.tolist() == [-1.0]
    assert batch_structures(atoms, 3.0, targets=True, energy_key="free_energy").energy.tolist() == [-1.5]
    del atoms.calc.results["energy"]
    with pytest.raises(StructureError, match=r"no energy: .*\(keys present: forces, free_energy\); energy_key"):
        batch_structures(atoms, 3.0, targets=True)


WRONG = {
    r"info\['energy'\] is str .*: not real numbers": {"energy": "-1.0"},
    r"info\['energy'\] is bool .*: not real numbers": {"energy": True},
    r"info\['energy'\] is complex .*: not real numbers": {"energy": 1j},
    r"info\['energy'\] is NoneType .*: not real numbers": {"energy": None},
    r"info\['energy'\] is list .*: not real numbers": {"energy": [[1.0], [1.0, 2.0]]},
    r"info\['energy'\] has the shape \[2\]": {"energy": np.zeros(2)},
    r"info\['energy'\] is not finite": {"energy": np.nan},
}


@pytest.mark.parametrize("message", WRONG)
def test_energies_that_are_no_energies_are_refused(message: str) -> None:
    with pytest.raises(StructureError, match=f"^structure 1: {message}"):
        batch_structures([labelled(), bare(**WRONG[message])], 3.0, targets=True, optional="energy")


@pytest.mark.parametrize("forces", [np.zeros((2, 3)), np.zeros(9), np.zeros((3, 3), bool), np.full((3, 3), np.inf)])
def test_forces_that_are_no_forces_are_refused(forces: np.ndarray) -> None:
    atoms = labelled()
    del atoms.calc.results["forces"]
    atoms.arrays["forces"] = forces
    with pytest.raises(StructureError, match=r"arrays\['forces'\] (has the shape|is ndarray \(bool\)|is not finite)"):
        batch_structures([atoms], 3.0, targets=True)


def stressed(**info: object) -> Atoms:
    atoms = labelled(1, crystal(1))
    atoms.info.update(info)
    return atoms


def test_stress_and_virial_in_every_form() -> None:
    volume = crystal(1).get_volume()
    forms = {"": STRESS, "full": STRESS.ravel(), "voigt": full_3x3_to_voigt_6_stress(STRESS)}
    for stress in forms.values():
        for info in ({"stress": stress}, {"REF_stress": stress}, {"virial": -volume * stress}):
            batch = batch_structures([stressed(**info)], 3.0, torch.float64, targets="stress")
            np.testing.assert_allclose(batch.stress[0], STRESS, rtol=1e-14)
            assert batch.volume.tolist() == [pytest.approx(volume)]
    named = stressed(v=-volume * STRESS, s=STRESS)
    for key in ({"stress_key": "s"}, {"virial_key": "v"}):
        batch = batch_structures([named], 3.0, torch.float64, targets="stress", **key)
        np.testing.assert_allclose(batch.stress[0], STRESS, rtol=1e-14)


def test_stress_survives_files_of_ase(tmp_path: Path) -> None:
    atoms = labelled(1, crystal(1), stress=full_3x3_to_voigt_6_stress(STRESS))
    for name in ("frame.traj", "frame.xyz"):
        write(tmp_path / name, atoms)
        batch = batch_structures(read(tmp_path / name), 3.0, targets=("energy", "forces", "stress"))
        np.testing.assert_allclose(batch.stress[0], STRESS, rtol=1e-6)


def test_a_virial_has_the_sign_opposite_to_the_strain_derivative() -> None:
    """By its definition: −dE/d(strain), of an energy that is known in closed form."""
    atoms = crystal(1)
    atoms.calc = TensorGraphCalculator(GENERATED / "hipnn")
    stress, volume = atoms.get_stress(voigt=False), atoms.get_volume()
    atoms.calc, atoms.info["virial"] = None, -volume * stress
    batch = batch_structures(atoms, 3.0, torch.float64, targets="stress")
    np.testing.assert_allclose(batch.stress[0], stress, rtol=1e-12)


def test_stresses_that_are_none_are_refused() -> None:
    skew = STRESS + np.array([[0, 1e-3, 0], [0, 0, 0], [0, 0, 0]])
    bad = {"is not symmetric": skew, r"shape \[3\]; allowed: \[6\] or \[9\] or \[3, 3\]": STRESS[0]}
    for message, stress in bad.items():
        with pytest.raises(StructureError, match=message):
            batch_structures([stressed(stress=stress)], 3.0, targets="stress")
    with pytest.raises(StructureError, match=r"info\['stress'\] and info\['virial'\] differ"):
        batch_structures([stressed(stress=STRESS, virial=STRESS)], 3.0, targets="stress")
    with pytest.raises(StructureError, match="without a volume"):
        batch_structures([bare(stress=STRESS)], 3.0, targets="stress", optional="stress")


def test_structures_may_lack_what_is_optional() -> None:
    everything = labelled(1, crystal(1), stress=full_3x3_to_voigt_6_stress(STRESS))
    only_energy = molecule(3, 2)
    only_energy.info["energy"] = -7.0
    frames = [only_energy, everything, Atoms("H")]
    targets = ("energy", "forces", "stress")
    batch = batch_structures(frames, 3.0, torch.float64, targets=targets, optional=targets)
    assert batch.has_energy.tolist() == [True, True, False]
    assert batch.has_forces.tolist() == batch.has_stress.tolist() == [False, True, False]
    assert batch.energy.tolist() == [-7.0, -1.0, 0.0]
    assert batch.volume.tolist() == [1.0, pytest.approx(everything.get_volume()), 1.0]
    np.testing.assert_array_equal(batch.forces[3:5], everything.calc.results["forces"])
    assert not batch.forces[[0, 1, 2, 5]].any()
    np.testing.assert_allclose(batch.stress, [np.zeros((3, 3)), STRESS, np.zeros((3, 3))])
    with pytest.raises(StructureError, match=r"^structure 0: the structure carries no forces"):
        batch_structures(frames, 3.0, targets=targets, optional="stress")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"targets": "dipole"}, "unknown target 'dipole'; allowed: energy, forces, stress"),
        ({"targets": True, "optional": "stress"}, "optional stress not among the targets"),
        ({"targets": True, "stress_key": "s"}, "stress_key='s' is of no use"),
        ({"energy_key": "e"}, "energy_key='e' is of no use"),
        ({"targets": "stress", "stress_key": "s", "virial_key": "v"}, "name the same target"),
        ({"targets": True, "energy_key": 3}, "energy_key must be a string, not int"),
    ],
)
def test_contradictory_choices_of_labels_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        batch_structures([labelled()], 3.0, **arguments)


def test_stresses_of_molecules_are_optional_labels_that_they_do_not_have() -> None:
    """Files of molecules and crystals hold one for each frame."""
    one, other = labelled(1), labelled(2, crystal(2))
    one.info["stress"], other.info["stress"] = np.zeros((3, 3)), np.eye(3)
    batch = batch_structures([one, other], 5.0, targets=("energy", "stress"), optional="stress")
    assert batch.has_stress.tolist() == [False, True]


def test_missing_targets_name_the_structure() -> None:
    labelled = molecule(2, 1)
    labelled.calc = SinglePointCalculator(labelled, energy=1.0, forces=np.zeros((2, 3)))
    only_energy = molecule(2, 1)
    only_energy.calc = SinglePointCalculator(only_energy, energy=1.0)
    for unlabelled in (molecule(2, 2), only_energy):
        with pytest.raises(StructureError, match=r"^structure 1: the structure carries no (energy|forces): no key"):
            batch_structures([labelled, unlabelled], 3.0, targets=True)
