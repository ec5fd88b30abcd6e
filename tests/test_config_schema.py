"""The JSON Schema of training configs agrees with what `parse_config` takes and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML

from tensorgraph import cli
from tensorgraph.errors import SpecError
from tensorgraph.training.config import TrainConfig, config_schema, parse_config

ROOT = Path(__file__).parents[1]
SCHEMA = Draft202012Validator(config_schema())
CONFIGS = [*sorted((ROOT / "bench" / "accuracy").glob("*.yaml")), ROOT / "examples" / "gold.yaml"]
LEAST = "model: a.yaml\ndata: {train: b.xyz}\n"


def value(text: str) -> object:
    return json.loads(json.dumps(YAML(typ="safe").load(text)))


def test_it_is_a_schema_and_what_the_command_prints(capsys):
    Draft202012Validator.check_schema(config_schema())
    assert list(config_schema()["properties"]) == list(TrainConfig.model_fields)
    assert cli.main(["schema", "train"]) == 0
    assert json.loads(capsys.readouterr().out) == config_schema()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_configs_of_this_repository_are_valid(path):
    assert list(SCHEMA.iter_errors(value(path.read_text(encoding="utf-8")))) == []


@pytest.mark.parametrize(
    "line",
    [
        "seed: [0, 1]", "loss: {energy: [1, 100], forces: 2}", "atomic_energies: {Cu: -3.5}", "ridge: 1e-6",
        "optimizer: {betas: [0.9, 0.99], decay: 0}", "freeze: [blocks.*]", "minutes: 0.5", "batch: {atoms: 100}",
    ],
)  # fmt: skip
def test_what_is_taken_is_valid(line):
    parse_config(LEAST + line)
    assert SCHEMA.is_valid(value(LEAST + line))


@pytest.mark.parametrize(
    "line",
    [
        "seed: []", "seed: -1", "loss: {energy: [1, 2, 3]}", "loss: {energies: 1}", "minutes: 0", "minutes: null",
        "atomic_energies: {Cu: x}", "optimizer: {betas: [0.9, 1.0]}", "optimizer: {rate: 2}", "method: magic",
        "epochs: 1.5",
    ],
)  # fmt: skip
def test_what_is_refused_is_not_valid(line):
    with pytest.raises(SpecError):
        parse_config(LEAST + line)
    assert not SCHEMA.is_valid(value(LEAST + line))
