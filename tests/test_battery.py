"""The battery: right models pass every check, and each check rejects a model that is broken for it."""

from __future__ import annotations

import functools
import json
import math
import re
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS
from hypothesis import given
from hypothesis import strategies as st

from tensorgraph import cli
from tensorgraph.battery import (
    NAMES,
    PHYSICS,
    Check,
    Subject,
    derivatives,
    dynamics,
    limits,
    run_battery,
    symmetry,
    verify,
)
from tensorgraph.battery import battery as registry
from tensorgraph.battery.bounds import BOUNDS, MACHINERY_BOUNDS
from tensorgraph.battery.certificate import check_invariants
from tensorgraph.battery.predictions import predictions, scales
from tensorgraph.battery.structures import PERIODIC, SEED, Maker, rotation, structures, water_cluster
from tensorgraph.calculator import TensorGraphCalculator
from tensorgraph.compiler import compile_spec
from tensorgraph.emit.writing import write_package
from tensorgraph.model import load_package
from tensorgraph.neighbours.lists import neighbour_pairs
from tensorgraph.spec import parse_spec
from tests.broken import BROKEN, Broken, Wrapped, broken_invariants, table
from tests.helpers import GENERATED, WITH_NETWORK, package, small_model

ROOT = Path(__file__).parents[1]
DTYPES = {"float64": torch.float64, "float32": torch.float32}
INVARIANTS = "invariants: rotation and reflection"


def shorten(patch: pytest.MonkeyPatch) -> None:
    """Less of the same, where more would add nothing to the test."""
    patch.setattr(dynamics, "STEPS", 150)
    patch.setattr(dynamics, "MOLECULES", 1)
    patch.setattr(symmetry, "TIMES", 1)
    patch.setattr(derivatives, "DIRECTIONS", 1)
    patch.setattr(limits, "CURVE", 12)
    patch.setattr(limits, "GAUSS", 5)
    patch.setattr(limits, "MOST_PAIRS", 4)


@functools.cache
def small_subject(dtype: torch.dtype = torch.float64) -> Subject:
    module = package("hiphop4")
    return Subject(module, small_model(module, seed=1).to(dtype))


@functools.cache
def right() -> dict[str, tuple[str, Check]]:
    """What the battery finds of a right model: by row, the name of the function and the check."""
    with pytest.MonkeyPatch.context() as patch:
        shorten(patch)
        return {check.name: (name, check) for name, _ in PHYSICS for check in run_battery(small_subject(), only=[name])}


def rows(checks: tuple[Check, ...]) -> dict[str, Check]:
    return {check.name: check for check in checks}


def test_every_row_has_a_bound_and_a_model_that_is_broken_for_it() -> None:
    assert list(BOUNDS) == [INVARIANTS, *right()]
    assert list(BROKEN) == list(right())


@pytest.mark.parametrize("row", BROKEN)
def test_a_right_model_passes(row: str) -> None:
    check = right()[row][1]
    assert check.passed, check
    assert not check.skipped


@pytest.mark.parametrize(
    ("row", "broken"),
    [(row, broken) for row, all_ in BROKEN.items() for broken in all_],
    ids=lambda x: getattr(x, "what", x),
)
def test_a_broken_model_fails(row: str, broken: Broken, monkeypatch: pytest.MonkeyPatch) -> None:
    shorten(monkeypatch)
    found = rows(run_battery(broken.make(small_subject()), only=[right()[row][0]]))
    assert not found[row].passed, found[row]


