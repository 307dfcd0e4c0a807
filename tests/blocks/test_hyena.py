import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from lexome.blocks import DecodeCache, Hyena, ImplicitFilter, Past, WrappedHyena
from lexome.blocks.hyena import (
    ShortConvolution,
    causal_convolution,
    fast_fft_length,
    short_convolution,
    short_convolution_after,
)
from lexome.core import InputError

LEFT = [0] * 4 + [1] * 10


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


@pytest.mark.parametrize("length", [1, 2, 9])
@pytest.mark.parametrize("taps", [1, 3, 4])
def test_the_short_convolution_is_the_grouped_one_of_pytorch(length, taps):
    torch.manual_seed(0)
    short, x = ShortConvolution(4, taps), torch.randn(4, 2, length)
    padded = F.pad(x.transpose(0, 1), (taps - 1, 0))
    expected = F.conv1d(padded, short.weight, short.bias, groups=4).transpose(0, 1)
    torch.testing.assert_close(short(x), expected)
    weight, bias = short.weight.view(2, 2, 1, taps), short.bias.view(2, 2, 1, 1)
    split = short_convolution(x.view(2, 2, 2, length), weight, bias)
    torch.testing.assert_close(split.view(4, 2, length), expected)


@pytest.mark.parametrize("taps", [1, 3, 4])
def test_the_short_convolution_goes_on_where_it_stopped(taps):
    torch.manual_seed(0)
    x, weight, bias = torch.randn(2, 9, 4), torch.randn(taps, 4), torch.randn(4)
    whole = short_convolution(x.transpose(1, 2), weight.T, bias[:, None]).transpose(1, 2)
    seen = torch.zeros(2, taps - 1, 4)
    for first, last in ((0, 1), (1, 3), (3, 9)):
        made = short_convolution_after(seen, x[:, first:last], weight, bias)
        torch.testing.assert_close(made, whole[:, first:last])
        seen = torch.cat([seen, x[:, first:last]], 1)[:, last - first :]


def test_the_operator_ignores_the_future():
    mixer, x = hyena(), torch.randn(1, 20, 6)
    changed = x.clone()
    changed[:, 12:] += 1
    with torch.no_grad():
        torch.testing.assert_close(mixer(x)[:, :12], mixer(changed)[:, :12], atol=1e-6, rtol=1e-5)


def spectrum(filter, length, n, channels=100):
    return torch.cat(list(filter.spectra(length, n, channels)))


def test_a_shorter_filter_is_the_beginning_of_a_longer_one():
    filter = hyena().filter
    with torch.no_grad():
        torch.testing.assert_close(filter.taps(7), filter.taps(40)[:, :7])


@pytest.mark.parametrize("length", [1, 2, 3, 5, 17])
def test_few_places_of_a_sensitive_filter_are_those_of_many(length):
    torch.manual_seed(0)
    filter = ImplicitFilter(9, 40, features=9, inner=7, inner_layers=3)
    with torch.no_grad():
        for parameter in filter.net.parameters():
            if parameter.ndim > 1 and parameter.shape[0] > 1:
                parameter.normal_(std=0.5)  # the sines of sines then enlarge a last digit a lot
        difference = (filter.taps(length) - filter.taps(40)[:, :length]).abs().max()
        assert difference <= 1e-6


@pytest.mark.parametrize("channels", [1, 4, 6])
def test_a_kept_spectrum_convolves_as_a_fresh_one(channels):
    filter, u = hyena().filter, torch.randn(6, 20)
    fresh = spectrum(filter, 20, 48, channels)
    assert fresh.requires_grad
    with torch.no_grad():
        kept = spectrum(filter, 20, 48, channels)
        expected = causal_convolution(u, fresh.detach(), 48)
        torch.testing.assert_close(causal_convolution(u, kept, 48), expected)


def test_a_kept_filter_is_forgotten_when_a_weight_changes():
    filter = hyena().filter
    with torch.no_grad():
        before = spectrum(filter, 8, 16).clone()
        filter.net[0].weight.mul_(2)
        after = spectrum(filter, 8, 16)
        assert not torch.equal(before, after)
        torch.testing.assert_close(after, torch.fft.rfft(filter.taps(8), n=16))


def test_a_kept_filter_is_forgotten_when_a_fused_optimizer_trains_it():
    """Fused optimizers change weights in place and leave their version as it was."""
    filter = hyena().filter
    optimizer = torch.optim.AdamW(filter.net.parameters(), lr=0.1, fused=True)
    with torch.no_grad():
        before = spectrum(filter, 8, 16).clone()
    spectrum(filter, 8, 16).abs().sum().backward()
    optimizer.step()
    with torch.no_grad():
        after = spectrum(filter, 8, 16)
        assert not torch.equal(before, after)
        torch.testing.assert_close(after, torch.fft.rfft(filter.taps(8), n=16))


