"""Rows grouped by atom or structure, and their sums: ordered, without atomic additions.

Groups are stretches of sorted rows (compressed sparse rows). Sums have one fixed order on every device, and derivatives
of every order are again such sums and gathers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True)
class Grouping:
    """The rows of each group: `order[starts[g]:starts[g + 1]]`, in their own order; `order` None: 0, 1, 2, …"""

    group_of_row: Tensor
    starts: Tensor
    order: Tensor | None

    @classmethod
    def of(cls, group_of_row: Tensor, n_groups: int) -> Grouping:
        """Group rows by `group_of_row` [n_rows], each in [0, n_groups)."""
        order = None if _sorted(group_of_row) else _argsort(group_of_row)
        return cls(group_of_row, _starts(group_of_row, order, n_groups), order)

    def sum(self, rows: Tensor) -> Tensor:
        """[n_rows, n] -> [n_groups, n]; differentiable to any order."""
        return _Sum.apply(rows, self)


def _sorted(keys: Tensor) -> bool:
    """Whether the keys are known to be sorted; on a GPU an answer would have to be waited for."""
    return not keys.is_cuda and bool((keys[1:] >= keys[:-1]).all())


def _argsort(keys: Tensor) -> Tensor:
    return torch.argsort(keys.int(), stable=True)  # shorter keys sort several times faster


def _starts(keys: Tensor, order: Tensor | None, n_groups: int) -> Tensor:
    """Where each group of keys begins in this order, and where the last one ends: [n_groups + 1]."""
    keys = keys if order is None else keys.index_select(0, order)
    return torch.searchsorted(keys, torch.arange(n_groups + 1, device=keys.device))  # counting would wait for a GPU


class _Sum(torch.autograd.Function):
    """Sums over groups; the adjoint gives each row its group's value."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, grouping: Grouping) -> Tensor:
        ctx.grouping = grouping
        rows = rows if grouping.order is None else rows.index_select(0, grouping.order)
        return torch.segment_reduce(rows.contiguous(), "sum", offsets=grouping.starts, unsafe=True)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _Spread.apply(gradients[0], ctx.grouping), None


class _Spread(torch.autograd.Function):
    """The value of each row's group."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, grouping: Grouping) -> Tensor:
        ctx.grouping = grouping
        return values.index_select(0, grouping.group_of_row)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _Sum.apply(gradients[0], ctx.grouping), None


class _Reorder(torch.autograd.Function):
    """Rows in another order; the adjoint is the inverse order."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        ctx.order, ctx.inverse = order, inverse
        return rows.index_select(0, order)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _Reorder.apply(gradients[0], ctx.inverse, ctx.order), None, None


def group_sum(rows: Tensor, group_of_row: Tensor, n_groups: int) -> Tensor:
    """Sum of the rows of every group, [n_rows, n] -> [n_groups, n], in one fixed order."""
    if n_groups == 1:
        return rows.sum(dim=0, keepdim=True)
    return Grouping.of(group_of_row, n_groups).sum(rows)


class PairIndex(NamedTuple):
    """Pairs sorted by their central atom i (the target), as the pair operators take them; `by_source` lists them sorted
    by their neighbour j (the source), and `starts` [n_atoms + 1] say where the pairs of each atom begin."""

    target: Tensor
    source: Tensor
    target_starts: Tensor
    source_starts: Tensor
    by_source: Tensor


@dataclass(frozen=True)
class PairGroups:
    """How the pairs of one input are sorted and grouped; shared by all layers."""

    index: PairIndex
    targets: Grouping
    sources: Grouping
    order: Tensor | None
    inverse: Tensor | None

    @classmethod
    def of(cls, pairs: Tensor, n_atoms: int) -> PairGroups:
        """From pairs [2, n_pairs], row 0 the central atom i (target), row 1 the neighbour j (source)."""
        order = inverse = None
        if not _sorted(pairs[0]):
            order = _argsort(pairs[0])
            inverse = torch.empty_like(order)
            inverse[order] = torch.arange(order.shape[0], device=order.device)
            pairs = pairs.index_select(1, order)
        target, source = pairs.contiguous()
        by_source = _argsort(source)
        starts = _starts(target, None, n_atoms), _starts(source, by_source, n_atoms)
        index = PairIndex(target, source, *starts, by_source)
        targets = Grouping(target, index.target_starts, None)
        return cls(index, targets, Grouping(source, index.source_starts, index.by_source), order, inverse)

    def sort(self, pair_values: Tensor) -> Tensor:
        """[n_pairs, ...], from the given order to the sorted one; differentiable to any order."""
        if self.order is None:
            return pair_values
        return _Reorder.apply(pair_values, self.order, self.inverse)
