"""Where a training writes: what stands there is neither mixed with a new run nor lost; runs go on as they should."""

from __future__ import annotations

import pytest
import torch
from ase.io import read, write
from test_training import rows_of
from training_runs import copper, largest_difference, prepare, weights

from tensorgraph.errors import CheckpointError, DataError, TensorGraphError, TrainingError
from tensorgraph.potential import members_of
from tensorgraph.training.config import load_config
from tensorgraph.training.folder import BEST, LAST, Keeper
from tensorgraph.training.loop import STATE
from tensorgraph.training.run import train


def trained(tmp_path, resume=False, overwrite=False, **keys):
    return train(load_config(prepare(tmp_path, **keys)), resume=resume, overwrite=overwrite, tell=lambda _: None)


def test_members_of_an_earlier_run_do_not_join_a_committee(tmp_path):
    trained(tmp_path, seed="[0, 1, 2]", steps=1)
    for options in ({}, {"resume": True}):
        with pytest.raises(TrainingError, match=r"seed-\d holds a run .*allowed: "):
            trained(tmp_path, seed="[0, 1]", steps=1, **options)
    trained(tmp_path, seed="[0, 1]", steps=1, overwrite=True)
    assert [path.parent.name for path in members_of(tmp_path / "run")] == ["seed-0", "seed-1"]


def test_a_committee_may_follow_a_single_run_and_the_other_way_round(tmp_path):
    for seeds, count in ((0, 1), ("[0, 1]", 2), (0, 1)):
        trained(tmp_path, seed=seeds, steps=1, overwrite=count != 1 or (tmp_path / "run").exists())
        assert len(members_of(tmp_path / "run")) == count
    with pytest.raises(TrainingError, match="holds a run"):
        trained(tmp_path, seed="[0, 1]", steps=1)


def test_a_run_does_not_replace_what_it_starts_from(tmp_path):
    trained(tmp_path, steps=1)
    for method in ("gradient", "least_squares"):
        config = prepare(tmp_path, model=tmp_path / "run" / BEST, steps=1, method=method)
        text = config.read_text()
        if method == "least_squares":
            text = "".join(
                line for line in text.splitlines(True) if line.split(":")[0] not in ("steps", "batch", "log")
            )
            text = text.replace(", hierarchicality: 0.01", "")
        config.write_text(text)
        with pytest.raises(TrainingError, match="lies where the run is written; allowed: another `out`"):
            train(load_config(config), overwrite=True, tell=lambda _: None)
    assert (tmp_path / "run" / BEST).exists()
    other = tmp_path / "run" / "seed-7"  # a member of an earlier committee
    other.mkdir()
    (tmp_path / "run" / BEST).rename(other / BEST)
    with pytest.raises(TrainingError, match="lies where the run is written"):
        trained(tmp_path, model=other / BEST, steps=1, seed="[0, 1]", overwrite=True)


@pytest.mark.parametrize("wrong", [{"freeze": '["blocsk.*"]'}, {"atomic_energies": "{Au: 1}"}])
def test_a_config_that_cannot_begin_leaves_the_earlier_run(tmp_path, wrong):
    trained(tmp_path, steps=1)
    before = weights(tmp_path / "run" / BEST)
    with pytest.raises(TensorGraphError):
        trained(tmp_path, overwrite=True, **wrong)
    assert largest_difference(before, weights(tmp_path / "run" / BEST)) == 0


def test_weights_without_a_state_are_not_resumed_and_not_lost(tmp_path):
    trained(tmp_path, steps=1)
    (tmp_path / "run" / STATE).unlink()
    with pytest.raises(TrainingError, match=rf"holds {BEST} and no {STATE} to go on from; allowed: --overwrite"):
        trained(tmp_path, steps=1, resume=True)
    assert (tmp_path / "run" / BEST).exists()
    assert (tmp_path / "run" / LAST).exists()


def test_a_run_that_goes_on_for_longer_is_validated_all_along(tmp_path):
    trained(tmp_path, steps=10)
    trained(tmp_path, steps=40, resume=True)
    steps = [int(row["step"]) for row in rows_of(tmp_path / "run" / "metrics.csv")]
    assert steps == list(range(1, 41))  # 100 validations a run: every step


def test_the_best_weights_are_written_at_the_end_where_a_disk_was_full(tmp_path, monkeypatch):
    write_model, calls = Keeper.__call__, []

    def full(keeper, name, model):
        calls.append(name)
        if name == BEST and calls.count(BEST) > 1 and LAST not in calls:
            raise CheckpointError("no space")
        write_model(keeper, name, model)

    monkeypatch.setattr(Keeper, "__call__", full)
    trained(tmp_path, steps=8)
    assert calls.count(BEST) > 2, "the score must have improved while the disk was full"
    best = {name.removeprefix("best/"): x for name, x in weights(tmp_path / "run" / STATE).items() if "best/" in name}
    written = weights(tmp_path / "run" / BEST)
    assert all(torch.equal(written[name], best[name]) for name in written)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"loss": "{energy: 0, forces: 0, stress: 0}"}, "no label has a weight in `loss`: the structures have energy"),
        ({"validation": "{energy: 0, forces: 0}"}, "no label has a weight in `validation`"),
    ],
)
def test_weights_that_are_all_zero_are_refused(tmp_path, keys, message):
    with pytest.raises(TrainingError, match=message):
        trained(tmp_path, **keys)
    assert not (tmp_path / "run" / BEST).exists()


def test_tests_without_labels_are_refused_before_training(tmp_path):
    bare = [atoms.copy() for atoms in copper()[:2]]
    write(tmp_path / "bare.xyz", bare)
    with pytest.raises(DataError, match=r"bare\.xyz: no structure has an energy, forces or a stress"):
        trained(tmp_path, data=f"{{train: {tmp_path}/cu.xyz, valid: 0.1, test: {tmp_path}/bare.xyz}}")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_told(tmp_path):
    with pytest.raises(TrainingError, match="device: "):
        trained(tmp_path, device="cuda")


def test_fine_tuning_keeps_energies_of_species_that_the_data_do_not_determine(tmp_path):
    spec = tmp_path / "both.yaml"
    prepare(tmp_path)
    spec.write_text((tmp_path / "cu.yaml").read_text().replace("[Cu]", "[Cu, Ni]"))
    common = {"model": spec, "steps": 1, "atomic_energies": "{Cu: -3.0, Ni: -5.0}", "optimizer": "{rate: 1e-9}"}
    trained(tmp_path, out=tmp_path / "first", **common)

    def energies(folder):
        return weights(tmp_path / folder / BEST)["energy_heads.of_species.weight"][0].tolist()

    again = {"model": tmp_path / "first" / BEST, "steps": 1, "optimizer": "{rate: 1e-9}"}
    trained(tmp_path, out=tmp_path / "second", **again)
    assert energies("second")[1] == pytest.approx(-5.0, abs=1e-6)
    assert energies("second")[0] != pytest.approx(-3.0, abs=1e-3)  # copper's are fitted anew
    frames = read(tmp_path / "cu.xyz", ":")
    for atoms in frames:
        del atoms.calc.results["energy"]
    write(tmp_path / "forces.xyz", frames)
    data = f"{{train: {tmp_path}/forces.xyz, valid: 0.1}}"
    trained(tmp_path, out=tmp_path / "third", data=data, **again)
    assert energies("third") == pytest.approx([-3.0, -5.0], abs=1e-6)
