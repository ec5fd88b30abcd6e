"""Sweeps: grids and their mistakes by line, a tiny sweep from end to end, what resuming keeps, and the Pareto front."""

from __future__ import annotations

import csv
import json
import textwrap
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.io import write
from hypothesis import given
from hypothesis import strategies as st
from training_runs import copper

from tensorgraph.cli import main
from tensorgraph.errors import SpecError
from tensorgraph.spec import load_spec
from tensorgraph.sweep.config import SweepConfig, parse_sweep
from tensorgraph.sweep.picture import _figure as drawn
from tensorgraph.sweep.picture import write_picture
from tensorgraph.sweep.results import Errors, Row, pareto, with_fronts
from tensorgraph.sweep.run import scatter_remark
from tensorgraph.sweep.table import worded
from tensorgraph.sweep.timing import StepTime, timed_structure

TEXT = """\
spec:
  name: cu
  basis: {family: hiphop, body_order: 3, max_rank: 1}
  network:
    species: [Cu]
    features: 4
    interactions: 1
    atom_layers: 1
    sensitivity: {functions: 4, soft_min: 1.8, soft_max: 4.0, cutoff: 4.5}
    group_norm: true
train:
  data: {train: cu.xyz, valid: 0.2}
  steps: 3
  batch: {structures: 5}
grid:
  GRID
out: sweep
time: {atoms: 30, repeats: 2}
"""


def swept(*axes: str) -> SweepConfig:
    return parse_sweep(TEXT.replace("GRID", "\n  ".join(axes)), "s.yaml")


def test_every_combination_has_its_values_name_and_folder():
    found = swept("spec.network.features: [4, 8]", "train.optimizer.rate: [0.01, 0.001]").combinations
    assert [(one.spec.network.features, one.config.optimizer.rate) for one in found] == [
        (4, 0.01), (4, 0.001), (8, 0.01), (8, 0.001)
    ]  # fmt: skip
    assert [one.spec.name for one in found] == ["cu_features_4"] * 2 + ["cu_features_8"] * 2
    assert len({one.folder for one in found}) == 4
    assert {one.config.model for one in found} == {str(one.folder / "spec.yaml") for one in found}
    assert [one.config.out for one in found] == [str(one.folder) for one in found]


def test_a_grid_that_grows_keeps_names_and_folders():
    few, many = (swept(f"spec.network.features: {values}").combinations for values in ("[8]", "[2, 8, 16]"))
    assert (few[0].spec, few[0].folder) == (many[1].spec, many[1].folder)


def test_sections_and_lists_are_values_too():
    axes = swept("train.seed: [0, [1, 2]]", "spec.basis: [{family: linear, body_order: 2, max_rank: 0}]").combinations
    assert [one.config.seed for one in axes] == [(0,), (1, 2)]
    assert axes[0].spec.basis.family == "linear"
    assert len({one.folder for one in axes}) == 2


@pytest.mark.parametrize(
    ("axes", "line", "words"),
    [
        (["spec.network.featurs: [4]"], 16, "did you mean spec.network.features?"),
        (["train.out: [a]"], 16, "is made by the sweep"),
        (["spec.network.features: 4"], 16, "no list"),
        (["spec.network.features: []"], 16, "no list"),
        (["spec.network.features: [4, 8, 4]"], 16, "holds 4 twice"),
        (["spec.basis.family: [hiphop]", "spec.network.features: [4, 0]"], 17, "`spec.network.features` is 0"),
        (["train.optimizer.rate:", "  - 0.1", "  - 7"], 18, "`train.optimizer.rate` is 7"),
        (["spec.network.sensitivity.cutoff: [4.5, 1.5]"], 16, "1.5, not above soft_min"),
        (["spec.network.features: [4, 1]"], 16, "with spec.network.features: 1 (line 16): `spec.network.group_norm`"),
        (["spec.basis: [{family: hiphop, body_order: 3, max_rank: 1}]", "spec.basis.family: [linear]"], 17, "part of"),
        (["train.batch: [{structurs: 5}]"], 16, "did you mean structures?"),
    ],
)
def test_mistakes_in_the_grid_are_told_with_their_line(axes, line, words):
    with pytest.raises(SpecError) as caught:
        swept(*axes)
    assert (caught.value.line, caught.value.file) == (line, "s.yaml")
    assert words in caught.value.message


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("features: 4", "featurs: 4", 6, "did you mean features?"),
        ("steps: 3", "steps: none", 13, "`train.steps` is 'none'"),
        ("steps: 3", "out: here", 13, "`train.out` is set by the sweep"),
        ("repeats: 2", "repeat: 2", 18, "did you mean repeats?"),
        ("out: sweep", "outt: sweep", 17, "did you mean out?"),
    ],
)
def test_mistakes_elsewhere_too(old, new, line, words):
    with pytest.raises(SpecError) as caught:
        parse_sweep(TEXT.replace("GRID", "spec.network.features: [4, 8]").replace(old, new), "s.yaml")
    assert (caught.value.line, words in caught.value.message) == (line, True), caught.value


