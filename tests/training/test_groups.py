"""Every parameter is trained, and those that should not shrink do not."""

import re

import pytest
import torch

from lexome.catalog import new
from lexome.training.groups import keep_bounds, parameter_groups


def names_without_decay(model):
    free = {id(p) for p in parameter_groups(model, 0.1)[1]["params"]}
    return {name for name, p in model.named_parameters() if id(p) in free}


def test_every_parameter_is_in_one_group():
    model = new("dnabert2", vocab_size=32, width=8, depth=1, heads=2, mlp_width=8)
    decayed, free = parameter_groups(model, 0.1)
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.1, 0.0)
    ids = [id(p) for group in (decayed, free) for p in group["params"]]
    assert sorted(ids) == sorted(id(p) for p in model.parameters())


@pytest.mark.parametrize("family", ["gpn", "dnabert2"])
def test_biases_and_norms_are_not_decayed(family):
    sizes = {"heads": 2, "vocab_size": 32} if family == "dnabert2" else {}
    free = names_without_decay(new(family, width=8, depth=1, mlp_width=8, **sizes))
    assert free
    assert all(re.search(r"bias$|norm.*weight$", name) for name in free)


def test_the_filters_and_the_embedding_of_hyenadna_are_not_decayed():
    free = names_without_decay(new("hyenadna", width=8, mlp_width=8, length=20, filter_width=8))
    assert "backbone.embed.weight" in free
    assert "backbone.layers.0.mixer.filter.net.0.weight" in free
    assert "backbone.layers.0.mixer.filter.net.1.freq" in free
    assert "backbone.layers.0.mixer.in_proj.weight" not in free


def farthest_pole(model):
    return max(
        float(p.detach().norm(dim=-1).max()) for n, p in model.named_parameters() if "poles" in n
    )


def test_steps_of_training_leave_poles_within_the_circle():
    model = new("evo", vocab_size=16, width=8, depth=1, heads=2, mlp_width=8)
    (poles,) = (p for n, p in model.named_parameters() if "poles" in n)
    optimizer = torch.optim.SGD([poles], lr=10.0)
    keep_bounds(model, optimizer)
    poles.grad = -poles.detach()
    optimizer.step()
    assert farthest_pole(model) < 1


def test_what_is_not_stepped_is_not_touched():
    model = new("evo", vocab_size=16, width=8, depth=1, heads=2, mlp_width=8)
    (poles,) = (p for n, p in model.named_parameters() if "poles" in n)
    with torch.no_grad():
        poles.mul_(3)
    version = poles._version
    other = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([other], lr=1.0)
    keep_bounds(model, optimizer)
    other.grad = torch.ones(2)
    optimizer.step()
    assert poles._version == version  # what was computed from them is kept
    assert farthest_pole(model) > 1
