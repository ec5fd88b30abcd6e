"""Pairs grouped by atom, atoms grouped by structure: padded, ordered, without atomic additions.

A sum over the neighbours of an atom becomes a sum over one axis of a padded array `[n_groups, width, ...]`. Rows are
moved into that array and between two such arrays by gathers alone: a rearrangement uses every row at most once, so
the adjoint of its gather is the gather of its inverse. Sums therefore have one fixed order on every device, and
derivatives of every order are again gathers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Gather:
    """Row `rows[s]` goes to slot s; the slots where `empty` is true are filled with zeros (None: there are none)."""

    rows: Tensor
    empty: Tensor | None

    def __call__(self, values: Tensor) -> Tensor:
        """[n_rows, ...] -> [n_slots, ...]; not differentiable, see `Rearrangement`."""
        slots = values.index_select(0, self.rows)
        if self.empty is not None:
            slots.masked_fill_(self.empty.view(-1, *[1] * (values.dim() - 1)), 0)
        return slots


class _Rearrange(torch.autograd.Function):
    """A gather that uses each row at most once; its adjoint is the inverse gather."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, gather: Gather, inverse: Gather) -> Tensor:
        ctx.gather, ctx.inverse = gather, inverse
        return gather(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _Rearrange.apply(gradients[0], ctx.inverse, ctx.gather), None, None


@dataclass(frozen=True)
class Rearrangement:
    """Moves `n_rows` rows into `n_slots` slots, each row into one slot or nowhere."""

    gather: Gather
    inverse: Gather

    def __call__(self, values: Tensor) -> Tensor:
        """[n_rows, ...] -> [n_slots, ...], zeros in empty slots; differentiable to any order."""
        slots: Tensor = _Rearrange.apply(values, self.gather, self.inverse)
        return slots


def _gather(slot_of: Tensor, row_of: Tensor, n_slots: int) -> Gather:
    """The gather that brings row `row_of[k]` to slot `slot_of[k]`."""
    index = torch.zeros(n_slots, dtype=torch.int64, device=slot_of.device)
    index[slot_of] = row_of
    if slot_of.shape[0] == n_slots:
        return Gather(index, None)
    empty = torch.ones(n_slots, dtype=torch.bool, device=slot_of.device)
    empty[slot_of] = False
    return Gather(index, empty)


@dataclass(frozen=True)
class Grouping:
    """Rows sorted into `n_groups` groups, each padded to `width` slots; `slots[r]` is the flat slot of row r."""

    n_groups: int
    width: int
    slots: Tensor

    @classmethod
    def of(cls, group_of_row: Tensor, n_groups: int) -> Grouping:
        """Group rows by `group_of_row` [n_rows], keeping their order within each group."""
        n_rows = group_of_row.shape[0]
        counts = torch.bincount(group_of_row, minlength=n_groups)
        width = int(counts.max()) if n_groups else 0
        order = torch.argsort(group_of_row, stable=True)
        position = torch.arange(n_rows, device=group_of_row.device)
        sorted_groups = group_of_row[order]
        rank = position - (counts.cumsum(0) - counts)[sorted_groups]
        slots = torch.empty_like(order)
        slots[order] = sorted_groups * width + rank
        return cls(n_groups, width, slots)

    @property
    def n_slots(self) -> int:
        return self.n_groups * self.width

    def filling(self) -> Rearrangement:
        """Rows in their own order -> this grouping's slots."""
        rows = torch.arange(self.slots.shape[0], device=self.slots.device)
        return Rearrangement(_gather(self.slots, rows, self.n_slots), _gather(rows, self.slots, rows.shape[0]))

    def transfer_to(self, other: Grouping) -> Rearrangement:
        """This grouping's slots -> the slots of another grouping of the same rows."""
        return Rearrangement(
            _gather(other.slots, self.slots, other.n_slots), _gather(self.slots, other.slots, self.n_slots)
        )

    def padded(self, slot_values: Tensor) -> Tensor:
        """[n_slots, ...] -> [n_groups, width, ...]."""
        return slot_values.view(self.n_groups, self.width, *slot_values.shape[1:])


def group_sum(rows: Tensor, group_of_row: Tensor, n_groups: int) -> Tensor:
    """Sum of the rows of every group, [n_rows, ...] -> [n_groups, ...], in one fixed order."""
    if n_groups == 1:
        return rows.sum(dim=0, keepdim=True)
    grouping = Grouping.of(group_of_row, n_groups)
    return grouping.padded(grouping.filling()(rows)).sum(dim=1)


@dataclass(frozen=True)
class PairGroups:
    """How the pairs of one input are grouped by source atom j and by target atom i; shared by all layers."""

    sources: Grouping
    targets: Grouping
    to_sources: Rearrangement
    to_targets: Rearrangement
    source_to_target: Rearrangement

    @classmethod
    def of(cls, pairs: Tensor, n_atoms: int) -> PairGroups:
        """From pairs [2, n_pairs], row 0 the central atom i (target), row 1 the neighbour j (source)."""
        targets, sources = Grouping.of(pairs[0], n_atoms), Grouping.of(pairs[1], n_atoms)
        return cls(sources, targets, sources.filling(), targets.filling(), sources.transfer_to(targets))

    def by_source(self, pair_values: Tensor) -> Tensor:
        """[n_pairs, ...] -> [n_atoms, width, ...], the pairs in which the atom is the neighbour j."""
        return self.sources.padded(self.to_sources(pair_values))

    def by_target(self, pair_values: Tensor) -> Tensor:
        """[n_pairs, ...] -> [n_atoms, width, ...], the pairs in which the atom is the central atom i."""
        return self.targets.padded(self.to_targets(pair_values))

    def regroup(self, messages: Tensor) -> Tensor:
        """[n_atoms, source width, c] -> [n_atoms, target width, c]: from the sender's to the receiver's slots."""
        return self.targets.padded(self.source_to_target(messages.flatten(0, 1)))
