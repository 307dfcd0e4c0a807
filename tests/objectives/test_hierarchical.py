import math

import pytest
import torch
import torch.nn.functional as F

from lexome.core import InputError
from lexome.objectives.hierarchical import (
    HierarchicalLoss,
    SoftLabelLoss,
    TokenTree,
    codon_paths,
    read_tree,
    soft_labels,
)

LETTERS = TokenTree([("vowel",), ("vowel",), ("stop", "hard"), ("stop", "soft"), ("stop",), ()])


def by_definition(logits, label, tree, alpha):
    """Walk from the token to the root, with plain probabilities."""
    chances, path = logits.double().softmax(-1), tree.paths[label]
    depths = [len(n) for n in tree.nodes] + [len(p) + 1 for p in tree.paths]
    total, loss, lower = sum(math.exp(-alpha * d) for d in depths), 0.0, chances[label]
    for depth in range(len(path), -1, -1):
        below = [i for i, p in enumerate(tree.paths) if p[:depth] == path[:depth]]
        upper = chances[below].sum()
        loss -= math.exp(-alpha * (depth + 1)) / total * torch.log(lower / upper)
        lower = upper
    return loss


@pytest.mark.parametrize("alpha", [0.0, 0.2, 1.5])
def test_the_loss_is_the_weighted_way_to_the_root(alpha):
    torch.manual_seed(0)
    logits = 3 * torch.randn(6, 6)
    terms = HierarchicalLoss(LETTERS, alpha=alpha).terms(logits, torch.arange(6))
    expected = [by_definition(logits[i], i, LETTERS, alpha) for i in range(6)]
    torch.testing.assert_close(terms.double(), torch.stack(expected), atol=1e-6, rtol=1e-5)


def test_a_flat_tree_with_equal_weights_is_cross_entropy():
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 5, 4), torch.randint(0, 4, (2, 5))
    loss = HierarchicalLoss(TokenTree([()] * 4), alpha=0.0)(logits, labels, {})
    torch.testing.assert_close(5 * loss, F.cross_entropy(logits.flatten(0, 1), labels.flatten()))


def test_a_near_mistake_costs_less_than_a_far_one():
    loss = HierarchicalLoss(LETTERS)
    near, far = (
        loss.terms(F.one_hot(torch.tensor([i]), 6) * 9.0, torch.tensor([0])) for i in (1, 2)
    )
    assert near < far


def test_a_soft_label_is_highest_at_the_token_and_falls_with_distance():
    table = soft_labels(LETTERS, 5.0)
    torch.testing.assert_close(table.sum(1), torch.ones(6))
    assert table[0].argsort(descending=True, stable=True)[:2].tolist() == [0, 1]
    assert table[2, 2] > table[2, 3] > table[2, 0]
    torch.testing.assert_close(soft_labels(LETTERS, 0.0), torch.full((6, 6), 1 / 6))


def test_narrow_scores_are_summed_in_float32():
    torch.manual_seed(0)
    loss, labels = HierarchicalLoss(LETTERS), torch.arange(6)
    rounded = (9 * torch.randn(6, 6)).bfloat16()
    value, exact = (loss.terms(x, labels) for x in (rounded, rounded.float()))
    assert value.dtype == torch.float32
    assert torch.equal(value, exact)


def test_what_float32_cannot_hold_is_left_out():
    logits = torch.zeros(1, 6)
    logits[:, 5] = 106.0  # three times e^-106 is less than the smallest number above 0
    loss = HierarchicalLoss(LETTERS)
    assert loss.terms(logits, torch.tensor([2])) == 0
    logits[:, 5] = 102.0
    assert loss.terms(logits, torch.tensor([2])) > 1


def test_labels_that_are_left_out_count_nothing():
    torch.manual_seed(0)
    logits, labels = torch.randn(1, 4, 6), torch.tensor([[1, -100, 3, -100]])
    loss = HierarchicalLoss(LETTERS)
    expected = loss.terms(logits[0, [0, 2]], labels[0, [0, 2]])
    torch.testing.assert_close(loss(logits, labels, {}), expected.mean())
    weight = torch.tensor([[1.0, 5.0, 3.0, 5.0]])
    torch.testing.assert_close(
        loss(logits, labels, {"loss_weight": weight}), (expected[0] + 3 * expected[1]) / 4
    )
    assert loss(logits, torch.full((1, 4), -100), {}) == 0


