"""The loss of hidden values, against the closed form."""

import math

import pytest
import torch

from lexome.objectives import masked_value_loss, nonzero_loss, similarity_loss

NAN = float("nan")


def test_only_labelled_positions_count():
    values = torch.tensor([[1.0, 5.0, -2.0], [0.0, 0.0, 7.0]])
    labels = torch.tensor([[3.0, NAN, -2.0], [NAN, NAN, 4.0]])
    assert masked_value_loss(values, labels).item() == pytest.approx((4 + 0 + 9) / 3)


def test_positions_without_a_label_get_no_gradient():
    values = torch.tensor([[1.0, 5.0]], requires_grad=True)
    masked_value_loss(values, torch.tensor([[3.0, NAN]])).backward()
    assert values.grad is not None
    assert values.grad.tolist() == [[-4.0, 0.0]]


def test_no_label_at_all_gives_no_number():
    values = torch.zeros(1, 3, requires_grad=True)
    assert masked_value_loss(values, torch.full((1, 3), NAN)).isnan()


def test_narrow_values_are_squared_in_float32():
    values = torch.full((1, 1), 300.0, dtype=torch.float16)
    loss = masked_value_loss(values, torch.zeros(1, 1))
    assert loss.dtype == torch.float32
    assert loss.item() == 90000  # above the largest float16


def test_only_labelled_positions_tell_zero_from_not_zero():
    probabilities = torch.tensor([[0.25, 0.25, 0.9]], requires_grad=True)
    loss = nonzero_loss(probabilities, torch.tensor([[3.0, 0.0, NAN]]))
    assert loss.item() == pytest.approx(-(math.log(0.25) + math.log(0.75)) / 2)
    loss.backward()
    assert probabilities.grad[0, 2] == 0


def test_a_certain_error_costs_what_the_authors_distribution_says():
    certain = torch.distributions.Bernoulli(probs=torch.tensor([[1.0, 0.0]]))
    truth = torch.tensor([[0.0, 2.0]])
    expected = -certain.log_prob((truth > 0).float()).mean()
    torch.testing.assert_close(nonzero_loss(certain.probs, truth), expected)


def test_similar_cells_are_compared_with_a_threshold():
    cells = torch.tensor([[1.0, 0.0], [1.0, 1.0], [-1.0, 0.0]])
    near = 0.5**0.5  # the cosine of the first two; the others are negative and count as 0
    expected = ((1 - (near - 0.3) ** 2) * 2 + (1 - 0.3**2) * 7) / 9
    assert similarity_loss(cells, 0.3).item() == pytest.approx(expected)
    assert torch.equal(cells[0], torch.tensor([1.0, 0.0])), "the cells are as they were"
