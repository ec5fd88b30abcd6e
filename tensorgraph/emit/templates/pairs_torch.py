"""The pair operators in plain PyTorch: what they mean, and what runs where nothing is compiled.

The pairs of each atom are padded with zeros to one number, so that a sum over neighbours is a product of matrices.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .grouping import PairIndex


class _Padding:
    """Rows, one per pair, to and from one matrix of `width` rows per atom."""

    def __init__(self, atom_of_row: Tensor, starts: Tensor, order: Tensor | None) -> None:
        n_rows, self.atoms = atom_of_row.shape[0], starts.shape[0] - 1
        self.width = int(starts.diff().max()) if self.atoms else 0
        position = torch.arange(n_rows, device=starts.device)
        rank = position if order is None else torch.empty_like(position).scatter_(0, order, position)
        self.slot_of_row = rank + atom_of_row * self.width - starts[atom_of_row]
        self.row_of_slot = torch.full((self.atoms * self.width,), n_rows, device=starts.device)
        self.row_of_slot[self.slot_of_row] = position

    def __call__(self, rows: Tensor) -> Tensor:
        """[n_pairs, n] -> [n_atoms, width, n]; an empty slot takes the row of zeros that is put last."""
        extended = torch.cat([rows, rows.new_zeros(1, rows.shape[1])])
        return extended.index_select(0, self.row_of_slot).view(self.atoms, self.width, rows.shape[1])

    def back(self, padded: Tensor) -> Tensor:
        """[n_atoms, width, n] -> [n_pairs, n]."""
        return padded.flatten(0, 1).index_select(0, self.slot_of_row)


def _paddings(index: PairIndex) -> tuple[_Padding, _Padding]:
    """By target, by source."""
    return (
        _Padding(index.target, index.target_starts, None),
        _Padding(index.source, index.source_starts, index.by_source),
    )


def environment(tensors: Tensor, sensitivities: Tensor, weighted: Tensor, index: PairIndex) -> Tensor:
    targets, sources = _paddings(index)
    messages = sources.back(sources(sensitivities) @ weighted)
    return targets(tensors).mT @ targets(messages)


def environment_backward(
    tensors: Tensor, sensitivities: Tensor, weighted: Tensor, grad: Tensor, index: PairIndex
) -> tuple[Tensor, Tensor, Tensor]:
    targets, sources = _paddings(index)
    by_source = sources(sensitivities)
    messages = sources.back(by_source @ weighted)
    received = sources(targets.back(targets(tensors) @ grad))
    grad_tensors = targets.back(targets(messages) @ grad.mT)
    return grad_tensors, sources.back(received @ weighted.mT), by_source.mT @ received


def environment_double_backward(
    tensors: Tensor,
    sensitivities: Tensor,
    weighted: Tensor,
    grad: Tensor,
    tensors_change: Tensor,
    sensitivities_change: Tensor,
    weighted_change: Tensor,
    index: PairIndex,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    given = (tensors, sensitivities, weighted, grad, tensors_change, sensitivities_change, weighted_change)
    return environment_change(environment, environment_backward, *given, index)


def environment_change(forward, backward, tensors, sensitivities, weighted, grad, *changes_and_index):
    """The double backward by two functions that are linear in each argument: each in turn takes its change."""
    changes, index = changes_and_index[:3], changes_and_index[3:]
    given = (tensors, sensitivities, weighted)
    changed = [(*given[:k], change, *given[k + 1 :]) for k, change in enumerate(changes)]
    # The gradient with respect to an argument does not depend on it, so not on its change.
    of_tensors, of_sensitivities, of_weighted = (backward(*arguments, grad, *index) for arguments in changed)
    return (
        of_sensitivities[0] + of_weighted[0],
        of_tensors[1] + of_weighted[1],
        of_tensors[2] + of_sensitivities[2],
        sum(forward(*arguments, *index) for arguments in changed),
    )


def moments(
    tensors: Tensor, sensitivities: Tensor, n_kinds: int, target: Tensor, starts: Tensor, kinds: Tensor
) -> Tensor:
    targets = _Padding(target, starts, None)
    spread = (_one_hot(kinds, n_kinds, tensors).unsqueeze(2) * sensitivities.unsqueeze(1)).flatten(1)
    return (targets(tensors).mT @ targets(spread)).unflatten(2, (n_kinds, sensitivities.shape[1]))


def moments_backward(
    tensors: Tensor, sensitivities: Tensor, grad: Tensor, target: Tensor, starts: Tensor, kinds: Tensor
) -> tuple[Tensor, Tensor]:
    targets, chosen = _Padding(target, starts, None), _one_hot(kinds, grad.shape[2], tensors).unsqueeze(2)
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
