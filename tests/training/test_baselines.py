"""Baselines find what counts of words can tell, and nothing else."""

import numpy as np
import pytest

from lexome.training.baselines import constant_baseline, word_baseline, word_counts
from lexome.training.metrics import measure


def test_words_are_counted_by_letter_in_any_case_and_never_across_unknown_letters():
    counts = word_counts(["AACG", "aacu", "ANA", "A"], 2)
    assert counts.sum(1).tolist() == pytest.approx([1, 1, 0, 0])
    assert counts[0, [0b0000, 0b0001, 0b0110]].tolist() == pytest.approx([1 / 3] * 3)
    assert counts[1, 0b0111] == pytest.approx(1 / 3)  # CT, as which CU is read


def test_the_constant_answer_is_the_most_frequent_class_or_the_mean():
    made = constant_baseline("classification", np.array([0, 1, 1, 2]), 3, 2)
    assert made.outputs.tolist() == [[0.25, 0.5, 0.25]] * 2
    assert constant_baseline("regression", np.array([1.0, 4.0]), 0, 1).outputs.tolist() == [2.5]


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_words_that_differ_in_number_are_found(task):
    generator = np.random.default_rng(0)
    truth = generator.integers(2, size=240)
    shares = {0: [0.25] * 4, 1: [0.1, 0.4, 0.4, 0.1]}
    texts = ["".join(generator.choice(list("ACGT"), 60, p=shares[t])) for t in truth.tolist()]
    values = truth if task == "classification" else truth * 100.0 - 7
    found = word_baseline(
        task,
        (texts[:120], values[:120]),
        (texts[120:180], values[120:180]),
        texts[180:],
        classes=2,
        metric="mcc" if task == "classification" else "r2",
        seed=0,
    )
    scores = measure(task, found.outputs, values[180:])
    assert scores["auc" if task == "classification" else "pearson"] > 0.8
    assert found.name.endswith("-mer logistic regression" if task[0] == "c" else "ridge regression")
