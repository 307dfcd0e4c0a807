from typing import ClassVar

import pytest
import torch
from torch import nn

from lexome.blocks import (
    CausalSelfAttention,
    DecodeCache,
    Hyena,
    ImplicitFilter,
    ModalFilter,
    ModalHyena,
    PairedMixer,
    Past,
    SelectiveMixer,
    Stack,
)
from lexome.core import InputError


class Adder(nn.Module):
    def __init__(self, step):
        super().__init__()
        self.step = nn.Parameter(torch.tensor(float(step)))

    def forward(self, x, shared):
        return x + self.step * shared


class Tower(Stack):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([Adder(1), Adder(10), Adder(100)])

    def begin(self, *, x, cache=None):
        return x, 2.0

    def finish(self, x):
        return -x


X = torch.zeros(1, 4, 1)


def test_layers_run_in_order_and_share_what_begin_gave():
    assert Tower()(x=X).last[0, 0, 0].item() == -222


def test_a_depth_stops_early_and_does_not_finish():
    assert [Tower()(x=X, depth=d).last[0, 0, 0].item() for d in range(4)] == [0, 2, 22, 222]


def test_states_are_the_streams_between_layers():
    states = Tower()(x=X, keep=True).states
    assert [s[0, 0, 0].item() for s in states] == [0, 2, 22, 222]


def test_streams_come_one_by_one_and_no_further_than_asked():
    tower = Tower()
    found = [(depth, x[0, 0, 0].item()) for depth, x in tower.streams([-1, 2, 0], x=X)]
    assert found == [(0, 0), (2, 22), (-1, -222)]
    tower.layers[2] = nn.Identity()  # takes no second argument, so that running it would fail
    assert [(d, x[0, 0, 0].item()) for d, x in tower.streams([1, 2], x=X)] == [(1, 2), (2, 22)]


def test_recomputing_changes_no_gradient():
    gradients = []
    for recompute in (False, True):
        tower = Tower().train()
        tower.recompute = recompute
        tower(x=X.clone().requires_grad_()).last.sum().backward()
        gradients.append([layer.step.grad.item() for layer in tower.layers])
    assert gradients[0] == gradients[1] == [-8.0, -8.0, -8.0]


def test_the_cache_moves_on_by_the_tokens_seen():
    cache = DecodeCache(10)
    Tower()(x=X, cache=cache)
    Tower()(x=X[:, :1], cache=cache)
    assert cache.position == 5