def test_a_causal_loss_predicts_each_token_at_the_place_before():
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 5, 6), torch.randint(0, 6, (2, 5))
    causal = HierarchicalLoss(LETTERS, causal=True)(logits, labels, {})
    plain = HierarchicalLoss(LETTERS)(logits[:, :-1], labels[:, 1:], {})
    torch.testing.assert_close(causal, plain)


def test_scores_of_rows_beyond_the_vocabulary_are_left_out():
    torch.manual_seed(0)
    logits, labels = torch.randn(3, 8), torch.tensor([0, 1, 5])
    loss = HierarchicalLoss(LETTERS)
    torch.testing.assert_close(loss.terms(logits, labels), loss.terms(logits[:, :6], labels))


def test_other_genetic_codes_move_codons():
    standard, mitochondria = (codon_paths(["TGA", "ATA", "AGA"], code=n) for n in (1, 2))
    assert standard == [
        ("codons", "end_codon"),
        ("codons", "aa_codons", "I"),
        ("codons", "aa_codons", "R"),
    ]
    assert mitochondria == [
        ("codons", "aa_codons", "W"),
        ("codons", "aa_codons", "M"),
        ("codons", "end_codon"),
    ]


def test_hard_soft_labels_are_cross_entropy_and_shift_for_causal_models():
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 5, 8), torch.randint(0, 6, (2, 5))
    labels[0, 3] = -100
    plain, causal = (SoftLabelLoss(LETTERS, hardness=1e3, causal=c) for c in (False, True))
    expected = F.cross_entropy(logits[..., :6].flatten(0, 1), labels.flatten()) / 6
    torch.testing.assert_close(plain(logits, labels, {}), expected)
    shifted = plain(logits[:, :-1], labels[:, 1:], {})
    torch.testing.assert_close(causal(logits, labels, {}), shifted)
    assert plain(logits, torch.full((2, 5), -100), {}) == 0


def test_an_empty_tree_is_an_error():
    with pytest.raises(InputError, match="no tokens"):
        TokenTree([])


def below_and_weights(tree, alpha):
    """Return what HELM's loss keeps of a tree."""
    below = torch.zeros(len(tree), len(tree), tree.edges)
    for token, path in enumerate(tree.paths):
        below[token, token, 0] = 1
        for edge, depth in enumerate(range(len(path), 0, -1), 1):
            for other, its in enumerate(tree.paths):
                below[token, other, edge] = its[:depth] == path[:depth]
    return below, tree.weights(alpha)


@pytest.mark.parametrize("alpha", [0.0, 0.05, 0.2, 1.5])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_a_tree_and_its_decay_are_read_from_the_numbers_of_its_loss(alpha, kind):
    below, weights = below_and_weights(LETTERS, alpha)
    paths, found = read_tree(below.to(kind), weights.to(kind))
    assert found == alpha
    assert paths == LETTERS.plain()
    torch.manual_seed(0)
    logits, labels = torch.randn(6, 6), torch.arange(6)
    losses = [HierarchicalLoss(t, alpha=alpha) for t in (LETTERS, TokenTree(paths))]
    torch.testing.assert_close(*(loss.terms(logits, labels) for loss in losses))


def test_trees_that_differ_are_told_apart_whatever_their_nodes_are_called():
    renamed = [tuple(f"{name}!" for name in path) for path in LETTERS.paths]
    assert TokenTree(renamed).plain() == LETTERS.plain()
    other = [("vowel",), ("vowel",), ("vowel",), ("stop", "soft"), ("stop",), ()]
    assert TokenTree(other).plain() != LETTERS.plain()


def test_weights_without_one_decay_are_refused():
    below, weights = below_and_weights(LETTERS, 0.2)
    weights[2, 1] *= 2
    with pytest.raises(InputError, match="one rate"):
        read_tree(below, weights)


def test_a_loss_that_is_made_with_a_model_of_shapes_alone_has_its_numbers():
    with torch.device("meta"):
        made = HierarchicalLoss(LETTERS), SoftLabelLoss(LETTERS)
    logits, labels = torch.zeros(1, 6, 6), torch.arange(6)[None]
    for loss, expected in zip(
        made, (HierarchicalLoss(LETTERS), SoftLabelLoss(LETTERS)), strict=True
    ):
        torch.testing.assert_close(loss(logits, labels, {}), expected(logits, labels, {}))
