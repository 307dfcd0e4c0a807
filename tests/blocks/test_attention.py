import pytest
import torch
import torch.nn.functional as F

from lexome.blocks import (
    Alibi,
    PostNormBlock,
    PreNormBlock,
    Rotary,
    RotarySelfAttention,
    SelfAttention,
    alibi_slopes,
    padding_bias,
    turn,
)
from lexome.blocks.attention import attend


def test_slopes_are_powers_and_fill_up_from_the_next_power():
    assert alibi_slopes(8) == [2.0 ** -(i + 1) for i in range(8)]
    assert alibi_slopes(5) == [*alibi_slopes(4), alibi_slopes(8)[0]]
    assert len(alibi_slopes(12)) == 12


def test_the_penalty_is_the_distance_times_the_slope():
    bias = Alibi(2)(5, torch.zeros(1))
    assert bias.shape == (1, 2, 5, 5)
    assert bias[0, 0, 1, 4].item() == -3 * alibi_slopes(2)[0]
    assert torch.equal(bias, bias.transpose(-1, -2))


def test_the_table_grows_and_shorter_ones_are_its_corner():
    alibi = Alibi(4)
    short, long = alibi(6, torch.zeros(1)).clone(), alibi(9, torch.zeros(1))
    assert torch.equal(short, long[..., :6, :6])
    assert alibi(6, torch.zeros(1)).data_ptr() == long.data_ptr()


def test_no_padding_is_no_bias():
    assert padding_bias(None, torch.float32) is None
    assert padding_bias(torch.ones(2, 3), torch.float32) is None
    bias = padding_bias(torch.tensor([[1, 0]]), torch.float32)
    assert bias is not None
    assert bias.shape == (1, 1, 1, 2)


@pytest.mark.parametrize("scores", [1, 4_000, 1 << 20])
@pytest.mark.parametrize("rows", [1, 3])
def test_without_gradients_a_cpu_takes_the_same_formula_in_any_split(monkeypatch, scores, rows):
    monkeypatch.setattr("lexome.blocks.attention._SCORES", scores)
    torch.manual_seed(0)
    q, k, v = (torch.randn(rows, 30, 4, 8).transpose(1, 2) for _ in range(3))
    narrow = [x.bfloat16() for x in (q, k, v)]
    for bias in (None, torch.randn(1, 4, 30, 30), torch.randn(rows, 1, 1, 30)):
        expected = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        with torch.no_grad():
            torch.testing.assert_close(attend(q, k, v, bias), expected, atol=1e-5, rtol=1e-5)
            found = attend(*narrow, None if bias is None else bias.bfloat16())
        # bfloat16 has 8 digits of 2: scores of up to 4 are rounded by up to 0.016.
        torch.testing.assert_close(found.float(), expected, atol=0.03, rtol=0)
    assert torch.equal(narrow[0], q.bfloat16())


@pytest.mark.parametrize("length", [3, 64, 65, 130])
def test_short_and_long_inputs_take_the_same_formula(length):
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 4, length, 8) for _ in range(3))
    bias = torch.randn(1, 4, length, length)
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    torch.testing.assert_close(attend(q, k, v, bias), expected, atol=1e-5, rtol=1e-5)
    scores = (q @ k.transpose(-1, -2)) / 8**0.5 + bias
    torch.testing.assert_close(expected, scores.softmax(-1) @ v, atol=1e-5, rtol=1e-5)


def test_what_is_padded_is_not_attended():
    torch.manual_seed(0)
    layer = PostNormBlock(SelfAttention(8, 2), torch.nn.Linear(8, 8), width=8, eps=1e-12)
    x = torch.randn(1, 5, 8)
    padded = torch.cat([x, 100 * torch.randn(1, 3, 8)], dim=1)
    bias = padding_bias(torch.tensor([[1] * 5 + [0] * 3]), x.dtype)
    torch.testing.assert_close(layer(padded, bias)[:, :5], layer(x))


def test_turned_attention_is_attention_over_turned_queries_and_keys():
    torch.manual_seed(0)
    layer = RotarySelfAttention(8, 2, rotary=Rotary(4))
    x = torch.randn(3, 70, 8)
    turns = layer.rotary(70, x)
    bias = padding_bias(torch.arange(70).expand(3, 70) < 65, x.dtype)
    q, k, v = layer.qkv(x).view(3, 70, 3, 2, 4).unbind(2)
    q, k = turn(q, turns), turn(k, turns)
    expected = attend(*(t.transpose(1, 2) for t in (q, k, v)), bias)
    expected = layer.out(expected.transpose(1, 2).reshape(3, 70, 8))
    torch.testing.assert_close(layer(x, (bias, turns)), expected)


@pytest.mark.parametrize("block", [PostNormBlock, PreNormBlock])
@pytest.mark.parametrize("length", [5, 80])
def test_weights_are_those_with_which_a_layer_mixes(block, length):
    torch.manual_seed(0)
    rotary = Rotary(4)
    bias = padding_bias(torch.arange(length)[None] < length - 2, torch.float32)
    x = torch.randn(2, length, 8)
    for attention, shared in (
        (SelfAttention(8, 2), bias),
        (RotarySelfAttention(8, 2, rotary=rotary), (bias, rotary(length, x))),
    ):
        layer = block(attention, torch.nn.Linear(8, 8), width=8, eps=1e-5)
        weights = layer.weights(x, shared)
        torch.testing.assert_close(weights.sum(-1), torch.ones(2, 2, length))
        assert not weights[..., -2:].any()
        seen = layer.attention_norm(x) if block is PreNormBlock else x
        values = attention.qkv(seen).view(2, length, 3, 2, 4)[:, :, 2]
        mixed = torch.einsum("bhqk,bkhe->bqhe", weights, values).flatten(2)
        torch.testing.assert_close(attention.out(mixed), attention(seen, shared))


def test_a_pre_norm_layer_adds_to_the_stream():
    layer = PreNormBlock(SelfAttention(8, 2), torch.nn.Linear(8, 8), width=8, eps=1e-5)
    torch.nn.init.zeros_(layer.attention.out.weight)
    torch.nn.init.zeros_(layer.attention.out.bias)
    torch.nn.init.zeros_(layer.mlp.weight)
    torch.nn.init.zeros_(layer.mlp.bias)
    x = torch.randn(1, 3, 8)
    assert torch.equal(layer(x), x)
