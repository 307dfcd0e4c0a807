"""Next tokens: labels are the inputs, shifted by the loss."""

import torch

from lexome.objectives import IGNORED, next_token_loss


def test_token_t_is_scored_by_what_stands_before_it():
    logits = torch.randn(1, 3, 5)
    ids = torch.tensor([[2, 4, 1]])
    log_p = logits.log_softmax(-1)
    expected = -(log_p[0, 0, 4] + log_p[0, 1, 1]) / 2
    torch.testing.assert_close(next_token_loss(logits, ids, {}), expected)


def test_ignored_labels_do_not_count():
    logits = torch.randn(1, 3, 5)
    ids = torch.tensor([[2, IGNORED, 1]])
    expected = -logits.log_softmax(-1)[0, 1, 1]
    torch.testing.assert_close(next_token_loss(logits, ids, {}), expected)


def test_without_a_label_the_loss_is_zero():
    assert next_token_loss(torch.randn(2, 3, 5), torch.full((2, 3), IGNORED), {}) == 0
