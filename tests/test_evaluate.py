"""Errors of potentials on labelled structures: the figures, the command, committees, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from ase.stress import full_3x3_to_voigt_6_stress
from ase.units import GPa

from tensorgraph import cli
from tensorgraph.calculator import TensorGraphCalculator
from tensorgraph.committee import CommitteeCalculator
from tensorgraph.dataset import LabelledStructure, Origin, read_structures
from tensorgraph.errors import CheckpointError, DataError, StructureError
from tensorgraph.evaluation import Predicted, evaluate, metrics_of, pictures, species_of, write_pictures
from tensorgraph.evaluation.result import short
from tensorgraph.model import prediction
from tensorgraph.model.checkpoint import save_checkpoint
from tensorgraph.model.labels import LabelChoice, Labels
from tensorgraph.potential import package_of_spec
from tensorgraph.spec import parse_spec
from tests.helpers import crystal, molecule

SPEC = """\
name: tried
basis: {family: hiphop, body_order: 3, max_rank: 1}
network:
  species: [H, C, N, O]
  features: 4
  interactions: 1
  atom_layers: 1
  sensitivity: {functions: 5, soft_min: 0.75, soft_max: 3.5, cutoff: 4.0}
"""
ANY = LabelChoice.of(("energy", "forces", "stress"), ("energy", "forces", "stress"), {})
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def committee(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a committee of three, seeds 2, 9 and 10."""
    folder, package = tmp_path_factory.mktemp("run"), package_of_spec(parse_spec(SPEC))
    for seed in (2, 9, 10):
        (folder / f"seed-{seed}").mkdir()
        save_checkpoint(package.Model(seed=seed), package, folder / f"seed-{seed}" / "model.safetensors")
    return folder


@pytest.fixture(scope="module")
def checkpoint(committee: Path) -> Path:
    return committee / "seed-2" / "model.safetensors"


def structure(atoms: Atoms, frame: int = 0, group: str | None = None, **labels: object) -> LabelledStructure:
    return LabelledStructure(atoms, Labels(**labels), Origin("made.xyz", frame), group)


