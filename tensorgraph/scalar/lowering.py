"""Contraction programs to scalar programs, and the derivative programs that come with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import accumulate
from typing import Generic, NamedTuple, TypeVar

from tensorgraph.algebra import components, embedding, projection, traceless
from tensorgraph.algebra.tensors import levi_civita
from tensorgraph.contractions import ContractionProgram, Output
from tensorgraph.graphs import canonical
from tensorgraph.scalar.adjoint import vector_jacobian_product
from tensorgraph.scalar.contracting import Elements, contracted
from tensorgraph.scalar.ir import ArrayRef, Axes, Builder, Linear, ScalarProgram
from tensorgraph.scalar.scaling import rescaled
from tensorgraph.scalar.sharing import shared

T = TypeVar("T")


class Derivatives(NamedTuple, Generic[T]):
    """The three programs that training on forces needs.

    - ``forward``: arguments → values
    - ``backward``: arguments, cotangent of the values → cotangents of the arguments
    - ``double_backward``: those and cotangents of backward's results → cotangents of all that backward takes
    """

    forward: T
    backward: T
    double_backward: T


def lower_invariants(program: ContractionProgram) -> Derivatives[ScalarProgram]:
    """Value, gradient and double gradient of a contraction program, from one builder."""
    builder = Builder()
    features = _Array.of(builder, ArrayRef("features", program.layout.size))
    values = contracted(builder, program, features.elements)
    outputs = [_closed(builder, program, values, output) for output in program.outputs]

    def gradient(cotangents: Sequence[Linear]) -> Sequence[Linear]:
        remaining = iter(cotangents)
        weights = [[next(remaining) for _ in elements] for elements in outputs]
        return _gradient(builder, program, values, features.elements, outputs, weights)

    flat = [element for elements in outputs for element in elements]
    return _derivatives(builder, [features], ArrayRef("invariants", len(flat)), flat, gradient)


def _closed(
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


@dataclass(frozen=True)
class _Array:
    """An input array and its elements in a builder."""

    ref: ArrayRef
    elements: tuple[Linear, ...]

    @classmethod
    def of(cls, builder: Builder, ref: ArrayRef) -> _Array:
        return cls(ref, tuple(builder.input(ref.name, k) for k in range(ref.size)))


def _derivatives(
    builder: Builder,
    arguments: Sequence[_Array],
    output: ArrayRef,
    values: Sequence[Linear],
    gradient: Callable[[Sequence[Linear]], Sequence[Linear]] | None = None,
) -> Derivatives[ScalarProgram]:
    """The three programs of values that were built from arguments; ``gradient`` may know a better way to the second.

    The cotangent of an array ``x`` is ``grad_x``, that of ``grad_x`` is ``grad_grad_x``.
    """
    elements = [element for argument in arguments for element in argument.elements]
    cotangent = _Array.of(builder, _cotangent(output))
    if gradient is None:
        slope = vector_jacobian_product(builder, values, cotangent.elements, elements)
    else:
        slope = tuple(gradient(cotangent.elements))
    seconds = [_Array.of(builder, _cotangent(_cotangent(argument.ref))) for argument in arguments]
    weights = [element for second in seconds for element in second.elements]
    both = vector_jacobian_product(builder, slope, weights, [*elements, *cotangent.elements])
    given = [argument.ref for argument in arguments]
    slopes = [_cotangent(ref) for ref in given]
    programs = (
        builder.finish(given, {output: values}),
        builder.finish([*given, cotangent.ref], _split(slopes, slope)),
        builder.finish(
            [*given, cotangent.ref, *(second.ref for second in seconds)],
            _split([*slopes, _cotangent(cotangent.ref)], both),
        ),
    )
    return Derivatives(*(rescaled(shared(program)) for program in programs))


def _cotangent(ref: ArrayRef) -> ArrayRef:
    return replace(ref, name=f"grad_{ref.name}")


def _split(arrays: Sequence[ArrayRef], elements: Sequence[Linear]) -> dict[ArrayRef, Sequence[Linear]]:
    """Elements in a row, array by array."""
    ends = list(accumulate(array.size for array in arrays))
    return {array: elements[end - array.size : end] for array, end in zip(arrays, ends, strict=True)}


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


def lower_tensor_components(max_rank: int, dimension: int = 3) -> Derivatives[ScalarProgram]:
    """From a unit vector to all components of ``[u…u]_0`` of ranks 0 to ``max_rank``, and its derivatives."""
    builder = Builder()
    vectors = _Array.of(builder, ArrayRef("unit_vectors", dimension))
    values = []
    for rank in range(max_rank + 1):
        for component in components(rank, dimension):
            terms = projection(component).items()
            values.append(builder.sum(_monomial(builder, vectors.elements, e).scaled(factor) for e, factor in terms))
    return _derivatives(builder, [vectors], ArrayRef("components", len(values)), values)


def _monomial(builder: Builder, axes: Sequence[Linear], exponents: Sequence[int]) -> Linear:
    """``x^a y^b z^c`` by repeated multiplication, so that lower monomials are shared."""
    result = builder.one
    for axis, exponent in zip(axes, exponents, strict=True):
        for _ in range(exponent):
            result = builder.product(result, axis)
    return result


def lower_sensitivities() -> Derivatives[ScalarProgram]:
    """``exp(−½ σ² (u − κ)²) · c`` for rows of pairs and columns of functions, and its derivatives.

    ``radial`` holds u, the inverse distance, and c, the cutoff function; ``parameters`` κ, where u is most sensitive,
    and σ (Lubbers, Smith and Barros, J. Chem. Phys. 148, 241715, 2018, eq. 5, with κ = 1/μ).
    """
    builder = Builder()
    radial = _Array.of(builder, ArrayRef("radial", 2, Axes.ROWS))
    parameters = _Array.of(builder, ArrayRef("parameters", 2, Axes.COLUMNS))
    (inverse_distance, cutoff), (center, sigma) = radial.elements, parameters.elements
    scaled = builder.product(sigma, builder.sum([inverse_distance, -center]))
    gaussian = builder.apply("exp", builder.product(scaled, scaled).scaled(Fraction(-1, 2)))
    value = builder.product(gaussian, cutoff)
    return _derivatives(builder, [radial, parameters], ArrayRef("sensitivities", 1), [value])
