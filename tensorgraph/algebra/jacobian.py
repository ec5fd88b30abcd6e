"""Values and gradients of graph polynomials at random points over prime fields."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from tensorgraph.algebra.contraction import contract, reduced
from tensorgraph.algebra.tensors import embedding
from tensorgraph.graphs import Multigraph

Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Points:
    """Points, each over a prime field of its own, side by side: the trials of a rank.

    ``primes`` has shape ``[trials]`` (below 2**24); ``components[l]`` shape ``[trials, 2 l + 1]``; ``tensors[l]`` are
    the full tensors, shape ``[trials] + [3]*l``.
    """

    primes: Integers
    components: Mapping[int, Integers]
    tensors: Mapping[int, Integers]

    @classmethod
    def of(cls, primes: Sequence[int], components: Mapping[int, Sequence[Sequence[int]]]) -> Points:
        """Points with given components, as a certificate records them; rank 0 is one where it is not given."""
        moduli = np.array(primes, dtype=np.int64)
        values = {rank: np.array(rows, dtype=np.int64) for rank, rows in components.items()}
        values.setdefault(0, np.ones((len(moduli), 1), dtype=np.int64))
        tensors = {
            rank: reduced(np.moveaxis(np.tensordot(embedding(rank), rows, axes=(-1, -1)), -1, 0), moduli)
            for rank, rows in values.items()
        }
        return cls(moduli, values, tensors)

    @classmethod
    def random(cls, ranks: Iterable[int], primes: Sequence[int], seed: int) -> Points:
        """Uniform residues for the tensors of these ranks; the seed decides, not the platform."""
        ordered = sorted(ranks)
        generators = [np.random.Generator(np.random.PCG64([seed, trial])) for trial in range(len(primes))]
        components = {
            rank: [g.integers(0, p, 2 * rank + 1).tolist() for g, p in zip(generators, primes, strict=True)]
            for rank in ordered
        }
        return cls.of(primes, components)


def values(graph: Multigraph, points: Points) -> Integers:
    """A closed graph at every point, shape ``[trials]``."""
    return contract(graph, points.tensors, points.primes)


def gradients(graph: Multigraph, points: Points, stratum: Sequence[int]) -> Integers:
    """The gradients of a closed graph restricted to a stratum.

    Args:
        graph: a graph with a rank outside the stratum vanishes on it, and so does its gradient.
        points: where they are taken.
        stratum: the ranks whose tensors are non-zero, ascending.

    Returns:
        ``[trials, width]``: the derivatives by the ``2 l + 1`` components of each rank of the stratum, concatenated.
    """
    blocks = _blocks(graph, points) if set(graph.ranks) <= set(stratum) else {}
    trials = len(points.primes)
    parts = [blocks.get(rank, np.zeros((trials, 2 * rank + 1), dtype=np.int64)) for rank in stratum]
    return np.concatenate(parts, axis=1)


@lru_cache(maxsize=16384)
def _blocks(graph: Multigraph, points: Points) -> Mapping[int, Integers]:
    """The gradient by rank: the same on every stratum that holds the graph, so the passes need it once."""
    primes = points.primes
    by_rank = {rank: np.zeros((len(primes), 2 * rank + 1), dtype=np.int64) for rank in graph.support}
    for vertex, rank in enumerate(graph.ranks):
        pulled = _without(graph, vertex, points).reshape(len(primes), -1)
        by_rank[rank] += reduced(pulled @ embedding(rank).reshape(-1, 2 * rank + 1), primes)
    return {rank: reduced(block, primes) for rank, block in by_rank.items()}


def _without(graph: Multigraph, vertex: int, points: Points) -> Integers:
    """What the vertex is contracted with: the graph without it, whose open legs are the vertex's indices."""
    others = [other for other in range(graph.order) if other != vertex]
    if not others:
        return np.ones(len(points.primes), dtype=np.int64)
    return contract(graph.induced(others), points.tensors, points.primes)
