"""What the Triton kernels over pairs share: the sizes of their tiles, and how they are launched.

Sums over neighbours begin as loads of their place under a mask that is never true: zeros, in the layout of what is
stored there. For zeros that it makes itself the compiler chooses another layout, and moves all factors through shared
memory.
"""

from __future__ import annotations

from typing import Any

import torch
import triton.language as tl

# A tile has as many pairs, and as many channels, as there are numbers in a line of the cache: a line of the matrix has
# then fewer numbers than a program has threads, and every thread loads what it needs; no shared memory is between.
LINE_BYTES = tl.constexpr(128)

# Pairs whose loads are on their way at the same time, where pairs are added one by one.
STEP = tl.constexpr(4)


def options(threads: int, lanes: int) -> dict:
    """How a kernel is compiled for warps of so many lanes: its threads, and products fused into sums."""
    return {"num_warps": max(1, threads // lanes), "enable_fp_fusion": True}


def launch(kernel: Any, threads: int, grid: tuple[int, ...], arguments: tuple, **constants: int) -> None:
    """Runs a kernel, with so many threads of each program, on the device of its first argument."""
    device = arguments[0].device
    lanes = torch.cuda.get_device_properties(device).warp_size if device.type == "cuda" else 32
    with torch.cuda.device_of(arguments[0]):
        kernel[grid](*arguments, **constants, **options(threads, lanes))
