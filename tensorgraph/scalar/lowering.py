"""Contraction programs to scalar programs, and the derivative programs that come with them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tensorgraph.algebra import embedding, traceless
from tensorgraph.algebra.tensors import levi_civita
from tensorgraph.contractions import ContractionProgram, Output
from tensorgraph.graphs import canonical
from tensorgraph.scalar.adjoint import vector_jacobian_product
from tensorgraph.scalar.contracting import Elements, contracted
from tensorgraph.scalar.derivatives import Argument, Derivatives, derived
from tensorgraph.scalar.ir import ArrayRef, Builder, Linear, ScalarProgram


def lower_invariants(program: ContractionProgram) -> Derivatives[ScalarProgram]:
    """Value, gradient and double gradient of a contraction program, from one builder."""
    builder = Builder()
    features = Argument.of(builder, ArrayRef("features", program.layout.size))
    values = contracted(builder, program, features.elements)
    outputs = [closed(builder, program, values, output) for output in program.outputs]

    def gradient(cotangents: Sequence[Linear]) -> Sequence[Linear]:
        remaining = iter(cotangents)
        weights = [[next(remaining) for _ in elements] for elements in outputs]
        return _gradient(builder, program, values, features.elements, outputs, weights)

    flat = [element for elements in outputs for element in elements]
    return derived(builder, [features], ArrayRef("invariants", len(flat)), flat, gradient)


def closed(
    builder: Builder, program: ContractionProgram, values: Sequence[Elements], output: Output
) -> tuple[Linear, ...]:
    """The elements of an output: one of an invariant, the independent components where it has a rank."""
    value, dimension = values[output.value], program.layout.dimension
    if output.closing is None:
        return (value.item(),)
    if output.closing.role == "epsilon":
        signs = (output.sign * levi_civita(dimension)).ravel().tolist()
        return (builder.sum(e.scaled(sign) for e, sign in zip(value.ravel().tolist(), signs, strict=True) if sign),)
    paired = _transposed_embedding(builder, value, output.rank, dimension)
    return tuple(
        builder.sum(e.scaled(factor) for e, factor in zip(paired, row, strict=True) if factor)
        for row in traceless(output.rank, dimension)
    )


def _gradient(
    builder: Builder,
    program: ContractionProgram,
    values: Sequence[Elements],
    features: Sequence[Linear],
    outputs: Sequence[Sequence[Linear]],
    cotangents: Sequence[Sequence[Linear]],
) -> list[Linear]:
    """The cotangent of the features: powers of one tensor by the rule for powers, the rest in reverse mode."""
    terms: list[list[Linear]] = [[] for _ in features]
    powers, places = list(_powers(program)), list(program.layout.places.values())
    by_reverse_mode: dict[tuple[int, ...], list[int]] = {}
    for tensor, place in enumerate(places):
        by_rule = {output for output, other, _, _ in powers if other == tensor}
        rest = tuple(output for output in range(len(outputs)) if output not in by_rule)
        by_reverse_mode.setdefault(rest, []).extend(range(place.start, place.stop))
    for chosen, wanted in by_reverse_mode.items():
        elements, weights = ([e for output in chosen for e in of[output]] for of in (outputs, cotangents))
        slopes = vector_jacobian_product(builder, elements, weights, [features[k] for k in wanted])
        for k, total in zip(wanted, slopes, strict=True):
            terms[k].append(total)
    for output, tensor, power, rest_value in powers:
        rank, (weight,) = program.layout.kinds[tensor].rank, cotangents[output]
        paired = _transposed_embedding(builder, values[rest_value], rank, program.layout.dimension)
        for k, element in enumerate(paired, places[tensor].start):
            terms[k].append(builder.product(weight, element).scaled(power))
    return [builder.sum(parts) for parts in terms]


def _powers(program: ContractionProgram) -> Iterator[tuple[int, int, int, int]]:
    """Outputs ``T · R`` whose gradient with respect to ``T`` is ``power · R``: output, T, power, value of R.

    So it is if all vertices of the kind of T leave the same open graph R behind. Reverse mode would go through R and
    compute it again, once for every vertex of T in it: worth avoiding from the third power on.
    """
    for number, output in enumerate(program.outputs):
        step = program.step_of(output.value)
        if step is None or output.closing is not None:
            continue
        for tensor, rest in ((step.left, step.right), (step.right, step.left)):
            if tensor.value >= program.n_inputs or rest.value < program.n_inputs:
                continue
            kind = program.layout.kinds[tensor.value]
            vertices = [vertex for vertex, other in enumerate(step.graph.kinds) if other == kind]
            if len(vertices) > 2:
                others = ([v for v in range(step.graph.order) if v != vertex] for vertex in vertices)
                if len({canonical(step.graph.induced(other)) for other in others}) == 1:
                    yield number, tensor.value, len(vertices), rest.value


def _transposed_embedding(builder: Builder, elements: Elements, rank: int, dimension: int) -> list[Linear]:
    """What a tensor pairs with in the independent components of the traceless one that it is contracted with."""
    outer = embedding(rank, dimension)
    return [
        builder.sum(e.scaled(w) for e, w in zip(elements.ravel().tolist(), weights, strict=True) if w)
        for weights in outer.reshape(-1, outer.shape[-1]).T.tolist()
    ]
