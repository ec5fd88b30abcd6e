"""`tensorgraph train`: runs that are killed, interrupted, spread over processes; committees; what goes wrong."""

from __future__ import annotations

import contextlib
import csv
import errno
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from training_runs import command, copper, environment, largest_difference, prepare, run, weights

from tensorgraph import cli
from tensorgraph.calculator import TensorGraphCalculator
from tensorgraph.committee import CommitteeCalculator
from tensorgraph.errors import CheckpointError, DataError, SpecError, StructureError, TrainingError
from tensorgraph.model.checkpoint import training_of_checkpoint
from tensorgraph.training import state as state_module
from tensorgraph.training.config import load_config, parse_config
from tensorgraph.training.run import train

BASE = "model: cu.yaml\ndata: {train: cu.xyz}\n"


def rows_of(path: Path) -> list[dict[str, str]]:
    """The rows of a metrics.csv."""
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def wait_for_state(process: subprocess.Popen[str], folder: Path, step: int) -> None:
    """Until the state of at least this step is on the disk."""
    until = time.monotonic() + 120
    while time.monotonic() < until:
        assert process.poll() is None, process.communicate()
        path = folder / "state.safetensors"
        with contextlib.suppress(CheckpointError):  # of a file that is replaced while it is opened
            if path.exists() and state_module.read_state(path).progress["step"] >= step:
                return
        time.sleep(0.02)
    raise AssertionError("no state was written")


def started(config: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(config), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment(), cwd=config.parent
    )


