import itertools

import numpy as np
import pytest

from lexome.core import InputError
from lexome.tasks import auc, probe


def test_the_area_counts_won_pairs_and_half_of_the_ties():
    rng = np.random.default_rng(0)
    high, low = rng.integers(0, 8, 30), rng.integers(0, 6, 20)
    pairs = [1.0 if a > b else 0.5 if a == b else 0.0 for a, b in itertools.product(high, low)]
    assert auc(high, low).value == pytest.approx(np.mean(pairs))
    assert auc(low, high).value == pytest.approx(1 - np.mean(pairs))


def test_the_standard_error_is_the_spread_over_samples():
    rng = np.random.default_rng(1)
    values = [auc(rng.normal(0.7, 1, 60), rng.normal(0, 1, 40)) for _ in range(400)]
    assert np.mean([v.standard_error for v in values]) == pytest.approx(
        np.std([v.value for v in values]), rel=0.15
    )


def test_equal_groups_are_rarely_called_different():
    rng = np.random.default_rng(2)
    said = [auc(rng.normal(size=50), rng.normal(size=50)).is_above_chance for _ in range(200)]
    assert sum(said) <= 15  # 2.5 % expected
    assert auc(range(10, 20), range(10)).is_above_chance


@pytest.mark.parametrize("groups", [([], [1.0]), ([1.0], []), ([np.nan], [1.0])])
def test_groups_without_numbers_have_no_area(groups):
    with pytest.raises(InputError, match="Expected at least one"):
        auc(*groups)


def test_a_probe_finds_a_direction_and_finds_none_in_noise():
    rng = np.random.default_rng(3)
    x, blocks = rng.normal(size=(300, 20)), np.arange(300) // 30
    is_member = x @ rng.normal(size=20) > 0
    assert probe(x * 1000 + 5, is_member, blocks).value > 0.95
    assert 0.4 < probe(rng.normal(size=(300, 20)), is_member, blocks).value < 0.6


def test_a_probe_does_not_see_the_block_it_judges():
    # Within a block the feature tells the groups apart, but the other way in every other block.
    blocks = np.arange(200) // 100
    is_member = np.arange(200) % 2 == 0
    x = np.where(is_member, 1.0, -1.0) * np.where(blocks == 0, 1, -1)
    assert probe(x[:, None], is_member, blocks).value == 0.0


def test_constant_features_do_no_harm():
    blocks = np.arange(40) % 4
    x = np.stack([np.ones(40), np.repeat([-1.0, 1.0], 20)], axis=1)
    assert probe(x, x[:, 1] > 0, blocks).value == 1.0


def test_a_group_in_one_block_only_cannot_be_judged():
    with pytest.raises(InputError, match="without block 0 only one group is left"):
        probe(np.zeros((4, 1)), [True, True, False, False], [0, 0, 1, 1])