def test_kept_filters_stay_within_their_room(monkeypatch):
    filter = hyena().filter
    monkeypatch.setattr("lexome.blocks.hyena._KEPT", 2 * 6 * 33 * 8)
    with torch.no_grad():
        for n in (64, 48, 32, 16, 12):
            spectrum(filter, 6, n)
        assert len(filter._kept) < 5
        assert sum(kept.nbytes for kept in filter._kept.values()) <= 2 * 6 * 33 * 8
        spectrum(filter, 40, 1024)
        assert (1024, 512) not in filter._kept


def test_a_filter_kept_in_inference_mode_serves_training_of_what_is_around_it():
    mixer, x = hyena(), torch.randn(1, 20, 6, requires_grad=True)
    with torch.inference_mode():
        mixer(x)
    mixer.filter.requires_grad_(False)
    mixer(x).sum().backward()
    assert x.grad.abs().sum() > 0


@pytest.mark.parametrize("numbers", [1, 300, 10**9])
@pytest.mark.parametrize("tokens", [1, 2, 7, 30, 64, 1000])
@pytest.mark.parametrize("padded", [False, True])
def test_how_many_channels_and_tokens_go_together_changes_nothing(
    monkeypatch, numbers, tokens, padded
):
    mixer, x, norm = hyena(), torch.randn(3, 30, 6), torch.nn.LayerNorm(6)
    mask = torch.tensor([[0] * 5 + [1] * 25, [1] * 20 + [0] * 10, [1] * 30]) if padded else None
    expected = mixer(norm(x), Past(mask_BL=mask))  # with gradients: all at once
    monkeypatch.setattr("lexome.blocks.hyena._CACHED", numbers)
    monkeypatch.setattr("lexome.blocks.hyena._FEWEST_TOKENS", tokens)
    monkeypatch.setattr("lexome.blocks.hyena._PROJECTED", 1)
    past, given = Past(mask_BL=mask), x.clone()
    with torch.no_grad():
        for _ in range(2):  # layers of a call work in the same memory
            torch.testing.assert_close(mixer(x, past, norm), expected)
    assert torch.equal(x, given)


@pytest.mark.parametrize("tokens", [1, 3, 100])
def test_what_is_remembered_does_not_depend_on_how_many_tokens_go_together(monkeypatch, tokens):
    mixer, x = hyena(), torch.randn(2, 20, 6)
    monkeypatch.setattr("lexome.blocks.hyena._FEWEST_TOKENS", tokens)
    monkeypatch.setattr("lexome.blocks.hyena._PROJECTED", 1)
    with torch.no_grad():
        cache = DecodeCache(40)
        mixer(x, Past(cache=cache))
        raw = mixer.in_proj(x).unflatten(-1, (3, 6)).permute(2, 3, 0, 1)
    torch.testing.assert_close(cache.slot(mixer)["raw"], raw[..., -2:])


def test_an_adapter_around_the_projection_is_heard():
    class Adapter(torch.nn.Module):
        def __init__(self, base):
            super().__init__()
            self.base = base

        def forward(self, x):
            return 2 * self.base(x)

    mixer, x = hyena(), torch.randn(1, 20, 6)
    with torch.no_grad():
        mixer.in_proj.weight.mul_(2)
        mixer.in_proj.bias.mul_(2)
        expected = mixer(x)
        mixer.in_proj.weight.div_(2)
        mixer.in_proj.bias.div_(2)
        mixer.in_proj = Adapter(mixer.in_proj)
        torch.testing.assert_close(mixer(x), expected)


def test_gradients_flow_through_the_filter():
    mixer = hyena().train()
    mixer(torch.randn(2, 10, 6)).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in mixer.parameters())


@pytest.mark.parametrize("prompt", [1, 2, 63, 64, 170])
@pytest.mark.parametrize(("length", "step"), [(400, 1), (321, 1), (400, 90), (171, 1)])
def test_token_by_token_equals_all_at_once(prompt, length, step):
    mixer, x = hyena(length), torch.randn(2, length, 6)
    with torch.no_grad():
        whole = mixer(x)
        cache = DecodeCache(length)
        parts = [mixer(x[:, :prompt], Past(cache=cache))]
        cache.position = prompt
        for start in range(prompt, length, step):
            parts.append(mixer(x[:, start : start + step], Past(cache=cache)))
            cache.position += parts[-1].shape[1]
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", [Hyena, WrappedHyena])
def test_more_tokens_than_the_filter_has_places_are_refused(kind):
    operator = kind(6, ImplicitFilter(6, 20, inner=8)).eval()
    x = torch.randn(1, 21, 6)
    assert operator(x[:, :20]).shape == (1, 20, 6)
    with pytest.raises(InputError, match="21 tokens were given, and the filters were made for at"):
        operator(x)


