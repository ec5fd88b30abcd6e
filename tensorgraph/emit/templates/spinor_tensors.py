"""Symmetric traceless tensors in four dimensions as operators with fused derivatives; see `_runtime/programs.py`."""

import torch
from torch import Tensor

from . import architecture
from ._runtime.operators import check_transforms
from ._runtime.programs import Programs

PROGRAMS = Programs(__package__, "tensors", 4, architecture.N_COMPONENTS)


def tensor_components(points: Tensor) -> Tensor:
    """Components of [u…u]_0, the traceless part of the powers of a point of the 3-sphere, of ranks up to ``MAX_RANK``.

    Args:
        points: ``[n, 4]``, of length one, ``(cos θ, sin θ r̂)``; float32 or float64.

    Returns:
        ``[n, N_COMPONENTS]``: for each rank l its (l + 1)² real components e_ab, in the order of a and then b, real
        before imaginary parts, without those that follow from e[l-a, l-b] = (-1)^(a+b) conj(e[a, b]). e is the
        representation of the unit quaternion u0 - i u·σ on polynomials of degree l in two variables, the identity for
        u = (1, 0, 0, 0). Differentiable to any order by ``torch.autograd`` in reverse mode.

    Raises:
        NotImplementedError: derivatives in forward mode, or by ``torch.func``.
        ValueError: a wrong shape.
        TypeError: a dtype other than float32 and float64.
    """
    if points.dim() != 2 or points.shape[1] != 4:
        raise ValueError(f"points must be [n, 4], not {list(points.shape)}")
    if points.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"points must be float32 or float64, not {points.dtype}")
    check_transforms("tensor_components", points)
    return PROGRAMS.forward(points.unsqueeze(2)).squeeze(2)