def test_a_run_that_was_killed_goes_on_to_the_same_weights(tmp_path):
    whole, killed = prepare(tmp_path, steps=60, out=tmp_path / "whole"), prepare(tmp_path, steps=60)
    assert run(whole).returncode == 0
    process = started(killed)
    wait_for_state(process, tmp_path / "run", 7)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    step = state_module.read_state(tmp_path / "run" / "state.safetensors").progress["step"]
    assert 7 <= step < 60
    resumed = run(killed, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert f"going on from step {step}" in resumed.stderr
    for name in ("last.safetensors", "model.safetensors", "state.safetensors"):
        first, second = weights(tmp_path / "whole" / name), weights(tmp_path / "run" / name)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first), name
    rows = [[row["step"] for row in rows_of(tmp_path / part / "metrics.csv")]
            for part in ("whole", "run")]  # fmt: skip
    assert rows[0] == rows[1] == [str(index) for index in range(1, 61)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_is_saved(tmp_path, number):
    config = prepare(tmp_path, steps=5000)
    process = started(config)
    wait_for_state(process, tmp_path / "run", 3)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "--resume" in stderr
    step = state_module.read_state(tmp_path / "run" / "state.safetensors").progress["step"]
    training = json.loads(training_of_checkpoint(tmp_path / "run" / "last.safetensors"))
    assert training["step"] == step >= 3
    TensorGraphCalculator(tmp_path / "run" / "model.safetensors")


def test_two_processes_train_as_one_does(tmp_path):
    single, double = prepare(tmp_path, steps=10, out=tmp_path / "single"), prepare(tmp_path, steps=10)
    assert run(single).returncode == 0
    spread = run(double, processes=2)
    assert spread.returncode == 0, spread.stderr
    first, second = (weights(tmp_path / part / "state.safetensors") for part in ("single", "run"))
    assert largest_difference(first, second, "model/", "average/", "best/") < 1e-11
    rows = [rows_of(tmp_path / part / "metrics.csv") for part in ("single", "run")]
    for one, other in zip(*rows, strict=True):
        for key in one.keys() - {"seconds"}:
            assert float(one[key] or 0) == pytest.approx(float(other[key] or 0), rel=1e-6), key


def test_two_processes_fit_least_squares_as_one_does(tmp_path):
    """Rows are shared: the triangles that are joined are of the same problem."""
    prepare(tmp_path)
    common = f"""model: {tmp_path / "cu.yaml"}
method: least_squares
dtype: float64
data: {{train: {tmp_path / "cu.xyz"}, valid: 0.1}}
freeze: ["blocks.*"]
"""
    for part, processes in (("single", 1), ("double", 2)):
        (tmp_path / f"{part}.yaml").write_text(f"{common}out: {tmp_path / part}\n", encoding="utf-8")
        done = run(tmp_path / f"{part}.yaml", processes=processes)
        assert done.returncode == 0, done.stderr
    rows = [rows_of(tmp_path / part / "metrics.csv") for part in ("single", "double")]
    for one, other in zip(*rows, strict=True):
        for key in ("rate", "train_forces_ev_per_angstrom", "valid_score"):
            assert float(one[key]) == pytest.approx(float(other[key]), rel=1e-6), key
    first, second = (weights(tmp_path / part / "model.safetensors") for part in ("single", "double"))
    assert largest_difference(first, second, "energy_heads.") < 1e-6


def test_two_processes_train_a_committee(tmp_path):
    assert run(prepare(tmp_path, steps=2, seed="[0, 1]"), processes=2).returncode == 0
    assert {path.parent.name for path in (tmp_path / "run").glob("*/model.safetensors")} == {"seed-0", "seed-1"}


def test_the_errors_that_are_told_are_those_of_the_checkpoint(tmp_path):
    config = prepare(
        tmp_path, steps=30, loss="{energy: 100}", data=f"{{train: {tmp_path}/cu.xyz, valid: {tmp_path}/v.xyz}}"
    )
    write(tmp_path / "v.xyz", list(copper())[:6])
    (outcome,) = train(load_config(config), tell=lambda _: None)
    best = min(rows_of(tmp_path / "run" / "metrics.csv"), key=lambda row: float(row["valid_score"]))
    calculator = TensorGraphCalculator(outcome.checkpoint)
    energies, forces = [], []
    for atoms in read(tmp_path / "v.xyz", ":"):
        copy = atoms.copy()
        copy.calc = calculator
        energies.append((copy.get_potential_energy() - atoms.get_potential_energy()) / len(atoms))
        forces.append(copy.get_forces() - atoms.get_forces())
    assert 1e3 * np.sqrt(np.square(energies).mean()) == pytest.approx(
        float(best["valid_energy_mev_per_atom"]), rel=1e-6
    )
    found = np.sqrt(np.square(np.concatenate(forces)).mean())
    assert found == pytest.approx(float(best["valid_forces_ev_per_angstrom"]), rel=1e-6)


def test_training_lowers_the_errors(tmp_path):
    train(load_config(prepare(tmp_path, steps=150, loss="{energy: 1}")), tell=lambda _: None)
    rows = rows_of(tmp_path / "run" / "metrics.csv")
    for part, ratio in (("train", 0.4), ("valid", 0.6)):
        errors = [float(row[f"{part}_forces_ev_per_angstrom"]) for row in rows]
        assert errors[-1] < ratio * errors[0], part


def test_several_seeds_make_a_committee(tmp_path):
    config = load_config(prepare(tmp_path, seed="[3, 5]", steps=3))
    outcomes = train(config, tell=lambda _: None)
    assert [outcome.checkpoint.parent.name for outcome in outcomes] == ["seed-3", "seed-5"]
    atoms = copper()[0].copy()
    atoms.calc = CommitteeCalculator(tmp_path / "run")
    assert atoms.get_potential_energy() == pytest.approx(
        np.mean([TensorGraphCalculator(one.checkpoint).get_potential_energy(atoms) for one in outcomes])
    )


def test_a_checkpoint_is_trained_further_with_layers_frozen(tmp_path):
    train(load_config(prepare(tmp_path, steps=3)), tell=lambda _: None)
    first = weights(tmp_path / "run" / "model.safetensors")
    config = prepare(tmp_path, model=tmp_path / "run" / "model.safetensors", out=tmp_path / "tuned",
                     freeze='["blocks.0.*", "*.sensitivity.*"]', atomic_energies="{Cu: -1.5}", steps=3)  # fmt: skip
    train(load_config(config), tell=lambda _: None)
    second = weights(tmp_path / "tuned" / "model.safetensors")
    frozen = [name for name in first if name.startswith("blocks.0.") or ".sensitivity." in name]
    assert len(frozen) > 5
    assert all(torch.equal(first[name], second[name]) for name in frozen)
    assert not torch.equal(first["energy_heads.of_blocks.1.weight"], second["energy_heads.of_blocks.1.weight"])
    assert float(second["energy_heads.of_species.weight"]) == pytest.approx(-1.5, abs=0.01)


def test_structures_train_with_the_labels_that_they_have(tmp_path):
    frames = [atoms.copy() for atoms in copper()]
    for index, (atoms, labelled) in enumerate(zip(frames, copper(), strict=True)):
        if index % 2:
            atoms.info["REF_energy"] = labelled.get_potential_energy()
        else:
            atoms.arrays["REF_forces"] = labelled.get_forces()
    config = prepare(tmp_path, steps=3)
    write(tmp_path / "cu.xyz", frames)
    lines: list[str] = []
    train(load_config(config), tell=lines.append)
    assert "structures with energy 11, forces 11, stress 0" in "\n".join(lines)


def test_a_run_is_neither_replaced_nor_mixed_with_another(tmp_path):
    config = prepare(tmp_path, steps=2)
    train(load_config(config), tell=lambda _: None)
    with pytest.raises(TrainingError, match=r"holds a run .*; allowed: --resume, --overwrite"):
        train(load_config(config), tell=lambda _: None)
    other = load_config(prepare(tmp_path, steps=4, loss="{energy: 1}"))
    with pytest.raises(TrainingError, match="is the state of a run with loss"):
        train(other, resume=True, tell=lambda _: None)
    frames = list(copper())[1:]
    write(tmp_path / "cu.xyz", frames)
    with pytest.raises(TrainingError, match="the data changed"):
        train(load_config(prepare_again(tmp_path, frames)), resume=True, tell=lambda _: None)


def prepare_again(folder: Path, frames: list) -> Path:
    config = prepare(folder, steps=4)
    write(folder / "cu.xyz", frames)
    return config


def test_a_full_disk_ends_no_run_but_is_told(tmp_path, monkeypatch):
    full = [True]

    def write_or_fail(content: bytes, target: Path) -> None:
        if full[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        original(content, target)

    original = state_module.write_atomically
    monkeypatch.setattr(state_module, "write_atomically", write_or_fail)
    lines: list[str] = []
    with pytest.raises(TrainingError, match=r"state\.safetensors cannot be written: No space left on device"):
        train(load_config(prepare(tmp_path, steps=3)), tell=lines.append)
    assert sum("No space left" in line for line in lines) >= 3
    assert (tmp_path / "run" / "last.safetensors").exists()
    full[0] = False
    train(load_config(prepare(tmp_path, steps=3)), overwrite=True, tell=lines.append)


def test_a_failed_write_leaves_the_earlier_state(tmp_path, monkeypatch):
    train(load_config(prepare(tmp_path, steps=2)), tell=lambda _: None)
    path = tmp_path / "run" / "state.safetensors"
    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises((CheckpointError, TrainingError), match="No space left"):
        train(load_config(prepare(tmp_path, steps=4)), resume=True, tell=lambda _: None)
    assert path.read_bytes() == before


def test_a_run_that_diverges_stops_with_its_last_good_state(tmp_path):
    config = prepare(tmp_path, steps=200, dtype="float32", data=f"{{train: {tmp_path}/cu.xyz, valid: 0}}")
    frames = list(copper())
    frames[7] = frames[7].copy()
    labels = {"energy": frames[6].get_potential_energy(), "forces": np.full((len(frames[7]), 3), 1e25)}
    frames[7].calc = SinglePointCalculator(frames[7], **labels)
    write(tmp_path / "cu.xyz", frames)
    with pytest.raises(TrainingError, match=r"step \d+: the loss or its gradient is not finite; .*optimizer.rate"):
        train(load_config(config), tell=lambda _: None)
    saved = weights(tmp_path / "run" / "state.safetensors") if (tmp_path / "run" / "state.safetensors").exists() else {}
    assert all(torch.isfinite(tensor).all() for name, tensor in saved.items() if name.startswith("model/"))


@pytest.mark.parametrize(
    ("extra", "line", "message"),
    [
        ("optimiser: {rate: 1}\n", 3, "unknown key 'optimiser' (did you mean optimizer?)"),
        ("optimizer: {rte: 1}\n", 3, "unknown key 'rte' (did you mean rate?)"),
        ("minutes:\n", 3, "`minutes` is empty; allowed: a number above 0"),
        ("steps: 0\n", 3, "`steps` is 0; allowed: an integer ≥ 1"),
        ("seed: [1, 1]\n", 3, "`seed` holds a seed twice"),
        ("loss:\n  forces: 1\n  energy: [1, 2, 3]\n", 5, "`loss.energy` is a list; allowed: a number ≥ 0, or two"),
        ("device: gpu\n", 3, "`device` is 'gpu'; allowed: auto, cpu, cuda or cuda:N"),
        ("atomic_energies: {Xx: 1}\n", 3, "`atomic_energies` names 'Xx', which is no chemical symbol"),
        ("out: $NO_SUCH_VARIABLE/run\n", 3, "with a variable that is not set"),
    ],
)
def test_mistakes_in_a_config_are_told_by_line(extra, line, message):
    with pytest.raises(SpecError) as caught:
        parse_config(BASE + extra, "train.yaml")
    assert str(caught.value).startswith(f"train.yaml:{line}: ")
    assert message in str(caught.value)


def broken(folder: Path, change) -> Path:
    config = prepare(folder)
    frames = [atoms.copy() for atoms in copper()]
    for atoms, labelled in zip(frames, copper(), strict=True):
        atoms.info["energy"], atoms.arrays["forces"] = labelled.get_potential_energy(), labelled.get_forces()
    change(frames)
    write(folder / "cu.xyz", frames)
    return config


def spoil_forces(frames):
    frames[5].arrays["forces"][0, 0] = np.nan


def strip_labels(frames):
    frames[2].info.clear()
    del frames[2].arrays["forces"]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (spoil_forces, StructureError, "cu.xyz, frame 5: .*not finite"),
        (strip_labels, DataError, "cu.xyz, frame 2: there is no energy, no forces and no stress"),
        (lambda frames: frames[3].set_chemical_symbols(["Au"] * len(frames[3])), StructureError, "frame 3: .*Au"),
    ],
)
def test_bad_frames_are_named(tmp_path, change, error, message):
    with pytest.raises(error, match=message):
        train(load_config(broken(tmp_path, change)), tell=lambda _: None)
    assert not (tmp_path / "run").exists()


