"""Layers that norm the residual stream itself, by the formulas they state."""

import torch
from torch import nn

from lexome.blocks import Past, RenormedBlock, TwoWayBlock


class Shifted(nn.Module):
    """A mixer that gives every token half of the one before."""

    def forward(self, x_BLD, past):
        mask = 1 if past.mask_BL is None else past.mask_BL[..., None]
        return nn.functional.pad(x_BLD * mask, (0, 0, 1, -1)) / 2


def layer(*, mlp=True):
    made = RenormedBlock(Shifted(), lambda: nn.RMSNorm(4), mlp=nn.Linear(4, 4) if mlp else None)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn(parameter.shape))
    return made


def setup_function():
    torch.manual_seed(0)


def test_the_mlp_reads_the_mixer_and_the_stream_is_normed():
    block, x = layer(), torch.randn(2, 5, 4)
    mixed = block.mixer(block.second_norm(block.norm(x)), Past())
    expected = block.mlp(mixed) + block.stream_norm(x + mixed)
    torch.testing.assert_close(block(x, Past()), expected)


def test_without_an_mlp_the_stream_stays_as_it_is():
    block, x = layer(mlp=False), torch.randn(2, 5, 4)
    expected = x + block.mixer(block.second_norm(block.norm(x)), Past())
    torch.testing.assert_close(block(x, Past()), expected)
    assert not any("stream_norm" in name for name, _ in block.named_parameters())


def test_two_ways_see_both_sides_and_exchange_when_the_input_is_turned():
    forwards, backwards = layer(), layer()
    block, x = TwoWayBlock(forwards, backwards, 4), torch.randn(1, 6, 4)
    changed = x.clone()
    changed[0, 3] += 1
    moved = (block(x, Past()) - block(changed, Past())).abs().sum(-1)[0] > 0
    assert moved.tolist() == [False, False, True, True, True, False]
    turned = TwoWayBlock(backwards, forwards, 4)
    with torch.no_grad():
        turned.join.weight.copy_(block.join.weight.roll(4, dims=1))
        turned.join.bias.copy_(block.join.bias)
    torch.testing.assert_close(turned(x.flip(1), Past()).flip(1), block(x, Past()))


def test_padding_is_turned_with_the_tokens():
    block, x = TwoWayBlock(layer(), layer(), 4), torch.randn(1, 6, 4)
    mask = torch.tensor([[1.0, 1, 1, 1, 0, 0]])
    alone = block(x[:, :4], Past())
    torch.testing.assert_close(block(x, Past(mask_BL=mask))[:, :4], alone)
