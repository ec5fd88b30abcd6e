"""`tensorgraph sweep`: a grid that is trained, measured and drawn; the front; mistakes by line; going on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from ase.io import write
from training_runs import SPEC, copper

from tensorgraph import cli
from tensorgraph.errors import SpecError
from tensorgraph.sweep.config import load_sweep
from tensorgraph.sweep.results import pareto


def prepare(folder: Path, grid: str = "  spec.network.features: [4, 8]\n") -> Path:
    """The config of a sweep of trainings of two steps."""
    write(folder / "cu.xyz", list(copper()))
    spec = "".join(f"  {line}\n" for line in SPEC.splitlines())
    train = f"  data: {{train: {folder}/cu.xyz, valid: 0.2}}\n  steps: 2\n"
    text = f"spec:\n{spec}train:\n{train}grid:\n{grid}out: {folder}/sweep\ntime: {{atoms: 50, repeats: 2}}\n"
    (folder / "sweep.yaml").write_text(text, encoding="utf-8")
    return folder / "sweep.yaml"


def test_a_grid_is_trained_measured_and_drawn_once(tmp_path, capsys):
    config = prepare(tmp_path)
    assert cli.main(["sweep", str(config), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["values"] for row in rows] == [{"spec.network.features": 4}, {"spec.network.features": 8}]
    assert rows[0]["parameters"] < rows[1]["parameters"]
    for row in rows:
        assert row["valid"]["forces"] > 0
        assert row["time"]
    assert (tmp_path / "sweep" / "pareto.png").read_bytes().startswith(b"\x89PNG")
    assert len((tmp_path / "sweep" / "table.csv").read_text().splitlines()) == 3
    checkpoints = sorted((tmp_path / "sweep").glob("*/model.safetensors"))
    written = [path.stat().st_mtime_ns for path in checkpoints]
    assert cli.main(["sweep", str(config)]) == 1
    assert "--resume" in capsys.readouterr().err
    assert cli.main(["sweep", str(config), "--resume"]) == 0
    assert "features" in capsys.readouterr().out
    assert [path.stat().st_mtime_ns for path in checkpoints] == written


def test_the_front_is_what_nothing_dominates():
    random = np.random.default_rng(0)
    points = [tuple(point) for point in random.integers(0, 8, (40, 2)).astype(float)]

    def dominated(one):
        return any(other[0] <= one[0] and other[1] <= one[1] and other != one for other in points)

    found = pareto(points)
    for point, on_front in zip(points, found, strict=True):
        assert not (on_front and dominated(point))
        assert on_front or dominated(point) or points.count(point) > 1
    assert {p for p, on in zip(points, found, strict=True) if on} == {p for p in points if not dominated(p)}


@pytest.mark.parametrize(
    ("grid", "line", "message"),
    [
        ("  spec.network.feature: [4, 8]\n", 15, "feature"),
        ("  spec.network.features: [4, 0]\n", 15, "is 0; allowed: an integer from 1 to 4096"),
        ("  train.optimizer.rate: [0.1, 7]\n", 15, "is 7; allowed: a number above 0 and at most 1"),
        ("  spec.network.features: 4\n", 15, "is no list of values; allowed: one such as [4]"),
    ],
)
def test_mistakes_in_a_grid_are_told_by_line(tmp_path, grid, line, message):
    with pytest.raises(SpecError) as caught:
        load_sweep(prepare(tmp_path, grid))
    assert str(caught.value).startswith(f"{tmp_path}/sweep.yaml:{line}: ")
    assert message in str(caught.value)
    assert not (tmp_path / "sweep").exists()
