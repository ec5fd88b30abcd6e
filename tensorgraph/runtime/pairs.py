"""The sum over neighbours as an operator: forward, backward and double backward, each one fused call.

For pairs p of a central atom i and its neighbour j, with the tensors T of the pair's direction, the sensitivities S of
its distance and weighted features Q (Allen, Shinkle, Bujack and Lubbers, arXiv:2503.23515, with the weights first):

    E[i,m,a] = sum over p of i of T[p,m] sum over ν of S[p,ν] Q[j,ν,a].

With cotangents G of E this is linear in each of T, S, Q and G, so derivatives of its derivatives are sums of the same
kind, to any order. On CUDA tensors the Triton kernels run, on a CPU the C programs; plain PyTorch stands in where there
is no triton or no C compiler.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from . import native, pairs_torch, sources, trials
from .grouping import PairIndex
from .operators import (
    alike,
    check_rows,
    check_shapes,
    check_starts,
    check_transforms,
    check_types,
    derivatives,
    dispatch,
    operator,
)

KERNELS = f"{__package__}.pairs_triton"

# Widest vector register, in bytes: the programs copy what they read often into rows of at most this length.
VECTOR_BYTES = 64


def environment(tensors: Tensor, sensitivities: Tensor, weighted: Tensor, index: PairIndex) -> Tensor:
    """The tensors around every atom, summed over its neighbours in their order.

    Args:
        tensors: ``[n_pairs, n_components]``, of the pairs sorted by central atom; float32 or float64.
        sensitivities: ``[n_pairs, n_functions]``.
        weighted: ``[n_atoms, n_functions, n_channels]``, what each atom sends as a neighbour.
        index: which pairs belong to which atoms; its values are not checked.

    Returns:
        ``[n_atoms, n_components, n_channels]``, differentiable to any order by ``torch.autograd`` in reverse mode.

    Raises:
        ValueError: shapes that do not belong together.
        TypeError: dtypes other than one of float32 and float64, or an index that is not int64, or is elsewhere.
        NotImplementedError: derivatives in forward mode, or by ``torch.func``.
    """
    check_transforms("environment", tensors, sensitivities, weighted)
    return _environment_operator(tensors, sensitivities, weighted, *index)


def _check(name: str, tensors: tuple[Tensor, ...], index: PairIndex) -> None:
    """Compiled code does not check shapes: a mismatch would read out of bounds."""
    check_types(name, tensors, index)
    n_pairs, n_atoms = index.target.numel(), index.target_starts.numel() - 1
    components, functions, channels = (tensor.shape[-1] if tensor.dim() else 0 for tensor in tensors[:3])
    t, s, q = (n_pairs, components), (n_pairs, functions), (n_atoms, functions, channels)
    check_shapes(name, tensors, (t, s, q, (n_atoms, components, channels), t, s, q))
    check_rows(name, (index.target, index.source, index.by_source), n_pairs)
    for starts in (index.target_starts, index.source_starts):
        check_starts(name, starts, n_atoms, n_pairs)


def _run(name: str, fake: Callable, tensors: tuple[Tensor, ...], index: PairIndex):
    _check(name, tensors, index)
    return dispatch(name, KERNELS, pairs_torch, (*tensors, index), lambda: _compiled(name, fake, tensors, index))


def _compiled(name: str, fake: Callable, tensors: tuple[Tensor, ...], index: PairIndex):
    """What the C program makes of results without values; None where there is none."""
    (n_pairs, components), (n_atoms, functions, channels) = tensors[0].shape, tensors[2].shape
    inputs = [tensor.contiguous() for tensor in (*tensors, *index)]
    workspace = torch.empty(3 * n_atoms, dtype=torch.int64)
    rows = n_atoms * max(functions * (2 if name == "environment_double_backward" else 1), components)
    scratch = torch.empty(rows * VECTOR_BYTES, dtype=torch.uint8)
    work, outputs = n_pairs * channels, fake(*tensors, *index)
    macros = {"COMPONENTS": components, "FUNCTIONS": functions}
    return native.results(SOURCE, name, (n_atoms, channels), work, (*inputs, workspace, scratch), outputs, **macros)


def _environment(
    tensors: Tensor,
    sensitivities: Tensor,
    weighted: Tensor,
    target: Tensor,
    source: Tensor,
    target_starts: Tensor,
    source_starts: Tensor,
    by_source: Tensor,
) -> Tensor:
    given = (tensors, sensitivities, weighted)
    index = PairIndex(target, source, target_starts, source_starts, by_source)
    return _run("environment", _fake_environment, given, index)


def _environment_backward(
    tensors: Tensor,
    sensitivities: Tensor,
    weighted: Tensor,
    grad: Tensor,
    target: Tensor,
    source: Tensor,
    target_starts: Tensor,
    source_starts: Tensor,
    by_source: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    given = (tensors, sensitivities, weighted, grad)
    index = PairIndex(target, source, target_starts, source_starts, by_source)
    return _run("environment_backward", _fake_environment_backward, given, index)


def _environment_double_backward(
    tensors: Tensor,
    sensitivities: Tensor,
    weighted: Tensor,
    grad: Tensor,
    tensors_change: Tensor,
    sensitivities_change: Tensor,
    weighted_change: Tensor,
    target: Tensor,
    source: Tensor,
    target_starts: Tensor,
    source_starts: Tensor,
    by_source: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    given = (tensors, sensitivities, weighted, grad, tensors_change, sensitivities_change, weighted_change)
    index = PairIndex(target, source, target_starts, source_starts, by_source)
    return _run("environment_double_backward", _fake_environment_double_backward, given, index)


def _fake_environment(tensors, sensitivities, weighted, *index):
    # Not from the starts, of one more than there are atoms: where that is a symbol, a graph would refuse one atom.
    return weighted.new_empty((weighted.shape[0], tensors.shape[1], weighted.shape[2]))


def _fake_environment_backward(tensors, sensitivities, weighted, grad, *index):
    return alike(tensors, sensitivities, weighted)


def _fake_environment_double_backward(tensors, sensitivities, weighted, grad, *rest):
    return alike(tensors, sensitivities, weighted, grad)


NO_INDEX = (None,) * len(PairIndex._fields)


def _environment_vjp(ctx, grad):
    saved = ctx.saved_tensors  # read once: activation checkpointing allows no more
    return (*_backward_operator(*saved[:3], grad, *saved[3:]), *NO_INDEX)


def _backward_vjp(ctx, *grads):
    saved = ctx.saved_tensors
    return (*_double_backward_operator(*saved[:4], *grads, *saved[4:]), *NO_INDEX)


def _double_backward_vjp(ctx, *grads):
    """Order three and above: differentiate the double backward as a sum of the operators before it."""

    def summed(*saved: Tensor) -> tuple[Tensor, ...]:
        return pairs_torch.environment_change(_environment_operator, _backward_operator, *saved)

    return derivatives(summed, ctx.saved_tensors, ctx.needs_input_grad, grads)


_environment_operator = operator("environment", _environment, _fake_environment, _environment_vjp)
_backward_operator = operator("environment_backward", _environment_backward, _fake_environment_backward, _backward_vjp)
_double_backward_operator = operator(
    "environment_double_backward",
    _environment_double_backward,
    _fake_environment_double_backward,
    _double_backward_vjp,
)

SOURCE = native.Source.of(
    "pairs_cpu.c",
    sources.runtime()["pairs_cpu.c"],
    trials.of_pairs(
        {
            "environment": _environment,
            "environment_backward": _environment_backward,
            "environment_double_backward": _environment_double_backward,
        }
    ),
)
