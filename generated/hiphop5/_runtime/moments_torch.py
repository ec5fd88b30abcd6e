"""Sums over the neighbours of each kind in plain PyTorch: what they mean, and what runs where nothing is compiled."""

from __future__ import annotations

import torch
from torch import Tensor

from .grouping import Padding


def moments(
    tensors: Tensor, sensitivities: Tensor, n_kinds: int, target: Tensor, starts: Tensor, kinds: Tensor
) -> Tensor:
    targets = Padding(target, starts, None)
    spread = (_one_hot(kinds, n_kinds, tensors).unsqueeze(2) * sensitivities.unsqueeze(1)).flatten(1)
    return (targets(tensors).mT @ targets(spread)).unflatten(2, (n_kinds, sensitivities.shape[1]))


def moments_backward(
    tensors: Tensor, sensitivities: Tensor, grad: Tensor, target: Tensor, starts: Tensor, kinds: Tensor
) -> tuple[Tensor, Tensor]:
    targets, chosen = Padding(target, starts, None), _one_hot(kinds, grad.shape[2], tensors).unsqueeze(2)
    spread = (chosen * sensitivities.unsqueeze(1)).flatten(1)
    grad = grad.flatten(2)
    grad_spread = targets.back(targets(tensors) @ grad).unflatten(1, (chosen.shape[1], sensitivities.shape[1]))
    return targets.back(targets(spread) @ grad.mT), (chosen * grad_spread).sum(1)


def moments_double_backward(
    tensors: Tensor,
    sensitivities: Tensor,
    grad: Tensor,
    tensors_change: Tensor,
    sensitivities_change: Tensor,
    target: Tensor,
    starts: Tensor,
    kinds: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    given = (tensors, sensitivities, grad, tensors_change, sensitivities_change)
    return moments_change(moments, moments_backward, *given, target, starts, kinds)


def moments_change(forward, backward, tensors, sensitivities, grad, tensors_change, sensitivities_change, *pairs):
    """The double backward by two functions that are linear in each argument: each in turn takes its change."""
    n_kinds = grad.shape[2]
    return (
        backward(tensors, sensitivities_change, grad, *pairs)[0],
        backward(tensors_change, sensitivities, grad, *pairs)[1],
        forward(tensors_change, sensitivities, n_kinds, *pairs)
        + forward(tensors, sensitivities_change, n_kinds, *pairs),
    )


def _one_hot(kinds: Tensor, n_kinds: int, like: Tensor) -> Tensor:
    """[n_pairs, n_kinds]; no one where a kind is none of them."""
    return (kinds.unsqueeze(1) == torch.arange(n_kinds, device=kinds.device)).to(like.dtype)
