import pytest
import torch
from torch import nn

from lexome.blocks import (
    FirstTokenClassifier,
    MaskedTokenHead,
    MeanClassifier,
    TokenHead,
    sequence_loss,
)
from lexome.objectives import masked_token_loss


def test_a_tied_head_shares_its_weight_with_the_embedding():
    embedding = nn.Embedding(7, 4)
    for head in (
        TokenHead(4, 7, loss=masked_token_loss, tied=embedding),
        MaskedTokenHead(4, 7, loss=masked_token_loss, eps=1e-5, tied=embedding),
    ):
        assert head.decoder.weight is embedding.weight
        assert head(torch.zeros(2, 3, 4), {}).shape == (2, 3, 7)


def test_the_classifier_may_have_another_activation():
    head, x = FirstTokenClassifier(4, 3, activation=torch.relu).eval(), torch.randn(2, 5, 4)
    torch.testing.assert_close(head(x, {}), head.classifier(torch.relu(head.pooler(x[:, 0]))))


def test_the_classifier_reads_only_the_first_token():
    torch.manual_seed(0)
    head, x = FirstTokenClassifier(4, 3).eval(), torch.randn(2, 5, 4)
    changed = x.clone()
    changed[:, 1:] += 1
    assert torch.equal(head(x, {}), head(changed, {}))
    loss = head.loss(head(x, {}), torch.tensor([0, 2]), {})
    assert loss.shape == ()


@pytest.mark.parametrize(
    ("labels", "problem", "expected"),
    [
        ([0, 1], None, nn.CrossEntropyLoss()),
        ([[1.0, 0.0], [1.0, 1.0]], None, nn.BCEWithLogitsLoss()),
        ([[1.0, 0.0], [0.5, 0.5]], "single_label_classification", nn.CrossEntropyLoss()),
        ([[1.0, 0.0], [3.0, -1.0]], "regression", nn.MSELoss()),
    ],
)
def test_the_loss_of_sequences_follows_labels_and_problem(labels, problem, expected):
    logits, labels = torch.tensor([[0.3, -1.2], [2.0, 0.1]]), torch.tensor(labels)
    torch.testing.assert_close(sequence_loss(logits, labels, problem), expected(logits, labels))


def test_one_score_is_a_value():
    logits = torch.tensor([[1.0], [2.0]])
    for labels in (torch.tensor([1.0, 4.0]), torch.tensor([[1.0], [4.0]]), torch.tensor([1, 4])):
        assert sequence_loss(logits, labels) == 2.0


def test_the_mean_classifier_leaves_padding_out():
    torch.manual_seed(0)
    head, x = MeanClassifier(4, 3).eval(), torch.randn(2, 5, 4)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])
    scores = head(x, {"attention_mask": mask})
    torch.testing.assert_close(scores[:1], head(x[:1], {}))
    torch.testing.assert_close(scores[1:], head(x[1:, :2], {}))


def test_the_mean_classifier_follows_its_formula():
    head, x = MeanClassifier(4, 3, norm=False, positive=True).eval(), torch.randn(2, 5, 4)
    inner = nn.functional.gelu(head.dense(x.mean(1)))
    expected = nn.functional.softplus(head.classifier(inner))
    torch.testing.assert_close(head(x, {}), expected)
    labels = torch.tensor([0, 2])
    loss = head.loss(expected, labels, {})
    torch.testing.assert_close(loss, nn.functional.cross_entropy(expected, labels))


def test_one_label_may_be_present_or_not():
    logits, present = torch.tensor([[0.3], [-2.0]]), torch.tensor([1.0, 0.0])
    expected = nn.functional.binary_cross_entropy_with_logits(logits[:, 0], present)
    assert sequence_loss(logits, present, "multi_label_classification") == expected
