import torch

from lexome.blocks import Rotary, turn


def test_frequencies_fall_from_one_to_the_base():
    assert Rotary(8, base=16.0).inv_freq.tolist() == [1.0, 0.5, 0.25, 0.125]


def test_a_turn_keeps_norms_and_the_first_token_as_it_is():
    torch.manual_seed(0)
    x = torch.randn(2, 9, 3, 8)
    turned = turn(x, Rotary(8)(9, x))
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
    assert torch.equal(turned[:, 0], x[:, 0])


def test_scores_depend_on_the_distance_alone():
    torch.manual_seed(0)
    rotary, query, key = Rotary(8), torch.randn(8), torch.randn(8)
    q = turn(query.expand(1, 20, 8), rotary(20, query))[0]
    k = turn(key.expand(1, 20, 8), rotary(20, key))[0]
    scores = q @ k.T
    for distance in range(-19, 20):
        along = scores.diagonal(distance)
        torch.testing.assert_close(along, along[:1].expand_as(along))


def test_later_tokens_go_on_where_earlier_ones_stopped():
    rotary, like = Rotary(8), torch.zeros(1)
    whole, later = rotary(9, like), rotary(4, like, start=5)
    assert all(torch.equal(w[5:], p) for w, p in zip(whole, later, strict=True))


def test_angles_are_made_in_float32_and_given_in_the_dtype_asked_for():
    rotary = Rotary(8).to(torch.float32)
    cos, sin = rotary(3, torch.zeros(1, dtype=torch.bfloat16))
    assert cos.dtype == sin.dtype == torch.bfloat16
    assert rotary.float32
