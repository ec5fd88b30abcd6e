"""The parts that printed networks are made of: reproducible weights, linear layers, norms."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

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


class Weights(torch.nn.Module):
    """Weights that belong together, by name."""

    def __init__(self, **weights: torch.nn.Parameter) -> None:
        super().__init__()
        for name, weight in weights.items():
            self.register_parameter(name, weight)

    def extra_repr(self) -> str:
        return ", ".join(f"{name}: {list(weight.shape)}" for name, weight in self.named_parameters())


class Fixed(torch.nn.Module):
    """Numbers that are not trained and that no state dict holds, in the dtype and on the device of the weights."""

    values: Tensor

    def __init__(self, shape: Sequence[int], numbers: Mapping[int, float]) -> None:
        """`numbers` by position; the others are zero."""
        super().__init__()
        self.shape, self.numbers = tuple(shape), dict(numbers)
        self.register_buffer("values", self._made(torch.get_default_dtype(), torch.get_default_device()), False)

    def renew(self, weight: Tensor) -> None:
        """Again, of the dtype and on the device of a weight: rounded once, and there after the meta device too."""
        self.values = self._made(weight.dtype, weight.device)

    def _made(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        values = [self.numbers.get(position, 0.0) for position in range(math.prod(self.shape))]
        return torch.tensor(values, dtype=dtype, device=device).view(self.shape)

    def extra_repr(self) -> str:
        return f"{list(self.shape)}"


def normalised(values: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Group norm with what comes before the last axis as groups: mean 0 and variance 1 over the channels, then affine.

    `values` [n_atoms, n_groups, n_channels], `weight` and `bias` [n_groups, n_channels].
    """
    return torch.addcmul(bias, torch.nn.functional.layer_norm(values, values.shape[2:], eps=NORM_EPS), weight)
