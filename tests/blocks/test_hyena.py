import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lexome.blocks import DecodeCache, Hyena, ImplicitFilter
from lexome.blocks.hyena import ShortConvolution, causal_convolution, fast_fft_length


def hyena(length=40, width=6):
    torch.manual_seed(0)
    return Hyena(width, ImplicitFilter(width, length, inner=8)).eval()


@given(st.integers(1, 3_000_000))
def test_fft_lengths_are_even_small_primes_and_not_wasteful(least):
    n = fast_fft_length(least)
    assert n >= least
    assert n % 2 == 0
    assert n <= max(2, 4 * least / 3 + 2)
    while n % 2 == 0:
        n //= 2
    assert n in (1, 3, 5)


def test_the_long_convolution_is_the_sum_of_the_definition():
    torch.manual_seed(0)
    u, h = torch.randn(2, 3, 17), torch.randn(3, 17)
    expected = torch.zeros_like(u)
    for t in range(17):
        for s in range(t + 1):
            expected[..., t] += h[:, s] * u[..., t - s]
    n = fast_fft_length(34)
    spectrum = torch.fft.rfft(h, n=n)
    torch.testing.assert_close(causal_convolution(u, spectrum, n), expected, atol=1e-5, rtol=1e-5)


def test_the_short_convolution_sees_only_the_past():
    torch.manual_seed(0)
    short, x = ShortConvolution(4, 3), torch.randn(1, 4, 9)
    changed = x.clone()
    changed[..., 5:] += 1
    assert torch.equal(short(x)[..., :5], short(changed)[..., :5])


def test_the_operator_ignores_the_future():
    mixer, x = hyena(), torch.randn(1, 20, 6)
    changed = x.clone()
    changed[:, 12:] += 1
    with torch.no_grad():
        torch.testing.assert_close(mixer(x)[:, :12], mixer(changed)[:, :12], atol=1e-6, rtol=1e-5)


def test_a_shorter_filter_is_the_beginning_of_a_longer_one():
    filter = hyena().filter
    with torch.no_grad():
        torch.testing.assert_close(filter.build(7), filter.build(40)[:, :7])
        torch.testing.assert_close(filter.taps(7), filter.build(7))


def test_a_kept_filter_is_forgotten_when_a_weight_changes():
    filter = hyena().filter
    with torch.no_grad():
        before = filter.taps(8).clone()
        filter.net[0].weight.mul_(2)
        after = filter.taps(8)
        assert not torch.equal(before, after)
        torch.testing.assert_close(after, filter.build(8))


def test_gradients_flow_through_the_filter():
    mixer = hyena().train()
    mixer(torch.randn(2, 10, 6)).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in mixer.parameters())


@pytest.mark.parametrize("prompt", [1, 2, 3, 11])
@pytest.mark.parametrize("step", [1, 4])
def test_token_by_token_equals_all_at_once(prompt, step):
    mixer, x = hyena(), torch.randn(2, 30, 6)
    with torch.no_grad():
        whole = mixer(x)
        cache = DecodeCache(30)
        parts = [mixer(x[:, :prompt], cache)]
        cache.position = prompt
        for start in range(prompt, 30, step):
            parts.append(mixer(x[:, start : start + step], cache))
            cache.position += parts[-1].shape[1]
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-5, rtol=1e-4)


def test_masked_places_add_nothing_on_either_side():
    mixer, x = hyena(), torch.randn(1, 10, 6)
    rubbish = 50 * torch.randn(1, 4, 6)
    with torch.no_grad():
        alone = mixer(x)
        left = mixer(torch.cat([rubbish, x], 1), mask_BL=torch.tensor([[0] * 4 + [1] * 10]))
        right = mixer(torch.cat([x, rubbish], 1), mask_BL=torch.tensor([[1] * 10 + [0] * 4]))
    torch.testing.assert_close(left[:, 4:], alone, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(right[:, :10], alone, atol=1e-5, rtol=1e-4)
