"""Small potentials fitted in seconds: the other examples train one each on labels of a calculator that ASE has.

An untrained model gives random numbers, and no trained one comes with the package. So every example here makes its own
data with a cheap reference (EMT, SPC/Fw), fits a small model to it, and compares what both predict.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from examples.console import log
from tensorgraph.calculator import TensorGraphCalculator
from tensorgraph.training.command import tested
from tensorgraph.training.config import parse_config
from tensorgraph.training.run import train

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
        copy.info.clear()  # what a builder noted there, no file of structures may hold
        copy.calc = reference
        copy.calc = SinglePointCalculator(copy, energy=copy.get_potential_energy(), forces=copy.get_forces())
        result.append(copy)
    return result


@dataclass(frozen=True)
class Fit:
    """How a small model is trained; `energy` weighs squared errors of energies per atom beside those of forces."""

    steps: int
    structures: int = 10
    rate: float = 5e-3
    energy: float = 10.0


def fitted(spec_text: str, frames: Sequence[Atoms], fit: Fit, out: Path) -> TensorGraphCalculator:
    """A calculator with a model of the spec, trained on labelled frames, of which every tenth is kept for a test.

    All files are written to `out`, and the errors on the test frames to its test.json; they go to stderr too.
    """
    out.mkdir(parents=True, exist_ok=True)
    order = np.random.default_rng(0).permutation(len(frames))
    for name, chosen in (("train", order[len(order) // 10 :]), ("test", order[: len(order) // 10])):
        write(out / f"{name}.xyz", [frames[index] for index in chosen], format="extxyz")
    (out / "spec.yaml").write_text(spec_text, encoding="utf-8")
    config = parse_config(
        f"model: {out / 'spec.yaml'}\n"
        f"data: {{train: {out / 'train.xyz'}, valid: 0.05, test: {out / 'test.xyz'}}}\n"
        f"out: {out / 'run'}\n"
        f"steps: {fit.steps}\n"
        f"batch: {{structures: {fit.structures}}}\n"
        f"optimizer: {{rate: {fit.rate}}}\n"
        f"loss: {{energy: {fit.energy}}}\n"
        f"validation: {{energy: {fit.energy}}}\n"
    )
    (outcome,) = train(config, overwrite=True, tell=tell)
    found = tested(config).total
    tell(f"RMSE of {found.n_structures} others: {found.energy.rmse_mev_per_atom:.1f} meV/atom, "
         f"{found.forces.rmse_ev_per_angstrom:.3f} eV/Å")  # fmt: skip
    return TensorGraphCalculator(outcome.checkpoint)


def tell(line: str) -> None:
    """A line of progress on stderr."""
    log.print(line, soft_wrap=True, highlight=False)


def out_directory(name: str, description: str, argv: Sequence[str] | None = None) -> Path:
    """Where the example writes: `--out` of the command line."""
    parser = argparse.ArgumentParser(prog=f"python -m examples.{name}", description=description)
    default = Path("build") / name
    parser.add_argument("--out", type=Path, default=default, help="where everything is written (%(default)s)")
    out: Path = parser.parse_args(argv).out
    out.mkdir(parents=True, exist_ok=True)
    return out