def test_generation_ends_where_the_filter_does():
    operator, x = Hyena(6, ImplicitFilter(6, 20, inner=8)).eval(), torch.randn(1, 21, 6)
    cache = DecodeCache(40)
    with torch.no_grad():
        for place, part in enumerate(x[:, :20].split([18, 1, 1], dim=1)):
            operator(part, Past(cache=cache))
            cache.position = 18 + place
        with pytest.raises(InputError, match="21 tokens"):
            operator(x[:, 20:], Past(cache=cache))


def test_a_padded_prompt_is_continued_as_it_would_be_alone():
    mixer, x, rubbish = hyena(200), torch.randn(1, 150, 6), 50 * torch.randn(1, 4, 6)
    with torch.no_grad():
        whole = mixer(x)
        cache = DecodeCache(154)
        mask = torch.tensor([[0] * 4 + [1] * 10])
        parts = [mixer(torch.cat([rubbish, x[:, :10]], 1), Past(cache=cache, mask_BL=mask))[:, 4:]]
        cache.position = 14
        for start in range(10, 150):
            parts.append(mixer(x[:, start : start + 1], Past(cache=cache)))
            cache.position += 1
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-5, rtol=1e-4)


def test_masked_places_add_nothing_on_either_side():
    mixer, x = hyena(), torch.randn(1, 10, 6)
    rubbish = 50 * torch.randn(1, 4, 6)
    with torch.no_grad():
        alone = mixer(x)
        before, behind = (Past(mask_BL=torch.tensor([m])) for m in (LEFT, LEFT[::-1]))
        left = mixer(torch.cat([rubbish, x], 1), before)
        right = mixer(torch.cat([x, rubbish], 1), behind)
    torch.testing.assert_close(left[:, 4:], alone, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(right[:, :10], alone, atol=1e-5, rtol=1e-4)


def test_outputs_by_head_are_the_same_operator_with_another_order():
    torch.manual_seed(0)
    plain, x = hyena(), torch.randn(2, 11, 6)
    turned = Hyena(6, plain.filter, heads=3).eval()
    turned.out_proj = plain.out_proj
    order = torch.arange(18).view(3, 3, 2).transpose(0, 1).flatten()  # (part, head) -> (head, part)
    with torch.no_grad():
        for ours, theirs in ((turned.in_proj, plain.in_proj), (turned.short, plain.short)):
            ours.weight.copy_(theirs.weight[order])
            ours.bias.copy_(theirs.bias[order])
        torch.testing.assert_close(turned(x), plain(x))


@pytest.mark.parametrize("length", [1, 2, 7, 12])
def test_the_wrapped_operator_is_the_circular_sum_of_the_definition(length):
    plain = hyena()
    wrapped = WrappedHyena(6, plain.filter).eval()
    taps = plain.filter.taps(length)
    _, convolve, _ = wrapped._convolver(2, length, None)
    u = torch.randn(6, 2, length)
    expected = torch.zeros_like(u)
    for t in range(length):
        for j in range(length):
            at = (t - j - length // 2) % (2 * length)
            if at < length:
                expected[..., t] += taps[:, j, None] * u[..., at]
    torch.testing.assert_close(convolve(u, slice(None)), expected, atol=1e-5, rtol=1e-5)


def test_the_wrapped_operator_gives_each_row_its_own_circle():
    wrapped = WrappedHyena(6, hyena().filter).eval()
    x, rubbish = torch.randn(1, 10, 6), 50 * torch.randn(1, 4, 6)
    mask = torch.tensor([LEFT, LEFT[::-1], [1] * 14, [0] * 14])
    both = torch.cat([rubbish, x], 1), torch.cat([x, rubbish], 1)
    rows = torch.cat([*both, both[0], both[0]])
    with torch.no_grad():
        alone, mixed = wrapped(x), wrapped(rows, Past(mask_BL=mask))
        torch.testing.assert_close(mixed[:1, 4:], alone)
        torch.testing.assert_close(mixed[1:2, :10], alone)
        torch.testing.assert_close(mixed[2:3], wrapped(both[0]))


def test_long_filters_are_the_same_in_parts(monkeypatch):
    filter = ImplicitFilter(6, 100, inner=8)
    with torch.no_grad():
        whole = filter.taps(90)
        monkeypatch.setattr("lexome.blocks.hyena._PLACES", 16)
        torch.testing.assert_close(filter.taps(90), whole)
