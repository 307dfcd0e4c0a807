"""How well numbers tell two groups apart: area under the ROC curve, and a linear probe."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lexome.core import InputError


@dataclass(frozen=True)
class Auc:
    """Area under the ROC curve: how often a member of one group exceeds one of the other.

    Attributes
    ----------
    value
        0.5 is chance, 1 a perfect separation; ties count half.
    standard_error
        Of `value`, by the formula of Hanley and McNeil 1982, Radiology 143:29-36, for members
        that are independent of each other.
    """

    value: float
    standard_error: float

    @property
    def is_above_chance(self) -> bool:
        """Whether 0.5 lies below the interval of 1.96 standard errors around the value."""
        return self.value - 1.96 * self.standard_error > 0.5

    def __str__(self) -> str:
        return f"{self.value:.2f} ± {1.96 * self.standard_error:.2f}"


def auc(above: ArrayLike, below: ArrayLike) -> Auc:
    """Measure how often numbers of `above` exceed numbers of `below`.

    Examples
    --------
    >>> auc([3, 4], [1, 3]).value
    0.875
    """
    high, low = np.asarray(above, float), np.asarray(below, float)
    if not len(high) or not len(low) or np.isnan(high).any() or np.isnan(low).any():
        raise InputError(
            f"two groups of {len(high)} and {len(low)} numbers were given. Expected at least one "
            "in each, and no NaN; leave out what has no number."
        )
    ordered = np.sort(low)
    wins = np.searchsorted(ordered, high, side="left")
    ties = np.searchsorted(ordered, high, side="right") - wins
    a = float((wins + ties / 2).mean() / len(low))
    q_high, q_low = a / (2 - a), 2 * a * a / (1 + a)
    spread = a * (1 - a) + (len(high) - 1) * (q_high - a * a) + (len(low) - 1) * (q_low - a * a)
    return Auc(a, float(np.sqrt(max(0.0, spread) / (len(high) * len(low)))))


def probe(
    features: ArrayLike,
    is_member: ArrayLike,
    blocks: ArrayLike,
    *,
    penalty: float = 10.0,
) -> Auc:
    """Measure how well a linear function of features tells a group from another, unseen.

    Ridge regression on the two groups, cross-validated: each block is judged by a fit on all
    others, with features scaled on those others. What is close together in the genome belongs in
    one block, or the fit would be asked about what it has almost seen.

    Parameters
    ----------
    features
        Shape (n, width).
    is_member
        Shape (n,), true for the group that should be above.
    blocks
        Shape (n,), whole numbers; equal ones are left out together.
    penalty
        Weight of the squared coefficients, for features of variance 1.

    Examples
    --------
    >>> x = np.repeat([-1.0, 1.0], 20)[:, None]
    >>> probe(x, x[:, 0] > 0, np.arange(40) % 4).value
    1.0
    """
    x, y, block = np.asarray(features, float), np.asarray(is_member, bool), np.asarray(blocks)
    scores: NDArray[np.float64] = np.full(len(y), np.nan)
    for left_out in np.unique(block):
        test = block == left_out
        if y[~test].all() or not y[~test].any():
            raise InputError(
                f"without block {left_out} only one group is left. Expected members of both "
                "groups in at least two blocks; make the blocks smaller."
            )
        mean, deviation = x[~test].mean(0), x[~test].std(0)
        scaled = (x - mean) / np.where(deviation > 0, deviation, 1.0)
        target = np.where(y[~test], 1.0, -1.0)
        fit = scaled[~test]
        squares = fit.T @ fit + penalty * np.eye(x.shape[1])
        weights = np.linalg.solve(squares, fit.T @ (target - target.mean()))
        scores[test] = scaled[test] @ weights + target.mean()
    return auc(scores[y], scores[~y])
