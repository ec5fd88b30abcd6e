"""The sum over neighbours in plain PyTorch: what it means, and what runs where nothing is compiled.

The pairs of each atom are padded with zeros to one number, so that a sum over neighbours is a product of matrices.
"""

from __future__ import annotations

from torch import Tensor

from .grouping import Padding, PairIndex


def _paddings(index: PairIndex) -> tuple[Padding, Padding]:
    """By target, by source."""
    return (
        Padding(index.target, index.target_starts, None),
        Padding(index.source, index.source_starts, index.by_source),
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
