"""Time per atom and step, measured as dynamics takes its steps: the neighbour list, then energy and forces.

All potentials are measured side by side in one process, in the order A B A B …, so that what else the machine does
hits all of them alike.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from tensorgraph.model.batch import batch_structures
from tensorgraph.model.timing import interleaved
from tensorgraph.neighbours.arguments import DTYPES
from tensorgraph.potential import load_model, members_of, package_of_checkpoint

WARM_UPS = 2  # the first call compiles, the second fills caches


@dataclass(frozen=True)
class StepTime:
    """Microseconds per atom and step: the median of the rounds, half of the range of their middle half, and all."""

    median: float
    spread: float
    rounds: tuple[float, ...]

    @classmethod
    def of(cls, microseconds: Sequence[float]) -> StepTime:
        """Of the rounds, at least one."""
        low, high = np.percentile(microseconds, [25, 75])
        return cls(statistics.median(microseconds), float(high - low) / 2, tuple(microseconds))


def timed_structure(structures: Sequence[Atoms], atoms: int) -> Atoms:
    """The largest of the periodic structures, repeated to about so many atoms in a box as cubic as can be.

    Without a periodic one the largest structure as it is.
    """
    periodic = [one for one in structures if one.pbc.any() and one.cell.volume > 0]
    largest = max(periodic or structures, key=len)
    repeats, lengths = [1, 1, 1], largest.cell.lengths()
    while largest.pbc.any():
        axis = min(np.flatnonzero(largest.pbc), key=lambda k: repeats[k] * lengths[k])
        more = [count + (k == axis) for k, count in enumerate(repeats)]
        if _off(len(largest) * math.prod(more), atoms) >= _off(len(largest) * math.prod(repeats), atoms):
            break
        repeats = more
    repeated: Atoms = largest.repeat(repeats)
    return repeated


def _off(count: int, wanted: int) -> float:
    return abs(math.log(count / wanted))


def step_times(
    checkpoints: Mapping[str, Path], atoms: Atoms, *, dtype: str, device: str, repeats: int
) -> dict[str, StepTime]:
    """The time of a step of each potential, of a committee that of all its members on one neighbour list.

    `checkpoints` are files or folders of runs, by name. Raises what reading them raises, and ValueError for a device
    that is not there.
    """
    steps = {name: _step(path, atoms, dtype, device) for name, path in checkpoints.items()}
    seconds = interleaved(steps, repeats, device, WARM_UPS)
    return {name: StepTime.of([1e6 * one / len(atoms) for one in taken]) for name, taken in seconds.items()}


def _step(path: Path, atoms: Atoms, dtype: str, device: str) -> Callable[[], Any]:
    members = members_of(path)
    package = package_of_checkpoint(members[0])
    models: list[Any] = [load_model(member, device, DTYPES[dtype], package=package) for member in members]

    def step() -> None:
        batch = batch_structures([atoms], package.architecture.CUTOFF, DTYPES[dtype], device)
        for model in models:
            model.energy_and_forces(*batch.inputs)

    return step
