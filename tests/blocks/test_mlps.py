import torch
import torch.nn.functional as F

from lexome.blocks import GatedMlp, Mlp


def test_the_gate_is_the_first_half():
    torch.manual_seed(0)
    mlp, x = GatedMlp(3, 4), torch.randn(2, 3)
    gate, value = x @ mlp.up.weight[:4].T, x @ mlp.up.weight[4:].T
    expected = (F.gelu(gate) * value) @ mlp.down.weight.T + mlp.down.bias
    torch.testing.assert_close(mlp(x), expected)


def test_the_plain_one_is_two_linears_around_an_activation():
    torch.manual_seed(0)
    mlp, x = Mlp(3, 4, activation=torch.relu), torch.randn(2, 3)
    torch.testing.assert_close(mlp(x), mlp.down(torch.relu(mlp.up(x))))
