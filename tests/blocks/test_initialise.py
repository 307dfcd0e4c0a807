import torch
from torch import nn

from lexome.blocks import start_small


def test_matrices_are_small_biases_zero_and_norms_as_they_were():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(200, 100), nn.Linear(100, 300), nn.LayerNorm(300))
    model.apply(start_small)
    table, linear, norm = model
    for weight in (table.weight, linear.weight):
        assert abs(weight.std().item() - 0.02) < 5e-4
        assert abs(weight.mean().item()) < 5e-4
    assert not linear.bias.any()
    assert torch.equal(norm.weight, torch.ones(300))
