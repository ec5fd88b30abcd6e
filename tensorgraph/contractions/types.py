"""The contraction program and its meaning.

Scope: straight-line programs of pairwise contractions. The first values are the input tensors, in the order of their
layout; behind them value ``n_inputs + k`` is the result of step ``k``, an open-legged multigraph whose axes are its
legs in the order of its vertices. Outputs close what is open in a value: they pair it with a probe or with the
antisymmetric tensor. Not in scope: sums, scalings, anything that is no contraction of two operands.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from tensorgraph.algebra import Layout, embedding, traceless
from tensorgraph.algebra.tensors import levi_civita
from tensorgraph.graphs import Kind, Multigraph, to_networkx
from tensorgraph.graphs.multigraph import sort_edges

Array = NDArray[Any]


@dataclass(frozen=True)
class Operand:
    """A value and the index letter on each of its axes."""

    value: int
    indices: str


@dataclass(frozen=True)
class Step:
    """The contraction of two operands over the indices that they share; ``result`` orders what is left."""

    graph: Multigraph
    left: Operand
    right: Operand
    result: str

    @property
    def einsum(self) -> str:
        """The step as an einsum equation."""
        return f"{self.left.indices},{self.right.indices}->{self.result}"


@dataclass(frozen=True)
class Output:
    """A value, and what its open legs are closed with.

    With a probe the output is the derivative by it: the symmetric traceless part of the value. With the antisymmetric
    tensor it is ``sign`` times the full contraction with it. Without either the value has no open legs.
    """

    value: int
    closing: Kind | None = None
    sign: int = 1

    @property
    def rank(self) -> int:
        """Of the output as a tensor."""
        return self.closing.rank if self.closing is not None and self.closing.role == "probe" else 0


@dataclass(frozen=True)
class ContractionProgram:
    """Steps in the order of their computation; ``outputs[k]`` is output ``k``.

    ``proved_cheapest`` says that none is cheaper, by the search's estimate of multiplications, of the programs that
    make every connected graph from two connected parts and every product from one of its pieces and the rest. It says
    nothing of programs with unconnected intermediates, nor of the scalar operations that are left in the end.
    """

    layout: Layout
    steps: tuple[Step, ...]
    outputs: tuple[Output, ...]
    proved_cheapest: bool = False

    @property
    def n_inputs(self) -> int:
        """The number of input tensors."""
        return len(self.layout.kinds)

    @cached_property
    def graphs(self) -> tuple[Multigraph, ...]:
        """The graph of every value, a single vertex for an input."""
        return (*(Multigraph((kind,)) for kind in self.layout.kinds), *(step.graph for step in self.steps))

    def step_of(self, value: int) -> Step | None:
        """The step that computes a value; None for an input."""
        return self.steps[value - self.n_inputs] if value >= self.n_inputs else None

    def name(self, value: int) -> str:
        """How a value is written: inputs by their letter, intermediates as ``w1, w2, …``."""
        return self.layout.kinds[value].letter if value < self.n_inputs else f"w{value - self.n_inputs + 1}"

    def verify(self) -> None:
        """Checks that operands come before their use and that every step computes the graph that it names.

        Raises:
            ValueError: the first step or output that is wrong.
        """
        for number, step in enumerate(self.steps):
            for operand in (step.left, step.right):
                if not 0 <= operand.value < self.n_inputs + number:
                    raise ValueError(f"step {number} uses value {operand.value} before it is computed")
                legs = sum(self.graphs[operand.value].legs)
                if len(set(operand.indices)) != len(operand.indices) or len(operand.indices) != legs:
                    raise ValueError(f"step {number} gives {operand.indices!r} to {self.name(operand.value)}")
            if not _computes(step, self.graphs[step.left.value], self.graphs[step.right.value]):
                raise ValueError(f"step {number}: {step.einsum} does not compute {step.graph}")
        for output in self.outputs:
            wanted = output.closing.rank if output.closing else 0
            if not 0 <= output.value < len(self.graphs) or sum(self.graphs[output.value].legs) != wanted:
                raise ValueError(f"output {output} has other legs than what closes it")

    def describe(self, step: Step, value: int) -> str:
        """One step in index notation with the graph that it computes."""
        left, right = (self.name(o.value) + (f"[{o.indices}]" if o.indices else "") for o in (step.left, step.right))
        result = self.name(value) + (f"[{step.result}]" if step.result else "")
        return f"{result} = {left} {right}    # {step.graph}"

    def __str__(self) -> str:
        lines = [self.describe(step, self.n_inputs + number) for number, step in enumerate(self.steps)]
        return "\n".join([*lines, "return " + ", ".join(map(self.describe_output, self.outputs))])

    def describe_output(self, output: Output) -> str:
        """An output by its value and, where there is one, what closes it."""
        sign = "-" if output.sign < 0 else ""
        return f"{sign}{self.name(output.value)}" + (f".{output.closing.letter}" if output.closing else "")


def run(program: ContractionProgram, tensors: Mapping[Kind, Array]) -> list[Array]:
    """The meaning of a program, by einsum, step by step: scalars, and the independent components of outputs with rank.

    ``tensors`` are the full tensors of the inputs, shape ``(dimension,)*l`` each.
    """
    values: list[Array] = [np.asarray(tensors[kind]) for kind in program.layout.kinds]
    for step in program.steps:
        values.append(np.einsum(step.einsum, values[step.left.value], values[step.right.value]))
    return [_closed(output, values[output.value], program.layout.dimension) for output in program.outputs]


def _closed(output: Output, value: Array, dimension: int) -> Array:
    if output.closing is None:
        return value
    if output.closing.role == "epsilon":
        return output.sign * np.tensordot(levi_civita(dimension), value, axes=value.ndim)
    outer = embedding(output.rank, dimension)
    paired = np.tensordot(outer, value, axes=(range(value.ndim), range(value.ndim)))
    closed: Array = np.asarray(traceless(output.rank, dimension), dtype=value.dtype) @ paired
    return closed


def _computes(step: Step, left: Multigraph, right: Multigraph) -> bool:
    """Whether joining the legs of two graphs that share an index gives the step's graph, axis by axis."""
    owners: dict[str, list[int]] = {}
    kinds: tuple[Kind, ...] = ()
    edges = []
    for operand, graph in ((step.left, left), (step.right, right)):
        edges += [(u + len(kinds), v + len(kinds), m) for u, v, m in graph.edges]
        for letter, vertex in zip(operand.indices, leg_owners(graph), strict=True):
            owners.setdefault(letter, []).append(vertex + len(kinds))
        kinds += graph.kinds
    joined = Counter(tuple(sorted(ends)) for ends in owners.values() if len(ends) == 2)
    edges += [(u, v, multiplicity) for (u, v), multiplicity in joined.items()]
    composed = Multigraph(kinds, sort_edges(edges))
    axes = {letter: ends[0] for letter, ends in owners.items() if len(ends) == 1}
    named = dict(zip(step.result, leg_owners(step.graph), strict=False))
    if len(step.result) != len(axes) or axes.keys() != named.keys() or sum(step.graph.legs) != len(axes):
        return False
    return _isomorphic(composed, axes, step.graph, named)


def leg_owners(graph: Multigraph) -> list[int]:
    """The vertex of each open leg, in the order of the axes of the graph's value."""
    return [vertex for vertex, legs in enumerate(graph.legs) for _ in range(legs)]


def _isomorphic(a: Multigraph, axes_a: Mapping[str, int], b: Multigraph, axes_b: Mapping[str, int]) -> bool:
    """Isomorphism that respects kinds, multiplicities, and which indices are open at which vertex."""
    labelled = []
    for graph, axes in ((a, axes_a), (b, axes_b)):
        result = to_networkx(graph)
        for vertex in result:
            result.nodes[vertex]["open"] = sorted(letter for letter, owner in axes.items() if owner == vertex)
        labelled.append(result)
    return bool(nx.is_isomorphic(*labelled, node_match=dict.__eq__, edge_match=dict.__eq__))
