"""Scores of held-out sequence: against sums by hand, and additive."""

import math

import pytest
import torch

from lexome.catalog import new
from lexome.training.datasets import Examples, Objective
from lexome.training.validation import Score, validate


def score(model, batch, examples, **given):
    return validate(model, [batch], examples, **given)


@pytest.fixture
def hyena():
    sizes = {"width": 16, "mlp_width": 32, "length": 40, "filter_width": 8}
    return new("hyenadna", **sizes).eval()


def test_a_causal_score_counts_known_letters_after_the_first(hyena):
    examples = Examples(hyena.tokenizer, Objective(kind="causal"))
    batch = examples.batch(["ACGTN", "TTGCA"], [])
    with torch.no_grad():
        log_p = hyena(batch["input_ids"]).logits[:, :-1].log_softmax(-1)
    targets = batch["input_ids"][:, 1:]
    nats = -log_p.gather(-1, targets[..., None])[..., 0]
    known = (targets >= 7) & (targets <= 10)
    found = score(hyena, batch, examples)
    assert found.weight == found.letters == 7  # neither N nor [SEP]
    assert found.total_nats == pytest.approx(nats[known].sum().item(), rel=1e-5)
    assert found.bits_per_base == pytest.approx(found.nats / math.log(2))


def test_weights_weigh_in_a_masked_score():
    model = new("gpn", width=8, depth=1).eval()
    plain = Examples(model.tokenizer, Objective(kind="masked", mask_rate=1.0))
    weighted = Examples(
        model.tokenizer, Objective(kind="masked", mask_rate=1.0, soft_mask_weight=0.0)
    )

    def batch(examples, *windows):
        import numpy as np

        return examples.batch(list(windows), [np.random.default_rng(0)])

    upper = score(model, batch(plain, "ACGT"), plain)
    half = score(model, batch(weighted, "ACgt"), weighted)
    assert (upper.weight, half.weight, half.letters) == (4, 2, 2)
    assert half.total_nats < upper.total_nats


def test_bits_per_base_of_words_count_their_letters():
    assert Score(total_nats=8 * math.log(2), weight=2, letters=8).bits_per_base == pytest.approx(1)


def test_parts_add_up(hyena):
    examples = Examples(hyena.tokenizer, Objective(kind="causal"))
    windows = ["ACGTACGT", "TTGCAAAC", "GGGGCCCC"]
    whole = score(hyena, examples.batch(windows, []), examples)
    parts = [score(hyena, examples.batch([w], []), examples) for w in windows]
    added = parts[0] + parts[1] + parts[2]
    assert added.weight == whole.weight
    assert added.total_nats == pytest.approx(whole.total_nats, rel=1e-5)


def test_nothing_predicted_is_no_number():
    assert math.isnan(Score().nats)
    assert math.isnan(Score().bits_per_base)


def test_training_can_go_on_after_validation():
    """Tables that are kept between calls must not be left unfit for gradients."""
    model = new("dnabert2", vocab_size=16, width=8, depth=1, heads=2, mlp_width=8)
    ids = torch.randint(5, 16, (2, 80))
    batch = {
        "input_ids": ids,
        "targets": ids[:, 3],
        "positions": (torch.arange(2), torch.tensor([3, 3])),
    }
    examples = type("Words", (), {})()
    examples.known, examples.letters_per_token = [True] * 16, [1] * 16
    score(model, batch, examples)
    model.train()(ids, labels=ids).loss.backward()


def test_bfloat16_is_close(hyena):
    examples = Examples(hyena.tokenizer, Objective(kind="causal"))
    batch = examples.batch(["ACGTACGTACGT"], [])
    exact = score(hyena, dict(batch), examples)
    fast = score(hyena, dict(batch), examples, autocast=torch.bfloat16)
    assert fast.nats == pytest.approx(exact.nats, rel=0.02)
