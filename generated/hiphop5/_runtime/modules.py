"""The parts that networks are made of: linear layers with reproducible weights, norms, residuals, energy heads.

After Lubbers, Smith and Barros, J. Chem. Phys. 148, 241715, 2018 (HIP-NN).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import softplus

NORM_EPS = 1e-5


def linear(n_in: int, n_out: int, random: torch.Generator, bias: bool = True, xavier: bool = False) -> torch.nn.Linear:
    """A linear layer drawn from `random`: weights of variance 2/(n_in + n_out) (xavier), or torch's default range."""
    device = torch.get_default_device()
    layer: torch.nn.Linear = torch.nn.utils.skip_init(torch.nn.Linear, n_in, n_out, bias=bias, device=device)
    shape, bound, deviation = (n_out, n_in), 1 / math.sqrt(n_in), math.sqrt(2 / (n_in + n_out))
    with torch.no_grad():
        layer.weight.copy_(normal(shape, deviation, random) if xavier else uniform(shape, bound, random))
        if bias:
            layer.bias.copy_(uniform((n_out,), bound, random))
    return layer


def normal(shape: tuple[int, ...], deviation: float, random: torch.Generator) -> Tensor:
    """Normally distributed elements of the default dtype, on the default device.

    They are drawn in float64 on the CPU, so that a seed means the same weights in every dtype and on every device.
    """
    return _by_default(deviation * torch.randn(shape, generator=random, dtype=torch.float64, device="cpu"))


def uniform(shape: tuple[int, ...], bound: float, random: torch.Generator) -> Tensor:
    """Elements uniform in [-bound, bound], drawn like those of `normal`."""
    return _by_default(bound * (2 * torch.rand(shape, generator=random, dtype=torch.float64, device="cpu") - 1))


def _by_default(values: Tensor) -> Tensor:
    return values.to(device=torch.get_default_device(), dtype=torch.get_default_dtype())


class Sensitivity(torch.nn.Module):
    """s_ν(r) = exp(−½ σ_ν² (1/r − 1/μ_ν)²) · cos²(π r / 2 R_c), with trained μ_ν (Å) and σ_ν (Å); HIP-NN.

    At first the 1/μ are equidistant between those of `soft_max` and `soft_min` (Å); `cutoff` is R_c (Å), which
    `Geometry` has taken into account. A subclass names the operator that computes the values.
    """

    operator: ClassVar[Callable[[Tensor, Tensor, Tensor], Tensor]]
    """`Sensitivities` of a package; of the class, for it can be neither copied nor pickled."""

    def __init__(self, functions: int, soft_min: float, soft_max: float, cutoff: float) -> None:
        super().__init__()
        self.cutoff = cutoff
        self.mu = torch.nn.Parameter(1 / torch.linspace(1 / soft_max, 1 / soft_min, functions))
        self.sigma = torch.nn.Parameter(torch.full((functions,), 2 * soft_min * functions))

    def forward(self, radial: Tensor) -> Tensor:
        """[n_pairs, 2] (1/r and the cutoff function) -> [n_pairs, n_functions]."""
        return type(self).operator(radial, self.mu, self.sigma)

    def extra_repr(self) -> str:
        return f"functions={self.mu.shape[0]}, cutoff={self.cutoff} Å"


class ChannelNorm(torch.nn.Module):
    """Group norm with the invariants as groups: per atom and invariant, over the channels; affine."""

    def __init__(self, n_invariants: int, channels: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(n_invariants, channels))
        self.bias = torch.nn.Parameter(torch.zeros(n_invariants, channels))

    def forward(self, values: Tensor) -> Tensor:
        """[n_atoms, n_invariants, channels] -> the same shape."""
        normalised = torch.nn.functional.layer_norm(values, values.shape[2:], eps=NORM_EPS)
        return torch.addcmul(self.bias, normalised, self.weight)


class ActivatedLayer(torch.nn.Module):
    """z' = R·softplus(F(z)) + A z with residuals, A the identity where widths agree; else z' = softplus(F(z))."""

    def __init__(self, layer: torch.nn.Module, n_in: int, n_out: int, random: torch.Generator, residual: bool) -> None:
        super().__init__()
        self.layer = layer
        self.outer = linear(n_out, n_out, random) if residual else None
        self.skip = linear(n_in, n_out, random, bias=False) if residual and n_in != n_out else None

    def forward(self, features: Tensor, *others: Any) -> Tensor:
        """[n_atoms, n_in] -> [n_atoms, n_out]; `others` are handed on to the layer."""
        hidden = softplus(self.layer(features, *others))
        if self.outer is None:
            return hidden
        skipped = features if self.skip is None else self.skip(features)
        mixed: Tensor = self.outer(hidden) + skipped
        return mixed


class EnergyHeads(torch.nn.Module):
    """Ê_i = Σ_n w_n·z^n_i + b_n: one head per block, and one without bias for the species, its energies per atom."""

    def __init__(self, n_species: int, widths: Sequence[int], random: torch.Generator) -> None:
        super().__init__()
        self.of_species = linear(n_species, 1, random, bias=False)
        self.of_blocks = torch.nn.ModuleList([linear(width, 1, random) for width in widths])

    def forward(self, stages: Sequence[Tensor]) -> Tensor:
        """Features of every stage, each [n_atoms, width] -> energy terms [n_heads, n_atoms] in eV."""
        heads = [self.of_species, *self.of_blocks]
        return torch.stack([head(features).squeeze(1) for head, features in zip(heads, stages, strict=True)])
