"""The value of a multigraph: the contraction of its tensors, exactly modulo primes or in floats."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import opt_einsum
from numpy.typing import NDArray

from tensorgraph.graphs import Multigraph

Array = NDArray[Any]


def contract(graph: Multigraph, tensors: Mapping[int, Array], modulus: Array | int | None = None) -> Array:
    """Contracts the graph with ``tensors[l]``, the full symmetric traceless tensor of rank ``l``.

    Args:
        graph: open legs become axes of the result, in the order of the vertices.
        tensors: for every rank of the graph an array of shape ``(…,) + (3,)*l``; int64 residues where a modulus is
            given. Leading axes are those of a batch.
        modulus: a prime below 2**24, an array of such primes of the shape of the leading axes, or None for plain
            arithmetic of the arrays' own type.

    Returns:
        An array of shape ``(…,) + (3,)*number_of_open_legs``.
    """
    operands = [tensors[rank] for rank in graph.ranks]
    for positions, equation in _steps(graph):
        value = np.einsum(equation, *(operands.pop(position) for position in positions))
        operands.append(value if modulus is None else reduced(value, modulus))
    return operands[0]


def reduced(value: Array, modulus: Array | int) -> Array:
    """Residues of an array whose leading axes are those of the modulus."""
    primes = np.asarray(modulus)
    remainder: Array = value % primes.reshape(primes.shape + (1,) * (np.ndim(value) - primes.ndim))
    return remainder


def contraction_cost(graph: Multigraph) -> int:
    """Operations of the best contraction order of dense tensors (opt_einsum's count); 0 for a single vertex."""
    return int(_path_info(graph).opt_cost) if graph.order > 1 else 0


@cache
def _path_info(graph: Multigraph) -> Any:
    shapes = [(3,) * rank for rank in graph.ranks]
    optimizer = "optimal" if graph.order <= 5 else "auto"
    return opt_einsum.contract_path(graph.einsum, *shapes, shapes=True, optimize=optimizer)[1]


@cache
def _steps(graph: Multigraph) -> tuple[tuple[tuple[int, ...], str], ...]:
    """Pairwise contractions as positions to pop, highest first, and the einsum of what was popped, for batches."""
    if graph.order == 1:
        steps = [((0,), graph.einsum)]
    else:
        steps = [(positions, equation) for positions, _, equation, *_ in _path_info(graph).contraction_list]
    return tuple((positions, _batched(equation)) for positions, equation in steps)


def _batched(equation: str) -> str:
    """The equation with an ellipsis on every operand."""
    operands, result = equation.split("->")
    # A sum of at most 3**9 products of residues below 2**24 fits 63 bits, so one reduction a step is enough.
    if len(set(operands) - {","} - set(result)) > 9:
        raise OverflowError(f"{equation} would overflow 64-bit integers")
    return ",".join(f"...{operand}" for operand in operands.split(",")) + f"->...{result}"
