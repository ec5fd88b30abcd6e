"""The value of a multigraph: the contraction of its tensors, exactly modulo a prime or in floats."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import opt_einsum
from numpy.typing import NDArray

from tensorgraph.graphs import Multigraph

Array = NDArray[Any]


def contract(graph: Multigraph, tensors: Mapping[int, Array], modulus: int | None = None) -> Array:
    """Contracts the graph with ``tensors[l]``, the full symmetric traceless tensor of rank ``l``.

    Args:
        graph: open legs become axes of the result, in the order of the vertices.
        tensors: for every rank of the graph an array of shape ``(3,)*l``; int64 residues where a modulus is given.
        modulus: a prime below 2**24, or None for plain arithmetic of the arrays' own type.

    Returns:
        An array of shape ``(3,)*number_of_open_legs``.
    """
    operands = [tensors[rank] for rank in graph.ranks]
    for positions, equation in _steps(graph):
        taken = [operands.pop(position) for position in positions]
        value = np.einsum(equation, *taken)
        operands.append(value if modulus is None else value % modulus)
    return operands[0]


def contraction_cost(graph: Multigraph) -> int:
    """Operations of the best contraction order that treats the tensors as dense (opt_einsum's count)."""
    return int(_path_info(graph).opt_cost)


@cache
def _path_info(graph: Multigraph) -> Any:
    shapes = [(3,) * rank for rank in graph.ranks]
    optimizer = "optimal" if graph.order <= 5 else "auto"
    return opt_einsum.contract_path(graph.einsum, *shapes, shapes=True, optimize=optimizer)[1]


@cache
def _steps(graph: Multigraph) -> tuple[tuple[tuple[int, ...], str], ...]:
    """Pairwise contractions as positions to pop, highest first, and the einsum of what was popped."""
    if graph.order == 1:
        return (((0,), graph.einsum),)
    steps = tuple((positions, equation) for positions, _, equation, *_ in _path_info(graph).contraction_list)
    for _, equation in steps:
        operands, result = equation.split("->")
        # A sum of at most 3**9 products of residues below 2**24 fits 63 bits, so one reduction a step is enough.
        assert len(set(operands) - {","} - set(result)) <= 9, f"{equation} would overflow 64-bit integers"
    return steps
