"""Rows grouped by atom or structure, and their sums: ordered, without atomic additions.

Groups are stretches of sorted rows (compressed sparse rows). Sums have one fixed order on every device, and derivatives
of every order are again such sums and gathers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .operators import is_recorded, operator


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
        keys = group_of_row if order is None else group_of_row.index_select(0, order)
        return cls(group_of_row, _starts(keys, n_groups), order)

    def sum(self, rows: Tensor) -> Tensor:
        """[n_rows, n] -> [n_groups, n]; differentiable to any order."""
        return _sum_operator(rows, self.group_of_row, self.starts, self.order)

    def spread(self, values: Tensor) -> Tensor:
        """[n_groups, n] -> [n_rows, n], the value of each row's group; differentiable to any order."""
        return _spread_operator(values, self.group_of_row, self.starts, self.order)


def _sorted(keys: Tensor) -> bool:
    """Whether the keys are known to be sorted; on a GPU an answer would be waited for, in a graph it would be fixed."""
    if not keys.is_cpu or is_recorded():
        return False
    return bool((keys[1:] >= keys[:-1]).all())


def _starts(sorted_keys: Tensor, n_groups: int) -> Tensor:
    """Where each group starts, and the last one ends, [n_groups + 1]; unlike counting it asks for no largest key."""
    return torch.searchsorted(sorted_keys, torch.arange(n_groups + 1, device=sorted_keys.device))


def _argsort(keys: Tensor) -> Tensor:
    return torch.argsort(keys.int(), stable=True)  # shorter keys sort several times faster


def _sum(rows: Tensor, group_of_row: Tensor, starts: Tensor, order: Tensor | None) -> Tensor:
    """Sums over groups; the adjoint gives each row its group's value."""
    rows = rows if order is None else rows.index_select(0, order)
    return torch.segment_reduce(rows.contiguous(), "sum", offsets=starts, unsafe=True)


def _spread(values: Tensor, group_of_row: Tensor, starts: Tensor, order: Tensor | None) -> Tensor:
    """The value of each row's group; the adjoint sums over groups."""
    return values.index_select(0, group_of_row)


def _reorder(rows: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
    """Rows in another order; the adjoint is the inverse order."""
    return rows.index_select(0, order)


def _fake_sum(rows, group_of_row, starts, order):
    return rows.new_empty((starts.shape[0] - 1, *rows.shape[1:]))


def _fake_spread(values, group_of_row, starts, order):
    return values.new_empty((group_of_row.shape[0], *values.shape[1:]))


def _fake_reorder(rows, order, inverse):
    return rows.new_empty(rows.shape)


def _of_grouping(ctx: Any) -> tuple[Tensor, Tensor, Tensor | None]:
    """Group of each row, starts and order, as an operator of groupings saved them; an order that is None is not."""
    _, group_of_row, starts, *order = ctx.saved_tensors
    return group_of_row, starts, order[0] if order else None


def _sum_vjp(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
    return _spread_operator(grad, *_of_grouping(ctx)), None, None, None


def _spread_vjp(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
    return _sum_operator(grad, *_of_grouping(ctx)), None, None, None


def _reorder_vjp(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
    _, order, inverse = ctx.saved_tensors
    return _reorder_operator(grad, inverse, order), None, None


# Operators, not `torch.autograd.Function`: PyTorch's compiler makes of those something that can be differentiated once,
# and gives zeros for the second derivatives that training on forces needs.
_sum_operator = operator("group_sum", _sum, _fake_sum, _sum_vjp)
_spread_operator = operator("group_spread", _spread, _fake_spread, _spread_vjp)
_reorder_operator = operator("reorder", _reorder, _fake_reorder, _reorder_vjp)


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
        target_starts, source_starts = _starts(target, n_atoms), _starts(source.index_select(0, by_source), n_atoms)
        index = PairIndex(target, source, target_starts, source_starts, by_source)
        targets = Grouping(target, index.target_starts, None)
        return cls(index, targets, Grouping(source, index.source_starts, index.by_source), order, inverse)

    def sort(self, pair_values: Tensor) -> Tensor:
        """[n_pairs, ...], from the given order to the sorted one; differentiable to any order."""
        if self.order is None:
            return pair_values
        return _reorder_operator(pair_values, self.order, self.inverse)


class Padding:
    """Rows, one per pair, to and from one matrix of `width` rows per atom, as many as any atom has pairs."""

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
