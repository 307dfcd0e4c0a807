"""Parts of models of expression, against their formulas."""

import pytest
import torch
from torch import nn

from lexome.blocks.expression import (
    CellClassifier,
    DomainNorm,
    FromCell,
    NormedTable,
    ValueEncoder,
    along_width,
    check_labels,
    value_decoder,
)
from lexome.core import InputError


def test_a_table_gives_normed_rows():
    table = NormedTable(5, 4)
    rows = table(torch.tensor([[0, 4]]))
    torch.testing.assert_close(rows.mean(-1), torch.zeros(1, 2), atol=1e-6, rtol=0)
    assert table.table.weight.abs().max() <= 0.1


def test_very_large_values_are_one_value():
    encode = ValueEncoder(8, dropout=0.0)
    values = torch.tensor([[511.0, 512.0, 1e6]])
    vectors = encode(values)
    torch.testing.assert_close(vectors[0, 1], vectors[0, 2])
    assert not torch.allclose(vectors[0, 0], vectors[0, 1])


def test_every_cell_is_normed_by_its_own_domain():
    norm, x = DomainNorm(3, domains=2).eval(), torch.randn(4, 5, 3)
    for domain, part in enumerate(norm.norms):
        part.running_mean.fill_(domain)
        part.running_var.fill_(domain + 1)
    domains = torch.tensor([0, 1, 1, 0])
    expected = (x - domains[:, None, None]) / (domains[:, None, None] + 1 + 6.1e-5).sqrt()
    torch.testing.assert_close(norm(x, domains), expected)


def test_training_moves_the_means_of_the_domains_that_were_seen():
    norm = DomainNorm(3, domains=3).train()
    norm(torch.randn(4, 5, 3) + 9, torch.tensor([0, 2, 2, 0]))
    moved = [bool((part.running_mean != 0).any()) for part in norm.norms]
    assert moved == [True, False, True]


def test_a_batch_norm_goes_along_the_width():
    norm, x = nn.BatchNorm1d(3, affine=False).train(), torch.randn(4, 5, 3)
    normed = along_width(norm, x)
    torch.testing.assert_close(normed.mean((0, 1)), torch.zeros(3), atol=1e-6, rtol=0)


def test_labels_that_a_model_cannot_tell_are_refused():
    shape = torch.Size([2])
    assert check_labels(torch.tensor([0, 2]), 3, "batch_labels", shape).tolist() == [0, 2]
    with pytest.raises(InputError, match=r"tells 3 batch_labels apart and was given none"):
        check_labels(None, 3, "batch_labels", shape)
    for wrong in ([0, 3], [-1, 0], [0, 1, 2]):
        with pytest.raises(InputError, match=r"Expected the shape \(2,\), .* from 0 to 2"):
            check_labels(torch.tensor(wrong), 3, "batch_labels", shape)


def test_an_adversary_sends_its_gradient_back_with_the_other_sign():
    torch.manual_seed(0)
    plain, adversary = CellClassifier(4, 3), CellClassifier(4, 3, adversary=True)
    for mine, theirs in zip(adversary.layers, plain.layers, strict=True):
        assert type(mine) is type(theirs) or isinstance(mine, nn.LeakyReLU)
    x = torch.randn(2, 4, requires_grad=True)
    adversary(x).sum().backward()
    y = x.detach().clone().requires_grad_()
    adversary.adversary = False
    torch.testing.assert_close(adversary(y), adversary(x))
    adversary(y).sum().backward()
    torch.testing.assert_close(x.grad, -y.grad)


@pytest.mark.parametrize("zeros", [False, True])
def test_values_come_from_genes_times_cell(zeros):
    decode = FromCell(4, 6, zeros=zeros)
    genes, cell = torch.randn(2, 3, 4), torch.randn(2, 6)
    values, *nonzero = decode(genes, cell)
    one = torch.sigmoid(decode.query(genes[1, 2]))
    torch.testing.assert_close(values[1, 2], decode.mix(one) @ cell[1])
    assert len(nonzero) == zeros
    if zeros:
        torch.testing.assert_close(nonzero[0][1, 2], torch.sigmoid(decode.zero(one) @ cell[1]))


def test_a_value_decoder_gives_one_number():
    assert value_decoder(6, 4)(torch.randn(2, 3, 6)).shape == (2, 3, 1)
