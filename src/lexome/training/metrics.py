"""How good predictions are: the usual scores of classifiers and regressions.

Axes: N examples, C classes.
"""

import math
from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Task = Literal["classification", "regression"]

METRICS: Mapping[Task, tuple[str, ...]] = {  # the first decides unless the user names another
    "classification": ("mcc", "accuracy", "macro_f1", "auc"),
    "regression": ("r2", "pearson", "spearman", "rmse"),
}


def measure(task: Task, outputs: NDArray, truth: NDArray) -> dict[str, float]:
    """Score predictions by every metric of a task.

    Parameters
    ----------
    task
        What is predicted.
    outputs
        Probabilities (N, C), or values (N,).
    truth
        Classes (N,) as whole numbers, or values (N,).

    Returns
    -------
    One number for each of `METRICS`; NaN where one is not defined, such as the correlation with a
    constant.
    """
    if task == "classification":
        return classification_metrics(outputs, truth)
    return regression_metrics(outputs, truth)


def goodness(metric: str, value: float) -> float:
    """Return a score so that higher is better; what is not defined is worst."""
    if math.isnan(value):
        return -math.inf
    return -value if metric == "rmse" else value


def classification_metrics(probabilities_NC: NDArray, classes_N: NDArray) -> dict[str, float]:
    """Return accuracy, macro F1, Matthews' correlation and area under the ROC curve.

    Macro F1 is the mean over the classes that occur in truth or prediction. Matthews' correlation
    for any number of classes is that of Gorodkin 2004 (Comput. Biol. Chem. 28:367-374), 0 where
    all predictions are equal. The area is of the second class where there are two, else the mean
    of each class against the rest, over classes that have both.

    Examples
    --------
    >>> p = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.6, 0.4]])
    >>> classification_metrics(p, np.array([0, 0, 1, 1]))["accuracy"]
    0.5
    """
    count = probabilities_NC.shape[1]
    predicted_N = probabilities_NC.argmax(1)
    table = np.zeros((count, count))
    np.add.at(table, (classes_N, predicted_N), 1)
    hits, actual, guessed = np.diag(table), table.sum(1), table.sum(0)
    present = actual + guessed > 0
    total = table.sum()
    spread = (total**2 - (guessed**2).sum()) * (total**2 - (actual**2).sum())
    shared = hits.sum() * total - (guessed * actual).sum()
    asked = [1] if count == 2 else range(count)
    areas = [_area(probabilities_NC[:, c], classes_N == c) for c in asked]
    known = [area for area in areas if not math.isnan(area)]
    return {
        "mcc": float(shared / math.sqrt(spread)) if spread > 0 else 0.0,
        "accuracy": float(hits.sum() / total),
        "macro_f1": float((2 * hits[present] / (actual + guessed)[present]).mean()),
        "auc": float(np.mean(known)) if known else math.nan,
    }


def regression_metrics(values_N: NDArray, truth_N: NDArray) -> dict[str, float]:
    """Return the coefficient of determination, both correlations and the root mean square error.

    Examples
    --------
    >>> found = regression_metrics(np.array([1.0, 4.0, 9.0]), np.array([1.0, 2.0, 3.0]))
    >>> round(found["spearman"], 3), round(found["pearson"], 3)
    (1.0, 0.99)
    """
    values, truth = np.asarray(values_N, np.float64), np.asarray(truth_N, np.float64)
    squares = float(((truth - values) ** 2).mean())
    spread = float(truth.var())
    return {
        "r2": 1 - squares / spread if spread > 0 else math.nan,
        "pearson": _correlation(values, truth),
        "spearman": _correlation(_ranks(values), _ranks(truth)),
        "rmse": math.sqrt(squares),
    }


def _area(scores: NDArray, members: NDArray) -> float:
    """Return how often a member scores above another, ties counted half."""
    inside = int(members.sum())
    outside = len(members) - inside
    if not inside or not outside:
        return math.nan
    above = _ranks(scores)[members].sum() - inside * (inside - 1) / 2
    return float(above / (inside * outside))


def _ranks(values: NDArray) -> NDArray:
    """Return 0-based ranks; equal values share the mean of theirs."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts + 1) / 2)[which]


def _correlation(a: NDArray, b: NDArray) -> float:
    if any(x.std() <= 1e-9 * np.abs(x).max() for x in (a, b)):  # constant but for rounding
        return math.nan
    return float(np.clip(np.corrcoef(a, b)[0, 1], -1, 1))
