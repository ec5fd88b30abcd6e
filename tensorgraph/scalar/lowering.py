"""Contraction programs to scalar programs, and the derivative programs that come with them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations_with_replacement, islice, product
from math import factorial, prod
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from tensorgraph.algebra import components, embedding, projection
from tensorgraph.graphs import Multigraph
from tensorgraph.program import ContractionProgram, Step
from tensorgraph.program.types import leg_owners
from tensorgraph.scalar.adjoint import vector_jacobian_product
from tensorgraph.scalar.bilinear import Forms
from tensorgraph.scalar.ir import ArrayRef, Builder, Linear, ScalarProgram

T = TypeVar("T")

FEATURES = "features"
INVARIANTS = "invariants"
GRAD_INVARIANTS = "grad_invariants"
GRAD_FEATURES = "grad_features"
GRAD_GRAD_FEATURES = "grad_grad_features"
GRAD_GRAD_INVARIANTS = "grad_grad_invariants"


class Derivatives(NamedTuple, Generic[T]):
    """The three programs that training on forces needs.

    - ``forward``: features → invariants
    - ``backward``: features, cotangent of the invariants → cotangent of the features
    - ``double_backward``: those and a cotangent of backward's result → cotangents of backward's two arguments
    """

    forward: T
    backward: T
    double_backward: T


def lower_invariants(program: ContractionProgram) -> Derivatives[ScalarProgram]:
    """Value, gradient and double gradient of a contraction program, from one builder."""
    builder = Builder()
    n_features, n_invariants = (program.max_rank + 1) ** 2, len(program.outputs)
    features = [builder.input(FEATURES, k) for k in range(n_features)]
    invariants = _contracted(builder, program, features)
    forward = builder.finish(
        (ArrayRef(FEATURES, n_features),),
        {ArrayRef(INVARIANTS, n_invariants): invariants},
    )
    cotangents = [builder.input(GRAD_INVARIANTS, k) for k in range(n_invariants)]
    grad_features = vector_jacobian_product(builder, invariants, cotangents, features)
    backward = builder.finish(
        (ArrayRef(FEATURES, n_features), ArrayRef(GRAD_INVARIANTS, n_invariants)),
        {ArrayRef(GRAD_FEATURES, n_features): grad_features},
    )
    seconds = [builder.input(GRAD_GRAD_FEATURES, k) for k in range(n_features)]
    both = vector_jacobian_product(builder, grad_features, seconds, [*features, *cotangents])
    double_backward = builder.finish(
        (*backward.inputs, ArrayRef(GRAD_GRAD_FEATURES, n_features)),
        {
            ArrayRef(GRAD_FEATURES, n_features): both[:n_features],
            ArrayRef(GRAD_GRAD_INVARIANTS, n_invariants): both[n_features:],
        },
    )
    return Derivatives(forward, backward, double_backward)


def lower_tensor_components(max_rank: int) -> ScalarProgram:
    """The program from a unit vector to all components of ``[r̂…r̂]_0`` of ranks 0 to ``max_rank``."""
    builder = Builder()
    axes = [builder.input("unit_vectors", axis) for axis in range(3)]
    elements = []
    for rank in range(max_rank + 1):
        for component in components(rank):
            terms = projection(component).items()
            elements.append(builder.sum(_monomial(builder, axes, e).scaled(factor) for e, factor in terms))
    return builder.finish((ArrayRef("unit_vectors", 3),), {ArrayRef("components", len(elements)): elements})


def _monomial(builder: Builder, axes: Sequence[Linear], exponents: tuple[int, int, int]) -> Linear:
    """``x^a y^b z^c`` by repeated multiplication, so that lower monomials are shared."""
    result = builder.one
    for axis, exponent in zip(axes, exponents, strict=True):
        for _ in range(exponent):
            result = builder.product(result, axis)
    return result


def _contracted(builder: Builder, program: ContractionProgram, features: Sequence[Linear]) -> list[Linear]:
    values: list[NDArray[np.object_]] = []
    forms = Forms(builder)
    for rank in range(program.max_rank + 1):
        values.append(_full_tensor(forms, features[rank**2 : (rank + 1) ** 2], rank))
    graphs = [Multigraph((rank,)) for rank in range(program.max_rank + 1)]
    graphs += [step.graph for step in program.steps]
    values += [np.empty(0, dtype=object)] * len(program.steps)
    for number, step in sorted(enumerate(program.steps), key=lambda item: (item[1].graph.order, -sum(item[1].graph.legs), item[0])):
        values[program.max_rank + 1 + number] = _contraction(forms, step, graphs, values)
    return [values[value].item() for value in program.outputs]


def _full_tensor(forms: Forms, independent: Sequence[Linear], rank: int) -> NDArray[np.object_]:
    """All ``3**rank`` elements of a symmetric traceless tensor in terms of its independent components."""
    result = np.empty((3,) * rank, dtype=object)
    for index in np.ndindex(result.shape):
        row = embedding(rank)[index].tolist()
        result[index] = forms.combination(e.scaled(factor) for e, factor in zip(independent, row, strict=True))
    return result


def _contraction(
    forms: Forms, step: Step, graphs: Sequence[Multigraph], values: Sequence[NDArray[np.object_]]
) -> NDArray[np.object_]:
    """One contraction, element by element.

    The legs of one vertex are interchangeable: elements that differ by their order are computed once, and parallel
    edges are summed over index multisets, each with the number of its arrangements.
    """
    left, right = values[step.left.value], values[step.right.value]
    bundles = _parallel_edges(step, graphs)
    summed = "".join(bundles)
    bundle_sums = list(product(*(_multisets(len(bundle)) for bundle in bundles)))
    result = np.empty((3,) * len(step.result), dtype=object)
    for index in np.ndindex(result.shape):
        representative = _sorted_within(index, step.graph.legs)
        if index != representative:  # met before: representatives come first in the order of indices
            result[index] = result[representative]
            continue
        if (pair := _trailing_pair(index, step.graph.legs)) is not None:
            result[index] = -forms.combination(result[_replaced(index, pair, axis)] for axis in (0, 1))
            continue
        at = dict(zip(step.result, index, strict=True))
        terms = []
        for chosen in bundle_sums:
            at.update(zip(summed, (axis for multiset, _ in chosen for axis in multiset), strict=True))
            factor = prod(arrangements for _, arrangements in chosen)
            at_left, at_right = (tuple(at[letter] for letter in o.indices) for o in (step.left, step.right))
            terms.append((factor, left[at_left], right[at_right]))
        result[index] = forms.value(terms, (step.left.value, step.right.value))
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


def _multisets(size: int) -> list[tuple[tuple[int, ...], int]]:
    """Index multisets of a size, ascending, with the number of their distinct orders."""
    return [
        (axes, factorial(size) // prod(factorial(axes.count(axis)) for axis in range(3)))
        for axes in combinations_with_replacement(range(3), size)
    ]


def _sorted_within(index: tuple[int, ...], legs: Sequence[int]) -> tuple[int, ...]:
    """The index with the legs of each vertex in ascending order."""
    remaining = iter(index)
    return tuple(axis for count in legs for axis in sorted(islice(remaining, count)))


def _trailing_pair(index: tuple[int, ...], legs: Sequence[int]) -> int | None:
    """Where two legs of one vertex both are z, the last axis: tracelessness gives that element from earlier ones."""
    start = 0
    for count in legs:
        if count >= 2 and index[start + count - 2] == 2:
            return start + count - 2
        start += count
    return None


def _replaced(index: tuple[int, ...], at: int, axis: int) -> tuple[int, ...]:
    return (*index[:at], axis, axis, *index[at + 2 :])
