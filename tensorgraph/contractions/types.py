"""The contraction program and its meaning.

Scope: straight-line programs of pairwise contractions. Values ``0 … max_rank`` are the input tensors of those ranks;
value ``max_rank + 1 + k`` is the result of step ``k``, an open-legged multigraph whose axes are its legs in the
order of its vertices. Not in scope: sums, scalings, anything that is no contraction of two operands.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from tensorgraph.graphs import Multigraph, to_networkx
from tensorgraph.graphs.multigraph import rank_letter, sort_edges

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
class ContractionProgram:
    """Steps in the order of their computation; ``outputs[k]`` is the value of invariant ``k``.

    ``proved_cheapest`` says that none is cheaper, by the search's estimate of multiplications, of the programs that
    make every connected graph from two connected parts and every product from one of its pieces and the rest. It says
    nothing of programs with unconnected intermediates, nor of the scalar operations that are left in the end.
    """

    max_rank: int
    steps: tuple[Step, ...]
    outputs: tuple[int, ...]
    proved_cheapest: bool = False

    def name(self, value: int) -> str:
        """How a value is written: inputs by their rank's letter, intermediates as ``w1, w2, …``."""
        return rank_letter(value) if value <= self.max_rank else f"w{value - self.max_rank}"

    def legs(self, value: int) -> int:
        """Number of axes of a value."""
        return value if value <= self.max_rank else len(self.steps[value - self.max_rank - 1].result)

    def verify(self) -> None:
        """Checks that operands come before their use and that every step computes the graph that it names.

        Raises:
            ValueError: the first step or output that is wrong.
        """
        graphs = [Multigraph((rank,)) for rank in range(self.max_rank + 1)]
        for number, step in enumerate(self.steps):
            for operand in (step.left, step.right):
                if not 0 <= operand.value < len(graphs):
                    raise ValueError(f"step {number} uses value {operand.value} before it is computed")
                if len(set(operand.indices)) != len(operand.indices) or len(operand.indices) != self.legs(
                    operand.value
                ):
                    raise ValueError(f"step {number} gives {operand.indices!r} to {self.name(operand.value)}")
            if not _computes(step, graphs[step.left.value], graphs[step.right.value]):
                raise ValueError(f"step {number}: {step.einsum} does not compute {step.graph}")
            graphs.append(step.graph)
        for value in self.outputs:
            if not 0 <= value < len(graphs) or not graphs[value].is_closed:
                raise ValueError(f"output {value} is no invariant")

    def describe(self, step: Step, value: int) -> str:
        """One step in index notation with the graph that it computes."""
        left, right = (self.name(o.value) + (f"[{o.indices}]" if o.indices else "") for o in (step.left, step.right))
        result = self.name(value) + (f"[{step.result}]" if step.result else "")
        return f"{result} = {left} {right}    # {step.graph}"

    def __str__(self) -> str:
        first = self.max_rank + 1
        lines = [self.describe(step, first + number) for number, step in enumerate(self.steps)]
        return "\n".join([*lines, "return " + ", ".join(self.name(value) for value in self.outputs)])


def run(program: ContractionProgram, tensors: Mapping[int, Array]) -> list[Array]:
    """The meaning of a program: the invariants of full tensors of shape ``(3,)*l``, by einsum, step by step."""
    values: list[Array] = [np.asarray(tensors[rank]) for rank in range(program.max_rank + 1)]
    for step in program.steps:
        values.append(np.einsum(step.einsum, values[step.left.value], values[step.right.value]))
    return [values[value] for value in program.outputs]


def _computes(step: Step, left: Multigraph, right: Multigraph) -> bool:
    """Whether joining the legs of two graphs that share an index gives the step's graph, axis by axis."""
    owners: dict[str, list[int]] = {}
    ranks: tuple[int, ...] = ()
    edges = []
    for operand, graph in ((step.left, left), (step.right, right)):
        edges += [(u + len(ranks), v + len(ranks), m) for u, v, m in graph.edges]
        for letter, vertex in zip(operand.indices, leg_owners(graph), strict=True):
            owners.setdefault(letter, []).append(vertex + len(ranks))
        ranks += graph.ranks
    joined = Counter(tuple(sorted(ends)) for ends in owners.values() if len(ends) == 2)
    edges += [(u, v, multiplicity) for (u, v), multiplicity in joined.items()]
    composed = Multigraph(ranks, sort_edges(edges))
    axes = {letter: ends[0] for letter, ends in owners.items() if len(ends) == 1}
    named = dict(zip(step.result, leg_owners(step.graph), strict=False))
    if len(step.result) != len(axes) or axes.keys() != named.keys() or sum(step.graph.legs) != len(axes):
        return False
    return _isomorphic(composed, axes, step.graph, named)


def leg_owners(graph: Multigraph) -> list[int]:
    """The vertex of each open leg, in the order of the axes of the graph's value."""
    return [vertex for vertex, legs in enumerate(graph.legs) for _ in range(legs)]


def _isomorphic(a: Multigraph, axes_a: Mapping[str, int], b: Multigraph, axes_b: Mapping[str, int]) -> bool:
    """Isomorphism that respects ranks, multiplicities, and which indices are open at which vertex."""
    labelled = []
    for graph, axes in ((a, axes_a), (b, axes_b)):
        result = to_networkx(graph)
        for vertex in result:
            result.nodes[vertex]["open"] = sorted(letter for letter, owner in axes.items() if owner == vertex)
        labelled.append(result)
    return bool(nx.is_isomorphic(*labelled, node_match=dict.__eq__, edge_match=dict.__eq__))
