import pytest
import torch

from lexome.inference.sampling import Restraint, Sampling, draw

SCORES = torch.tensor([2.0, -1.0, 0.5, 0.0, 1.0])


def shares(**choice):
    """Share of each token among evenly spread chances."""
    count = 20_000
    chances = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    ids = torch.arange(5)
    how = Sampling(length=1, allowed=ids.tolist(), **choice)
    drawn = draw(SCORES.expand(count, -1), ids, chances, how)
    return torch.bincount(drawn, minlength=5) / count


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_tokens_are_drawn_as_often_as_they_are_likely(temperature):
    expected = (SCORES / temperature).softmax(-1)
    torch.testing.assert_close(shares(temperature=temperature), expected, atol=1e-3, rtol=0)


def test_top_k_keeps_the_k_likeliest():
    expected = torch.where(SCORES >= 1.0, SCORES, -torch.inf).softmax(-1)
    torch.testing.assert_close(shares(top_k=2), expected, atol=1e-3, rtol=0)
    torch.testing.assert_close(shares(top_k=99), SCORES.softmax(-1), atol=1e-3, rtol=0)


def test_top_p_keeps_the_fewest_that_reach_it():
    # The likeliest two have 0.58 + 0.21 of the probability.
    expected = torch.where(SCORES >= 1.0, SCORES, -torch.inf).softmax(-1)
    torch.testing.assert_close(shares(top_p=0.7), expected, atol=1e-3, rtol=0)
    assert shares(top_p=0.5)[0] == 1
    torch.testing.assert_close(shares(top_p=1.0), SCORES.softmax(-1), atol=1e-3, rtol=0)


def test_restraint_follows_what_is_taken_row_by_row():
    how = Sampling(length=9, allowed=[0, 1, 2], end=3, least=2, distinct=2)
    restraint = Restraint(how, [[0, 1, 0], [2]], [0, 1])
    scores = torch.zeros(2, 4)
    held = restraint(scores)
    assert held[0].tolist() == [0, -torch.inf, 0, -torch.inf]  # 0 1 came, and it is too early
    assert held[1].tolist() == [0, 0, 0, -torch.inf]
    restraint.take(torch.tensor([0, 2]))
    assert restraint(scores)[0].tolist() == [-torch.inf, -torch.inf, 0, -torch.inf]
    assert restraint(scores)[1].tolist() == [0, 0, -torch.inf, 0]
    assert not scores.any()
