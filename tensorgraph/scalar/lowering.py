"""Contraction programs to scalar programs, and the derivative programs that come with them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Generic, NamedTuple, TypeVar

from tensorgraph.algebra import components, embedding, projection
from tensorgraph.graphs import canonical
from tensorgraph.program import ContractionProgram
from tensorgraph.scalar.adjoint import vector_jacobian_product
from tensorgraph.scalar.contracting import Elements, contracted
from tensorgraph.scalar.ir import ArrayRef, Builder, Linear, ScalarProgram
from tensorgraph.scalar.scaling import rescaled
from tensorgraph.scalar.sharing import shared

T = TypeVar("T")

FEATURES = "features"
INVARIANTS = "invariants"
GRAD_INVARIANTS = "grad_invariants"
GRAD_FEATURES = "grad_features"
GRAD_GRAD_FEATURES = "grad_grad_features"
GRAD_GRAD_INVARIANTS = "grad_grad_invariants"
UNIT_VECTORS = "unit_vectors"
COMPONENTS = "components"
GRAD_COMPONENTS = "grad_components"
GRAD_UNIT_VECTORS = "grad_unit_vectors"
GRAD_GRAD_UNIT_VECTORS = "grad_grad_unit_vectors"
GRAD_GRAD_COMPONENTS = "grad_grad_components"


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
    values = contracted(builder, program, features)
    forward = builder.finish(
        (ArrayRef(FEATURES, n_features),),
        {ArrayRef(INVARIANTS, n_invariants): [values[value].item() for value in program.outputs]},
    )
    cotangents = [builder.input(GRAD_INVARIANTS, k) for k in range(n_invariants)]
    grad_features = _gradient(builder, program, values, features, cotangents)
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
    return Derivatives(*(rescaled(shared(program)) for program in (forward, backward, double_backward)))


def _gradient(
    builder: Builder,
    program: ContractionProgram,
    values: Sequence[Elements],
    features: Sequence[Linear],
    cotangents: Sequence[Linear],
) -> list[Linear]:
    """The cotangent of the features: powers of one tensor by the rule for powers, the rest in reverse mode."""
    terms: list[list[Linear]] = [[] for _ in features]
    powers = list(_powers(program))
    by_reverse_mode: dict[tuple[int, ...], list[int]] = {}
    for rank in range(program.max_rank + 1):
        by_rule = {output for output, other, _, _ in powers if other == rank}
        outputs = tuple(output for output in range(len(program.outputs)) if output not in by_rule)
        by_reverse_mode.setdefault(outputs, []).extend(range(rank**2, (rank + 1) ** 2))
    for outputs, wanted in by_reverse_mode.items():
        invariants = [values[program.outputs[output]].item() for output in outputs]
        weights, inputs = [cotangents[output] for output in outputs], [features[k] for k in wanted]
        for k, total in zip(wanted, vector_jacobian_product(builder, invariants, weights, inputs), strict=True):
            terms[k].append(total)
    for output, rank, power, rest in powers:
        for k, element in enumerate(_transposed_embedding(builder, values[rest], rank), rank**2):
            terms[k].append(builder.product(cotangents[output], element).scaled(power))
    return [builder.sum(parts) for parts in terms]


def _powers(program: ContractionProgram) -> Iterator[tuple[int, int, int, int]]:
    """Outputs ``T · R`` whose gradient with respect to ``T`` is ``power · R``: output, rank of T, power, value of R.

    So it is if all vertices of the rank of T leave the same open graph R behind. Reverse mode would go through R and
    compute it again, once for every vertex of T in it: worth avoiding from the third power on.
    """
    for output, value in enumerate(program.outputs):
        if value <= program.max_rank:
            continue
        step = program.steps[value - program.max_rank - 1]
        for tensor, rest in ((step.left, step.right), (step.right, step.left)):
            vertices = [vertex for vertex, rank in enumerate(step.graph.ranks) if rank == tensor.value]
            if len(vertices) > 2 and rest.value > program.max_rank:
                others = ([v for v in range(step.graph.order) if v != vertex] for vertex in vertices)
                if len({canonical(step.graph.induced(other)) for other in others}) == 1:
                    yield output, tensor.value, len(vertices), rest.value


def _transposed_embedding(builder: Builder, elements: Elements, rank: int) -> list[Linear]:
    """What a tensor pairs with in the independent components of the traceless one that it is contracted with."""
    return [
        builder.sum(e.scaled(w) for e, w in zip(elements.ravel().tolist(), weights, strict=True) if w)
        for weights in embedding(rank).reshape(-1, 2 * rank + 1).T.tolist()
    ]


def lower_tensor_components(max_rank: int) -> Derivatives[ScalarProgram]:
    """From a unit vector to all components of ``[r̂…r̂]_0`` of ranks 0 to ``max_rank``, and its derivatives."""
    builder = Builder()
    axes = [builder.input(UNIT_VECTORS, axis) for axis in range(3)]
    elements = []
    for rank in range(max_rank + 1):
        for component in components(rank):
            terms = projection(component).items()
            elements.append(builder.sum(_monomial(builder, axes, e).scaled(factor) for e, factor in terms))
    vectors, values = ArrayRef(UNIT_VECTORS, 3), ArrayRef(COMPONENTS, len(elements))
    forward = builder.finish((vectors,), {values: elements})
    cotangents = [builder.input(GRAD_COMPONENTS, k) for k in range(len(elements))]
    slope = vector_jacobian_product(builder, elements, cotangents, axes)
    inputs = (vectors, ArrayRef(GRAD_COMPONENTS, len(elements)))
    backward = builder.finish(inputs, {ArrayRef(GRAD_UNIT_VECTORS, 3): list(slope)})
    seconds = [builder.input(GRAD_GRAD_UNIT_VECTORS, axis) for axis in range(3)]
    both = vector_jacobian_product(builder, slope, seconds, [*axes, *cotangents])
    double_backward = builder.finish(
        (*inputs, ArrayRef(GRAD_GRAD_UNIT_VECTORS, 3)),
        {
            ArrayRef(GRAD_UNIT_VECTORS, 3): list(both[:3]),
            ArrayRef(GRAD_GRAD_COMPONENTS, len(elements)): list(both[3:]),
        },
    )
    return Derivatives(*(rescaled(shared(program)) for program in (forward, backward, double_backward)))


def _monomial(builder: Builder, axes: Sequence[Linear], exponents: tuple[int, int, int]) -> Linear:
    """``x^a y^b z^c`` by repeated multiplication, so that lower monomials are shared."""
    result = builder.one
    for axis, exponent in zip(axes, exponents, strict=True):
        for _ in range(exponent):
            result = builder.product(result, axis)
    return result
