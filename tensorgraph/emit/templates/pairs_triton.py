"""The pair operators as Triton kernels: sums over neighbours in one fixed order, without atomic additions.

Pairs are taken atom by atom: messages, and what comes back for them, by their source, sums by their target. A program
works for one atom (a group of pairs) and a block of channels. Three kernels are enough, with p for the pairs of a
group, c for channels, b for the columns of a factor that every pair has, and a matrix that every group has:

    expand      y[p,c] = sum over b of factor[p,b] matrix[b,c]
    dots        x[p,b] = sum over c of y[p,c] matrix[b,c]
    accumulate  z[b,c] = sum over p of factor[p,b] y[p,c]

Each takes a second pair of operands and adds its result, as first-order changes ask for. All are fused multiply-adds in
the dtype of the tensors; no tensor core rounds their factors. The largest array is one of pairs times channels. Nothing
here waits for the device and no shape depends on values, so that a CUDA graph can hold the operators.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

if TYPE_CHECKING:
    from .grouping import PairIndex

# A tile has as many pairs, and as many channels, as there are numbers in a line of the cache: a line of the matrix has
# then fewer numbers than a program has threads, and every thread loads what it needs; no shared memory is between.
LINE_BYTES = tl.constexpr(128)

# Pairs whose loads are on their way at the same time, where pairs are added one by one.
STEP = tl.constexpr(4)

THREADS = {"expand": 64, "dots": 64, "accumulate": 32, "moments": 64, "moments_backward": 64}
"""Of a program, by its kernel."""


@triton.jit
def _pairs(position, mask, order):
    """The pairs at some positions of a grouping."""
    pair = position
    if order is not None:
        pair = tl.load(order + position, mask=mask, other=0)
    return pair


@triton.jit
def _tile(rows, pair, mask, channel, CHANNELS: tl.constexpr, CHUNKS: tl.constexpr):
    """Channels of rows[p], in chunks [PAIRS, WIDTH]."""
    chunks = ()
    for k in tl.static_range(CHUNKS):
        at = channel + k * channel.shape[0]
        here = mask[:, None] & (at < CHANNELS)[None, :]
        chunks += (tl.load(rows + pair[:, None] * CHANNELS + at[None, :], mask=here, other=0.0),)
    return chunks


@triton.jit
def _plus_products(totals, factor, row, channel, CHANNELS: tl.constexpr, CHUNKS: tl.constexpr):
    """totals[p,c] + factor[p] row[c], in chunks."""
    chunks = ()
    for k in tl.static_range(CHUNKS):
        at = channel + k * channel.shape[0]
        chunks += (totals[k] + factor[:, None] * tl.load(row + at, mask=at < CHANNELS, other=0.0)[None, :],)
    return chunks


@triton.jit
def _plus_expanded(
    totals, factors, matrix, pair, mask, channel, SIZE: tl.constexpr, CHANNELS: tl.constexpr, CHUNKS: tl.constexpr
):
    """totals[p,c] + sum of factors[p,b] matrix[b,c] over b, in chunks."""
    for b in tl.static_range(SIZE):
        factor = tl.load(factors + pair * SIZE + b, mask=mask, other=0.0)
        totals = _plus_products(totals, factor, matrix + b * CHANNELS, channel, CHANNELS, CHUNKS)
    return totals


@triton.jit
def expand_kernel(
    out, factors, matrix, other_factors, other_matrix, starts, order,
    SIZE: tl.constexpr, CHANNELS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """out[p,c] = sum of factors[p,b] matrix[g,b,c] over b, plus that of the others if there are any."""
    WIDTH: tl.constexpr = LINE_BYTES * 8 // out.dtype.element_ty.primitive_bitwidth
    CHUNKS: tl.constexpr = BLOCK // WIDTH
    group = tl.program_id(0).to(tl.int64)
    channel = tl.program_id(1) * BLOCK + tl.arange(0, WIDTH)
    first, last = tl.load(starts + group), tl.load(starts + group + 1)
    place = group * (SIZE * CHANNELS)
    for start in range(first, last, WIDTH):
        position = start + tl.arange(0, WIDTH)
        mask = position < last
        pair = _pairs(position, mask, order)
        totals = ()
        for _ in tl.static_range(CHUNKS):
            totals += (tl.zeros((WIDTH, WIDTH), out.dtype.element_ty),)
        totals = _plus_expanded(totals, factors, matrix + place, pair, mask, channel, SIZE, CHANNELS, CHUNKS)
        if other_factors is not None:
            totals = _plus_expanded(
                totals, other_factors, other_matrix + place, pair, mask, channel, SIZE, CHANNELS, CHUNKS
            )
        for k in tl.static_range(CHUNKS):
            at = channel + k * WIDTH
            here = mask[:, None] & (at < CHANNELS)[None, :]
            tl.store(out + pair[:, None] * CHANNELS + at[None, :], totals[k], mask=here)


@triton.jit
def _plus_dots(
    totals, messages, matrix, pair, mask, channel, column,
    SIZE: tl.constexpr, CHANNELS: tl.constexpr, CHUNKS: tl.constexpr,
):  # fmt: skip
    """totals[p,b] + sum of messages[p,c] matrix[b,c] over a block of channels, in tiles of columns b."""
    WIDTH: tl.constexpr = channel.shape[0]
    message = _tile(messages, pair, mask, channel, CHANNELS, CHUNKS)
    tiles = ()
    for first in tl.static_range(0, SIZE, WIDTH):
        tile = totals[first // WIDTH]
        for b in tl.static_range(first, min(first + WIDTH, SIZE)):
            products = tl.zeros((WIDTH, WIDTH), messages.dtype.element_ty)
            for k in tl.static_range(CHUNKS):
                at = channel + k * WIDTH
                row = tl.load(matrix + b * CHANNELS + at, mask=at < CHANNELS, other=0.0)
                products += message[k] * row[None, :]
            tile = tl.where((column == b - first)[None, :], tile + tl.sum(products, axis=1)[:, None], tile)
        tiles += (tile,)
    return tiles


@triton.jit
def dots_kernel(
    out, messages, matrix, other_messages, other_matrix, starts, order,
    SIZE: tl.constexpr, CHANNELS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """out[p,block,b] = sum of messages[p,c] matrix[g,b,c] over a block of channels, plus that of the others."""
    WIDTH: tl.constexpr = LINE_BYTES * 8 // out.dtype.element_ty.primitive_bitwidth
    CHUNKS: tl.constexpr = BLOCK // WIDTH
    BLOCKS: tl.constexpr = (CHANNELS + BLOCK - 1) // BLOCK
    group, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    column = tl.arange(0, WIDTH)
    channel = block * BLOCK + column
    first, last = tl.load(starts + group), tl.load(starts + group + 1)
    place = group * (SIZE * CHANNELS)
    for start in range(first, last, WIDTH):
        position = start + tl.arange(0, WIDTH)
        mask = position < last
        pair = _pairs(position, mask, order)
        tiles = ()
        for _ in tl.static_range(0, SIZE, WIDTH):
            tiles += (tl.zeros((WIDTH, WIDTH), out.dtype.element_ty),)
        tiles = _plus_dots(tiles, messages, matrix + place, pair, mask, channel, column, SIZE, CHANNELS, CHUNKS)
        if other_messages is not None:
            tiles = _plus_dots(
                tiles, other_messages, other_matrix + place, pair, mask, channel, column, SIZE, CHANNELS, CHUNKS
            )
        for first_column in tl.static_range(0, SIZE, WIDTH):
            b = first_column + column
            places = ((pair * BLOCKS + block) * SIZE)[:, None] + b[None, :]
            tl.store(out + places, tiles[first_column // WIDTH], mask=mask[:, None] & (b < SIZE)[None, :])


@triton.jit
def _plus_outer(
    head, tail, factors, messages, pair, inside, channel,
    SIZE: tl.constexpr, CHANNELS: tl.constexpr, HEAD: tl.constexpr, TAIL: tl.constexpr,
):  # fmt: skip
    """head[b,c] and tail[b,c] + factors[p,b] messages[p,c] of one pair."""
    message = tl.load(messages + pair * CHANNELS + channel, mask=inside & (channel < CHANNELS), other=0.0)
    b = tl.arange(0, HEAD)
    head += tl.load(factors + pair * SIZE + b, mask=inside, other=0.0)[:, None] * message[None, :]
    if TAIL > 0:
        b = HEAD + tl.arange(0, TAIL)
        factor = tl.load(factors + pair * SIZE + b, mask=inside & (b < SIZE), other=0.0)
        tail += factor[:, None] * message[None, :]
    return head, tail


@triton.jit
def accumulate_kernel(
    out, factors, messages, other_factors, other_messages, starts, order,
    SIZE: tl.constexpr, CHANNELS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """out[g,b,c] = sum of factors[p,b] messages[p,c] over p, plus that of the others if there are any.

    The columns are a power of two and a rest: 20 take the registers of 16 + 4, not of 32.
    """
    HEAD: tl.constexpr = triton.next_power_of_2(SIZE + 1) // 2
    TAIL: tl.constexpr = triton.next_power_of_2(SIZE - HEAD) if SIZE > HEAD else 0
    group = tl.program_id(0).to(tl.int64)
    channel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    first, last = tl.load(starts + group), tl.load(starts + group + 1)
    head = tl.zeros((HEAD, BLOCK), out.dtype.element_ty)
    tail = tl.zeros((TAIL if TAIL else 1, BLOCK), out.dtype.element_ty)
    for start in range(first, last, STEP):
        for k in tl.static_range(STEP):
            inside = start + k < last
            pair = _pairs(start + k, inside, order)
            head, tail = _plus_outer(
                head, tail, factors, messages, pair, inside, channel, SIZE, CHANNELS, HEAD, TAIL
            )
            if other_factors is not None:
                head, tail = _plus_outer(
                    head, tail, other_factors, other_messages, pair, inside, channel, SIZE, CHANNELS, HEAD, TAIL
                )
    rows, here = out + group * (SIZE * CHANNELS) + channel[None, :], (channel < CHANNELS)[None, :]
    tl.store(rows + (tl.arange(0, HEAD) * CHANNELS)[:, None], head, mask=here)
    if TAIL > 0:
        b = HEAD + tl.arange(0, TAIL)
        tl.store(rows + (b * CHANNELS)[:, None], tail, mask=here & (b < SIZE)[:, None])


@triton.jit
def _plus_moment(
    total, tensors, sensitivities, pair, here, m, function, COMPONENTS: tl.constexpr, FUNCTIONS: tl.constexpr
):
    """total[m,ν] + tensors[p,m] sensitivities[p,ν] of one pair."""
    tensor = tl.load(tensors + pair * COMPONENTS + m, mask=here & (m < COMPONENTS), other=0.0)
    sensitivity = tl.load(sensitivities + pair * FUNCTIONS + function, mask=here & (function < FUNCTIONS), other=0.0)
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
    total = tl.zeros((m.shape[0], function.shape[0]), out.dtype.element_ty)
    for start in range(first, last, STEP):
        for k in tl.static_range(STEP):
            pair = start + k
            here = pair < last
            here = here & (tl.load(kinds + pair, mask=here, other=KINDS) == kind)
            total = _plus_moment(total, tensors, sensitivities, pair, here, m, function, COMPONENTS, FUNCTIONS)
            if other_tensors is not None:
                total = _plus_moment(
                    total, other_tensors, other_sensitivities, pair, here, m, function, COMPONENTS, FUNCTIONS
                )
    places = (((group * COMPONENTS + m) * KINDS + kind) * FUNCTIONS)[:, None] + function[None, :]
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
    first = tl.load(target + pair, mask=mask, other=0) * (COMPONENTS * KINDS)
    place = (first + tl.load(kinds + pair, mask=mask, other=0)) * FUNCTIONS
    here = mask[:, None] & (column < FUNCTIONS)[None, :]
    places = pair[:, None] * FUNCTIONS + column[None, :]
    sensitivity = tl.load(sensitivities + places, mask=here, other=0.0)
    of_tensors = tl.zeros((PAIRS, COLUMNS), grad.dtype.element_ty)
    of_sensitivities = tl.zeros((PAIRS, COLUMNS), grad.dtype.element_ty)
    for m in tl.static_range(COMPONENTS):
        row = tl.load(grad + (place + m * (KINDS * FUNCTIONS))[:, None] + column[None, :], mask=here, other=0.0)
        of_sensitivities += tl.load(tensors + pair * COMPONENTS + m, mask=mask, other=0.0)[:, None] * row
        of_tensors = tl.where((column == m)[None, :], tl.sum(sensitivity * row, axis=1)[:, None], of_tensors)
    tl.store(out_sensitivities + places, of_sensitivities, mask=here)
    here = mask[:, None] & (column < COMPONENTS)[None, :]
    tl.store(out_tensors + pair[:, None] * COMPONENTS + column[None, :], of_tensors, mask=here)