def test_a_chiral_model_is_right_but_for_reflections(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the check of reflections is not one of rotations again."""
    (chiral,) = BROKEN["reflection: energies"]
    shorten(monkeypatch)
    found = run_battery(chiral.make(small_subject()), only=["rotation", "forces", "hessian", "virial", "cutoff"])
    assert all(check.passed for check in found), found


def test_a_wrapped_model_is_the_model() -> None:
    subject = small_subject()
    same = Subject(subject.package, Wrapped(subject, lambda _found, _given: {}))
    assert all(check.passed for check in run_battery(same, only=["forces", "virial", "additivity"]))


def test_invariants_that_are_none_fail() -> None:
    module, cpu = package("hiphop4"), torch.device("cpu")
    for dtype in DTYPES.values():
        assert check_invariants(module, cpu, dtype).passed
    assert not check_invariants(broken_invariants(module), cpu, torch.float64).passed


def test_what_a_check_raises_is_its_failure() -> None:
    def fail(_subject: Subject) -> Check:
        raise RuntimeError("out of\nmemory")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "CHECKS", (("first", fail), ("atoms", limits.check_single_atoms)))
        first, *others = run_battery(small_subject(), only=["first", "atoms"])
    assert (first.name, first.measured, first.where) == ("first", math.inf, "RuntimeError: out of\\nmemory")
    assert not first.passed
    assert len(others) == 2
    assert json.loads(json.dumps(first.to_json(), allow_nan=False))["measured"] == "inf"


def test_progress_names_the_check() -> None:
    told: list[str] = []
    run_battery(small_subject(), told.append, only=["dimers", "atoms"])
    assert told == ["atoms", "dimers"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", WITH_NETWORK)
def test_committed_packages_pass(
    name: str, dtype: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All but the drift, for whose thousand steps there is a test of its own."""
    shorten(monkeypatch)
    call = ["verify", str(GENERATED / name), "--dtype", dtype, "--json"]
    call += [part for check, _ in PHYSICS if check != "drift" for part in ("--only", check)]
    call += ["--only", "certificate"]
    status = cli.main(call)
    found = json.loads(capsys.readouterr().out)
    failed = [check for check in found["checks"] if not check["passed"]]
    assert (status, found["passed"], failed) == (0, True, [])
    assert {check["dtype"] for check in found["checks"]} == {None, dtype}
    assert set(BOUNDS) - {"drift of the energy"} <= {check["name"] for check in found["checks"]}


@given(
    seed=st.integers(0, 2**16),
    kind=st.sampled_from(list(structures([1, 6, 7, 8], 6.5))),
    name=st.sampled_from(WITH_NETWORK),
)
def test_rotations_change_energies_by_less_than_rounding(seed: int, kind: str, name: str) -> None:
    """By 1e-12 of the energy at most, relative to the interaction: that of the whole packages, in float64."""
    module = package(name)
    subject = Subject(module, whole_model(name))
    turn = rotation(np.random.default_rng(seed))
    atoms = structures(subject.species, subject.cutoff, seed)[kind]
    turned = Atoms(atoms.numbers, atoms.positions @ turn.T, cell=atoms.cell.array @ turn.T, pbc=atoms.pbc)
    before, after = predictions(subject, [atoms, turned])
    (scale,) = scales(subject, [atoms], [before])
    assert abs(after.energy - before.energy) < 1e-12 * scale.energy


@functools.cache
def whole_model(name: str) -> torch.nn.Module:
    return package(name).Model(seed=0).double()


def test_a_thousand_steps_of_a_water_cluster_do_not_drift() -> None:
    """By ASE's integrator and the calculator: less than 1e-6 eV per atom and ps at 0.5 fs, uncorrected."""
    atoms = water_cluster([1, 8], 6.5)
    atoms.calc = TensorGraphCalculator(GENERATED / "hipnn")
    BFGS(atoms, logfile=None, maxstep=0.05).run(fmax=0.005, steps=250)
    deviations = np.sqrt(units.kB * 20 / atoms.get_masses())[:, None]
    atoms.set_velocities(deviations * np.random.default_rng(SEED).normal(size=(len(atoms), 3)))
    integrator = VelocityVerlet(atoms, timestep=0.5 * units.fs)
    energies = np.array([atoms.get_total_energy() for _ in integrator.irun(1000)])
    assert abs(dynamics.drift(energies)) / len(atoms) < 1e-6


def test_the_repulsion_of_the_drift_check_is_a_potential() -> None:
    """Its forces are slopes of its energy and add up to nothing; at a bond it is small, at half of one large."""
    atoms = water_cluster([1, 8], 6.5)
    energy, forces = dynamics.repulsion(atoms)
    assert 0 < energy < 0.2
    np.testing.assert_allclose(forces.sum(axis=0), 0, atol=1e-12)
    for index, axis in product(range(len(atoms)), range(3)):
        moved = [atoms.copy(), atoms.copy()]
        for sign, one in zip((1, -1), moved, strict=True):
            one.positions[index, axis] += sign * 1e-5
        plus, minus = (dynamics.repulsion(one)[0] for one in moved)
        assert forces[index, axis] == pytest.approx((minus - plus) / 2e-5, abs=1e-7)
    atoms.positions[1] = (atoms.positions[0] + atoms.positions[1]) / 2
    assert dynamics.repulsion(atoms)[0] > 10


def test_the_drift_is_that_of_the_energy() -> None:
    times = 1e-3 * dynamics.TIMESTEP * np.arange(1000)
    assert dynamics.drift(5.0 + 3e-5 * times) == pytest.approx(3e-5)
    assert abs(dynamics.drift(1e-3 * np.sin(2 * np.pi * times / 0.009))) < 1e-7


@given(
    seed=st.integers(0, 2**16), species=st.sampled_from([(1,), (1, 6, 7, 8), (79,), (29, 8)]), cutoff=st.floats(1, 60)
)
def test_structures_are_ones_that_atoms_could_have(seed: int, species: tuple[int, ...], cutoff: float) -> None:
    """No two atoms closer than half a bond, some in reach of each other, and no atom with thousands of neighbours."""
    make = Maker(np.random.default_rng(seed), species, cutoff)
    shortest = min(make.bond(a, b) for a in species for b in species)
    for kind, atoms in structures(species, cutoff, seed).items():
        _, displacements = neighbour_pairs(atoms, cutoff)
        assert len(displacements) < 2500 * len(atoms), kind
        assert np.linalg.norm(displacements, axis=1).min() > shortest / 2, kind
        assert set(atoms.numbers) <= set(species)
    assert len({tuple(atoms.pbc) for atoms in structures(species, cutoff, seed).values()}) == 4
    assert len(set(PERIODIC)) == 8


def test_structures_are_the_same_every_time() -> None:
    first, second = structures([1, 8], 5.0), structures([1, 8], 5.0)
    assert all(first[kind] == second[kind] for kind in first)


def test_a_package_without_a_network_is_checked_as_far_as_it_goes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "name: bare\nbasis: {family: flexible, body_order: 4, max_rank: 2}\n"
    folder = write_package(compile_spec(parse_spec(text)).package, tmp_path)
    found = verify(folder, dtypes=(torch.float64,))
    assert found.passed
    by_name = {row.check.name: row.check for row in found.rows}
    assert by_name[INVARIANTS].measured < 1e-12
    assert by_name["forces"].skipped
    assert "no network" in by_name["forces"].where
    assert cli.main(["verify", str(folder), "--only", "forces"]) == 0
    assert "skipped" in capsys.readouterr().out


def test_the_docs_show_the_bounds_and_what_is_rejected() -> None:
    page = (ROOT / "docs" / "verify.md").read_text(encoding="utf-8")
    assert table() in page
    for name, bound in MACHINERY_BOUNDS.items():
        row = rf"^\| {re.escape(name)}( \([^|]*)? \| {bound.float64:g} \| {bound.float32:g} \|"
        assert re.search(row, page, re.MULTILINE), name
    assert all(f"**{name}" in page or f", {name}" in page for name in NAMES)


def test_the_integral_of_the_force_is_fine_enough_for_narrow_sensitivities(tmp_path):
    """Twenty of them and few features: with four points for each part the integral itself was wrong by 0.002."""
    spec = parse_spec(
        "name: narrow\nbasis: {family: hiphop, body_order: 4, max_rank: 2}\n"
        "network: {species: [H, C, O], features: 8, interactions: 2}\n"
    )
    package = load_package(write_package(compile_spec(spec).package, tmp_path))
    check = limits.check_work(Subject(package, package.Model(seed=0).double()))
    assert check.measured < 1e-4
