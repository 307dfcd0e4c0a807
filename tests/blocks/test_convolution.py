import pytest
import torch
import torch.nn.functional as F

import lexome.blocks.convolution as convolution
from lexome.blocks import SameConvolution
from lexome.blocks.convolution import _transforms


def convolve(layer, x):
    """The definition, in double precision."""
    (step,), (taps,) = layer.dilation, layer.kernel_size
    y = F.conv1d(
        x.double().transpose(1, 2),
        layer.weight.double(),
        None if layer.bias is None else layer.bias.double(),
        padding=step * (taps - 1) // 2,
        dilation=step,
        groups=layer.groups,
    )
    return y.transpose(1, 2).float()


@pytest.fixture
def everywhere(monkeypatch):
    """Take the short cut for small inputs too."""
    monkeypatch.setattr(convolution, "_FEWEST_TOKENS", 0)
    monkeypatch.setattr(convolution, "_FEWEST_CHANNELS", 0)


@pytest.mark.parametrize("taps", [5, 7, 9])
def test_transforms_multiply_back_to_a_convolution(taps):
    forth, turn, back = _transforms(taps)
    x = torch.randn(3 * (taps - 1), dtype=torch.float64)
    w = torch.randn(taps, dtype=torch.float64)
    expected = torch.stack([x[i : i + taps] @ w for i in range(2 * (taps - 1))])
    torch.testing.assert_close(back @ ((forth @ x) * (turn @ w)), expected)
    assert forth.abs().max() < 1.5


@pytest.mark.parametrize("taps", [5, 9])
@pytest.mark.parametrize("step", [1, 2, 32])
@pytest.mark.parametrize("length", [1, 40, 97, 512])
@pytest.mark.usefixtures("everywhere")
def test_the_short_cut_is_the_convolution(taps, step, length):
    torch.manual_seed(0)
    layer, x = SameConvolution(12, taps, dilation=step), torch.randn(3, length, 12)
    with torch.no_grad():
        assert layer._has_short_cut(x)
        torch.testing.assert_close(layer(x), convolve(layer, x), atol=5e-6, rtol=1e-5)


def test_a_wide_layer_is_as_exact_as_the_plain_sum():
    torch.manual_seed(0)
    layer, x = SameConvolution(256, 9, dilation=4), torch.randn(4, 512, 256)
    with torch.no_grad():
        exact = convolve(layer, x)
        assert layer._has_short_cut(x)
        plain = F.conv1d(x.transpose(1, 2), layer.weight, layer.bias, padding=16, dilation=4)
        error = (layer(x) - exact).abs().max()
        assert error < 4 * (plain.transpose(1, 2) - exact).abs().max()
        assert error < 1e-5


@pytest.mark.usefixtures("everywhere")
def test_rows_do_not_see_each_other(monkeypatch):
    layer, x = SameConvolution(8, 9, dilation=2), torch.randn(5, 100, 8)
    with torch.no_grad():
        together = layer(x)
        monkeypatch.setattr(convolution, "_TOKENS", 200)
        torch.testing.assert_close(layer(x), together)
        torch.testing.assert_close(layer(x[2:3]), together[2:3])


@pytest.mark.usefixtures("everywhere")
def test_turned_weights_follow_the_weights():
    layer, x = SameConvolution(8, 9), torch.randn(1, 50, 8)
    with torch.no_grad():
        layer(x)
        layer.weight.mul_(2)
        torch.testing.assert_close(layer(x), convolve(layer, x), atol=5e-6, rtol=1e-5)
        layer.bias = None
        torch.testing.assert_close(layer(x), convolve(layer, x), atol=5e-6, rtol=1e-5)


@pytest.mark.usefixtures("everywhere")
def test_what_the_short_cut_does_not_fit_takes_the_plain_way():
    x = torch.randn(1, 50, 8)
    assert not SameConvolution(8, 9)._has_short_cut(x)  # gradients
    with torch.no_grad():
        assert not SameConvolution(8, 3)._has_short_cut(x)
        assert not SameConvolution(8, 9, groups=8)._has_short_cut(x)
        assert not SameConvolution(8, 9).bfloat16()._has_short_cut(x.bfloat16())
        depthwise = SameConvolution(8, 9, groups=8, dilation=3)
        torch.testing.assert_close(depthwise(x), convolve(depthwise, x), atol=1e-5, rtol=1e-5)


def test_gradients_flow():
    layer, x = SameConvolution(8, 9), torch.randn(1, 50, 8, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad.abs().sum() > 0
    assert layer.weight.grad.abs().sum() > 0
