import torch

from lexome.blocks import SelfAttention
from lexome.blocks.perceived import PerceivedAttention, let_see


def test_who_sees_whom():
    mask, made_mask = torch.tensor([[1, 1, 0]]), torch.tensor([[1, 0]])
    made = torch.zeros(1, 2, dtype=torch.long)
    bias, perceived = let_see(torch.zeros(1, 3, 4), mask, made, made_mask)
    assert perceived == 3
    assert (bias[0, 0] == 0).int().tolist() == [
        *([[1, 1, 0, 0, 0]] * 3),  # those with values see each other, but no padding
        [1, 1, 0, 1, 0],  # a generated one sees them and itself
        [1, 1, 0, 0, 0],  # padding among the generated
    ]
    bias, _ = let_see(torch.zeros(1, 3, 4), None, made, None)
    assert (bias[0, 0] == 0).int()[3:].tolist() == [[1, 1, 1, 1, 0], [1, 1, 1, 0, 1]]


def test_without_generated_tokens_it_is_plain_attention():
    attention, x = PerceivedAttention(8, 2), torch.randn(2, 5, 8)
    plain = SelfAttention(8, 2)
    plain.load_state_dict(attention.state_dict())
    torch.testing.assert_close(attention(x), plain(x))


def test_only_what_generated_tokens_gather_skips_the_output_matrix():
    torch.manual_seed(0)
    attention, x = PerceivedAttention(8, 2), torch.randn(2, 5, 8)
    shared = let_see(x[:, :3], None, torch.zeros(2, 2, dtype=torch.long), None)
    mixed = attention(x, shared)
    torch.testing.assert_close(mixed[:, :3], attention(x[:, :3]))
    torch.testing.assert_close(attention.weights(x, shared).sum(-1), torch.ones(2, 2, 5))
    values = attention.qkv(x)[..., 16:].unflatten(-1, (2, 4)).transpose(1, 2)
    gathered = (attention.weights(x, shared) @ values).transpose(1, 2).flatten(2)
    torch.testing.assert_close(mixed[:, 3:], gathered[:, 3:])