def labelled(seed: int, atoms: Atoms | None = None, **changes: object) -> Atoms:
    atoms = molecule(4, seed) if atoms is None else atoms
    random = np.random.default_rng(seed)
    labels = {"energy": random.normal(), "forces": random.normal(size=(len(atoms), 3)), **changes}
    atoms.calc = SinglePointCalculator(atoms, **{name: label for name, label in labels.items() if label is not None})
    return atoms


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Five structures: two molecules of the group a, one of b without forces, two crystals with stresses."""
    frames = [labelled(0), labelled(1), labelled(2, forces=None)]
    frames += [labelled(seed, crystal(seed), stress=np.arange(6) / 100) for seed in (3, 4)]
    for atoms, group in zip(frames, "aab", strict=False):
        atoms.info["group"] = group
    write(tmp_path / "data.xyz", frames)
    return tmp_path / "data.xyz"


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tensorgraph", "evaluate", *map(str, arguments)],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


# Figures


def test_errors_of_energies_and_forces_by_hand() -> None:
    two, one = Atoms("H2", [[0, 0, 0], [0, 0, 1]]), Atoms("H")
    forces = np.array([[3.0, 0, 0], [0, 0, 0.05]])
    predictions = [
        Predicted(structure(two, energy=-2.0, forces=forces), -1.996, np.array([[0, 4.0, 0], [0, 0, 0.05]]), None),
        Predicted(structure(one, energy=1.0, forces=np.array([[0, 0.2, 0]])), 0.997, np.array([[0, 0.3, 0]]), None),
        Predicted(structure(one, energy=5.0), 5.0, np.ones((1, 3)), None),
        Predicted(structure(one), 7.0, np.ones((1, 3)), None),
    ]
    found = metrics_of(predictions)
    assert (found.n_structures, found.n_atoms, found.stress) == (4, 5, None)
    energy = found.energy
    assert energy.n_structures == 3
    assert energy.mae_mev_per_atom == pytest.approx((2 + 3 + 0) / 3)
    assert energy.rmse_mev_per_atom == pytest.approx(math.sqrt((4 + 9) / 3))
    assert energy.max_mev_per_atom == pytest.approx(3)
    assert energy.mae_mev == pytest.approx((4 + 3 + 0) / 3)
    assert energy.rmse_mev == pytest.approx(math.sqrt((16 + 9) / 3))
    assert energy.max_mev == pytest.approx(4)
    force = found.forces
    assert (force.n_structures, force.n_atoms, force.n_components, force.n_directed) == (2, 3, 9, 2)
    assert force.mae_ev_per_angstrom == pytest.approx((3 + 4 + 0.1) / 9)
    assert force.rmse_ev_per_angstrom == pytest.approx(math.sqrt((9 + 16 + 0.01) / 9))
    assert force.max_ev_per_angstrom == pytest.approx(4)
    assert force.norm_mean_ev_per_angstrom == pytest.approx((5 + 0 + 0.1) / 3)
    assert force.norm_rms_ev_per_angstrom == pytest.approx(math.sqrt((25 + 0.01) / 3))
    assert force.norm_max_ev_per_angstrom == pytest.approx(5)
    assert force.relative_magnitude_error == pytest.approx((1 / 3 + 0.1 / 0.2) / 2)
    assert force.angle_degrees == pytest.approx((90 + 0) / 2, abs=1e-5)


def test_angles_of_opposite_absent_and_small_forces() -> None:
    atoms = Atoms("H2", [[0, 0, 0], [0, 0, 1]])
    true = np.array([[1.0, 0, 0], [0, 0, 2.0]])
    opposite = metrics_of([Predicted(structure(atoms, forces=true), 0.0, -true, None)])
    assert opposite.forces.angle_degrees == pytest.approx(180)
    absent = metrics_of([Predicted(structure(atoms, forces=true), 0.0, 0 * true, None)])
    assert (absent.forces.angle_degrees, absent.forces.relative_magnitude_error) == (90, 1)
    small = metrics_of([Predicted(structure(atoms, forces=0.01 * true), 0.0, true, None)])
    assert (small.forces.n_directed, small.forces.angle_degrees, small.forces.relative_magnitude_error) == (
        0,
        None,
        None,
    )


def test_errors_of_stresses_by_hand() -> None:
    stress = np.array([[1.0, 6, 5], [6, 2, 4], [5, 4, 3]])
    off = np.array([0, 0, 0, 0, 0, 0.6])
    one = Predicted(structure(crystal(0), stress=stress), 0.0, np.zeros((2, 3)), np.arange(1.0, 7) + off)
    other = Predicted(structure(crystal(1)), 0.0, np.zeros((2, 3)), np.ones(6))
    found = metrics_of([one, other]).stress
    assert (found.n_structures, found.n_components) == (1, 6)
    assert found.mae_ev_per_cubic_angstrom == pytest.approx(0.1)
    assert found.rmse_ev_per_cubic_angstrom == pytest.approx(0.6 / math.sqrt(6))
    assert found.max_ev_per_cubic_angstrom == pytest.approx(0.6)
    assert found.mae_gpa == pytest.approx(0.1 * 160.21766, rel=1e-6)
    assert found.max_gpa == pytest.approx(0.6 / GPa)


def test_predictions_are_those_of_the_calculator_whatever_the_batches(checkpoint: Path, data: Path) -> None:
    structures = read_structures([data], ANY)
    calculator, found = TensorGraphCalculator(checkpoint), evaluate(checkpoint, structures, max_pairs=1)
    for one, labels in zip(found.predictions, structures, strict=True):
        assert one.energy == pytest.approx(calculator.get_potential_energy(labels.atoms), rel=1e-10)
        np.testing.assert_allclose(one.forces, calculator.get_forces(labels.atoms), atol=1e-10)
        if labels.labels.stress is not None:
            error = calculator.get_stress(labels.atoms) - full_3x3_to_voigt_6_stress(labels.labels.stress)
            np.testing.assert_allclose(one.stress_error, error, atol=1e-10)
    assert found.total.stress.n_structures == 2
    assert found.total.forces.n_structures == 4
    together = evaluate(str(checkpoint), structures).total
    assert together.energy.rmse_mev == pytest.approx(found.total.energy.rmse_mev, rel=1e-9)
    single = evaluate(checkpoint, structures, dtype="float32")
    assert single.total.energy.rmse_mev == pytest.approx(found.total.energy.rmse_mev, rel=1e-4)
    assert single.total.energy.rmse_mev != together.energy.rmse_mev


@pytest.mark.parametrize(("max_pairs", "batches"), [(1, [1, 1, 1, 1, 1]), (100_000, [5])])
def test_no_more_pairs_at_once_than_were_asked_for(
    checkpoint: Path, data: Path, max_pairs: int, batches: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    joined, sizes = prediction.join_structures, []

    def counted(held: list, *rest: object):
        sizes.append(len(held))
        return joined(held, *rest)

    monkeypatch.setattr(prediction, "join_structures", counted)
    evaluate(checkpoint, read_structures([data], ANY), max_pairs=max_pairs)
    assert sizes == batches


def test_a_committee_is_evaluated_by_its_mean(committee: Path, data: Path) -> None:
    structures = read_structures([data], ANY)
    calculator, told = CommitteeCalculator(committee), []
    found = evaluate(committee, structures, tell=told.append)
    assert [Path(member).parent.name for member in found.members] == ["seed-2", "seed-9", "seed-10"]
    for one, labels in zip(found.predictions, structures, strict=True):
        assert one.energy == pytest.approx(calculator.get_potential_energy(labels.atoms), rel=1e-10)
        np.testing.assert_allclose(one.forces, calculator.get_forces(labels.atoms), atol=1e-10)
    np.testing.assert_allclose(found.predictions[3].stress, calculator.get_stress(structures[3].atoms), atol=1e-10)
    assert told[-1] == "member 3 of 3, structure 5 of 5"


def test_groups_and_the_worst_structures(checkpoint: Path, data: Path) -> None:
    found = evaluate(checkpoint, read_structures([data], ANY), worst=2)
    groups = dict(found.groups)
    assert list(groups) == ["a", "b", None]
    assert [metrics.n_structures for metrics in groups.values()] == [2, 1, 2]
    assert groups["b"].forces is None
    errors = {one.structure.origin.frame: one.energy_error_per_atom for one in found.predictions}
    expected = sorted(errors, key=lambda frame: -abs(errors[frame]))[:2]
    assert [one.frame for one in found.worst_energy] == expected
    assert found.worst_energy[0].energy_mev_per_atom == pytest.approx(1e3 * errors[expected[0]])
    norms = {
        one.structure.origin.frame: one.force_errors for one in found.predictions if one.structure.origin.frame != 2
    }
    worst = found.worst_forces[0]
    assert worst.frame == max(norms, key=lambda frame: float(np.square(norms[frame]).mean()))
    lengths = np.linalg.norm(norms[worst.frame], axis=1)
    assert (worst.force_atom, worst.force_max_ev_per_angstrom) == (int(lengths.argmax()), pytest.approx(lengths.max()))
    assert evaluate(checkpoint, read_structures([data], ANY)[3:]).groups == ()


def test_errors_without_what_stands_in_the_training_set(checkpoint: Path, data: Path) -> None:
    structures = read_structures([data], ANY)
    with pytest.warns(UserWarning, match=r"^2 of 5 test structures stand in the training set"):
        found = evaluate(checkpoint, structures, train=structures[1:3])
    assert found.in_training == (1, 2)
    assert found.without_training == evaluate(checkpoint, [structures[k] for k in (0, 3, 4)]).total
    assert "without the 2 in the training set: 3 structures, 8 atoms" in str(found)
    with pytest.warns(UserWarning, match="^5 of 5"):
        nothing_left = evaluate(checkpoint, structures, train=structures)
    assert nothing_left.without_training.energy is None
    json.dumps(nothing_left.to_json(), allow_nan=False)
    none = evaluate(checkpoint, structures[:1], train=structures[1:])
    assert (none.in_training, none.without_training) == ((), none.total)
    assert "no structure stands in the training set" in str(none)


def test_results_are_frozen_and_print(checkpoint: Path, data: Path) -> None:
    found = evaluate(checkpoint, read_structures([data], ANY))
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.total = None
    text = str(found)
    assert text.startswith(f"errors of {checkpoint} (float64): 5 structures, 16 atoms")
    for row in ("energy per atom", "force components", "angle between forces", "GPa", "by group", "(none)", "frame 4"):
        assert row in text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0.000"), (1.2345, "1.23"), (12.345, "12.3"), (0.012345, "0.0123"), (12345.6, "12346"), (9.999, "10.0"),
     (-0.5, "-0.500"), (1.5e-7, "1.50e-07"), (1e6, "1.00e+06")],
)  # fmt: skip
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert short(value) == text


# What is refused


def test_what_cannot_be_evaluated(checkpoint: Path, tmp_path: Path) -> None:
    atoms = molecule(3, 0)
    overlapping = Atoms("H2", [[0, 0, 0], [0, 0, 1e-5]])
    good = structure(atoms, energy=1.0)
    for structures, error, message in (
        ([], DataError, "there are no structures to evaluate"),
        (
            [structure(atoms), structure(atoms, 1)],
            DataError,
            "none of the 2 structures, the first made.xyz, frame 0, has",
        ),
        ([good, structure(Atoms("Au"), 7, energy=1.0)], StructureError, "made.xyz, frame 7: atom 0 has the unknown"),
        ([good, structure(overlapping, 8, energy=1.0)], StructureError, "made.xyz, frame 8: atoms 0 (H) and 1 (H)"),
    ):
        with pytest.raises(error) as raised:
            evaluate(checkpoint, structures)
        assert str(raised.value).startswith(message)
    for wrong in ({"device": "toaster"}, {"dtype": "int8"}, {"max_pairs": 0}, {"worst": 0}):
        with pytest.raises(ValueError, match=r"device|dtype|max_pairs|worst"):
            evaluate(checkpoint, [good], **wrong)
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="is not a safetensors file"):
        evaluate(tmp_path, [good])


def test_species_that_all_members_know(committee: Path) -> None:
    assert species_of(committee) == (1, 6, 7, 8)


# The command


def test_json_has_the_figures_that_others_rely_on(
    checkpoint: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["evaluate", str(checkpoint), str(data), "--json", "--worst", "1"]) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out, parse_constant=lambda name: pytest.fail(name))
    expected = evaluate(checkpoint, read_structures([data], ANY), worst=1)
    assert found == json.loads(json.dumps(expected.to_json()))
    assert (found["n_structures"], found["n_atoms"]) == (5, 16)
    assert found["energy"]["rmse_mev_per_atom"] >= found["energy"]["mae_mev_per_atom"] > 0
    assert found["forces"]["rmse_ev_per_angstrom"] >= found["forces"]["mae_ev_per_angstrom"] > 0
    assert found["stress"]["n_structures"] == 2
    assert [one["group"] for one in found["groups"]] == ["a", "b", None]
    assert found["groups"][1]["forces"] is None
    assert found["n_in_training_set"] is found["without_training_set"] is None
    assert len(found["worst"]["energy"]) == len(found["worst"]["forces"]) == 1
    assert "evaluated in" in captured.err


def test_keys_of_labels_and_groups(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    atoms = crystal(1)
    atoms.info.update(mine=1.5, kind="x", w=np.eye(3))
    atoms.arrays["f"] = np.ones((2, 3))
    write(tmp_path / "a.xyz", atoms)
    call = ["evaluate", str(checkpoint), str(tmp_path / "a.xyz")]
    keys = ["--energy-key", "mine", "--forces-key", "f", "--virial-key", "w", "--group-key", "kind"]
    assert cli.main([*call, *keys, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [found[name]["n_structures"] for name in ("energy", "forces", "stress")] == [1, 1, 1]
    assert found["groups"][0]["group"] == "x"
    assert cli.main([*call, "--energy-key", "mine", "--forces-key", "g"]) == 1
    assert "no structure has the key 'g', named by --forces-key" in capsys.readouterr().err
    assert cli.main(call) == 1
    assert "none of the 1 structures" in capsys.readouterr().err


def test_warnings_are_lines_on_stderr(committee: Path, data: Path) -> None:
    done = run(committee, data, data, "--train", data)
    assert done.returncode == 0
    assert done.stdout.startswith(f"the mean of 3 potentials in {committee} (float64): 10 structures, 32 atoms")
    (line,) = (line for line in done.stderr.splitlines() if "warning" in line)
    assert line.startswith("tensorgraph: warning: 10 of 10 test structures stand in the training set")


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (["--worst", "0"], 2, "--worst must be at least 1, not 0"),
        (["--max-pairs", "-3"], 2, "--max-pairs must be at least 1, not -3"),
        (["--device", "toaster"], 2, "device 'toaster' cannot be used"),
        (["--stress-key", "a", "--virial-key", "b"], 2, "stress_key and virial_key name the same target"),
        (["--pictures", "DATA"], 2, "is no folder; allowed: one, or a new name"),
        (["--group-key", "nothing"], 1, "no structure carries the group key 'nothing'"),
        (["--train", "missing.xyz"], 1, "missing.xyz cannot be read: No such file or directory"),
    ],
)
def test_wrong_arguments_are_one_line(
    checkpoint: Path, data: Path, options: list[str], status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [str(data) if option == "DATA" else option for option in options]
    assert cli.main(["evaluate", str(checkpoint), str(data), *given]) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("tensorgraph: ")
    assert message in captured.err
    assert captured.err.count("\n") == 1


def test_pictures_are_written_from_the_command(
    checkpoint: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["evaluate", str(checkpoint), str(data), "--pictures", str(tmp_path / "new" / "folder")]) == 0
    for name in ("parity.png", "errors.png"):
        assert str(tmp_path / "new" / "folder" / name) in capsys.readouterr().err or name == "errors.png"
        image = matplotlib.image.imread(tmp_path / "new" / "folder" / name)
        assert min(image.shape[:2]) > 500
        assert image.std() > 0.05


@pytest.mark.parametrize("kept", [("energy",), ("forces",), ("stress",), ("energy", "forces")])
def test_pictures_of_what_labels_there_are(
    checkpoint: Path, data: Path, tmp_path: Path, kept: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "MANY", 10)  # so that densities are drawn too
    monkeypatch.setattr(pictures, "GROUPS", 1)
    structures = read_structures([data], ANY)
    chosen = [
        dataclasses.replace(one, labels=Labels(**{name: getattr(one.labels, name) for name in kept}))
        for one in structures
    ]
    found = evaluate(checkpoint, chosen)
    panels = len(set(kept) & {"energy", "forces"})
    assert len([axes for axes in pictures.parity_figure(found).axes if axes.get_xlabel()]) == panels
    assert len(pictures.errors_figure(found).axes) == 2 * panels
    assert [path.name for path in write_pictures(found, tmp_path / "p")] == ["parity.png", "errors.png"]


def test_pictures_of_a_perfect_potential(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    found = evaluate(checkpoint, read_structures([data], ANY)[:2])
    right = [
        dataclasses.replace(
            one, structure=dataclasses.replace(one.structure, labels=Labels(energy=one.energy, forces=one.forces))
        )
        for one in found.predictions
    ]
    write_pictures(dataclasses.replace(found, predictions=tuple(right)), tmp_path)
