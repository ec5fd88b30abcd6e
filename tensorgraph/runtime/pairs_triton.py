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

from .launching import LINE_BYTES, STEP, launch

if TYPE_CHECKING:
    from .grouping import PairIndex

THREADS = {"expand": 64, "dots": 64, "accumulate": 32}
"""Of a program, by its kernel."""

MOST_CHANNELS = 128
"""Of a program: the registers are full."""


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
    for b in tl.range(0, SIZE, num_stages=1, loop_unroll_factor=4):
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
    start = first
    while start < last:
        position = start + tl.arange(0, WIDTH)
        mask = position < last
        pair = _pairs(position, mask, order)
        totals = _tile(out, pair, position < first, channel, CHANNELS, CHUNKS)
        totals = _plus_expanded(totals, factors, matrix + place, pair, mask, channel, SIZE, CHANNELS, CHUNKS)
        if other_factors is not None:
            totals = _plus_expanded(
                totals, other_factors, other_matrix + place, pair, mask, channel, SIZE, CHANNELS, CHUNKS
            )
        for k in tl.static_range(CHUNKS):
            at = channel + k * WIDTH
            here = mask[:, None] & (at < CHANNELS)[None, :]
            tl.store(out + pair[:, None] * CHANNELS + at[None, :], totals[k], mask=here)
        start += WIDTH


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
        for b in tl.range(first, min(first + WIDTH, SIZE), num_stages=1, loop_unroll_factor=4):
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
    start = first
    while start < last:
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
        start += WIDTH


@triton.jit
def _rows(
    out, group, channel, mask,
    SIZE: tl.constexpr, CHANNELS: tl.constexpr, HEAD: tl.constexpr, TAIL: tl.constexpr,
):  # fmt: skip
    """The first HEAD rows of out[g] and the TAIL rows after them; without a tail, a row under no mask."""
    rows = out + group * (SIZE * CHANNELS) + channel[None, :]
    here = (channel < tl.where(mask, CHANNELS, 0))[None, :]
    head = tl.load(rows + (tl.arange(0, HEAD) * CHANNELS)[:, None], mask=here, other=0.0)
    b = HEAD + tl.arange(0, TAIL if TAIL > 0 else 1)
    tail = tl.load(rows + (b * CHANNELS)[:, None], mask=here & (b < SIZE)[:, None], other=0.0)
    return head, tail


@triton.jit
def _plus_outer(
    head, tail, factors, messages, pair, inside, channel,
    SIZE: tl.constexpr, CHANNELS: tl.constexpr, HEAD: tl.constexpr, TAIL: tl.constexpr,
):  # fmt: skip
    """head[b,c] and tail[b,c] + factors[p,b] messages[p,c] of one pair."""
    # Bounds that are zero for what is not inside, since the interpreter knows no `and` of a number and an array.
    channels, columns = tl.where(inside, CHANNELS, 0), tl.where(inside, SIZE, 0)
    message = tl.load(messages + pair * CHANNELS + channel, mask=channel < channels, other=0.0)
    b = tl.arange(0, HEAD)
    head += tl.load(factors + pair * SIZE + b, mask=b < columns, other=0.0)[:, None] * message[None, :]
    if TAIL > 0:
        b = HEAD + tl.arange(0, TAIL)
        factor = tl.load(factors + pair * SIZE + b, mask=b < columns, other=0.0)
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
    head, tail = _rows(out, group, channel, last < first, SIZE, CHANNELS, HEAD, TAIL)
    start = first
    while start < last:
        for k in tl.static_range(STEP):
            inside = start + k < last
            pair = _pairs(start + k, inside, order)
            head, tail = _plus_outer(head, tail, factors, messages, pair, inside, channel, SIZE, CHANNELS, HEAD, TAIL)
            if other_factors is not None:
                head, tail = _plus_outer(
                    head, tail, other_factors, other_messages, pair, inside, channel, SIZE, CHANNELS, HEAD, TAIL
                )
        start += STEP
    rows = out + group * (SIZE * CHANNELS) + channel[None, :]
    here = (channel < CHANNELS)[None, :]
    tl.store(rows + (tl.arange(0, HEAD) * CHANNELS)[:, None], head, mask=here)
    if TAIL > 0:
        b = HEAD + tl.arange(0, TAIL)
        tl.store(rows + (b * CHANNELS)[:, None], tail, mask=here & (b < SIZE)[:, None])


class _Groups(NamedTuple):
    """The pairs of each atom: those of its place in `order`, or in their own order."""

    starts: Tensor
    order: Tensor | None


