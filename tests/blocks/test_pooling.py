"""Pooling reads its range and nothing else."""

import torch
from torch.testing import assert_close

from lexome.blocks.pooling import range_max, range_sum

X = torch.randn(3, 7, 5, generator=torch.Generator().manual_seed(0))
RANGES = torch.tensor([[0, 7], [2, 5], [3, 4]])


def test_sum_and_maximum_are_those_of_the_range():
    rows = [x[a:b] for x, (a, b) in zip(X, RANGES.tolist(), strict=True)]
    assert_close(range_sum(X, RANGES), torch.stack([r.sum(0) for r in rows]))
    assert_close(range_max(X, RANGES), torch.stack([r.amax(0) for r in rows]))


def test_what_stands_at_padding_does_not_matter():
    spoilt = X.clone()
    spoilt[1, 5:] = torch.nan
    spoilt[2, :3] = torch.inf
    assert_close(range_sum(spoilt, RANGES), range_sum(X, RANGES))
    assert_close(range_max(spoilt, RANGES), range_max(X, RANGES))


def test_ranges_of_one_row_join_to_the_whole():
    left, right = torch.tensor([[0, 3]] * 3), torch.tensor([[3, 7]] * 3)
    assert_close(range_sum(X, left) + range_sum(X, right), X.sum(1))
    assert_close(torch.maximum(range_max(X, left), range_max(X, right)), X.amax(1))


def test_narrow_numbers_are_added_in_float32():
    many = torch.full((1, 4096, 1), 1.0, dtype=torch.bfloat16)
    assert range_sum(many, torch.tensor([[0, 4096]])).item() == 4096.0
