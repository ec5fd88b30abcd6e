"""The examples: the README's training loop, and the parts of the gold demonstration."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.calculators.emt import EMT
from ase.io import read, write

from examples import au6, gold, gold_report, gold_training
from tensorgraph.calculator import TensorGraphCalculator
from tensorgraph.runtime import batch_structures
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
    errors = gold_training.errors_of(module.Model(seed=0), batch)
    return float((errors.energy + errors.forces).detach())


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


def test_trajectories_are_reproducible_and_kept_exactly(tmp_path: Path) -> None:
    counted: list[int] = []
    first = au6.simulate(steps=150, on_sample=lambda: counted.append(1))
    au6.save(first, tmp_path / "run" / "au6.npz")
    loaded, again = au6.load(tmp_path / "run" / "au6.npz"), au6.simulate(steps=150)
    assert len(counted) == 3
    for name in au6.ARRAYS:
        np.testing.assert_array_equal(getattr(loaded, name), getattr(first, name))
        np.testing.assert_array_equal(getattr(again, name), getattr(first, name))
    frame = loaded.frames()[2]
    assert frame.get_total_energy() == pytest.approx(loaded.frames()[0].get_total_energy(), abs=1e-3)
    np.testing.assert_array_equal(frame.get_forces(), first.forces[2])


def test_the_demonstration_runs_from_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(au6, "STEPS", 1500)
    for name, value in {"N_TRAIN": 20, "N_TEST": 10, "DYNAMICS_STEPS": 5}.items():
        monkeypatch.setattr(gold, name, value)
    monkeypatch.setattr(gold, "Settings", lambda: gold_training.Settings(steps=3, batch_size=10))
    monkeypatch.setattr("sys.argv", ["gold", "--out", str(tmp_path)])
    with monkeypatch.context() as patch:  # rich keeps the stream that it was made with
        patch.setattr(gold, "out", gold.Console())
        gold.main()
    said = capsys.readouterr().out
    for part in ("built ", "this model", "dynamics, 5 steps of 1 fs: energy drift", "parity.png"):
        assert part in said
    kept = {path.name for path in tmp_path.iterdir()}
    assert kept == {"generated", "au6-emt-1500-seed2.npz", "model.safetensors", "parity.png"}


@pytest.mark.parametrize("damage", ["empty", "text", "truncated", "flipped", "other arrays", "one array"])
def test_damaged_samples_are_simulated_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    monkeypatch.setattr(au6, "STEPS", 100)
    first, (path,) = gold.trajectory(tmp_path), tmp_path.iterdir()
    content = path.read_bytes()
    middle = len(content) // 2
    changes = {"empty": b"", "text": b"no", "truncated": content[:middle]}
    changes["flipped"] = content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]
    if damage in changes:
        path.write_bytes(changes[damage])
    elif damage == "other arrays":
        np.savez(path, positions=first.positions)
    else:
        with path.open("wb") as file:
            np.save(file, first.positions)
    with pytest.raises(ValueError, match="damaged"):
        au6.load(path)
    np.testing.assert_array_equal(gold.trajectory(tmp_path).forces, first.forces)
    np.testing.assert_array_equal(au6.load(path).forces, first.forces)


@pytest.mark.parametrize("minutes", ["0", "-1", "nan", "inf", "few"])
def test_the_time_for_training_must_be_positive(minutes: str, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr("sys.argv", ["gold", f"--minutes={minutes}"])
    with pytest.raises(SystemExit):
        gold.parse_arguments()
    assert "argument --minutes: invalid positive value" in capsys.readouterr().err


def test_a_report_of_known_errors(tmp_path: Path) -> None:
    true = np.linspace(4, 6, 5)
    predictions = gold_report.Predictions(true, true + 0.003, np.zeros((30, 3)), np.full((30, 3), -0.04))
    assert gold_report.Errors.of(predictions) == pytest.approx((0.003, 0.04))
    path = gold_report.parity_plot(predictions, tmp_path / "parity.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    table = gold_report.errors_table(gold_report.Errors.of(predictions))
    assert list(table.columns[1].cells)[-1] == "0.0030"
    drifting = 3.0 + 6e-3 * np.linspace(0, 1, 1001)  # 1 meV per atom and ps
    assert "drift +1.0000 meV/atom/ps, largest deviation 1.000 meV/atom" in gold_report.dynamics_line(drifting, 6)


def test_the_schedule_rises_and_falls() -> None:
    factors = [gold_training.schedule(step, 1000, 100) for step in range(1001)]
    assert factors[0] == pytest.approx(0.01, rel=0.1)
    assert max(factors) == pytest.approx(1, abs=0.03)
    assert factors[1000] == pytest.approx(0)


def test_minibatches_visit_every_sample_once_before_any_twice() -> None:
    frames = au6.simulate(steps=350).frames()
    samples = batch_structures(frames, 7.5, torch.float64, targets=True)
    batches = gold_training.minibatches(samples, gold_training.Settings(batch_size=3))
    for _ in range(2):
        seen = torch.cat([next(batches).energy for _ in range(3)])
        assert torch.equal(seen.sort().values, samples.energy.sort().values)
