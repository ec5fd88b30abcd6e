"""Which structures each step sees: a function of seed and epoch alone, so that a run can go on from any step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from tensorgraph.training.config import BatchConfig
from tensorgraph.training.samples import Samples

Integers = NDArray[np.int64]
DEFAULT = BatchConfig(atoms=400)
EVALUATED = BatchConfig(structures=256, pairs=200_000)  # at a time, without the graph of derivatives


def epoch_batches(samples: Samples, limits: BatchConfig, seed: int, epoch: int) -> list[Integers]:
    """The batches of one epoch, each the indices of its structures: all of them, in an order of their own."""
    order = np.random.default_rng([seed, epoch]).permutation(len(samples))
    return list(_filled(samples, order, DEFAULT if limits == BatchConfig() else limits))


def ordered_batches(samples: Samples) -> list[Integers]:
    """All structures in their order, for evaluations."""
    return list(_filled(samples, np.arange(len(samples)), EVALUATED))


def share(chosen: Integers, rank: int, world_size: int) -> Integers:
    """What one process of several takes of a batch."""
    return chosen[rank::world_size]


def _filled(samples: Samples, order: Iterable[int], limits: BatchConfig) -> Iterator[Integers]:
    """Batches that are filled one after the other, as far as the limits allow; each has at least one structure."""
    bounds = np.array([np.inf if limit is None else limit for limit in (limits.structures, limits.atoms, limits.pairs)])
    sizes = np.stack([np.ones(len(samples), dtype=np.int64), samples.n_atoms, samples.n_pairs], axis=1)
    held: list[int] = []
    total = np.zeros(3)
    for index in order:
        if held and (total + sizes[index] > bounds).any():
            yield np.array(held)
            held, total = [], np.zeros(3)
        held.append(int(index))
        total = total + sizes[index]
    if held:
        yield np.array(held)
