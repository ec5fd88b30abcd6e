"""Sensitivities of the distances as an operator: forward, backward and double backward, in one pass over the pairs.

    S[p,ν] = exp(−½ t²) c[p],   t = σ_ν (u[p] − 1/μ_ν),   u = 1/r, c the cutoff function;   HIP-NN

Derivatives are written out, and on a CPU taken over blocks of pairs: what arises on the way stays in the cache, and no
array of pairs times functions is made but the results.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .operators import alike, check_shapes, check_transforms, check_types, derivatives, operator

CODE = ("operators.py", "sensitivities.py")

# Sensitivities below e^-60, which is 9e-27, are zero: far below what a sum of float64 can tell, and so far above the
# smallest float32 that their derivatives keep above it too. Numbers below that one take many times as long, as does all
# arithmetic with them; without this, half of the changes of sensitivities in a step of training are such numbers.
LEAST_EXPONENT = -60.0

BLOCK_NUMBERS = 2**17
"""Pairs times functions of a block on a CPU."""


def sensitivities(radial: Tensor, mu: Tensor, sigma: Tensor) -> Tensor:
    """S of every pair and function.

    Args:
        radial: ``[n_pairs, 2]``, 1/r in 1/Å and the cutoff function; float32 or float64.
        mu: ``[n_functions]``, centres in Å.
        sigma: ``[n_functions]``, inverse widths in Å.

    Returns:
        ``[n_pairs, n_functions]``, differentiable to any order by ``torch.autograd`` in reverse mode.

    Raises:
        ValueError: shapes that do not belong together.
        TypeError: dtypes other than one of float32 and float64.
        NotImplementedError: derivatives in forward mode, or by ``torch.func``.
    """
    check_transforms("sensitivities", radial, mu, sigma)
    return _forward_operator(radial, mu, sigma)


def _check(name: str, tensors: tuple[Tensor, ...]) -> None:
    check_types(name, tensors)
    radial, mu = tensors[:2]
    values, parameters = (radial.shape[0], mu.numel()), (mu.numel(),)
    shapes = ((values[0], 2), parameters, parameters, values, (values[0], 2), parameters, parameters)
    check_shapes(name, tensors, shapes)


def _gaussian(radial: Tensor, mu: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """u − 1/μ, t and exp(−½ t²) [n, n_functions]; c [n, 1]."""
    inverse_distance, cutoff = radial.split(1, dim=1)
    steps = inverse_distance - 1 / mu
    scaled = sigma * steps
    exponents = -0.5 * scaled.square()
    values = torch.exp(exponents.clamp(min=LEAST_EXPONENT)).masked_fill(exponents < LEAST_EXPONENT, 0)
    return steps, scaled, values, cutoff


def _value(radial: Tensor, mu: Tensor, sigma: Tensor) -> Tensor:
    _, _, values, cutoff = _gaussian(radial, mu, sigma)
    return values * cutoff


def _slopes(radial: Tensor, mu: Tensor, sigma: Tensor, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients with respect to `radial`, `mu` and `sigma`."""
    steps, scaled, values, cutoff = _gaussian(radial, mu, sigma)
    of_cutoff = grad * values
    of_scaled = -of_cutoff * cutoff * scaled
    of_radial = torch.stack([of_scaled @ sigma, of_cutoff.sum(1)], dim=1)
    return of_radial, of_scaled.sum(0) * sigma / mu.square(), (of_scaled * steps).sum(0)


def _changes(
    radial: Tensor, mu: Tensor, sigma: Tensor, grad: Tensor, of_radial: Tensor, of_mu: Tensor, of_sigma: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of `_slopes` with the last three as cotangents, which are a direction in which its arguments change.

    δt and δS are first-order changes; the sum of grad δS is differentiated with respect to its arguments.
    """
    steps, scaled, values, cutoff = _gaussian(radial, mu, sigma)
    of_inverse, of_cutoff = of_radial.split(1, dim=1)
    shift = of_inverse + of_mu / mu.square()  # δu − δ(1/μ)
    change = sigma * shift + of_sigma * steps  # δt
    weighted = grad * values
    by_change = -weighted * cutoff * scaled
    by_scaled = -weighted * (cutoff * change * (1 - scaled.square()) + of_cutoff * scaled)
    by_inverse = by_scaled @ sigma + by_change @ of_sigma
    by_cutoff = -(weighted * scaled * change).sum(1)
    by_mu = (by_scaled.sum(0) * sigma + by_change.sum(0) * (of_sigma - 2 * of_mu * sigma / mu)) / mu.square()
    by_sigma = (by_scaled * steps + by_change * shift).sum(0)
    by_grad = values * (of_cutoff - cutoff * scaled * change)
    return torch.stack([by_inverse, by_cutoff], dim=1), by_mu, by_sigma, by_grad


def _in_blocks(function: Callable, n_pairs: int, n_functions: int, tensors: tuple[Tensor, ...]) -> list[Tensor]:
    """A function of pairs and parameters over blocks of pairs: results of pairs side by side, of parameters summed."""
    step = max(1, BLOCK_NUMBERS // max(1, n_functions)) if tensors[0].is_cpu else max(1, n_pairs)
    starts = range(0, max(1, n_pairs), step)
    blocks = (tuple(t[k : k + step] if t.dim() == 2 else t for t in tensors) for k in starts)
    results = [found if isinstance(found := function(*block), tuple) else (found,) for block in blocks]
    if len(results) == 1:
        return list(results[0])
    return [torch.cat(parts) if parts[0].dim() == 2 else sum(parts) for parts in zip(*results, strict=True)]


def _forward(radial: Tensor, mu: Tensor, sigma: Tensor) -> Tensor:
    given = (radial, mu, sigma)
    _check("sensitivities", given)
    return _in_blocks(_value, radial.shape[0], mu.shape[0], given)[0]


def _backward(radial: Tensor, mu: Tensor, sigma: Tensor, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    given = (radial, mu, sigma, grad)
    _check("sensitivities_backward", given)
    return tuple(_in_blocks(_slopes, radial.shape[0], mu.shape[0], given))


def _double_backward(
    radial: Tensor, mu: Tensor, sigma: Tensor, grad: Tensor, of_radial: Tensor, of_mu: Tensor, of_sigma: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    given = (radial, mu, sigma, grad, of_radial, of_mu, of_sigma)
    _check("sensitivities_double_backward", given)
    return tuple(_in_blocks(_changes, radial.shape[0], mu.shape[0], given))


def _fake_forward(radial, mu, sigma):
    return radial.new_empty((radial.shape[0], mu.shape[0]))


def _fake_backward(radial, mu, sigma, grad):
    return alike(radial, mu, sigma)


def _fake_double_backward(radial, mu, sigma, grad, *cotangents):
    return alike(radial, mu, sigma, grad)


def _forward_vjp(ctx, grad):
    return _backward_operator(*ctx.saved_tensors, grad)


def _backward_vjp(ctx, *grads):
    return _double_backward_operator(*ctx.saved_tensors, *grads)


def _double_backward_vjp(ctx, *grads):
    """Order three and above: PyTorch differentiates the formulas."""
    return derivatives(_changes, ctx.saved_tensors, ctx.needs_input_grad, grads)


_forward_operator = operator("sensitivities", _forward, _fake_forward, _forward_vjp, CODE)
_backward_operator = operator("sensitivities_backward", _backward, _fake_backward, _backward_vjp, CODE)
_double_backward_operator = operator(
    "sensitivities_double_backward", _double_backward, _fake_double_backward, _double_backward_vjp, CODE
)
