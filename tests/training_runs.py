"""Small trainings that several tests start: copper with EMT's labels, in processes of their own or in this one."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from safetensors.torch import load_file
from torch import Tensor

ROOT = Path(__file__).parents[1]
SPEC = """\
name: cu
basis: {family: hiphop, body_order: 4, max_rank: 2}
network:
  species: [Cu]
  features: 8
  interactions: 2
  atom_layers: 1
  sensitivity: {functions: 6, soft_min: 1.8, soft_max: 4.0, cutoff: 4.5}
  group_norm: false
"""


@functools.cache
def copper(n: int = 24) -> tuple[Atoms, ...]:
    """Rattled cells of four or eight atoms with EMT's energies and forces; two of three have a stress."""
    frames = []
    for index in range(n):
        atoms = bulk("Cu", cubic=True) * (1, 1, 1 + index % 2)
        atoms.rattle(0.1, seed=index)
        atoms.calc = EMT()
        labels = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
        if index % 3:
            labels["stress"] = atoms.get_stress()
        atoms.calc = SinglePointCalculator(atoms, **labels)
        frames.append(atoms)
    return tuple(frames)


def prepare(folder: Path, **keys: object) -> Path:
    """The config of a training in `folder`, with its spec and data; `keys` replace what it says."""
    (folder / "cu.yaml").write_text(SPEC, encoding="utf-8")
    write(folder / "cu.xyz", list(copper()))
    values = {
        "model": folder / "cu.yaml",
        "data": f"{{train: {folder / 'cu.xyz'}, valid: 0.1}}",
        "out": folder / "run",
        "steps": 8,
        "dtype": "float64",
        "batch": "{structures: 5}",
        "loss": "{energy: 100, stress: 100, hierarchicality: 0.01}",
        "log": "{save_seconds: 0}",
    } | keys
    config = folder / f"{Path(str(values['out'])).name}.yaml"
    config.write_text("".join(f"{key}: {value}\n" for key, value in values.items()), encoding="utf-8")
    return config


def command(config: Path, *options: str, processes: int = 1) -> list[str]:
    """The command that trains: in one process, or in several under `torchrun`."""
    several = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return [sys.executable, *(several if processes > 1 else []), "-m", "tensorgraph", "train", str(config), *options]


def environment() -> dict[str, str]:
    """Where this checkout is what is imported, and one thread works."""
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def run(config: Path, *options: str, processes: int = 1) -> subprocess.CompletedProcess[str]:
    """A training in a process of its own, to its end."""
    arguments = command(config, *options, processes=processes)
    return subprocess.run(arguments, capture_output=True, text=True, timeout=300, env=environment(), cwd=config.parent)


def weights(file: Path) -> dict[str, Tensor]:
    """The tensors in a file."""
    return load_file(file)


def largest_difference(first: dict[str, Tensor], second: dict[str, Tensor], *parts: str) -> float:
    """Of the tensors whose names start with one of `parts`, relative to the largest element of each."""
    assert first.keys() == second.keys()
    names = [name for name in first if not parts or name.startswith(parts)]
    assert names
    return max(
        float((first[name].double() - second[name].double()).abs().max())
        / max(1e-12, float(np.abs(first[name].double().numpy()).max()))
        for name in names
        if first[name].numel()
    )
