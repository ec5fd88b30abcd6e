"""The examples that fit a small potential, with fewer frames and steps: numbers that a wrong one would miss."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.emt import EMT
from ase.calculators.fd import calculate_numerical_forces

from examples import adsorption, diagrams, elasticity, evaluation, vibrations, water
from examples.fitting import Fit
from examples.spc_fw import ANGLE, BOND, FlexibleWater
from tensorgraph.compiler import compile_spec
from tensorgraph.spec import load_spec
from tests.helpers import GENERATED

Report = Callable[[ModuleType, Any], str]

QUICK = Fit(steps=60, structures=8)


@pytest.fixture
def report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Report:
    """What an example prints, and writes to `tmp_path`, for results that were found before."""

    def printed(example: ModuleType, found: Any) -> str:
        monkeypatch.setattr(example, "study", lambda out: found)
        capsys.readouterr()
        example.main(["--out", str(tmp_path)])
        return capsys.readouterr().out

    return printed


def test_elastic_constants_agree_with_the_equation_of_state(tmp_path: Path, report: Report) -> None:
    fit = replace(QUICK, steps=100, energy=1000.0)
    found = elasticity.study(tmp_path, frames=80, fit=fit)
    for name, tolerance in {"EMT": 0.02, "model": 0.2}.items():  # energies gave B and stresses the constants
        one = found[name]
        assert (one.c11 + 2 * one.c12) / 3 == pytest.approx(one.bulk_modulus, rel=tolerance)
    assert found["EMT"].lattice_constant == pytest.approx(3.59, abs=0.005)
    assert found["model"].lattice_constant == pytest.approx(3.59, abs=0.05)
    assert found["model"].bulk_modulus == pytest.approx(found["EMT"].bulk_modulus, rel=0.4)
    assert f"{found['EMT'].c44:.1f}" in report(elasticity, found)
    assert (tmp_path / "equation_of_state.png").read_bytes().startswith(b"\x89PNG")


def test_an_adsorbate_relaxes_to_where_emt_has_it(tmp_path: Path, report: Report) -> None:
    found = adsorption.study(tmp_path, sites=("fcc",), frames=80, fit=QUICK)
    true, predicted = found["fcc"]
    assert true.height == pytest.approx(1.558, abs=0.01)
    assert predicted.height == pytest.approx(true.height, abs=0.5)  # where it started: 1.2
    assert true.energy == pytest.approx(-4.616, abs=0.01)
    assert predicted.energy < 0  # a fit this short knows little of the free atom
    assert f"{predicted.height:.3f}" in report(adsorption, found)


def test_samples_of_adsorption_keep_atoms_apart() -> None:
    for atoms in adsorption.samples(20):
        if len(atoms) == 13:
            assert 1.5 < atoms.get_distances(-1, np.arange(12), mic=True).min() < 2.5


def test_vibrations_of_the_icosahedron_are_degenerate_as_its_group_requires(tmp_path: Path, report: Report) -> None:
    true, predicted = vibrations.study(tmp_path, frames=60, fit=QUICK)
    assert len(true) == len(predicted) == 33
    sizes = [5, 4, 5, 3, 4, 3, 5, 1, 3]
    rows = report(vibrations, (true, true)).splitlines()
    assert [int(row.split("│")[3]) for row in rows if "│" in row] == sizes
    # A model knows no coordinates: its groups have these sizes too, in whatever order.
    splits = np.flatnonzero(np.diff(predicted) > 0.01) + 1
    assert sorted(len(group) for group in np.split(predicted, splits)) == sorted(sizes)
    assert predicted.max() == pytest.approx(true.max(), rel=0.3)


def test_batches_give_what_single_structures_give(tmp_path: Path, report: Report) -> None:
    found = evaluation.study(tmp_path, frames=80, screened=40, fit=replace(QUICK, steps=200))
    assert found.difference < 1e-12
    energies = [EMT().get_potential_energy(atoms) / 13 for atoms in evaluation.clusters(40, seed=1)]
    assert found.rmse < np.std(energies) / 2
    assert f"RMSE against EMT {1e3 * found.rmse:.1f} meV/atom" in report(evaluation, found)


def test_flexible_water_has_the_gradient_of_its_energy() -> None:
    atoms = water.box(2)
    atoms.rattle(0.05, seed=0)
    atoms.positions[4] += atoms.cell[0]  # a molecule may lie across a face
    atoms.calc = FlexibleWater()
    np.testing.assert_allclose(
        atoms.get_forces()[:9], calculate_numerical_forces(atoms, eps=1e-5, iatoms=range(9)), atol=1e-7
    )
    np.testing.assert_allclose(atoms.get_forces().sum(axis=0), 0, atol=1e-10)


def test_one_molecule_of_water_rests_at_its_bond_and_angle() -> None:
    half = ANGLE / 2
    positions = BOND * np.array([[0, 0, 0], [np.sin(half), np.cos(half), 0], [-np.sin(half), np.cos(half), 0]])
    atoms = Atoms("OH2", positions, calculator=FlexibleWater())
    assert atoms.get_potential_energy() == pytest.approx(0, abs=1e-12)
    np.testing.assert_allclose(atoms.get_forces(), 0, atol=1e-10)
    with pytest.raises(ValueError, match="order O, H, H"):
        FlexibleWater().get_potential_energy(molecule("CH3OH"))


def test_a_random_gas_has_a_flat_distribution() -> None:
    random, frames = np.random.default_rng(0), []
    for _ in range(30):
        atoms = water.box(4)
        atoms.positions[:] = random.uniform(size=(len(atoms), 3)) @ atoms.cell.array
        frames.append(atoms)
    found = water.radial_distribution(frames)
    outer = found.r > 2
    assert found.oxygen_oxygen[outer].mean() == pytest.approx(1, abs=0.05)
    assert found.oxygen_hydrogen[outer].mean() == pytest.approx(1, abs=0.05)
    assert found.oxygen_oxygen[outer].std() < 0.25


def test_dynamics_holds_its_temperature() -> None:
    frames = water.dynamics(water.box(2), FlexibleWater(), 300, 500, 4, "")
    assert np.mean([atoms.get_temperature() for atoms in frames[50:]]) == pytest.approx(300, abs=80)


def test_water_keeps_hydrogen_bonds(tmp_path: Path, report: Report) -> None:
    plan = water.Plan(edge=2, training=100, equilibration=20, production=40)
    fit = Fit(steps=120, structures=1)
    found = water.study(tmp_path, plan, fit)
    for one in found.values():
        positions = re.findall(r"[\d.]+(?= Å)", water.summary(one))
        assert [float(value) for value in positions] == pytest.approx([2.7, 1.7], abs=0.35)
        assert not one.oxygen_hydrogen[one.r < 1.1].any()
    assert water.summary(found["model"]) in report(water, found)
    assert (tmp_path / "radial_distribution.png").read_bytes().startswith(b"\x89PNG")


def test_the_readme_shows_the_diagrams_of_its_spec() -> None:
    basis = compile_spec(load_spec(GENERATED.parent / "specs" / "hiphop5.yaml")).basis
    picture = GENERATED.parent / "docs" / "hiphop5.svg"
    assert picture.read_text(encoding="utf-8") == diagrams.sheet(basis)
    assert "docs/hiphop5.svg" in (GENERATED.parent / "README.md").read_text(encoding="utf-8")
