"""The examples: the README's training loop, and the parts of the gold demonstration."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest
from ase.calculators.emt import EMT
from ase.io import read, write
from rich.console import Console

from examples import au6, console, gold
from tensorgraph import cli
from tensorgraph.calculator import TensorGraphCalculator
from tensorgraph.model import batch_structures
from tests.helpers import GENERATED, molecule, package

ROOT = GENERATED.parent
TRAINING = ROOT / "examples" / "training.py"


def test_the_training_example_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = [molecule(5, seed, spread=1.6) for seed in range(6)]
    for atoms in frames:
        atoms.calc = EMT()
        atoms.get_forces()
    write(tmp_path / "train.xyz", frames)
    monkeypatch.chdir(tmp_path)
    names = runpy.run_path(str(TRAINING))
    assert names["loss"].item() < _first_loss(read(tmp_path / "train.xyz", ":"))
    calculator = TensorGraphCalculator(GENERATED / "hiphop4", tmp_path / "model.safetensors", dtype="float32")
    expected = names["model"].energy_and_forces(*batch_structures(frames[:1], names["cutoff"]).inputs)
    np.testing.assert_allclose(calculator.get_forces(frames[0]), expected.forces, rtol=1e-4, atol=1e-4)


def _first_loss(frames: list) -> float:
    module = package("hiphop4")
    batch = batch_structures(frames, module.architecture.CUTOFF, targets=True)
    found = module.Model(seed=0).energy_and_forces(*batch.inputs)
    return float((found.energy - batch.energy).square().mean() + (found.forces - batch.forces).square().mean())


def test_the_readme_shows_the_training_example() -> None:
    code = TRAINING.read_text().split('"""\n\n', 1)[1]
    assert f"```python\n{code}```" in (ROOT / "README.md").read_text()


def test_the_cluster_is_an_octahedron_at_the_right_temperature() -> None:
    atoms = au6.started_cluster(seed=0)
    distances = np.sort(atoms.get_all_distances()[np.triu_indices(6, 1)])
    np.testing.assert_allclose(distances, [4.08 / 2**0.5] * 12 + [4.08] * 3)
    np.testing.assert_allclose(atoms.get_momenta().sum(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(atoms.get_angular_momentum(), 0, atol=1e-10)
    energies = [au6.started_cluster(seed).get_kinetic_energy() for seed in range(200)]
    assert np.mean(energies) == pytest.approx(1.5 * 6 * 300 / 11604.5, rel=0.1)


def test_samples_are_written_once_and_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"STEPS": 500, "N_TRAIN": 6, "N_TEST": 3}.items():
        monkeypatch.setattr(au6, name, value)
    counted: list[int] = []
    paths = au6.write_samples(tmp_path / "run", lambda: counted.append(1))
    trajectory, train, test = au6.simulate(steps=500), *(read(path, ":") for path in paths)
    assert (len(train), len(test), len(counted)) == (6, 3, 10)
    np.testing.assert_allclose([atoms.positions for atoms in train], trajectory.positions[:6], atol=1e-7)
    np.testing.assert_allclose([atoms.get_forces() for atoms in test], trajectory.forces[-3:], atol=1e-7)
    np.testing.assert_allclose([atoms.get_velocities() for atoms in test], trajectory.velocities[-3:], atol=1e-7)
    np.testing.assert_allclose([atoms.get_potential_energy() for atoms in test], trajectory.energy[-3:], atol=1e-7)
    au6.write_samples(tmp_path / "run", lambda: counted.append(1))
    assert len(counted) == 10


def test_the_demonstration_runs_from_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    for name, value in {"STEPS": 1500, "N_TRAIN": 20, "N_TEST": 10}.items():
        monkeypatch.setattr(au6, name, value)
    monkeypatch.setattr(gold, "DYNAMICS_STEPS", 5)
    au6.write_samples(tmp_path)
    text = (ROOT / "examples" / "gold.yaml").read_text(encoding="utf-8")
    text = text.replace("build/gold", str(tmp_path)).replace("specs/", f"{ROOT}/specs/")
    assert "minutes: 3" in text
    (tmp_path / "gold.yaml").write_text(text.replace("minutes: 3", "steps: 3"), encoding="utf-8")
    assert cli.main(["train", str(tmp_path / "gold.yaml")]) == 0
    capsys.readouterr()
    with monkeypatch.context() as patch:  # rich keeps the stream that it was made with
        patch.setattr(gold, "out", Console())
        gold.main(["--out", str(tmp_path)])
    said = capsys.readouterr().out
    for part in ("this model", "dynamics, 5 steps of 1 fs: energy drift"):
        assert part in said


def test_a_report_of_known_errors() -> None:
    table = gold.errors_table(0.003, 0.04)
    assert [list(column.cells)[-1] for column in table.columns] == ["this model", "0.0030", "0.0400"]
    drifting = 3.0 + 6e-3 * np.linspace(0, 1, 1001)  # 1 meV per atom and ps
    assert "drift +1.0000 meV/atom/ps, largest deviation 1.000 meV/atom" in gold.dynamics_line(drifting, 6)


def test_progress_is_told_in_lines_where_there_is_no_terminal(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "log", Console(stderr=True))
    with console.progress("counting", 3) as advance:
        for _ in range(3):
            advance()
    assert capsys.readouterr().err == "counting: 3/3, 0 s left\n"
