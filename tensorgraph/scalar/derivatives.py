"""The three programs of a scalar function that training on forces needs, from one builder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Generic, NamedTuple, TypeVar

from tensorgraph.scalar.adjoint import vector_jacobian_product
from tensorgraph.scalar.ir import ArrayRef, Builder, Linear, ScalarProgram
from tensorgraph.scalar.scaling import rescaled
from tensorgraph.scalar.sharing import shared

T = TypeVar("T", covariant=True)


class Derivatives(NamedTuple, Generic[T]):
    """The three programs that training on forces needs.

    - ``forward``: arguments → values
    - ``backward``: arguments, cotangent of the values → cotangents of the arguments
    - ``double_backward``: those and cotangents of backward's results → cotangents of all that backward takes
    """

    forward: T
    backward: T
    double_backward: T


@dataclass(frozen=True)
class Argument:
    """An input array and its elements in a builder."""

    ref: ArrayRef
    elements: tuple[Linear, ...]

    @classmethod
    def of(cls, builder: Builder, ref: ArrayRef) -> Argument:
        return cls(ref, tuple(builder.input(ref.name, k) for k in range(ref.size)))


def derived(
    builder: Builder,
    arguments: Sequence[Argument],
    output: ArrayRef,
    values: Sequence[Linear],
    gradient: Callable[[Sequence[Linear]], Sequence[Linear]] | None = None,
) -> Derivatives[ScalarProgram]:
    """The three programs of values that were built from arguments; ``gradient`` may know a better way to the second.

    The cotangent of an array ``x`` is ``grad_x``, that of ``grad_x`` is ``grad_grad_x``.
    """
    elements = [element for argument in arguments for element in argument.elements]
    cotangent = Argument.of(builder, cotangent_of(output))
    if gradient is None:
        slope = vector_jacobian_product(builder, values, cotangent.elements, elements)
    else:
        slope = tuple(gradient(cotangent.elements))
    seconds = [Argument.of(builder, cotangent_of(cotangent_of(argument.ref))) for argument in arguments]
    weights = [element for second in seconds for element in second.elements]
    both = vector_jacobian_product(builder, slope, weights, [*elements, *cotangent.elements])
    given = [argument.ref for argument in arguments]
    slopes = [cotangent_of(ref) for ref in given]
    programs = (
        builder.finish(given, {output: values}),
        builder.finish([*given, cotangent.ref], _split(slopes, slope)),
        builder.finish(
            [*given, cotangent.ref, *(second.ref for second in seconds)],
            _split([*slopes, cotangent_of(cotangent.ref)], both),
        ),
    )
    return Derivatives(*(rescaled(shared(program)) for program in programs))


def cotangent_of(ref: ArrayRef) -> ArrayRef:
    """The array that holds the cotangent of another."""
    return replace(ref, name=f"grad_{ref.name}")


def _split(arrays: Sequence[ArrayRef], elements: Sequence[Linear]) -> dict[ArrayRef, Sequence[Linear]]:
    """Elements in a row, array by array."""
    ends = list(accumulate(array.size for array in arrays))
    return {array: elements[end - array.size : end] for array, end in zip(arrays, ends, strict=True)}
