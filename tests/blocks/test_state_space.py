import pytest
import torch
import torch.nn.functional as F

from lexome.blocks import DecodeCache, PairedMixer, Past, SelectiveMixer
from lexome.blocks.state_space import paired_scan, recurrence, selective_scan, step_bias

LEFT = [0] * 4 + [1] * 10
MIXERS = {
    "selective": lambda: SelectiveMixer(6, inner=12, states=3, rank=2),
    "paired": lambda: PairedMixer(6, heads=4, head_width=3, states=5, groups=2),
}


def mixer(kind):
    torch.manual_seed(0)
    return MIXERS[kind]().eval()


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_the_recurrence_has_the_gradients_of_its_definition(dtype):
    torch.manual_seed(0)
    made = [torch.randn(*s, dtype=dtype, requires_grad=True) for s in ((5, 2), (5, 2), (2,))]
    states = recurrence(*made)
    state = made[2]
    for t in range(5):
        state = made[0][t] * state + made[1][t]
        torch.testing.assert_close(states[t], state)
    assert torch.autograd.gradcheck(recurrence, made)


def test_a_decay_that_never_changes_may_be_given_once():
    torch.manual_seed(0)
    decay, drive, start = torch.rand(1, 3), torch.randn(7, 3), torch.randn(3)
    torch.testing.assert_close(
        recurrence(decay, drive, start), recurrence(decay.repeat(7, 1), drive, start)
    )


@pytest.mark.parametrize("numbers", [1, 50, 10**9])
def test_the_selective_scan_is_the_recurrence_of_the_paper(monkeypatch, numbers):
    monkeypatch.setattr("lexome.blocks.state_space._CACHED", numbers)
    torch.manual_seed(0)
    u, dt = torch.randn(2, 9, 4), torch.rand(2, 9, 4)
    rate, into, out = -torch.rand(4, 3), torch.randn(2, 9, 3), torch.randn(2, 9, 3)
    state = torch.randn(2, 4, 3)
    y, last = selective_scan(u, dt, rate, into, out, state)
    for t in range(9):
        kept = torch.exp(dt[:, t, :, None] * rate) * state
        state = kept + (dt * u)[:, t, :, None] * into[:, t, None]
        torch.testing.assert_close(y[:, t], (state * out[:, t, None]).sum(-1))
    torch.testing.assert_close(last, state)


@pytest.mark.parametrize("stretch", [1, 4, 64])
def test_the_paired_scan_is_the_selective_one_with_one_rate_a_head(monkeypatch, stretch):
    monkeypatch.setattr("lexome.blocks.state_space._STRETCH", stretch)
    torch.manual_seed(0)
    u, dt, rate = torch.randn(2, 11, 4, 3), torch.rand(2, 11, 4), -torch.rand(4)
    into, out = torch.randn(2, 11, 2, 5), torch.randn(2, 11, 2, 5)
    state = torch.randn(2, 4, 3, 5)
    y, last = paired_scan(u, dt, rate, into, out, state)
    for head in range(4):
        group = head // 2
        expected, ended = selective_scan(
            u[:, :, head],
            dt[:, :, head, None].expand(-1, -1, 3),
            rate[head].expand(3, 5),
            into[:, :, group],
            out[:, :, group],
            state[:, head],
        )
        torch.testing.assert_close(y[:, :, head], expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(last[:, head], ended, atol=1e-5, rtol=1e-5)


def test_the_paired_scan_keeps_its_digits_under_steep_decays():
    torch.manual_seed(0)
    u, dt, rate = torch.randn(1, 256, 2, 3), 4 * torch.rand(1, 256, 2), torch.tensor([-16.0, -0.01])
    into, out = torch.randn(1, 256, 1, 5), torch.randn(1, 256, 1, 5)
    y, _ = paired_scan(u, dt, rate, into, out, torch.zeros(1, 2, 3, 5))
    state = torch.zeros(1, 2, 3, 5, dtype=torch.float64)
    for t in range(256):
        state = state * torch.exp(dt[:, t].double() * rate)[..., None, None]
        state += (dt[:, t, :, None] * u[:, t]).double()[..., None] * into[:, t, :, None]
        wanted = (state * out[:, t, :, None]).sum(-1)
        # Differences of float32 sums of 4,000 would lose a thousandth.
        torch.testing.assert_close(y[:, t].double(), wanted, atol=2e-4, rtol=1e-5)


def test_steep_decays_do_not_overflow():
    u, dt, ones = torch.ones(1, 100, 1, 1), torch.full((1, 100, 1), 50.0), torch.ones(1, 100, 1, 1)
    y, state = paired_scan(u, dt, torch.tensor([-9.0]), ones, ones, torch.zeros(1, 1, 1, 1))
    torch.testing.assert_close(y, torch.full_like(y, 50.0))
    assert state.isfinite().all()


@pytest.mark.parametrize("kind", MIXERS)
def test_a_mixer_ignores_the_future(kind):
    net, x = mixer(kind), torch.randn(1, 20, 6)
    changed = x.clone()
    changed[:, 12:] += 1
    with torch.no_grad():
        before, after = net(x, Past())[:, :12], net(changed, Past())[:, :12]
    torch.testing.assert_close(before, after)


@pytest.mark.parametrize("kind", MIXERS)
@pytest.mark.parametrize("step", [1, 2, 30])
def test_piece_by_piece_equals_all_at_once(kind, step):
    net, x = mixer(kind), torch.randn(2, 90, 6)
    with torch.no_grad():
        whole, cache = net(x, Past()), DecodeCache(90)
        parts = [net(part, Past(cache=cache)) for part in x.split(step, dim=1)]
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", MIXERS)
def test_padding_adds_nothing_on_either_side_nor_to_the_memory(kind):
    net, x, rubbish = mixer(kind), torch.randn(1, 10, 6), 50 * torch.randn(1, 4, 6)
    more = torch.randn(1, 5, 6)
    with torch.no_grad():
        alone = net(torch.cat([x, more], 1), Past())
        cache = DecodeCache(20)
        before = Past(cache=cache, mask_BL=torch.tensor([LEFT]))
        left = net(torch.cat([rubbish, x], 1), before)[:, 4:]
        torch.testing.assert_close(torch.cat([left, net(more, Past(cache=cache))], 1), alone)
        right = net(torch.cat([x, rubbish], 1), Past(mask_BL=torch.tensor([LEFT[::-1]])))
        torch.testing.assert_close(right[:, :10], alone[:, :10])


@pytest.mark.parametrize("kind", MIXERS)
def test_every_weight_of_a_mixer_gets_a_gradient(kind):
    net = mixer(kind).train()
    net(torch.randn(2, 10, 6), Past()).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


@pytest.mark.parametrize("kind", MIXERS)
def test_rates_stay_float32_in_narrow_models(kind):
    net = mixer(kind)
    x = torch.randn(1, 30, 6)
    exact = net(x, Past())
    for name, parameter in net.named_parameters():
        if not name.startswith("ssm."):
            parameter.data = parameter.data.bfloat16()
    narrow = net(x.bfloat16(), Past())
    assert narrow.dtype == torch.bfloat16
    torch.testing.assert_close(narrow.float(), exact, atol=0.03, rtol=0.05)


def test_step_sizes_start_between_a_thousandth_and_a_tenth():
    torch.manual_seed(0)
    steps = F.softplus(step_bias(1000))
    assert 0.00099 < steps.min() < 0.0012
    assert 0.09 < steps.max() < 0.101