def block(kernel: str, channels: int, itemsize: int) -> int:
    """Channels of a program: for `accumulate` 16 bytes of each thread, for others equal parts of whole tiles."""
    if kernel == "accumulate":
        return min(triton.next_power_of_2(channels), 16 * THREADS[kernel] // itemsize)
    width = LINE_BYTES.value // itemsize
    parts = triton.cdiv(channels, MOST_CHANNELS)
    return width * triton.cdiv(channels, width * parts)


KERNELS = {"expand": expand_kernel, "dots": dots_kernel, "accumulate": accumulate_kernel}


def _sum(kernel: str, out: Tensor, groups: _Groups, operands: tuple[Tensor, ...], size: int, channels: int) -> None:
    """Runs one of the three kernels with two operands, or with four."""
    width = block(kernel, channels, out.element_size())
    grid = (groups.starts.shape[0] - 1, triton.cdiv(channels, width))
    arguments, sizes = (
        (out, *(*operands, None, None)[:4], *groups),
        {"SIZE": size, "CHANNELS": channels, "BLOCK": width},
    )
    launch(KERNELS[kernel], THREADS[kernel], grid, arguments, **sizes)


def _expand(groups: _Groups, *operands: Tensor, out: Tensor | None = None) -> Tensor:
    """Factors [n_pairs, n] and matrices [n_groups, n, n_channels], once or twice -> [n_pairs, n_channels]."""
    (n_pairs, size), channels = operands[0].shape, operands[1].shape[2]
    out = operands[0].new_empty((n_pairs, channels)) if out is None else out
    _sum("expand", out, groups, operands, size, channels)
    return out


def _dots(groups: _Groups, *operands: Tensor) -> Tensor:
    """Messages [n_pairs, n_channels] and matrices [n_groups, n, n_channels], once or twice -> [n_pairs, n]."""
    (n_pairs, channels), size = operands[0].shape, operands[1].shape[1]
    parts = triton.cdiv(channels, block("dots", channels, operands[0].element_size()))
    out = operands[0].new_empty((n_pairs, parts, size))
    _sum("dots", out, groups, operands, size, channels)
    return out.squeeze(1) if parts == 1 else out.sum(1)


def _accumulate(groups: _Groups, *operands: Tensor) -> Tensor:
    """Factors [n_pairs, n] and messages [n_pairs, n_channels], once or twice -> [n_groups, n, n_channels]."""
    size, channels = operands[0].shape[1], operands[1].shape[1]
    out = operands[0].new_empty((groups.starts.shape[0] - 1, size, channels))
    _sum("accumulate", out, groups, operands, size, channels)
    return out


def _prepared(tensors: tuple[Tensor, ...], index: PairIndex) -> tuple[bool, list[Tensor], _Groups, _Groups]:
    """Whether there is anything to sum, the tensors as kernels read them, and the pairs by target and by source."""
    by_target = _Groups(index.target_starts.contiguous(), None)
    by_source = _Groups(index.source_starts.contiguous(), index.by_source.contiguous())
    return all(t.numel() for t in tensors), [t.contiguous() for t in tensors], by_target, by_source


def environment(tensors: Tensor, sensitivities: Tensor, weighted: Tensor, index: PairIndex) -> Tensor:
    some, (t, s, q), by_target, by_source = _prepared((tensors, sensitivities, weighted), index)
    if not some:
        return t.new_zeros((by_target.starts.shape[0] - 1, t.shape[1], q.shape[2]))
    return _accumulate(by_target, t, _expand(by_source, s, q))


def environment_backward(
    tensors: Tensor, sensitivities: Tensor, weighted: Tensor, grad: Tensor, index: PairIndex
) -> tuple[Tensor, Tensor, Tensor]:
    some, (t, s, q, g), by_target, by_source = _prepared((tensors, sensitivities, weighted, grad), index)
    if not some:
        return torch.zeros_like(t), torch.zeros_like(s), torch.zeros_like(q)
    messages = _expand(by_source, s, q)
    grad_tensors = _dots(by_target, messages, g)
    received = _expand(by_target, t, g, out=messages)
    return grad_tensors, _dots(by_source, received, q), _accumulate(by_source, s, received)


def environment_double_backward(
    tensors: Tensor,
    sensitivities: Tensor,
    weighted: Tensor,
    grad: Tensor,
    tensors_change: Tensor,
    sensitivities_change: Tensor,
    weighted_change: Tensor,
    index: PairIndex,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The first-order changes of the gradients, and with respect to `grad` that of the environment."""
    given = (tensors, sensitivities, weighted, grad, tensors_change, sensitivities_change, weighted_change)
    some, (t, s, q, g, x, y, z), by_target, by_source = _prepared(given, index)
    if not some:
        return torch.zeros_like(t), torch.zeros_like(s), torch.zeros_like(q), torch.zeros_like(g)
    messages, changed = _expand(by_source, s, q), _expand(by_source, y, q, s, z)
    grad_tensors = _dots(by_target, changed, g)
    grad_grad = _accumulate(by_target, x, messages, t, changed)
    received, changed = _expand(by_target, t, g, out=messages), _expand(by_target, x, g, out=changed)
    grad_sensitivities = _dots(by_source, changed, q, received, z)
    return grad_tensors, grad_sensitivities, _accumulate(by_source, s, changed, y, received), grad_grad
