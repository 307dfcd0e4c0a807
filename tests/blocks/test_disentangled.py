import math

import pytest
import torch

from lexome.blocks import (
    DisentangledSelfAttention,
    DistanceTable,
    SelfAttention,
    bucket,
    padding_bias,
)
from lexome.blocks.disentangled import position_scores


def test_near_distances_are_told_apart_and_far_ones_share_buckets():
    place = torch.arange(-511, 512)
    numbers = bucket(place, 256, 512)
    assert torch.equal(numbers, -numbers.flip(0))
    assert (numbers.diff() >= 0).all()
    near = place.abs() <= 128
    assert torch.equal(numbers[near], place[near])
    assert numbers[-1] == 255
    assert bucket(torch.tensor([129, 130, 200, 300, 400]), 256, 512).tolist() == [
        128 + math.ceil(math.log(d / 128) / math.log(511 / 128) * 127)
        for d in (129, 130, 200, 300, 400)
    ]


def test_the_index_of_a_length_is_built_once_and_fits_its_rows():
    table = DistanceTable(4, 8, farthest=32, eps=1e-7)
    for length in (1, 3, 20, 31, 32, 33, 90):
        vectors, index = table(length, torch.zeros(1))
        assert table(length, torch.zeros(1)).index_LL is index
        assert index.shape == (length, length)
        assert index.min() == 0
        assert index.max() < len(vectors) <= 16
        middle = table.norm(table.table.weight[8])
        torch.testing.assert_close(vectors[index[0, 0]], middle)


def layer(width=12, heads=3, buckets=4):
    torch.manual_seed(0)
    attention = DisentangledSelfAttention(width, heads).eval()
    table = DistanceTable(width, buckets, farthest=16, eps=1e-7)
    return attention, table


def by_formula(attention, table, x, i, j, head):
    """Return one score from the formula, pair by pair."""
    width, heads = x.shape[-1], attention.heads
    each = slice(head * width // heads, (head + 1) * width // heads)

    def project(vector):
        return tuple(part[each] for part in attention.qkv(vector).chunk(3))

    row = int(bucket(torch.tensor(i - j), table.buckets, table.farthest)) + table.buckets
    row = min(max(row, 0), 2 * table.buckets - 1)
    (q, _, _), (_, k, _) = project(x[i]), project(x[j])
    position_q, position_k, _ = project(table.norm(table.table.weight[row]))
    return (q @ k + q @ position_k + k @ position_q) / math.sqrt(3 * width / heads)


@pytest.mark.parametrize("length", [1, 5, 12, 21])
def test_scores_are_the_formula_pair_by_pair(length):
    attention, table = layer()
    x = torch.randn(2, length, 12)
    shared = None, table(length, x)
    with torch.no_grad():
        weights = attention.weights(x, shared)
        for row, head in ((0, 0), (1, 2)):
            scores = torch.tensor(
                [
                    [by_formula(attention, table, x[row], i, j, head) for j in range(length)]
                    for i in range(length)
                ]
            )
            torch.testing.assert_close(weights[row, head], scores.softmax(-1))
        values = attention.qkv(x).chunk(3, -1)[2].unflatten(-1, (3, -1)).transpose(1, 2)
        mixed = attention.out((weights @ values).transpose(1, 2).flatten(2))
        torch.testing.assert_close(attention(x, shared), mixed)


def test_without_distance_vectors_it_is_plain_attention_divided_by_sqrt_3():
    attention, table = layer()
    plain = SelfAttention(12, 3).eval()
    plain.load_state_dict(attention.state_dict())
    with torch.no_grad():
        for module in (attention, plain):
            module.qkv.bias.zero_()
        table.norm.weight.zero_()
        plain.qkv.weight[:12] /= 3**0.5
        x = torch.randn(1, 7, 12)
        torch.testing.assert_close(attention(x, (None, table(7, x))), plain(x))


def test_what_is_padded_is_not_attended():
    attention, table = layer()
    x, mask = torch.randn(1, 9, 12), torch.tensor([[1] * 6 + [0] * 3])
    with torch.no_grad():
        alone = attention(x[:, :6], (None, table(6, x)))
        together = attention(x, (padding_bias(mask, x.dtype), table(9, x)))
    torch.testing.assert_close(together[:, :6], alone)


def test_an_index_made_in_inference_serves_training():
    attention, table = layer()
    x = torch.randn(1, 7, 12)
    with torch.inference_mode():
        attention(x, (None, table(7, x)))
    attention(x, (None, table(7, x))).sum().backward()
    assert table.table.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("length", [30, 260, 800])
def test_scores_made_in_pieces_are_those_made_at_once(length):
    table = DistanceTable(12, 128, farthest=512, eps=1e-7)
    vectors, index = table(length, torch.zeros(1))
    q, k = torch.randn(2, 3, 4, length, 8).unbind(0)
    positions = torch.randn(2, 4, len(vectors), 8).unbind(0)
    at_once = position_scores(q, k, *positions, index)
    with torch.no_grad():
        torch.testing.assert_close(position_scores(q, k, *positions, index), at_once)
