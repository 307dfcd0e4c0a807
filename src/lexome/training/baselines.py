"""What a model has to beat: always the same answer, and regression on counts of short words.

Axes: N examples, D words, C classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from lexome.training.metrics import METRICS, Task, goodness, measure
from lexome.training.regression import LinearFit, fit_best

WORD_LENGTHS = (4, 5, 6)
MOST_EXAMPLES = 20_000
"""More training sequences than this are not looked at by the regression on words: memory."""

_CODES = np.full(256, 4, np.uint8)
for _i, _letters in enumerate(("Aa", "Cc", "Gg", "TtUu")):
    _CODES[list(_letters.encode("ascii"))] = _i


def word_counts(sequences: Sequence[str], k: int) -> NDArray[np.float32]:
    """Return the share that each word of k letters has of a sequence's words.

    Parameters
    ----------
    sequences
        Words with letters other than A, C, G, T and U are not counted.
    k
        Length of a word.

    Returns
    -------
    Shape (N, 4^k), float32; the words stand in the order of A, C, G, T.

    Examples
    --------
    >>> word_counts(["ACNT"], 1).tolist()
    [[0.3333333432674408, 0.3333333432674408, 0.0, 0.3333333432674408]]
    """
    counts = np.zeros((len(sequences), 4**k), np.float32)
    for row, sequence in zip(counts, sequences, strict=True):
        codes = _CODES[np.frombuffer(sequence.encode("ascii"), np.uint8)].astype(np.int64)
        size = len(codes) - k + 1
        if size < 1:
            continue
        words, known = np.zeros(size, np.int64), np.ones(size, bool)
        for i in range(k):
            words = 4 * words + codes[i : i + size]
            known &= codes[i : i + size] < 4
        found = np.bincount(words[known], minlength=4**k)
        row += found / max(1, known.sum())
    return counts


@dataclass(frozen=True)
class Baseline:
    """What was predicted without a model.

    Parameters
    ----------
    name
        What it is, for tables.
    outputs
        As for `measure`.
    """

    name: str
    outputs: NDArray


def constant_baseline(task: Task, truth: NDArray, classes: int, count: int) -> Baseline:
    """Predict the most frequent class, or the mean, of training for `count` sequences."""
    if task == "regression":
        return Baseline("mean", np.full(count, truth.mean()))
    shares_C = np.bincount(truth, minlength=classes) / len(truth)
    return Baseline("majority", np.tile(shares_C, (count, 1)))


def word_baseline(
    task: Task,
    train: tuple[Sequence[str], NDArray],
    validation: tuple[Sequence[str], NDArray],
    test: Sequence[str],
    *,
    classes: int,
    metric: str,
    seed: int,
    weights: NDArray | None = None,
) -> Baseline:
    """Predict by logistic or ridge regression on the counts of words.

    The length of the words and the penalty are those that do best on validation.

    Parameters
    ----------
    task
        What is predicted.
    train, validation
        Sequences and what is true of them.
    test
        Sequences to predict.
    classes
        Number of classes.
    metric
        What decides; one of `METRICS`.
    seed
        Which training sequences are taken where there are too many.
    weights
        Of the training sequences.
    """
    sequences, truth = list(train[0]), train[1]
    if len(sequences) > MOST_EXAMPLES:
        chosen = np.random.default_rng(seed).choice(len(sequences), MOST_EXAMPLES, replace=False)
        sequences = [sequences[i] for i in chosen]
        truth = truth[chosen]
        weights = None if weights is None else weights[chosen]
    centre, scale = (truth.mean(), truth.std()) if task == "regression" else (0.0, 1.0)
    targets_N = torch.from_numpy(
        ((truth - centre) / scale).astype(np.float32) if task == "regression" else truth
    )
    weights_N = None if weights is None else torch.from_numpy(weights).float()
    assert metric in METRICS[task], "checked by the caller"

    def predictor(k: int, of: Sequence[str]) -> Callable[[LinearFit], NDArray]:
        x_ND = torch.from_numpy(word_counts(of, k))

        def outputs(fitted: LinearFit) -> NDArray:
            scores_NC = fitted(x_ND)
            if task == "regression":
                return scores_NC[:, 0].numpy().astype(np.float64) * scale + centre
            return scores_NC.softmax(-1).numpy()

        return outputs

    best: tuple[float, int, LinearFit] | None = None
    for k in WORD_LENGTHS:
        outputs = predictor(k, validation[0])
        fitted, score = fit_best(
            torch.from_numpy(word_counts(sequences, k)),
            targets_N,
            outputs=1 if task == "regression" else classes,
            judge=lambda fitted, outputs=outputs: goodness(
                metric, measure(task, outputs(fitted), validation[1])[metric]
            ),
            weights_N=weights_N,
            per_feature=False,
        )
        if best is None or score > best[0]:
            best = (score, k, fitted)
    assert best is not None, "there are word lengths"
    _, k, fitted = best
    kind = "ridge" if task == "regression" else "logistic"
    return Baseline(f"{k}-mer {kind} regression", predictor(k, test)(fitted))
