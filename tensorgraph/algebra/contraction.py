"""The value of a multigraph: the contraction of its tensors, exactly modulo primes or in floats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import opt_einsum
from numpy.typing import NDArray

from tensorgraph.graphs import Kind, Multigraph

Array = NDArray[Any]

MAX_SUMMED = 2**15
"""Products of two residues below 2**24 whose sum fits 63 bits."""


def contract(graph: Multigraph, tensors: Mapping[Kind, Array], modulus: Array | int | None = None) -> Array:
    """Contracts the graph with ``tensors[kind]``, the full symmetric traceless tensor of each kind.

    Args:
        graph: open legs become axes of the result, in the order of the vertices.
        tensors: for every kind of the graph an array of shape ``(…,) + (D,)*l`` in D dimensions; int64 residues where a
            modulus is given. Leading axes are those of a batch.
        modulus: a prime below 2**24, an array of such primes of the shape of the leading axes, or None for plain
            arithmetic of the arrays' own type.

    Returns:
        An array of shape ``(…,) + (D,)*number_of_open_legs``.
    """
    operands = [tensors[kind] for kind in graph.kinds]
    dimension = next((op.shape[-1] for op, rank in zip(operands, graph.ranks, strict=True) if rank), 1)
    for positions, equation in _steps(graph, dimension):
        taken = [operands.pop(position) for position in positions]
        operands.append(_product(equation, taken, dimension, modulus))
    return operands[0]


def _product(equation: str, operands: Sequence[Array], dimension: int, modulus: Array | int | None) -> Array:
    """One step. A sum of at most ``MAX_SUMMED`` products of residues below 2**24 fits 63 bits and is reduced once.

    Of a longer one, one index after the other is summed outside.
    """
    inputs, result = equation.split("->")
    summed = sorted(set(inputs) - {",", *result})
    if modulus is None or dimension ** len(summed) <= MAX_SUMMED:
        names = ",".join(f"...{indices}" for indices in inputs.split(",")) + f"->...{result}"
        value = np.einsum(names, *operands)
        return value if modulus is None else reduced(value, modulus)
    first, total = summed[0], None
    rest = equation.replace(first, "")
    for k in range(dimension):
        parts = [
            np.take(operand, k, indices.index(first) - len(indices)) if first in indices else operand
            for indices, operand in zip(inputs.split(","), operands, strict=True)
        ]
        part = _product(rest, parts, dimension, modulus)
        total = part if total is None else reduced(total + part, modulus)
    assert total is not None
    return total


def reduced(value: Array, modulus: Array | int) -> Array:
    """Residues of an array whose leading axes are those of the modulus."""
    primes = np.asarray(modulus)
    remainder: Array = value % primes.reshape(primes.shape + (1,) * (np.ndim(value) - primes.ndim))
    return remainder


def contraction_cost(graph: Multigraph, dimension: int = 3) -> int:
    """Operations of the best contraction order of dense tensors (opt_einsum's count); 0 for a single vertex."""
    return int(_path_info(graph, dimension).opt_cost) if graph.order > 1 else 0


@cache
def _path_info(graph: Multigraph, dimension: int) -> Any:
    shapes = [(dimension,) * rank for rank in graph.ranks]
    optimizer = "optimal" if graph.order <= 5 else "auto"
    return opt_einsum.contract_path(graph.einsum, *shapes, shapes=True, optimize=optimizer)[1]


@cache
def _steps(graph: Multigraph, dimension: int) -> tuple[tuple[tuple[int, ...], str], ...]:
    """Pairwise contractions as positions to pop, highest first, and the einsum of what was popped."""
    if graph.order == 1:
        steps = [((0,), graph.einsum)]
    else:
        steps = [(positions, equation) for positions, _, equation, *_ in _path_info(graph, dimension).contraction_list]
    return tuple(steps)
