import torch
from torch import nn

from lexome.blocks import FirstTokenClassifier, MaskedTokenHead, TokenHead
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
