"""`python -m bench.accuracy NAME …`: trains what bench/accuracy/NAME.yaml says, and writes results/NAME.json.

The data stand in the folder that the environment variable TENSORGRAPH_DATA names. Test structures are seen once, when a
training has ended; settings were chosen on validation parts.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.runner import machine
from tensorgraph.atomic import write_file
from tensorgraph.errors import INTERRUPTED
from tensorgraph.model.checkpoint import training_of_checkpoint
from tensorgraph.potential import members_of, read_spec
from tensorgraph.training.command import stderr_line, tested
from tensorgraph.training.config import TrainConfig, load_config
from tensorgraph.training.folder import LAST
from tensorgraph.training.run import train

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results"


def main(argv: Sequence[str] | None = None) -> int:
    names = sorted(path.stem for path in FOLDER.glob("*.yaml"))
    parser = argparse.ArgumentParser(prog="python -m bench.accuracy", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", metavar="NAME", nargs="+", choices=names, help=f"one or more of {', '.join(names)}")
    parser.add_argument("--resume", action="store_true", help="go on with a training that was interrupted")
    arguments = parser.parse_args(argv)
    for name in arguments.names:
        config = load_config(FOLDER / f"{name}.yaml")
        outcomes = train(config, resume=arguments.resume, overwrite=not arguments.resume, tell=stderr_line)
        if any(outcome.interrupted for outcome in outcomes):
            return INTERRUPTED
        path = RESULTS / f"{name}.json"
        write_file(json.dumps(result(name, config), indent=2, allow_nan=False) + "\n", path)
        print(path)
    return 0


def result(name: str, config: TrainConfig) -> dict[str, Any]:
    """What bench/accuracy/results/NAME.json holds: config, spec, versions and machine, seconds of training, scores of
    the validation parts, errors on the tests.
    """
    members = members_of(config.out)
    trainings = [json.loads(training_of_checkpoint(member) or "{}") for member in members]
    last = [json.loads(training_of_checkpoint(member.with_name(LAST)) or "{}") for member in members]
    errors = tested(config).to_json()
    for key in ("checkpoint", "members", "worst"):
        errors.pop(key)
    return {
        "name": name,
        "config": _portable(config),
        "spec": json.loads(read_spec(members[0]).canonical_json()),
        "versions": trainings[0]["versions"],
        "training_seconds": round(sum(one["seconds"] for one in last), 1),
        "validation_scores": [one["score"] for one in trainings],
        "machine": machine("cpu"),
        "errors": errors,
    }


def _portable(config: TrainConfig) -> dict[str, Any]:
    """The config with its defaults; files of the data by their names."""
    held: dict[str, Any] = json.loads(config.canonical_json())
    for part, files in held["data"].items():
        if part in ("train", "valid", "test") and isinstance(files, list):
            held["data"][part] = [Path(file).name for file in files]
    return held


if __name__ == "__main__":
    sys.exit(main())
