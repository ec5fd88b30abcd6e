"""What `tensorgraph train` does: trains, evaluates what it trained on the test structures, and draws."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tensorgraph.atomic import write_file
from tensorgraph.dataset import read_structures
from tensorgraph.errors import INTERRUPTED
from tensorgraph.evaluation import Evaluation, evaluate, write_pictures
from tensorgraph.evaluation.result import evaluation_table
from tensorgraph.neighbours.arguments import chosen_device
from tensorgraph.training.config import TrainConfig, load_config
from tensorgraph.training.data import label_choice
from tensorgraph.training.pictures import draw_learning
from tensorgraph.training.run import train


def train_and_report(file: str, resume: bool, overwrite: bool, show: Callable[[Any], None]) -> int:
    """The exit status of `tensorgraph train FILE`; `show` prints a table on stdout, progress goes to stderr."""
    config = load_config(file)
    first = is_first_process()
    outcomes = train(config, resume=resume, overwrite=overwrite, tell=stderr_line)
    if not first:
        return 0
    if outcomes[-1].interrupted:
        further = "goes on" if config.method == "gradient" else "begins anew"
        stderr_line(f"interrupted: `tensorgraph train {file} --resume` {further}")
        return INTERRUPTED
    out = Path(config.out)
    for folder in config.member_folders.values():
        stderr_line(str(draw_learning(folder)))
    if config.data.test is not None:
        found = tested(config)
        show(evaluation_table(found))
        write_file(json.dumps(found.to_json(), indent=2, allow_nan=False), out / "test.json")
        for picture in write_pictures(found, out):
            stderr_line(str(picture))
    print(outcomes[0].checkpoint if len(outcomes) == 1 else out)
    return 0


def tested(config: TrainConfig) -> Evaluation:
    """The errors of what a config trained, on its test structures; also without those that were trained on."""
    data = config.data
    assert data.test is not None
    structures = read_structures(data.test, label_choice(data), data.group_key)
    known = read_structures(data.train, label_choice(data))
    return evaluate(config.out, structures, train=known, device=chosen_device(config.device), tell=None)


def is_first_process() -> bool:
    """Whether this is the first of the processes that `torchrun` started, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def stderr_line(line: str) -> None:
    """A line of progress that neither a pipe nor a log file holds back."""
    print(line, file=sys.stderr, flush=True)
