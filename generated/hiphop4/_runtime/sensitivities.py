"""The sensitivities to the distances of pairs: exp(−½ t²) c with t = σ (1/r − 1/μ) and c the cutoff function of r.

μ and σ of each function are trained (Lubbers, Smith and Barros, J. Chem. Phys. 148, 241715, 2018). Exponents below −60
count as far below rounding beside any other: their values are zero.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .operators import check_shapes, check_types
from .pointwise import Operand, Pointwise


class Sensitivities(Pointwise):
    """The programs of a stem in a package over pairs and functions, as operators; called, the first of them."""

    def __init__(self, package: str, stem: str = "sensitivities") -> None:
        radial, parameters = Operand(2, rows=True, columns=False), Operand(2, rows=False, columns=True)
        super().__init__(package, stem, (radial, parameters), Operand(1, rows=True, columns=True))

    def __call__(self, radial: Tensor, mu: Tensor, sigma: Tensor) -> Tensor:  # type: ignore[override]
        """The sensitivities of all functions to the distances of pairs.

        Args:
            radial: ``[n_pairs, 2]``, 1/r in 1/Å and the cutoff function; float32 or float64.
            mu: ``[n_functions]`` in Å, the distances that functions are most sensitive to.
            sigma: ``[n_functions]`` in Å, how sharply.

        Returns:
            ``[n_pairs, n_functions]``, differentiable to any order by ``torch.autograd`` in reverse mode.

        Raises:
            ValueError: shapes that do not belong together.
            TypeError: dtypes other than one of float32 and float64.
            NotImplementedError: derivatives in forward mode, or by ``torch.func``.
        """
        check_types("sensitivities", (radial, mu, sigma))
        n_pairs, n_functions = radial.shape[0] if radial.dim() else 0, mu.numel()
        check_shapes("sensitivities", (radial, mu, sigma), ((n_pairs, 2), (n_functions,), (n_functions,)))
        return super().__call__(radial, torch.stack([1 / mu, sigma])).squeeze(1)
