"""Symmetric traceless tensors of directions as operators with fused derivatives; see `_runtime/programs.py`."""

import torch
from torch import Tensor

from . import architecture
from ._runtime.operators import check_transforms
from ._runtime.programs import Programs

PROGRAMS = Programs(__package__, "tensors", 3, (architecture.MAX_RANK + 1) ** 2)


def tensor_components(unit_vectors: Tensor) -> Tensor:
    """Components of [r̂…r̂]_0, the traceless part of the powers of a direction, for each rank up to ``MAX_RANK``.

    Args:
        unit_vectors: ``[n, 3]``, of length one; float32 or float64.

    Returns:
        ``[n, (MAX_RANK + 1)²]``: for each rank the independent components, by their sorted indices (x before y before
        z), with leading coefficient one. Differentiable to any order by ``torch.autograd`` in reverse mode.

    Raises:
        NotImplementedError: derivatives in forward mode, or by ``torch.func``.
        ValueError: a wrong shape.
        TypeError: a dtype other than float32 and float64.
    """
    if unit_vectors.dim() != 2 or unit_vectors.shape[1] != 3:
        raise ValueError(f"unit_vectors must be [n, 3], not {list(unit_vectors.shape)}")
    if unit_vectors.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"unit_vectors must be float32 or float64, not {unit_vectors.dtype}")
    check_transforms("tensor_components", unit_vectors)
    return PROGRAMS.forward(unit_vectors.unsqueeze(2)).squeeze(2)
