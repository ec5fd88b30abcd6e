"""On how many threads a training runs: the fastest number, the one that is asked for, the one that it began with."""

import time

import pytest
import torch

from tensorgraph.errors import SpecError
from tensorgraph.training.config import load_config
from tensorgraph.training.run import train
from tensorgraph.training.state import read_state
from tensorgraph.training.threads import fastest, threads
from tests.training_runs import prepare


@pytest.mark.parametrize(
    ("seconds", "most", "chosen", "tried"),
    [
        ({1: 0.02, 2: 0.01, 4: 0.04}, 4, 2, {1, 2, 4}),
        ({1: 0.01, 2: 0.05}, 8, 1, {1, 2}),
        ({1: 0.03, 2: 0.02, 3: 0.01}, 3, 3, {1, 2, 3}),
        ({1: 0.010, 2: 0.0098}, 2, 1, {1, 2}),
        ({1: 0.01}, 1, 1, {1}),
        ({1: 0.02, 2: 0.01, 4: 0.005}, 4, 4, {1, 2, 4}),
    ],
)
def test_the_fastest_number_is_taken_and_nothing_else_is_left_behind(seconds, most, chosen, tried):
    calls, lines, before = [], [], torch.get_num_threads()

    def step():
        calls.append(torch.get_num_threads())
        starting = 0.03 if calls.count(calls[-1]) == 1 else 0.0  # of threads, or of a compiler
        time.sleep(seconds[calls[-1]] + starting)

    assert fastest(step, most, lines.append) == chosen
    assert set(calls) == tried
    assert torch.get_num_threads() == before
    assert lines[-1].startswith(f"threads: {chosen}")


def test_a_number_that_is_far_too_slow_is_tried_once():
    """Beside busy cores a step on more threads may take a hundred times as long."""
    calls = []

    def step():
        calls.append(torch.get_num_threads())
        time.sleep(0.001 if calls[-1] == 1 else 0.1)

    assert fastest(step, 2, lambda _: None) == 1
    assert calls.count(2) == 1


def test_threads_are_given_back_after_an_error():
    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError), threads(before + 1):
        1 / 0  # noqa: B018
    assert torch.get_num_threads() == before


def test_a_run_uses_the_number_that_it_is_given_and_goes_on_with_what_it_had(tmp_path):
    before = torch.get_num_threads()
    config = load_config(prepare(tmp_path, steps=2, threads=2))
    train(config, tell=lambda _: None)
    assert read_state(tmp_path / "run" / "state.safetensors").progress["threads"] == 2
    assert torch.get_num_threads() == before
    lines: list[str] = []
    with threads(4):
        longer = config.model_copy(update={"steps": 4, "threads": "auto"})
        train(longer, resume=True, tell=lines.append)
    assert read_state(tmp_path / "run" / "state.safetensors").progress["threads"] == 2
    assert not any(line.startswith("threads:") for line in lines)


def test_a_new_run_looks_for_it(tmp_path):
    lines: list[str] = []
    config = load_config(prepare(tmp_path, steps=2))
    with threads(2):
        train(config, tell=lines.append)
    (line,) = (line for line in lines if line.startswith("threads:"))
    found = read_state(tmp_path / "run" / "state.safetensors").progress["threads"]
    assert line.startswith(f"threads: {found}")


@pytest.mark.parametrize("wrong", ["0", "1025", "two", "1.5", "true", "[1]"])
def test_other_numbers_are_refused(tmp_path, wrong):
    with pytest.raises(SpecError, match=r"`threads` is .*; allowed: auto, or the number of threads on a CPU"):
        load_config(prepare(tmp_path, threads=wrong))


def test_looking_for_it_changes_nothing(tmp_path):
    """The same weights as with a number that is given: trial steps leave no trace in weights, averages or batches."""
    results = []
    for name, keys in {"auto": {}, "given": {"threads": 1}}.items():
        config = load_config(prepare(tmp_path, steps=4, out=tmp_path / name, **keys))
        with threads(2 if name == "auto" else 1):
            train(config, tell=lambda _: None)
        state = read_state(tmp_path / name / "state.safetensors")
        results.append({key: value for key, value in state.tensors.items() if key.startswith(("model", "optimizer"))})
    for key, value in results[0].items():
        torch.testing.assert_close(value, results[1][key], rtol=1e-9, atol=1e-12)
