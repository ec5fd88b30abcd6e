"""Gradients of graph polynomials with respect to the independent tensor components."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from tensorgraph.algebra.contraction import contract
from tensorgraph.algebra.tensors import embedding
from tensorgraph.graphs import Multigraph


def gradient(
    graph: Multigraph, tensors: Mapping[int, NDArray[np.int64]], stratum: tuple[int, ...], modulus: int
) -> NDArray[np.int64]:
    """The gradient of the graph restricted to a stratum, at a point, modulo a prime.

    Args:
        graph: a closed graph.
        tensors: the point: full tensors of every rank of the stratum.
        stratum: the ranks whose tensors are non-zero, ascending; a graph with another rank vanishes on it.
        modulus: a prime below 2**24.

    Returns:
        The derivatives with respect to the ``2 l + 1`` components of each rank of the stratum, concatenated.
    """
    by_rank = {rank: np.zeros(2 * rank + 1, dtype=np.int64) for rank in stratum}
    if set(graph.ranks) <= set(stratum):
        for vertex, rank in enumerate(graph.ranks):
            pulled = _derivative_by_vertex(graph, vertex, tensors, modulus)
            by_rank[rank] += np.tensordot(pulled, embedding(rank), axes=rank) % modulus
    return np.concatenate([by_rank[rank] for rank in stratum]) % modulus


def _derivative_by_vertex(
    graph: Multigraph, vertex: int, tensors: Mapping[int, NDArray[np.int64]], modulus: int
) -> NDArray[np.int64]:
    """What the vertex is contracted with: the graph without it, whose open legs are the vertex's indices."""
    others = [other for other in range(graph.order) if other != vertex]
    if not others:
        return np.ones((), dtype=np.int64)
    return contract(graph.induced(others), tensors, modulus)