def test_an_empty_file_is_refused(tmp_path):
    config = prepare(tmp_path)
    (tmp_path / "cu.xyz").write_text("")
    with pytest.raises(DataError, match=r"cu\.xyz"):
        train(load_config(config), tell=lambda _: None)


def test_repeated_structures_are_counted(tmp_path):
    config = prepare(tmp_path, steps=1, data=f"{{train: {tmp_path}/cu.xyz, test: {tmp_path}/t.xyz}}")
    write(tmp_path / "t.xyz", list(copper())[:5])
    lines: list[str] = []
    train(load_config(config), tell=lines.append)
    assert any("of 5 test structures stand in the training set too" in line for line in lines)


def test_the_command_prints_the_test_errors(tmp_path, capsys):
    config = prepare(tmp_path, steps=2, data=f"{{train: {tmp_path}/cu.xyz, test: {tmp_path}/t.xyz}}")
    write(tmp_path / "t.xyz", list(copper(27))[24:])
    assert cli.main(["train", str(config)]) == 0
    shown = capsys.readouterr()
    assert "force components" in shown.out
    assert json.loads((tmp_path / "run" / "test.json").read_text())["n_structures"] == 3
    for name in ("learning.png", "parity.png", "metrics.csv", "config.json"):
        assert (tmp_path / "run" / name).stat().st_size > 100
    assert cli.main(["train", str(config)]) == 1
    assert "holds a run" in capsys.readouterr().err


def test_what_a_checkpoint_says_of_its_training(tmp_path):
    (outcome,) = train(load_config(prepare(tmp_path, steps=2)), tell=lambda _: None)
    training = json.loads(training_of_checkpoint(outcome.checkpoint))
    assert training["config"]["steps"] == 2
    assert {"tensorgraph", "torch", "numpy", "ase", "python"} <= training["versions"].keys()
