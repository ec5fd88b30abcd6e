"""Contraction programs element by element: every tensor of a program as an array of references into a builder."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations_with_replacement, islice, product
from math import factorial, prod

import numpy as np
from numpy.typing import NDArray

from tensorgraph.algebra import embedding
from tensorgraph.contractions import ContractionProgram, Step
from tensorgraph.contractions.types import leg_owners
from tensorgraph.graphs import Multigraph
from tensorgraph.scalar.bilinear import WAYS, Forms, Way
from tensorgraph.scalar.ir import Builder, Linear

Elements = NDArray[np.object_]
"""References to the elements of a tensor, shape ``(dimension,) * legs``."""


def contracted(builder: Builder, program: ContractionProgram, features: Sequence[Linear]) -> list[Elements]:
    """The elements of every value of a program, inputs included, from the independent components of the inputs.

    Of steps with the same operands those with more open legs come first: the others may be traces of them.
    """
    forms, layout, graphs = Forms(builder), program.layout, program.graphs
    values = {
        number: _full_tensor(forms, features[layout.places[kind]], kind.rank, layout.dimension)
        for number, kind in enumerate(layout.kinds)
    }
    for number in sorted(
        range(program.n_inputs, len(graphs)), key=lambda k: (graphs[k].order, -sum(graphs[k].legs), k)
    ):
        step = program.steps[number - program.n_inputs]
        values[number] = _cheapest_contraction(forms, step, graphs, values, layout.dimension)
    return [values[number] for number in range(len(graphs))]


def _full_tensor(forms: Forms, independent: Sequence[Linear], rank: int, dimension: int) -> Elements:
    """All elements of a symmetric traceless tensor in terms of its independent components."""
    result = np.empty((dimension,) * rank, dtype=object)
    outer = embedding(rank, dimension)
    for index in np.ndindex(result.shape):
        row = outer[index].tolist()
        result[index] = forms.combination(e.scaled(factor) for e, factor in zip(independent, row, strict=True))
    return result


def _cheapest_contraction(
    forms: Forms, step: Step, graphs: Sequence[Multigraph], values: dict[int, Elements], dimension: int
) -> Elements:
    """One contraction, its elements each in the cheapest way or all in the same one: then they share more."""

    def contraction(ways: Sequence[Way]) -> Elements:
        return _contraction(forms, step, graphs, values, ways, dimension)

    policies = [WAYS, *((way,) for way in WAYS)]
    return contraction(min(policies, key=lambda ways: forms.price_of(lambda: contraction(ways))))


def _contraction(
    forms: Forms,
    step: Step,
    graphs: Sequence[Multigraph],
    values: dict[int, Elements],
    ways: Sequence[Way],
    dimension: int,
) -> Elements:
    """One contraction, element by element.

    The legs of one vertex are interchangeable and traceless: elements that differ by their order are computed once,
    one with two indices along the last axis at a vertex is a sum of earlier ones, and parallel edges are summed over
    index multisets, each with the number of its arrangements.
    """
    operands = step.left.value, step.right.value
    left, right = (values[value] for value in operands)
    bundles = _parallel_edges(step, graphs)
    summed = "".join(bundles)
    bundle_sums = list(product(*(_multisets(len(bundle), dimension) for bundle in bundles)))
    result = np.empty((dimension,) * len(step.result), dtype=object)
    for index in np.ndindex(result.shape):
        representative = _sorted_within(index, step.graph.legs)
        if index != representative:  # met before: representatives come first in the order of indices
            result[index] = result[representative]
            continue
        if (pair := _pair_on_axis(index, step.graph.legs, dimension - 1)) is not None:
            result[index] = -forms.combination(result[_replaced(index, pair, axis)] for axis in range(dimension - 1))
            continue
        at = dict(zip(step.result, index, strict=True))
        terms = []
        for chosen in bundle_sums:
            at.update(zip(summed, (axis for multiset, _ in chosen for axis in multiset), strict=True))
            factor = prod(arrangements for _, arrangements in chosen)
            at_left, at_right = (tuple(at[letter] for letter in o.indices) for o in (step.left, step.right))
            terms.append((factor, left[at_left], right[at_right]))
        result[index] = forms.value(terms, operands, ways)
    return result


def _parallel_edges(step: Step, graphs: Sequence[Multigraph]) -> list[str]:
    """The summed indices, those between the same two vertices together."""
    owners = [dict(zip(o.indices, leg_owners(graphs[o.value]), strict=True)) for o in (step.left, step.right)]
    bundles: dict[tuple[int, int], str] = {}
    for letter in step.left.indices:
        if letter in owners[1]:
            ends = owners[0][letter], owners[1][letter]
            bundles[ends] = bundles.get(ends, "") + letter
    return list(bundles.values())


def _multisets(size: int, dimension: int) -> list[tuple[tuple[int, ...], int]]:
    """Index multisets of a size, ascending, with the number of their distinct orders."""
    return [
        (axes, factorial(size) // prod(factorial(axes.count(axis)) for axis in range(dimension)))
        for axes in combinations_with_replacement(range(dimension), size)
    ]


def _sorted_within(index: tuple[int, ...], legs: Sequence[int]) -> tuple[int, ...]:
    """The index with the legs of each vertex in ascending order."""
    remaining = iter(index)
    return tuple(axis for count in legs for axis in sorted(islice(remaining, count)))


def _pair_on_axis(index: tuple[int, ...], legs: Sequence[int], axis: int) -> int | None:
    """Where in an ascending index two legs of one vertex are both along the last axis."""
    end = 0
    for count in legs:
        end += count
        if count >= 2 and index[end - 2] == axis:
            return end - 2
    return None


def _replaced(index: tuple[int, ...], at: int, axis: int) -> tuple[int, ...]:
    return (*index[:at], axis, axis, *index[at + 2 :])
