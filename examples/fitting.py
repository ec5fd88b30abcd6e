"""Small potentials fitted in seconds: the other examples train one each on labels of a calculator that ASE has.

An untrained model gives random numbers, and no trained one comes with the package. So every example here makes its own
data with a cheap reference (EMT, SPC/Fw), fits a small model to it, and compares what both predict.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.calculators.singlepoint import SinglePointCalculator

from examples.gold import log, progress
from examples.gold_training import Settings, errors_of, train
from tensorgraph.calculator import TensorGraphCalculator
from tensorgraph.compiler import compile_spec
from tensorgraph.emit.writing import write_package
from tensorgraph.runtime import batch_structures, load_package, save_checkpoint
from tensorgraph.spec import parse_spec

SPEC = """\
name: {name}
basis: {{family: hiphop, body_order: 4, max_rank: {rank}}}
network:
  species: [{species}]
  features: {features}
  interactions: {interactions}
  atom_layers: 1
  sensitivity: {{functions: 12, soft_min: {soft_min}, soft_max: {soft_max}, cutoff: {cutoff}}}
  group_norm: false
  residual: true
"""


def spec(
    name: str,
    species: Sequence[str],
    *,
    cutoff: float,
    soft_min: float,
    rank: int = 3,
    features: int = 16,
    interactions: int = 1,
) -> str:
    """The YAML of a small network; `soft_min` and `cutoff` in Å."""
    return SPEC.format(
        name=name, species=", ".join(species), cutoff=cutoff, soft_min=soft_min, soft_max=0.8 * cutoff, rank=rank,
        features=features, interactions=interactions,
    )  # fmt: skip


def labelled(frames: Sequence[Atoms], reference: Calculator) -> list[Atoms]:
    """Copies of the frames that carry the reference's energy and forces."""
    result = []
    for atoms in frames:
        copy = atoms.copy()
        copy.set_constraint()
        copy.calc = reference
        copy.calc = SinglePointCalculator(copy, energy=copy.get_potential_energy(), forces=copy.get_forces())
        result.append(copy)
    return result


def fitted(spec_text: str, frames: Sequence[Atoms], settings: Settings, out: Path) -> TensorGraphCalculator:
    """A calculator with a model of the spec, trained on labelled frames, of which every tenth is kept for a test.

    Package and checkpoint are written to `out`; the errors on the test frames go to stderr.
    """
    package_directory = write_package(compile_spec(parse_spec(spec_text)).package, out)
    package = load_package(package_directory)
    cutoff, random = package.architecture.CUTOFF, np.random.default_rng(settings.seed)
    order = random.permutation(len(frames))
    parts = [[frames[k] for k in chosen] for chosen in (order[len(order) // 10 :], order[: len(order) // 10])]
    training_set, test_set = (batch_structures(part, cutoff, targets=True) for part in parts)
    started = time.monotonic()
    with progress("training", settings.steps) as advance:
        model = train(package, training_set, settings, settings.steps, advance)
    errors = errors_of(model, test_set)
    sizes = np.unique([len(atoms) for atoms in parts[1]])
    log.print(
        f"trained {settings.steps} steps on {len(parts[0])} frames in {time.monotonic() - started:.0f} s; RMSE of "
        f"{len(parts[1])} others ({', '.join(map(str, sizes))} atoms): {errors}",
        soft_wrap=True,
    )
    save_checkpoint(model, package, out / "model.safetensors")
    return TensorGraphCalculator(package_directory, out / "model.safetensors")


def out_directory(name: str, description: str, argv: Sequence[str] | None = None) -> Path:
    """Where the example writes: `--out` of the command line."""
    parser = argparse.ArgumentParser(prog=f"python -m examples.{name}", description=description)
    default = Path("build") / name
    parser.add_argument("--out", type=Path, default=default, help="where everything is written (%(default)s)")
    out: Path = parser.parse_args(argv).out
    out.mkdir(parents=True, exist_ok=True)
    return out
