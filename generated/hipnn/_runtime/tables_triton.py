"""Sums of products by a table as a Triton kernel: each sum by one program in one fixed order, without atomic additions.

A program sums the rows of one place for a block of channels of atoms, whose elements stand side by side. Nothing here
waits for the device and no shape depends on values, so that a CUDA graph can hold the operators.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launching import launch

BLOCK = tl.constexpr(128)
"""Channels of atoms that a program works for, one a thread."""

TERMS, TERMS_INTERPRETED = 8, 1024
"""Terms whose loads are on their way at the same time; triton's interpreter, on a CPU, takes milliseconds for each such
set of whatever size."""


@triton.jit(do_not_specialize=["rows"])
def table_kernel(out, x, starts, factors, coefficients, rows, DEGREE: tl.constexpr, TERMS: tl.constexpr):
    """out[place, row] = sum over the terms of a place of coefficients[term] times the product of x[factor, row]."""
    row, place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK), tl.program_id(1).to(tl.int64)
    mask = row < rows
    first, last = tl.load(starts + place), tl.load(starts + place + 1)
    total = tl.zeros((BLOCK,), out.dtype.element_ty)
    for start in range(first, last, TERMS):
        term = start + tl.arange(0, TERMS)
        coefficient = tl.load(coefficients + term, mask=term < last, other=0.0)
        products = tl.broadcast_to(coefficient[:, None], (TERMS, BLOCK))
        for k in tl.static_range(DEGREE):
            factor = tl.load(factors + term * DEGREE + k, mask=term < last, other=0)
            products *= tl.load(x + factor[:, None] * rows + row[None, :], mask=mask[None, :], other=0.0)
        total += tl.sum(products, axis=0)
    tl.store(out + place * rows + row, total, mask=mask)


def summed(x: Tensor, starts: Tensor, factors: Tensor, coefficients: Tensor) -> Tensor:
    """[n, n_inputs, channels] -> [n, n_places, channels].

    `starts` [n_places + 1] say where the terms of each place begin; `factors` [n_terms, degree], int64, count the
    inputs and behind them the constant one.
    """
    (n, _, channels), n_places = x.shape, starts.shape[0] - 1
    elements = x.movedim(1, 0).flatten(1)
    elements = torch.cat([elements, torch.ones_like(elements[:1])])
    out = elements.new_empty((n_places, elements.shape[1]))
    if out.numel():
        grid = (triton.cdiv(elements.shape[1], BLOCK.value), n_places)
        arguments = (out, elements, starts, factors, coefficients, elements.shape[1])
        sizes = {"DEGREE": factors.shape[1], "TERMS": TERMS if x.is_cuda else TERMS_INTERPRETED}
        launch(table_kernel, BLOCK.value, grid, arguments, **sizes)
    found: Tensor = out.unflatten(1, (n, channels)).movedim(0, 1).contiguous()
    return found
