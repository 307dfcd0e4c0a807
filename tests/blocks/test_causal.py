import pytest
import torch
from torch import nn

from lexome.blocks import CausalSelfAttention, DecodeCache, MixerBlock, Mlp, Past, Rotary, seen_mask
from lexome.blocks.causal import causal_bias


def attention():
    torch.manual_seed(0)
    return CausalSelfAttention(8, 2).eval()


def past(net, x, mask=None, cache=None, rotary=None):
    mask = None if mask is None else torch.tensor(mask)
    seen = 0 if cache is None else cache.position
    bias = causal_bias(seen_mask(net, mask, x, cache), x.shape[1], seen, x)
    turns = None if rotary is None else rotary(x.shape[1], x, start=seen)
    return Past(cache=cache, bias=bias, turns=turns)


@pytest.mark.parametrize("length", [1, 9, 100])
def test_attention_ignores_the_future_and_sums_to_one(length):
    net, x = attention(), torch.randn(1, length, 8)
    changed = x.clone()
    changed[:, length // 2 + 1 :] += 1
    with torch.no_grad():
        before, after = net(x, past(net, x)), net(changed, past(net, x))
        weights = net.weights(x, past(net, x))
    torch.testing.assert_close(before[:, : length // 2 + 1], after[:, : length // 2 + 1])
    torch.testing.assert_close(weights.sum(-1), torch.ones(1, 2, length))
    assert not weights.triu(1).any()


@pytest.mark.parametrize("step", [1, 4, 33])
@pytest.mark.parametrize("rotary", [None, Rotary(4)])
def test_piece_by_piece_equals_all_at_once(step, rotary):
    net, x = attention(), torch.randn(2, 70, 8)
    with torch.no_grad():
        whole = net(x, past(net, x, rotary=rotary))
        cache, parts = DecodeCache(70), []
        for part in x.split(step, dim=1):
            parts.append(net(part, past(net, part, cache=cache, rotary=rotary)))
            cache.position += part.shape[1]
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-5, rtol=1e-5)


def test_a_padded_prompt_is_continued_as_it_would_be_alone():
    net, x, rubbish = attention(), torch.randn(1, 12, 8), 50 * torch.randn(1, 4, 8)
    with torch.no_grad():
        alone = net(x, past(net, x))
        cache = DecodeCache(16)
        prompt = torch.cat([rubbish, x[:, :5]], 1)
        parts = [net(prompt, past(net, prompt, [[0] * 4 + [1] * 5], cache))[:, 4:]]
        cache.position = 9
        for t in range(5, 12):
            parts.append(net(x[:, t : t + 1], past(net, x[:, t : t + 1], cache=cache)))
            cache.position += 1
    torch.testing.assert_close(torch.cat(parts, 1), alone, atol=1e-5, rtol=1e-5)


def test_padding_behind_all_tokens_needs_no_bias():
    like = torch.zeros(2, 5, 3)
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]) > 0
    assert causal_bias(mask, 5, 0, like) is None
    assert causal_bias(mask.flip(1), 5, 0, like) is not None
    assert causal_bias(None, 1, 7, like) is None
    assert causal_bias(None, 2, 3, like) is None


def test_a_mask_without_padding_is_none():
    like = torch.zeros(2, 5, 3)
    assert seen_mask(nn.Identity(), torch.ones(2, 5), like, None) is None
    assert Past.of(torch.ones(2, 5), None).mask_BL is None
    assert Past.of(torch.zeros(2, 5), None).mask_BL is not None


def test_a_block_without_an_mlp_adds_its_mixer_only():
    class Double(nn.Module):
        def forward(self, x, shared):
            return 2 * x

    x = torch.randn(1, 4, 8)
    torch.testing.assert_close(MixerBlock(Double(), nn.Identity)(x, Past()), 3 * x)
    mlp = Mlp(8, 16)
    block = MixerBlock(Double(), nn.Identity, mlp=mlp, widest=16)
    torch.testing.assert_close(block(x, Past()), 3 * x + mlp(3 * x))


@pytest.mark.parametrize("rotary", [None, Rotary(4)])
@pytest.mark.parametrize("padded", [False, True])
def test_choices_see_what_came_before_and_not_one_another(rotary, padded):
    net, x, choices = attention(), torch.randn(2, 9, 8), torch.randn(2, 3, 8)
    mask = torch.tensor([[1] * 6, [0] * 2 + [1] * 4]) if padded else None

    def run(cache, part_BLD, mask_BL=None):
        turns = (
            None if rotary is None else rotary(part_BLD.shape[1], part_BLD, start=cache.position)
        )
        y = net(part_BLD, Past.attending(net, part_BLD, mask_BL, cache, turns))
        cache.move(part_BLD.shape[1])
        return y

    with torch.no_grad():
        ahead = DecodeCache(9, choices=3)
        run(ahead, x[:, :6], mask)
        found = run(ahead, torch.cat([x[:, 6:7], choices], 1))
        for i in range(3):
            plain = DecodeCache(9)
            run(plain, x[:, :6], mask)
            expected = torch.cat([run(plain, x[:, 6:7]), run(plain, choices[:, i : i + 1])], 1)
            torch.testing.assert_close(found[:, [0, 1 + i]], expected, atol=1e-6, rtol=1e-5)
        ahead.keep(torch.tensor([2, 2]))
        torch.testing.assert_close(run(ahead, x[:, 8:]), run(plain, x[:, 8:]), atol=1e-6, rtol=1e-5)
