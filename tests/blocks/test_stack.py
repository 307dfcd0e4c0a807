import torch
from torch import nn

from lexome.blocks import DecodeCache, Stack


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