def test_a_spec_may_stand_in_a_file_of_its_own(tmp_path):
    spec = textwrap.dedent(TEXT.split("train:")[0].removeprefix("spec:\n"))
    (tmp_path / "cu.yaml").write_text(spec)
    text = f"spec: {tmp_path / 'cu.yaml'}\ntrain:" + TEXT.split("train:", 1)[1]
    good = parse_sweep(text.replace("GRID", "spec.network.features: [16]"), "s.yaml")
    assert good.combinations[0].spec.network.features == 16
    assert good.combinations[0].spec.basis == load_spec(tmp_path / "cu.yaml").basis
    with pytest.raises(SpecError, match=r"s\.yaml:7: `spec\.network\.features` is -1"):
        parse_sweep(text.replace("GRID", "spec.network.features: [-1]"), "s.yaml")
    with pytest.raises(SpecError, match=r"s\.yaml:1: `spec` is .*no such file"):
        parse_sweep(text.replace("cu.yaml", "no.yaml").replace("GRID", "spec.network.features: [1]"), "s.yaml")


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write("cu.xyz", list(copper(12)))
    return tmp_path


def run(folder: Path, *axes: str, options: tuple[str, ...] = (), text: str = TEXT) -> int:
    (folder / "s.yaml").write_text(text.replace("GRID", "\n  ".join(axes)))
    return main(["sweep", "s.yaml", *options])


def test_a_sweep_from_end_to_end_resumed_and_refused(folder, capsys):
    text = TEXT.replace("valid: 0.2", "valid: 0.2, test: cu.xyz")
    assert run(folder, "spec.network.features: [2, 4]", options=("--json",), text=text) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["values"] for row in rows] == [{"spec.network.features": 2}, {"spec.network.features": 4}]
    assert rows[0]["parameters"] < rows[1]["parameters"]
    for row in rows:
        assert row["finished"]
        assert row["failed"] is None
        assert min(row["valid"]["forces"], row["test"]["energy"], row["time"]["median"]) > 0
        assert len(row["time"]["rounds"]) == 2
    assert any(row["forces_front"] for row in rows)
    assert (folder / "sweep" / "pareto.png").read_bytes().startswith(b"\x89PNG")
    with (folder / "sweep" / "table.csv").open() as file:
        assert [row["spec.network.features"] for row in csv.DictReader(file)] == ["2", "4"]

    assert run(folder, "spec.network.features: [2, 4]", text=text) == 1
    assert "--resume, --overwrite" in capsys.readouterr().err
    weights = {path: path.stat().st_mtime_ns for path in folder.glob("sweep/*/model.safetensors")}
    assert len(weights) == 2
    assert run(folder, "spec.network.features: [2, 4, 8]", options=("--resume",), text=text) == 0
    assert "3 combinations, 1 to train" in capsys.readouterr().err
    assert all(path.stat().st_mtime_ns == before for path, before in weights.items())

    write("cu.xyz", list(copper(12))[::-1])
    assert run(folder, "spec.network.features: [2]", options=("--resume",), text=text) == 1
    assert "of another spec, config or data" in capsys.readouterr().err


def test_a_combination_that_fails_is_a_row_and_others_go_on(folder, capsys):
    assert run(folder, "train.atomic_energies: [{H: 1.0}, least_squares]") == 0
    captured = capsys.readouterr()
    assert "atomic_energies lacks Cu" in " ".join(captured.out.split())
    with (folder / "sweep" / "table.csv").open() as file:
        failed, good = csv.DictReader(file)
    assert "atomic_energies lacks Cu" in failed["failed"]
    assert not failed["us_per_atom_and_step"]
    assert not good["failed"]
    assert float(good["us_per_atom_and_step"]) > 0


def test_an_interrupted_sweep_goes_on(folder, capsys, monkeypatch):
    from tensorgraph.sweep import run as module

    trained = []

    def interrupted(config, **options):
        outcomes = train(config, **options)
        trained.append(config.out)
        return outcomes if len(trained) < 2 else [module.replace(outcomes[-1], interrupted=True)]

    train = module.train
    monkeypatch.setattr(module, "train", interrupted)
    assert run(folder, "spec.network.features: [2, 4]") == 130
    assert "--resume` goes on" in capsys.readouterr().err
    monkeypatch.setattr(module, "train", train)
    assert run(folder, "spec.network.features: [2, 4]", options=("--resume",)) == 0
    captured = capsys.readouterr()
    assert "1 to train" in captured.err
    assert "going on from step" in captured.err


def test_members_of_a_committee_are_validated_on_their_own_parts_and_timed_together(folder, capsys):
    assert run(folder, "train.seed: [0, [0, 1]]", options=("--json",)) == 0
    single, committee = json.loads(capsys.readouterr().out)["rows"]
    assert committee["parameters"] == 2 * single["parameters"]
    assert committee["valid"]["forces"] != single["valid"]["forces"]


