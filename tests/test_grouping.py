"""Sums over groups of rows: values and derivatives."""

import itertools

import torch

from tensorgraph.runtime import grouping


def test_sums_over_groups():
    """Sorted or not, with empty groups, differentiated three times."""
    generator = torch.Generator().manual_seed(0)
    for n_groups, n_rows in itertools.product((1, 2, 7), (0, 1, 30)):
        groups = torch.randint(0, n_groups, (n_rows,), generator=generator)
        for keys in (groups, groups.sort().values):
            rows = torch.randn(n_rows, 3, dtype=torch.float64, generator=generator, requires_grad=True)
            expected = torch.zeros(n_groups, 3, dtype=torch.float64).index_add(0, keys, rows)
            torch.testing.assert_close(grouping.group_sum(rows, keys, n_groups), expected)
            assert torch.autograd.gradcheck(lambda r, k=keys, n=n_groups: grouping.group_sum(r, k, n), (rows,))
            assert torch.autograd.gradgradcheck(
                lambda r, k=keys, n=n_groups: grouping.group_sum(r, k, n).sin(), (rows,)
            )
