"""How a measure falls with what is spent on it, as a power law: y = scale * x^-exponent.

Kaplan et al. 2020, arXiv:2001.08361, equation 1.3, where the measure is a loss and x the compute. A
straight line between logarithms; there is no floor, so that it holds only over a range in which
none is in sight.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lexome.core import InputError

FEWEST = 3
"""Points below which nothing is fitted: a line through two of them always fits."""


@dataclass(frozen=True, kw_only=True)
class PowerLaw:
    """What was fitted.

    Attributes
    ----------
    scale, exponent
        Of y = scale * x^-exponent.
    explained
        Share of the variance of log y that it explains, at most 1.
    least, greatest
        Of the x that it was fitted to.
    """

    scale: float
    exponent: float
    explained: float
    least: float
    greatest: float

    def __call__(self, x: float) -> float:
        """Return what the law says of x."""
        return self.scale * x**-self.exponent


def fit_power_law(x: Sequence[float], y: Sequence[float]) -> PowerLaw | None:
    """Fit a power law by least squares between logarithms.

    Parameters
    ----------
    x, y
        Equally many numbers above 0.

    Returns
    -------
    The law; None of fewer than `FEWEST` different x.

    Raises
    ------
    InputError
        If a number has no logarithm.

    Examples
    --------
    >>> law = fit_power_law([1, 10, 100], [2.0, 0.2, 0.02])
    >>> round(law.exponent, 6), round(law(1000), 6)
    (1.0, 0.002)
    """
    for name, values in (("x", x), ("y", y)):
        if not all(math.isfinite(value) and value > 0 for value in values):
            raise InputError(
                f"a power law was to be fitted to {name} = {list(values)}. Expected numbers "
                "above 0."
            )
    if len(set(x)) < FEWEST:
        return None
    log_x, log_y = np.log(x), np.log(y)
    slope, offset = np.polyfit(log_x, log_y, 1)
    left = float(((log_y - slope * log_x - offset) ** 2).sum())
    spread = float(((log_y - log_y.mean()) ** 2).sum())
    return PowerLaw(
        scale=math.exp(offset),
        exponent=-float(slope),
        explained=1 - left / spread if spread else 1.0,
        least=min(x),
        greatest=max(x),
    )
