"""Committees: means and deviations of what their members say, and never of what they said."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.fd import calculate_numerical_forces
from ase.calculators.lj import LennardJones
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from ase.optimize import BFGS

from tensorgraph.calculator import TensorGraphCalculator
from tensorgraph.committee import CommitteeCalculator
from tensorgraph.errors import StructureError
from tensorgraph.model.checkpoint import save_checkpoint
from tests.helpers import GENERATED, crystal, molecule, package


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    module, folder = package("hipnn"), tmp_path_factory.mktemp("committee")
    paths = [folder / f"{seed}.safetensors" for seed in range(3)]
    for seed, path in enumerate(paths):
        save_checkpoint(module.Model(seed=seed), module, path)
    return paths


@pytest.fixture
def committee(checkpoints: list[Path]) -> CommitteeCalculator:
    return CommitteeCalculator(checkpoints, GENERATED / "hipnn")


def values_of(checkpoints: list[Path], atoms: Atoms, name: str) -> np.ndarray:
    members = [TensorGraphCalculator(GENERATED / "hipnn", path) for path in checkpoints]
    return np.array([member.get_property(name, atoms) for member in members])


def test_means_and_sample_deviations_over_members(committee: CommitteeCalculator, checkpoints: list[Path]) -> None:
    atoms = crystal(1, n_atoms=3)
    for name in ("energy", "free_energy", "energies", "forces", "stress", "stresses"):
        values = values_of(checkpoints, atoms, name)
        np.testing.assert_allclose(committee.get_property(name, atoms), values.mean(axis=0), rtol=1e-12)
        if name != "free_energy":
            found, expected = committee.get_property(f"{name}_std", atoms), values.std(axis=0, ddof=1)
            np.testing.assert_allclose(found, expected, rtol=1e-9)
            assert np.shape(found) == values.shape[1:]
    assert isinstance(committee.results["energy_std"], float)


def test_forces_are_the_gradient_of_the_mean_energy(committee: CommitteeCalculator) -> None:
    atoms = molecule(4, 2)
    atoms.calc = committee
    np.testing.assert_allclose(atoms.get_forces(), calculate_numerical_forces(atoms, eps=1e-4), atol=2e-5)
    BFGS(atoms, logfile=None).run(fmax=1e-9, steps=2)


def test_committees_of_checkpoints_alone_and_of_calculators(checkpoints: list[Path]) -> None:
    atoms = molecule(3, 1)
    alone = CommitteeCalculator([str(path) for path in checkpoints])
    calculators = CommitteeCalculator([TensorGraphCalculator(GENERATED / "hipnn", path) for path in checkpoints])
    assert alone.get_potential_energy(atoms) == calculators.get_potential_energy(atoms)
    mixed = CommitteeCalculator([LennardJones(), LennardJones(epsilon=3.0)])
    assert mixed.get_property("energy_std", atoms) == pytest.approx(
        2 / 2**0.5 * abs(LennardJones().get_potential_energy(atoms))
    )


def test_a_folder_with_a_committee(checkpoints: list[Path], tmp_path: Path) -> None:
    for seed, path in enumerate(checkpoints):
        (tmp_path / f"seed-{seed}").mkdir()
        (tmp_path / f"seed-{seed}" / "model.safetensors").write_bytes(path.read_bytes())
    atoms = molecule(3, 1)
    listed = CommitteeCalculator(checkpoints).get_potential_energy(atoms)
    assert CommitteeCalculator(tmp_path).get_potential_energy(atoms) == listed
    assert CommitteeCalculator(str(tmp_path), GENERATED / "hipnn").get_potential_energy(atoms) == listed
    with pytest.raises(ValueError, match="a committee needs at least two members, not 1"):
        CommitteeCalculator(tmp_path / "seed-2")


def test_results_are_never_stale(committee: CommitteeCalculator, checkpoints: list[Path]) -> None:
    atoms = molecule(3, 1)
    before = committee.get_potential_energy(atoms)
    committee.members[0].load(checkpoints[1])
    after = committee.get_potential_energy(atoms)
    assert after == pytest.approx(values_of([checkpoints[k] for k in (1, 1, 2)], atoms, "energy").mean(), rel=1e-12)
    assert after != before
    with pytest.raises(StructureError, match="unknown species Au"):
        committee.get_potential_energy(Atoms("Au"))
    assert not committee.results
    assert committee.get_potential_energy(atoms) == after
    committee.reset()
    assert not any(member.results for member in committee.members)


def test_copies_and_pickles(committee: CommitteeCalculator) -> None:
    atoms = molecule(3, 1)
    energy = committee.get_potential_energy(atoms)
    for twin in (copy.deepcopy(committee), pickle.loads(pickle.dumps(committee))):
        twin.reset()
        assert twin.get_potential_energy(atoms) == energy
        assert committee.results["energy"] == energy


def test_files_hold_means_and_what_is_put_into_info(committee: CommitteeCalculator, tmp_path: Path) -> None:
    atoms = crystal(1, n_atoms=3)
    atoms.calc = committee
    atoms.get_forces()
    atoms.info["energy_std"], atoms.arrays["forces_std"] = (
        committee.results["energy_std"],
        committee.results["forces_std"],
    )
    write(tmp_path / "frame.xyz", atoms)
    again = read(tmp_path / "frame.xyz")
    assert again.get_potential_energy() == pytest.approx(committee.results["energy"])
    np.testing.assert_allclose(again.arrays["forces_std"], committee.results["forces_std"], atol=1e-7)
    assert set(committee.export_properties()) >= {"energy", "forces"}
    assert "energy_std" not in committee.export_properties()


def test_no_stress_without_a_volume(committee: CommitteeCalculator) -> None:
    atoms = molecule(3, 1)
    committee.get_potential_energy(atoms)
    assert "stress_std" not in committee.results
    for name in ("stress", "stress_std", "dipole"):
        with pytest.raises(PropertyNotImplementedError):
            committee.get_property(name, atoms)


def test_wrong_members_are_refused(checkpoints: list[Path]) -> None:
    calculator = LennardJones()
    wrong = {
        "must be a folder, or a list of checkpoints or calculators, not int": 3,
        "needs at least two members, not 1": [calculator],
        "members 0 and 1 are the same": [calculator, calculator],
        "members 0 and 2 are the same": [checkpoints[0], checkpoints[1], str(checkpoints[0])],
        "member 1 is int; allowed: a checkpoint, or an ASE calculator": [calculator, 3],
    }
    for message, members in wrong.items():
        with pytest.raises((TypeError, ValueError), match=message):
            CommitteeCalculator(members)
    with pytest.raises(TypeError, match="CommitteeCalculator has no keyword 'checkpoints'; allowed: members"):
        CommitteeCalculator([calculator, LennardJones()], checkpoints=checkpoints)
    committee = CommitteeCalculator([calculator, LennardJones()])
    with pytest.raises(TypeError, match=r"set\(\) has no keyword 'sigma'; it takes none"):
        committee.set(sigma=2.0)


def test_results_are_those_of_the_members_now_without_atoms_too(
    committee: CommitteeCalculator, checkpoints: list[Path]
) -> None:
    atoms = molecule(4, 0)
    before = committee.get_potential_energy(atoms)
    committee.members[0].load(checkpoints[1])
    assert committee.get_potential_energy() == committee.get_potential_energy(atoms) != before


def test_members_that_cannot_compute_keep_their_results() -> None:
    atoms = molecule(3, 0)
    stored = [SinglePointCalculator(atoms, energy=energy, forces=np.zeros((3, 3))) for energy in (1.0, 3.0)]
    committee = CommitteeCalculator(stored)
    committee.reset()
    assert committee.get_potential_energy(atoms) == 2.0
    stored[0].results["energy"] = np.nan
    committee.reset()
    with pytest.raises(StructureError, match="not finite"):
        committee.get_potential_energy(atoms)


@pytest.mark.parametrize("wrong", [{"package_dir": "nowhere"}, {"device": "toaster"}, {"dtype": "int8"}, {"skin": -3}])
def test_arguments_are_checked_where_no_member_needs_them(wrong: dict) -> None:
    with pytest.raises((TypeError, ValueError)):
        CommitteeCalculator([LennardJones(), LennardJones(sigma=2)], **wrong)
