"""Values and gradients of graph polynomials at random points over prime fields."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from tensorgraph.algebra.contraction import contract, reduced
from tensorgraph.algebra.tensors import component_count, embedding, levi_civita
from tensorgraph.graphs import Kind, Multigraph, as_kinds

Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Points:
    """Points, each over a prime field of its own, side by side: the trials of a rank.

    ``primes`` has shape ``[trials]`` (below 2**24); ``components[kind]`` shape ``[trials, n_components]``;
    ``tensors[kind]`` are the full tensors, shape ``[trials] + [dimension]*l``, with the antisymmetric one among them.
    """

    primes: Integers
    components: Mapping[Kind, Integers]
    tensors: Mapping[Kind, Integers]
    dimension: int = 3

    @classmethod
    def of(
        cls, primes: Sequence[int], components: Mapping[Kind, Sequence[Sequence[int]]], dimension: int = 3
    ) -> Points:
        """Points with given components, as a certificate records them; scalars that are not given are one."""
        moduli = np.array(primes, dtype=np.int64)
        values = {kind: np.array(rows, dtype=np.int64) for kind, rows in components.items()}
        values.setdefault(Kind(0), np.ones((len(moduli), 1), dtype=np.int64))
        tensors = {
            kind: reduced(
                np.moveaxis(np.tensordot(embedding(kind.rank, dimension), rows, axes=(-1, -1)), -1, 0), moduli
            )
            for kind, rows in values.items()
        }
        antisymmetric = np.broadcast_to(levi_civita(dimension), (len(moduli), *(dimension,) * dimension))
        tensors[Kind(dimension, role="epsilon")] = antisymmetric
        return cls(moduli, values, tensors, dimension)

    @classmethod
    def random(cls, kinds: Iterable[Kind | int], primes: Sequence[int], seed: int, dimension: int = 3) -> Points:
        """Uniform residues for the tensors of these kinds; the seed decides, not the platform."""
        generators = [np.random.Generator(np.random.PCG64([seed, trial])) for trial in range(len(primes))]
        drawn = {
            kind: [
                g.integers(0, p, component_count(kind.rank, dimension)).tolist()
                for g, p in zip(generators, primes, strict=True)
            ]
            for kind in sorted(as_kinds(kinds))
        }
        return cls.of(primes, drawn, dimension)


def values(graph: Multigraph, points: Points) -> Integers:
    """A closed graph at every point, shape ``[trials]``."""
    return contract(graph, _tensors(graph, points), points.primes)


def _tensors(graph: Multigraph, points: Points) -> Mapping[Kind, Integers]:
    """Those of the points; a scalar that they do not give is one."""
    missing = {kind for kind in graph.kinds if not kind.rank} - points.tensors.keys()
    return {**points.tensors, **dict.fromkeys(missing, np.ones_like(points.primes))}


def gradients(graph: Multigraph, points: Points, stratum: Sequence[Kind | int]) -> Integers:
    """The gradients of a closed graph restricted to a stratum.

    Args:
        graph: a graph with a kind outside the stratum vanishes on it, and so does its gradient.
        points: where they are taken.
        stratum: the kinds whose tensors are non-zero, ascending.

    Returns:
        ``[trials, width]``: the derivatives by the components of each kind of the stratum, concatenated.
    """
    wanted, trials = as_kinds(stratum), len(points.primes)
    blocks = _blocks(graph, points) if set(graph.kinds) <= set(wanted) else {}
    zeros = (np.zeros((trials, component_count(kind.rank, points.dimension)), dtype=np.int64) for kind in wanted)
    return np.concatenate([blocks.get(kind, zero) for kind, zero in zip(wanted, zeros, strict=True)], axis=1)


@lru_cache(maxsize=16384)
def _blocks(graph: Multigraph, points: Points) -> Mapping[Kind, Integers]:
    """The gradient by kind: the same on every stratum that holds the graph, so the passes need it once."""
    primes, blocks = points.primes, dict[Kind, Integers]()
    for vertex, kind in enumerate(graph.kinds):
        pulled = _without(graph, vertex, points).reshape(len(primes), -1)
        outer = embedding(kind.rank, points.dimension)
        block = reduced(pulled @ outer.reshape(-1, outer.shape[-1]), primes)
        blocks[kind] = reduced(blocks[kind] + block, primes) if kind in blocks else block
    return blocks


def _without(graph: Multigraph, vertex: int, points: Points) -> Integers:
    """What the vertex is contracted with: the graph without it, whose open legs are the vertex's indices."""
    others = [other for other in range(graph.order) if other != vertex]
    if not others:
        return np.ones(len(points.primes), dtype=np.int64)
    rest = graph.induced(others)
    return contract(rest, _tensors(rest, points), points.primes)