def on_front(points: list[tuple[float, float]]) -> list[bool]:
    """By the definition."""
    return [
        not any(a <= x and b <= y and (a, b) != (x, y) for a, b in points)
        for x, y in points
    ]  # fmt: skip


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=12))
def test_the_front_is_that_of_the_definition(points):
    assert pareto(points) == on_front(points)


def row(features: int, time: float, error: float) -> Row:
    values = {"spec.network.features": features, "spec.basis.family": "linear" if features % 2 else "hiphop"}
    return Row(values, str(features), "", True, valid=Errors(None, error), time=StepTime(time, 0.1 * time, (time,)))


def test_fronts_are_of_what_was_measured(tmp_path):
    failed = Row(row(1, 1, 1).values, "x", "", failed="diverged")
    rows = with_fronts([row(1, 10, 0.2), row(2, 20, 0.1), row(3, 20, 0.3), failed])
    assert [one.forces_front for one in rows] == [True, True, False, False]
    assert not any(one.energy_front for one in rows)
    assert write_picture(rows[-1:], tmp_path / "p.png") is None


def test_labels_cover_no_marker_bar_line_or_other_label():
    random = np.random.default_rng(0)
    rows = with_fronts([row(k, 20 * 1.3 ** random.normal(), 0.2 * 1.3 ** random.normal()) for k in range(10)])
    figure = drawn(rows, ["forces"])
    figure.draw_without_rendering()
    (axes,) = figure.axes
    labels = [text.get_window_extent() for text in axes.texts]
    assert len(labels) == len(rows)
    assert not any(one.overlaps(other) for one, other in combinations(labels, 2))
    assert all(axes.get_window_extent().containsx(box.x1) for box in labels)
    bars = [path.transformed(axes.transData) for bar in axes.collections for path in bar.get_paths()]
    lines = [axes.transData.transform_path(line.get_path()) for line in axes.lines if len(line.get_xdata()) > 1]
    assert (len(bars), len(lines)) == (len(rows), 1)
    for box in labels:
        assert not any(path.intersects_bbox(box, filled=False) for path in [*bars, *lines])
        assert not any(box.contains(*axes.transData.transform(one.point("forces"))) for one in rows)


def test_the_timed_structure_is_periodic_and_of_about_the_size():
    cell = bulk("Cu", cubic=True)
    found = timed_structure([Atoms("Cu9"), cell, cell * (1, 1, 2)], 1000)
    assert found.pbc.all()
    assert 700 < len(found) < 1400
    lengths = found.cell.lengths()
    assert lengths.max() < 1.5 * lengths.min()
    assert len(timed_structure([Atoms("Cu9")], 1000)) == 9


def test_times_that_scatter_as_much_as_they_differ_are_told():
    assert scatter_remark([row(1, 10, 0.2), row(2, 20, 0.1)]) == ""
    assert "2 of 3" in scatter_remark([row(1, 10, 0.2), row(2, 20, 0.1), row(3, 21, 0.1)])


def test_sections_are_shown_by_their_values():
    assert worded({"family": "hiphop", "body_order": 5, "max_rank": 3}) == "hiphop 5 3"
    assert worded([1, 2]) == "[1,2]"


def test_values_that_read_alike_in_a_folder_s_name_have_folders_of_their_own():
    found = swept("train.data.train: [a/b.xyz, a-b.xyz]").combinations
    assert len({one.folder for one in found}) == 2


def test_an_overwritten_sweep_that_was_interrupted_goes_on(folder, monkeypatch, capsys):
    from tensorgraph.sweep import run as module

    assert run(folder, "spec.network.features: [2, 4]") == 0
    other = TEXT.replace("steps: 3", "steps: 3\n  optimizer: {rate: 0.001}")
    train = module.train
    monkeypatch.setattr(
        module, "train", lambda *args, **options: [module.replace(train(*args, **options)[-1], interrupted=True)]
    )
    assert run(folder, "spec.network.features: [2, 4]", options=("--overwrite",), text=other) == 130
    monkeypatch.setattr(module, "train", train)
    assert run(folder, "spec.network.features: [2, 4]", options=("--resume",), text=other) == 0
    assert "2 combinations, 2 to train" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize(("key", "status"), [("train", 1), ("time", 1)])
def test_devices_that_are_not_there_are_told_with_their_key(folder, key, status, capsys):
    texts = {
        "train": TEXT.replace("steps: 3", "steps: 3\n  device: cuda"),
        "time": TEXT.replace("repeats: 2", "device: cuda"),
    }
    assert run(folder, "spec.network.features: [2]", text=texts[key]) == status
    captured = capsys.readouterr()
    told = " ".join((captured.out + captured.err).split())
    assert ("time.device: " in told) == (key == "time")
    assert "device: " in told
