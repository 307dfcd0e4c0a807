"""The loss of hidden values, against the closed form."""

import pytest
import torch

from lexome.objectives import masked_value_loss

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
