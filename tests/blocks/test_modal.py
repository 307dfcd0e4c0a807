import math

import pytest
import torch

from lexome.blocks import DecodeCache, ModalFilter, ModalHyena, Past
from lexome.core import InputError


def hyena(width=6, heads=1):
    torch.manual_seed(0)
    return ModalHyena(width, ModalFilter(width, 3), heads=heads).eval()


def test_taps_are_the_sums_of_the_definition():
    filter = hyena().filter
    poles, residues = (torch.view_as_complex(x[:, :, 0]) for x in (filter.poles, filter.residues))
    expected = torch.stack([(residues * poles**t).real.sum(1) for t in range(50)], 1)
    with torch.no_grad():
        torch.testing.assert_close(filter.taps(50), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("length", [1, 2, 31, 32, 33, 64, 100])
def test_the_blocks_give_the_sum_of_the_definition(length):
    filter, u = hyena().filter, torch.randn(6, 2, length)
    with torch.no_grad():
        taps = filter.taps(length)
        expected = torch.zeros_like(u)
        for t in range(length):
            expected[..., t] = (taps[:, None, : t + 1].flip(-1) * u[..., : t + 1]).sum(-1)
        start = torch.zeros(6, 2, 3, dtype=torch.complex64)
        found, state = filter.convolve(u, start, filter.tables())
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    poles = torch.view_as_complex(filter.poles[:, :, 0].detach())
    left = sum(poles ** (length - 1 - j) * u[..., j, None].transpose(0, 1) for j in range(length))
    torch.testing.assert_close(state.transpose(0, 1), left, atol=1e-4, rtol=1e-4)


def test_poles_near_the_circle_are_followed_for_long():
    filter = ModalFilter(1, 1)
    angle, count = torch.tensor(2.9), 20_000
    with torch.no_grad():
        filter.poles.copy_(torch.view_as_real(torch.polar(torch.tensor(0.9999), angle)))
        filter.residues.copy_(torch.tensor([1.0, 0.0]))
        u = torch.zeros(1, 1, count)
        u[..., 0] = 1
        start = torch.zeros(1, 1, 1, dtype=torch.complex64)
        y, _ = filter.convolve(u, start, filter.tables())
        pole = torch.view_as_complex(filter.poles[0, 0, 0].double())
        expected = (pole ** torch.arange(count)).real.float()
    torch.testing.assert_close(y[0, 0], expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("step", [1, 5, 40])
def test_piece_by_piece_equals_all_at_once(heads, step):
    mixer, x = hyena(heads=heads), torch.randn(2, 90, 6)
    with torch.no_grad():
        whole, cache, parts = mixer(x), DecodeCache(90), []
        for part in x.split(step, dim=1):
            parts.append(mixer(part, Past(cache=cache)))
            cache.position += part.shape[1]
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("numbers", [1, 200, 10**9])
def test_how_many_channels_go_together_changes_nothing(monkeypatch, numbers):
    mixer, x = hyena(heads=3), torch.randn(2, 40, 6)
    with torch.no_grad():
        expected = mixer(x)
        monkeypatch.setattr("lexome.blocks.modal._CACHED", numbers)
        monkeypatch.setattr("lexome.blocks.hyena._PROJECTED", 1)
        torch.testing.assert_close(mixer(x), expected)


def test_padding_adds_nothing_nor_to_the_memory():
    mixer, x, rubbish = hyena(), torch.randn(1, 15, 6), 50 * torch.randn(1, 4, 6)
    mask = torch.tensor([[0] * 4 + [1] * 10])
    with torch.no_grad():
        whole, cache = mixer(x), DecodeCache(20)
        left = mixer(torch.cat([rubbish, x[:, :10]], 1), Past(cache=cache, mask_BL=mask))[:, 4:]
        cache.position = 14
        both = torch.cat([left, mixer(x[:, 10:], Past(cache=cache))], 1)
        torch.testing.assert_close(both, whole, atol=1e-5, rtol=1e-5)
        behind = Past(mask_BL=mask.flip(1))
        right = mixer(torch.cat([x[:, :10], rubbish], 1), behind)
        torch.testing.assert_close(right[:, :10], whole[:, :10], atol=1e-5, rtol=1e-5)


def test_gradients_reach_poles_and_residues_and_are_those_of_the_definition():
    filter, u = hyena().filter, torch.randn(6, 1, 40)
    start = torch.zeros(6, 1, 3, dtype=torch.complex64)
    y, _ = filter.convolve(u, start, filter.tables())
    y.square().sum().backward()
    found = filter.poles.grad.clone(), filter.residues.grad.clone()
    filter.zero_grad()
    n = 80
    spectrum = torch.fft.rfft(filter.taps(40), n=n)[:, None] * torch.fft.rfft(u, n=n)
    torch.fft.irfft(spectrum, n=n)[..., :40].square().sum().backward()
    for ours, theirs in zip(found, (filter.poles.grad, filter.residues.grad), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-2, rtol=1e-3)
        assert ours.abs().sum() > 0


def test_tables_are_made_anew_when_a_weight_changes():
    filter = hyena().filter
    with torch.no_grad():
        before = filter.tables()[0].clone()
        assert filter.tables()[0] is filter.tables()[0]
        filter.residues.mul_(2)
        torch.testing.assert_close(filter.tables()[0], 2 * before)


def test_new_filters_keep_the_size_of_what_they_filter():
    torch.manual_seed(0)
    with torch.no_grad():
        norms = ModalFilter(200, 8).taps(20_000).norm(dim=1)
    assert norms.square().mean() == pytest.approx(1, abs=0.1)


def test_new_poles_turn_at_all_speeds_and_decay_at_many():
    torch.manual_seed(0)
    poles, _ = ModalFilter(400, 8).as_complex()
    turns = torch.histc(poles.detach().angle().float(), 4, 0, torch.pi) / poles.numel()
    torch.testing.assert_close(turns, torch.full((4,), 0.25), atol=0.03, rtol=0)
    memory = -1 / poles.detach().abs().log()
    assert memory.min() == pytest.approx(2, rel=1e-3)
    assert memory.max() == pytest.approx(2000, rel=1e-3)


def test_poles_are_held_within_the_circle_and_those_of_a_checkpoint_where_they_are():
    filter = ModalFilter(1, 4)
    sizes = lambda: filter.poles.detach().norm(dim=-1).flatten()  # noqa: E731
    with torch.no_grad():
        filter.poles.mul_(
            torch.tensor([0.5, 0.9, 0.99, 1.1])[:, None, None] / sizes()[:, None, None]
        )
        before = filter.poles.clone()
        hold = filter.holder()
        hold()
        assert filter.poles.equal(before)
        filter.poles.mul_(1.05)
        hold()
        torch.testing.assert_close(sizes(), torch.tensor([0.525, 0.945, 1 - 2**-17, 1.1]))
        torch.testing.assert_close(
            filter.poles / sizes()[:, None, None], before / before.norm(dim=-1, keepdim=True)
        )
        filter.poles.mul_(torch.tensor([0.0, 1, 1, 0.95])[:, None, None])
        hold()  # what has come in does not go out again
        filter.poles.mul_(1.1)
        hold()
        torch.testing.assert_close(sizes()[[0, 3]], torch.tensor([0.0, 1.045]))


def test_a_filter_that_explodes_refuses_sequences_in_which_it_would():
    mixer = hyena()
    with torch.no_grad():
        mixer.filter.poles[2, 1] *= 1.05 / mixer.filter.poles[2, 1].norm()
        most = int(70 / math.log(1.05))  # e^70 is near the end of float32
        assert mixer(torch.randn(1, most - 1, 6)).isfinite().all()
        with pytest.raises(InputError, match=r"a pole of size 1.05.*at most 1,43\d at a time"):
            mixer(torch.randn(1, most + 2, 6))
        cache = DecodeCache(2 * most)
        mixer(torch.randn(1, most - 1, 6), Past(cache=cache))
        cache.position = most - 1
        with pytest.raises(InputError, match=f"within the {most + 99:,} tokens"):
            mixer(torch.randn(1, 100, 6), Past(cache=cache))
