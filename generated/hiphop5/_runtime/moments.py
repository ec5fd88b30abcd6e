"""Sums over the neighbours of each kind as an operator: forward, backward and double backward, each one fused call.

For pairs p of a central atom i and a neighbour of kind k(p), with the tensors T of the pair's direction and the
sensitivities S of its distance,

    D[i,m,k,ν] = sum over p of i with k(p) = k of T[p,m] S[p,ν].

Where features are species, the tensors around atom i are these moments times the weights (Allen, Shinkle, Bujack and
Lubbers, arXiv:2503.23515, with the neighbours first). D is linear in T and in S, so derivatives of its derivatives are
sums of the same kind, to any order. On CUDA tensors the Triton kernels run, on a CPU the C programs; plain PyTorch
stands in where there is no triton or no C compiler.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from . import moments_torch, native, sources, trials
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

KERNELS = f"{__package__}.moments_triton"


def moments(tensors: Tensor, sensitivities: Tensor, kinds: Tensor, n_kinds: int, index: PairIndex) -> Tensor:
    """Sums over the neighbours of every atom, apart for each kind, in their order.

    Args:
        tensors: ``[n_pairs, n_components]``, of the pairs sorted by central atom; float32 or float64.
        sensitivities: ``[n_pairs, n_functions]``.
        kinds: ``[n_atoms]``, int64; neighbours of a kind outside 0 to ``n_kinds - 1`` count nothing.
        n_kinds: how many there are.
        index: which pairs belong to which atoms; its values are not checked.

    Returns:
        ``[n_atoms, n_components, n_kinds, n_functions]``, differentiable to any order by ``torch.autograd`` in
        reverse mode.

    Raises:
        ValueError: shapes that do not belong together.
        TypeError: dtypes other than one of float32 and float64, or an index that is not int64, or is elsewhere.
        NotImplementedError: derivatives in forward mode, or by ``torch.func``.
    """
    check_transforms("moments", tensors, sensitivities)
    return _moments_operator(tensors, sensitivities, n_kinds, index.target, index.source, index.target_starts, kinds)


def _checked(name: str, tensors: tuple[Tensor, ...], n_kinds: int, index: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Target, starts and kind of the pairs, checked: compiled code does not check shapes."""
    check_types(name, tensors, index)
    target, source, starts, kinds = index
    n_pairs, n_atoms = target.numel(), kinds.numel()
    components, functions = (tensor.shape[-1] if tensor.dim() else 0 for tensor in tensors[:2])
    t, s, d = (n_pairs, components), (n_pairs, functions), (n_atoms, components, n_kinds, functions)
    check_shapes(name, tensors, (t, s, d, t, s))
    check_rows(name, (target, source), n_pairs)
    check_rows(name, (kinds,), n_atoms)
    check_starts(name, starts, n_atoms, n_pairs)
    return target, starts, kinds.index_select(0, source)


def _run(name: str, fake: Callable, given: tuple[Tensor | int, ...], n_kinds: int, index: tuple[Tensor, ...]):
    """Of tensors, and the number of kinds where the function takes it."""
    tensors = tuple(value for value in given if isinstance(value, Tensor))
    pairs = _checked(name, tensors, n_kinds, index)

    def compiled():
        """What the C program makes of results without values; None where there is none."""
        (n_pairs, components), functions = tensors[0].shape, tensors[1].shape[1]
        inputs = [tensor.contiguous() for tensor in (*tensors, *pairs)]
        sizes, macros = (len(pairs[1]) - 1, n_kinds), {"COMPONENTS": components, "FUNCTIONS": functions}
        outputs = fake(*given, *index)
        return native.results(SOURCE, name, sizes, n_pairs * functions, inputs, outputs, **macros)

    return dispatch(name, KERNELS, moments_torch, (*given, *pairs), compiled)


def _moments(
    tensors: Tensor, sensitivities: Tensor, n_kinds: int, target: Tensor, source: Tensor, starts: Tensor, kinds: Tensor
) -> Tensor:
    given = (tensors, sensitivities, n_kinds)
    return _run("moments", _fake_moments, given, n_kinds, (target, source, starts, kinds))


def _moments_backward(
    tensors: Tensor, sensitivities: Tensor, grad: Tensor, target: Tensor, source: Tensor, starts: Tensor, kinds: Tensor
) -> tuple[Tensor, Tensor]:
    given = (tensors, sensitivities, grad)
    return _run("moments_backward", _fake_moments_backward, given, grad.shape[2], (target, source, starts, kinds))


def _moments_double_backward(
    tensors: Tensor,
    sensitivities: Tensor,
    grad: Tensor,
    tensors_change: Tensor,
    sensitivities_change: Tensor,
    target: Tensor,
    source: Tensor,
    starts: Tensor,
    kinds: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    given = (tensors, sensitivities, grad, tensors_change, sensitivities_change)
    index = (target, source, starts, kinds)
    return _run("moments_double_backward", _fake_moments_double_backward, given, grad.shape[2], index)


def _fake_moments(tensors, sensitivities, n_kinds, *index):
    return tensors.new_empty((index[-1].shape[0], tensors.shape[1], n_kinds, sensitivities.shape[1]))


def _fake_moments_backward(tensors, sensitivities, grad, *pairs):
    return alike(tensors, sensitivities)


def _fake_moments_double_backward(tensors, sensitivities, grad, *rest):
    return alike(tensors, sensitivities, grad)


NO_INDEX = (None,) * 4


def _moments_vjp(ctx, grad):
    saved = ctx.saved_tensors  # read once: activation checkpointing allows no more
    return (*_backward_operator(*saved[:2], grad, *saved[2:]), None, *NO_INDEX)


def _backward_vjp(ctx, *grads):
    saved = ctx.saved_tensors
    return (*_double_backward_operator(*saved[:3], *grads, *saved[3:]), *NO_INDEX)


def _double_backward_vjp(ctx, *grads):
    """Order three and above: differentiate the double backward as a sum of the operators before it."""

    def summed(*saved: Tensor) -> tuple[Tensor, ...]:
        return moments_torch.moments_change(_moments_operator, _backward_operator, *saved)

    return derivatives(summed, ctx.saved_tensors, ctx.needs_input_grad, grads)


_moments_operator = operator("moments", _moments, _fake_moments, _moments_vjp)
_backward_operator = operator("moments_backward", _moments_backward, _fake_moments_backward, _backward_vjp)
_double_backward_operator = operator(
    "moments_double_backward", _moments_double_backward, _fake_moments_double_backward, _double_backward_vjp
)

SOURCE = native.Source.of(
    "moments_cpu.c",
    sources.runtime()["moments_cpu.c"],
    trials.of_moments(
        {
            "moments": _moments,
            "moments_backward": _moments_backward,
            "moments_double_backward": _moments_double_backward,
        }
    ),
)
