"""Sums over the neighbours of each kind as Triton kernels: in one fixed order, without atomic additions.

Two kernels are enough. A program of `moments` works for one atom and one kind, takes the pairs of the atom one by one,
and adds a second pair of operands as first-order changes ask for. A program of `moments_backward` works for a tile of
pairs and gives both of their gradients. All are fused multiply-adds in the dtype of the tensors. Nothing here waits for
the device and no shape depends on values, so that a CUDA graph can hold the operators.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launching import LINE_BYTES, STEP, launch

THREADS = {"moments": 64, "moments_backward": 64}
"""Of a program, by its kernel."""


@triton.jit
def _plus_moment(
    total, tensors, sensitivities, pair, here, m, function, COMPONENTS: tl.constexpr, FUNCTIONS: tl.constexpr
):
    """total[m,ν] + tensors[p,m] sensitivities[p,ν] of one pair."""
    components, functions = tl.where(here, COMPONENTS, 0), tl.where(here, FUNCTIONS, 0)
    tensor = tl.load(tensors + pair * COMPONENTS + m, mask=m < components, other=0.0)
    sensitivity = tl.load(sensitivities + pair * FUNCTIONS + function, mask=function < functions, other=0.0)
    return total + tensor[:, None] * sensitivity[None, :]


@triton.jit
def moments_kernel(
    out, tensors, sensitivities, other_tensors, other_sensitivities, kinds, starts,
    COMPONENTS: tl.constexpr, FUNCTIONS: tl.constexpr, KINDS: tl.constexpr,
):  # fmt: skip
    """out[i,m,k,ν] = sum of tensors[p,m] sensitivities[p,ν] over the pairs of kind k, plus that of the others."""
    group, kind = tl.program_id(0).to(tl.int64), tl.program_id(1)
    m = tl.arange(0, triton.next_power_of_2(COMPONENTS))
    function = tl.arange(0, triton.next_power_of_2(FUNCTIONS))
    first, last = tl.load(starts + group), tl.load(starts + group + 1)
    places = (((group * COMPONENTS + m) * KINDS + kind) * FUNCTIONS)[:, None] + function[None, :]
    never = (m < COMPONENTS)[:, None] & (function < tl.where(last < first, FUNCTIONS, 0))[None, :]
    total = tl.load(out + places, mask=never, other=0.0)
    start = first
    while start < last:
        for k in tl.static_range(STEP):
            pair = start + k
            here = tl.load(kinds + pair, mask=pair < last, other=KINDS) == kind
            total = _plus_moment(total, tensors, sensitivities, pair, here, m, function, COMPONENTS, FUNCTIONS)
            if other_tensors is not None:
                total = _plus_moment(
                    total, other_tensors, other_sensitivities, pair, here, m, function, COMPONENTS, FUNCTIONS
                )
        start += STEP
    tl.store(out + places, total, mask=(m < COMPONENTS)[:, None] & (function < FUNCTIONS)[None, :])


@triton.jit(do_not_specialize=["n_pairs"])
def moments_backward_kernel(
    out_tensors, out_sensitivities, tensors, sensitivities, grad, kinds, target, n_pairs,
    COMPONENTS: tl.constexpr, FUNCTIONS: tl.constexpr, KINDS: tl.constexpr,
):  # fmt: skip
    """Sums of grad[i,m,k,ν] sensitivities[p,ν] over ν and of tensors[p,m] grad[i,m,k,ν] over m, k the kind of p."""
    PAIRS: tl.constexpr = LINE_BYTES * 8 // grad.dtype.element_ty.primitive_bitwidth
    COLUMNS: tl.constexpr = triton.next_power_of_2(max(COMPONENTS, FUNCTIONS))
    pair = tl.program_id(0).to(tl.int64) * PAIRS + tl.arange(0, PAIRS)
    column = tl.arange(0, COLUMNS)
    mask = pair < n_pairs
    kind = tl.load(kinds + pair, mask=mask, other=0)
    known = mask & (kind >= 0) & (kind < KINDS)
    first = tl.load(target + pair, mask=mask, other=0) * (COMPONENTS * KINDS)
    place = (first + kind) * FUNCTIONS
    here = mask[:, None] & (column < FUNCTIONS)[None, :]
    counts = known[:, None] & (column < FUNCTIONS)[None, :]
    places = pair[:, None] * FUNCTIONS + column[None, :]
    sensitivity = tl.load(sensitivities + places, mask=here, other=0.0)
    never = here & (pair < 0)[:, None]
    of_sensitivities = tl.load(out_sensitivities + places, mask=never, other=0.0)
    of_tensors = tl.zeros((PAIRS, COLUMNS), grad.dtype.element_ty)
    for m in tl.range(0, COMPONENTS, num_stages=1, loop_unroll_factor=4):
        row = tl.load(grad + (place + m * (KINDS * FUNCTIONS))[:, None] + column[None, :], mask=counts, other=0.0)
        of_sensitivities += tl.load(tensors + pair * COMPONENTS + m, mask=mask, other=0.0)[:, None] * row
        of_tensors = tl.where((column == m)[None, :], tl.sum(sensitivity * row, axis=1)[:, None], of_tensors)
    tl.store(out_sensitivities + places, of_sensitivities, mask=here)
    here = mask[:, None] & (column < COMPONENTS)[None, :]
    tl.store(out_tensors + pair[:, None] * COMPONENTS + column[None, :], of_tensors, mask=here)


def _moments(*operands: Tensor, kinds: Tensor, n_kinds: int, starts: Tensor) -> Tensor:
    """Tensors [n_pairs, n_components] and sensitivities [n_pairs, n_functions], once or twice -> their moments."""
    components, functions = operands[0].shape[1], operands[1].shape[1]
    shape = (starts.shape[0] - 1, components, n_kinds, functions)
    if not (operands[0].numel() and operands[1].numel() and n_kinds):
        return operands[0].new_zeros(shape)
    out = operands[0].new_empty(shape)
    given = (*(operand.contiguous() for operand in operands), None, None)[:4]
    sizes = {"COMPONENTS": components, "FUNCTIONS": functions, "KINDS": n_kinds}
    arguments = (out, *given, kinds.contiguous(), starts.contiguous())
    launch(moments_kernel, THREADS["moments"], (shape[0], n_kinds), arguments, **sizes)
    return out


def moments(
    tensors: Tensor, sensitivities: Tensor, n_kinds: int, target: Tensor, starts: Tensor, kinds: Tensor
) -> Tensor:
    return _moments(tensors, sensitivities, kinds=kinds, n_kinds=n_kinds, starts=starts)


def moments_backward(
    tensors: Tensor, sensitivities: Tensor, grad: Tensor, target: Tensor, starts: Tensor, kinds: Tensor
) -> tuple[Tensor, Tensor]:
    n_pairs, n_kinds = tensors.shape[0], grad.shape[2]
    t, s, g = tensors.contiguous(), sensitivities.contiguous(), grad.contiguous()
    if not (t.numel() and s.numel() and g.numel()):
        return torch.zeros_like(t), torch.zeros_like(s)
    out = torch.empty_like(t), torch.empty_like(s)
    grid = (triton.cdiv(n_pairs, LINE_BYTES.value // t.element_size()),)
    arguments = (*out, t, s, g, kinds.contiguous(), target.contiguous(), n_pairs)
    sizes = {"COMPONENTS": t.shape[1], "FUNCTIONS": s.shape[1], "KINDS": n_kinds}
    launch(moments_backward_kernel, THREADS["moments_backward"], grid, arguments, **sizes)
    return out


def moments_double_backward(
    tensors: Tensor,
    sensitivities: Tensor,
    grad: Tensor,
    tensors_change: Tensor,
    sensitivities_change: Tensor,
    target: Tensor,
    starts: Tensor,
    kinds: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """The first-order changes of the gradients, and with respect to `grad` that of the moments."""
    slopes = moments_backward(tensors_change, sensitivities_change, grad, target, starts, kinds)
    changed = (tensors_change, sensitivities, tensors, sensitivities_change)
    return *slopes, _moments(*changed, kinds=kinds, n_kinds=grad.shape[2], starts=starts)
