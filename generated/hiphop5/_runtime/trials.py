"""Small synthetic problems on which a new C program is compared with plain PyTorch, before anything relies on it.

Sizes are odd, so that vectors have tails and threads unequal shares; numbers come from a generator of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

INPUTS, OUTPUTS, ROWS = 9, 6, 211
"""Elements and rows of a table."""

ATOMS, PAIRS, CHANNELS, KINDS = 23, 301, 37, 3
"""More than one vector of the widest registers (64 bytes) with a tail, and more than one block of pairs."""

Problem = tuple[Callable, tuple]
"""An operator's implementation and its arguments, in double precision."""

Trial = Callable[[str, Mapping[str, int]], Problem]
"""The problem for the program of this name, compiled with these macros."""

LEAST_SCALE = 1e-3
"""Of an element, beside the largest of its result: what is small by cancellation has the rounding of large numbers."""


def of_programs(
    implementations: Mapping[str, Callable], n_inputs: int, n_outputs: int, positive: bool = False
) -> Trial:
    """Of printed programs `forward`, `backward` and `double_backward` over atoms and channels.

    `positive` inputs are between 1 and 5, as distances are in Å.
    """

    def problem(name: str, macros: Mapping[str, int]) -> Problem:
        shapes = [(ATOMS, size, CHANNELS) for size in (n_inputs, n_outputs, n_inputs)]
        inputs, *cotangents = _random(shapes[: 1 + list(implementations).index(name)])
        return both_layouts(implementations[name]), (3 + 2 * inputs if positive else inputs, *cotangents)

    return problem


def both_layouts(function: Callable) -> Callable:
    """A function of tensors ``[n, size, channels]``, also called with their first channel alone.

    Vectors hold channels of one atom, or, where there is one channel, as many atoms: both are tried.
    """

    def called(*tensors: Tensor) -> tuple[Tensor, ...]:
        results = [function(*tensors), function(*(tensor[..., :1].contiguous() for tensor in tensors))]
        return tuple(one for found in results for one in ((found,) if isinstance(found, Tensor) else found))

    return called


def of_pairs(implementations: Mapping[str, Callable]) -> Trial:
    """Of the sum over neighbours, its backward and its double backward, in this order."""

    def problem(name: str, macros: Mapping[str, int]) -> Problem:
        components, functions = macros["COMPONENTS"], macros["FUNCTIONS"]
        t, s, q = (PAIRS, components), (PAIRS, functions), (ATOMS, functions, CHANNELS)
        shapes = [t, s, q, (ATOMS, components, CHANNELS), t, s, q]
        target, source, starts = _pairs()
        by_source = torch.argsort(source, stable=True)
        index = (target, source, starts, _starts(source[by_source]), by_source)
        return implementations[name], (*_random(shapes[: (3, 4, 7)[list(implementations).index(name)]]), *index)

    return problem


def of_moments(implementations: Mapping[str, Callable]) -> Trial:
    """Of the sums over the neighbours of each kind, their backward and double backward; some kinds do not exist."""

    def problem(name: str, macros: Mapping[str, int]) -> Problem:
        components, functions = macros["COMPONENTS"], macros["FUNCTIONS"]
        t, s = (PAIRS, components), (PAIRS, functions)
        shapes = [t, s, (ATOMS, components, KINDS, functions), t, s]
        order = list(implementations).index(name)
        target, source, starts = _pairs()
        kinds = torch.arange(ATOMS, device="cpu") % (KINDS + 2) - 1
        given = _random(shapes[: (2, 3, 5)[order]])
        return implementations[name], (*given, *(() if order else (KINDS,)), target, source, starts, kinds)

    return problem


def of_pointwise(implementations: Mapping[str, Callable], operands: Callable[[str], Sequence[Any]]) -> Trial:
    """Of printed programs over rows and columns; what has rows alone is large in some: distances too far to count."""

    def problem(name: str, macros: Mapping[str, int]) -> Problem:
        arrays = operands(name)
        given = _random([operand.shape(PAIRS, macros["COLUMNS"]) for operand in arrays])
        for tensor, operand in zip(given, arrays, strict=True):
            if not operand.columns:
                tensor[::7] *= 20
                break
        return implementations[name], given

    return problem


def of_table() -> tuple[Tensor, ...]:
    """What a table is evaluated for."""
    return _random([(ATOMS, INPUTS, CHANNELS)])


def deviation(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest error, each element relative to the largest of its column; NaN where any is."""
    errors = [0.0]
    for result, exact in zip(found, expected, strict=True):
        if not exact.numel():
            continue
        largest = exact.abs().max()
        scales = exact.abs().amax(0).clamp(min=float(LEAST_SCALE * largest)) if largest else 1.0
        errors.append(float(((result - exact).abs() / scales).max()))
    return next((error for error in errors if error != error), max(errors))


def _random(shapes: Sequence[tuple[int, ...]]) -> tuple[Tensor, ...]:
    """Numbers of a fixed seed between -1 and 1; those of PyTorch's own generator are the user's."""
    generator = torch.Generator().manual_seed(0)
    made = (torch.rand(shape, generator=generator, dtype=torch.float64, device="cpu") for shape in shapes)
    return tuple(2 * tensor - 1 for tensor in made)


def _pairs() -> tuple[Tensor, Tensor, Tensor]:
    """Pairs sorted by central atom: target and source, and where each atom's begin; the last atom has none."""
    generator = torch.Generator().manual_seed(1)
    ends = torch.randint(0, ATOMS - 1, (2, PAIRS), generator=generator, device="cpu")
    target = torch.sort(ends[0]).values
    return target, ends[1], _starts(target)


def _starts(sorted_atoms: Tensor) -> Tensor:
    return torch.searchsorted(sorted_atoms, torch.arange(ATOMS + 1, device="cpu"))