class Counter(Stack):
    """Says where in its input each token stands, plus what is masked, and finishes by ten."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([Adder(1)])

    def begin(self, *, input_ids, attention_mask=None):
        place = torch.arange(input_ids.shape[1]).expand(input_ids.shape).float()
        hidden = 0 if attention_mask is None else 100 * (1 - attention_mask)
        return (place + hidden)[..., None], 0.0

    def finish(self, x):
        return x + 10


IDS = torch.zeros(2, 7, dtype=torch.long)


def test_pieces_are_inputs_of_their_own_and_are_put_together_again():
    hidden = Counter()(input_ids=IDS, piece_tokens=3, keep=True)
    assert hidden.last[..., 0].tolist() == [[10, 11, 12, 10, 11, 12, 10]] * 2
    assert hidden.states[1][..., 0].tolist() == [[0, 1, 2, 0, 1, 2, 0]] * 2


def test_an_input_of_one_piece_stays_as_it_is():
    hidden = Counter()(input_ids=IDS, piece_tokens=7)
    assert hidden.last[0, :, 0].tolist() == [10, 11, 12, 13, 14, 15, 16]


def test_the_last_piece_is_padded_and_the_padding_masked():
    seen = {}

    class Watcher(Counter):
        def begin(self, *, input_ids, attention_mask=None):
            seen.update(ids=input_ids, mask=attention_mask)
            return super().begin(input_ids=input_ids, attention_mask=attention_mask)

    Watcher()(input_ids=IDS[:1] + 5, piece_tokens=4)
    assert seen["ids"].tolist() == [[5, 5, 5, 5], [5, 5, 5, 0]]
    assert seen["mask"].tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]


class Looker(Adder):
    def weights(self, x, shared):
        return x + self.step


def test_attention_is_what_each_layer_says_of_the_stream_before_it():
    tower = Tower()
    tower.layers = nn.ModuleList([Looker(1), Looker(10), Looker(100)])
    last, first = tower.attention([-1, 0], x=X)
    assert (last[0, 0, 0].item(), first[0, 0, 0].item()) == (2 + 20 + 100, 1)
    assert tower.attention([], x=X) == ()


def test_of_mixed_layers_those_that_attend_can_be_looked_at():
    tower = Tower()
    tower.layers = nn.ModuleList([Adder(1), Looker(10)])
    (found,) = tower.attention([1], x=X)
    assert found[0, 0, 0].item() == 2 + 10
    with pytest.raises(InputError, match=r"layers \[0\] of Tower .* some of \[1\]"):
        tower.attention([0, 1], x=X)


def test_layers_that_are_not_there_or_do_not_attend_are_named():
    tower = Tower()
    with pytest.raises(InputError, match="without attention"):
        tower.attention([0], x=X)
    with pytest.raises(InputError, match="from -3 to 2"):
        tower.attention([3], x=X)


class Two(nn.Module):
    row_axes: ClassVar = {"state": 1}


def test_a_forked_memory_is_a_copy_by_rows_along_the_axis_that_a_module_says():
    one, two = nn.Identity(), Two()
    cache = DecodeCache(9, position=4)
    cache.slot(one)["keys"] = torch.tensor([[1.0], [2.0]])
    cache.slot(two).update(state=torch.tensor([[3.0, 4.0]]), taps=torch.ones(7))
    forked = cache.fork(torch.tensor([1, 0, 1]))
    assert (forked.capacity, forked.position) == (9, 4)
    assert forked.slot(one)["keys"].tolist() == [[2], [1], [2]]
    assert forked.slot(two)["state"].tolist() == [[4, 3, 4]]
    assert forked.slot(two)["taps"] is cache.slot(two)["taps"]
    forked.slot(one)["keys"].zero_()
    assert cache.slot(one)["keys"].tolist() == [[1], [2]]


class Last(nn.Module):
    """Remembers the last token, or what it could be."""

    def forward(self, x_BLD, cache):
        if cache.parts(x_BLD.shape[1]):
            cache.slot(self)["last"] = x_BLD[:, 0]
            cache.ahead(self)["last"] = x_BLD[:, 1:]
        else:
            cache.slot(self)["last"] = x_BLD[:, -1]
        return x_BLD

    def keep(self, cache, choice_B):
        cache.slot(self)["last"] = cache.ahead(self)["last"][torch.arange(2), choice_B]


class Rememberer(Stack):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([Last()])

    def begin(self, *, x, cache):
        return x, cache


def test_of_choices_one_is_kept_or_none():
    net, cache = Rememberer(), DecodeCache(9, choices=3)
    x = torch.arange(8.0).view(2, 4, 1)
    net(x=x, cache=cache)  # the first call brings none
    assert cache.position == 4
    assert cache.places(4, x.device).tolist() == [4, 5, 5, 5]
    net(x=x, cache=cache)
    assert cache.position == 5
    assert cache.slot(net.layers[0])["last"].tolist() == [[0], [4]]
    cache.keep(torch.tensor([2, 0]))
    assert cache.position == 6
    assert cache.slot(net.layers[0])["last"].tolist() == [[3], [5]]
    assert cache.places(1, x.device).tolist() == [6]
    net(x=x[:, :1], cache=cache)  # nor does one that brings one token
    assert cache.position == 7


MIXERS = {
    "attention": lambda: CausalSelfAttention(6, 2),
    "hyena": lambda: Hyena(6, ImplicitFilter(6, 90, inner=8)),
    "modal hyena": lambda: ModalHyena(6, ModalFilter(6, 3), heads=3),
    "selective": lambda: SelectiveMixer(6, inner=12, states=3, rank=2),
    "paired": lambda: PairedMixer(6, heads=4, head_width=3, states=5, groups=2),
}


@pytest.mark.parametrize("kind", MIXERS)
def test_each_choice_follows_what_was_kept(kind):
    torch.manual_seed(0)
    mixer, before = MIXERS[kind]().eval(), torch.randn(2, 5, 6)
    cache = DecodeCache(90, choices=3)

    def run(x_BLD, cache=None):
        y_BLD = mixer(x_BLD, Past.attending(mixer, x_BLD, None, cache))
        if cache is not None:
            cache.move(x_BLD.shape[1])
        return y_BLD

    with torch.no_grad():
        run(before, cache)
        for t in range(40):  # beyond a block of tokens
            new, choices = torch.randn(2, 1, 6), torch.randn(2, 3, 6)
            found = run(torch.cat([new, choices], 1), cache)
            for i, choice in enumerate(choices.split(1, 1)):
                whole = run(torch.cat([before, new, choice], 1))
                torch.testing.assert_close(
                    found[:, [0, 1 + i]], whole[:, -2:], atol=1e-5, rtol=1e-4
                )
            before = torch.cat([before, new], 1)
            if t % 5:  # else none of them
                taken = torch.tensor([t % 3, (t + 1) % 3])
                cache.keep(taken)
                before = torch.cat([before, choices[torch.arange(2), taken][:, None]], 1)
