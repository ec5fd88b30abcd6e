"""The invariants of tensor features, a table of monomials, as operators; `_runtime/tables.py` says how they run."""

import torch
from torch import Tensor

from . import architecture
from ._runtime.operators import check_transforms
from ._runtime.tables import Tables

TABLES = Tables(__package__, "invariants")


def invariants(features: Tensor) -> Tensor:
    """The invariant polynomials of tensor features, in the manifest's order.

    Args:
        features: ``[n_atoms, n_components, n_channels]``, any linear combination of rows of ``tensor_components``;
            float32 or float64, on a CPU or a CUDA device. Atoms or channels may be none or one.

    Returns:
        ``[n_atoms, n_invariants, n_channels]``: full contractions of the symmetric traceless tensors whose leading
        coefficient is one. Differentiable to any order by ``torch.autograd`` in reverse mode.

    Raises:
        NotImplementedError: derivatives in forward mode, or by ``torch.func``.
        ValueError: a wrong shape.
        TypeError: a dtype other than float32 and float64.
    """
    expected = architecture.N_COMPONENTS
    if features.dim() != 3 or features.shape[1] != expected:
        raise ValueError(f"features must be [n_atoms, {expected}, n_channels], not {list(features.shape)}")
    if features.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"features must be float32 or float64, not {features.dtype}")
    check_transforms("invariants", features)
    return TABLES.forward(features)
