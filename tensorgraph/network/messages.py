"""Messages between atoms whose features have ranks: couplings of directions with the features of neighbours.

A coupling of tensors of ranks l1 and l2 to rank l3 is the triangle graph of the two and a probe, the Clebsch-Gordan
product without a table; there is one for each triple that the triangle inequality and parity allow.
"""

from __future__ import annotations

from collections.abc import Sequence

from tensorgraph.algebra import Layout
from tensorgraph.contractions import contraction_program
from tensorgraph.graphs import Kind, Multigraph, multigraphs_of_degree_sequence
from tensorgraph.scalar import ArrayRef, Axes, Builder, Derivatives, Linear, ScalarProgram
from tensorgraph.scalar.contracting import contracted
from tensorgraph.scalar.derivatives import Argument, derived
from tensorgraph.scalar.lowering import closed

Path = tuple[int, int, int]
"""Ranks of the direction's tensor, of the feature, and of the message."""


def paths(max_rank: int, feature_ranks: Sequence[int]) -> tuple[Path, ...]:
    """All couplings to messages of ranks up to ``max_rank``, by the rank of the message."""
    return tuple(
        (l1, l2, l3)
        for l3 in range(max_rank + 1)
        for l2 in feature_ranks
        for l1 in range(max_rank + 1)
        if abs(l1 - l2) <= l3 <= l1 + l2 and (l1 + l2 + l3) % 2 == 0
    )


def lower_messages(max_rank: int, feature_ranks: Sequence[int]) -> Derivatives[ScalarProgram]:
    """From tensors of directions, features of neighbours and a weight for each path to messages, and derivatives.

    Tensors are the same for all columns. Messages have all ranks up to ``max_rank``, as a density has.
    """
    builder = Builder()
    directions, features = Layout.full(max_rank), Layout(tuple(Kind(rank, 1) for rank in feature_ranks))
    chosen = paths(max_rank, feature_ranks)
    tensors = Argument.of(builder, ArrayRef("tensors", directions.size, Axes.ROWS))
    values = Argument.of(builder, ArrayRef("features", features.size))
    weights = Argument.of(builder, ArrayRef("weights", len(chosen)))
    layout = Layout((*directions.kinds, *features.kinds))
    program = contraction_program([_coupling(path) for path in chosen], layout)
    elements = contracted(builder, program, (*tensors.elements, *values.elements))
    parts: dict[int, list[tuple[Linear, ...]]] = {}
    for (_, _, rank), weight, output in zip(chosen, weights.elements, program.outputs, strict=True):
        coupled = closed(builder, program, elements, output)
        parts.setdefault(rank, []).append(tuple(builder.product(weight, element) for element in coupled))
    messages = [builder.sum(terms) for rank in sorted(parts) for terms in zip(*parts[rank], strict=True)]
    return derived(builder, [tensors, values, weights], ArrayRef("messages", len(messages)), messages)


def _coupling(path: Path) -> Multigraph:
    first, second, third = path
    probe = (Kind(third, role="probe"),) if third else ()
    (graph,) = multigraphs_of_degree_sequence((Kind(first), Kind(second, 1), *probe))
    return graph
