"""Power laws: found where there is one, and not made of nothing."""

import numpy as np
import pytest

from lexome.core import InputError
from lexome.tasks.power_law import fit_power_law


def test_a_law_is_found_again():
    x = np.logspace(9, 13, 7)
    law = fit_power_law(list(x), list(3.5 * x**-0.07))
    assert law is not None
    assert law.scale == pytest.approx(3.5)
    assert law.exponent == pytest.approx(0.07)
    assert law.explained == pytest.approx(1)
    assert law(1e14) == pytest.approx(3.5 * 1e14**-0.07)
    assert (law.least, law.greatest) == (pytest.approx(1e9), pytest.approx(1e13))


def test_noise_lowers_what_is_explained():
    x = np.logspace(9, 13, 30)
    law = fit_power_law(list(x), list(np.random.default_rng(0).uniform(1, 2, 30)))
    assert law is not None
    assert law.explained < 0.3


def test_two_points_make_no_law():
    assert fit_power_law([1.0, 2.0], [2.0, 1.0]) is None
    assert fit_power_law([1.0, 2.0, 2.0], [2.0, 1.0, 0.9]) is None


@pytest.mark.parametrize("y", [[1.0, 0.0, 2.0], [1.0, float("nan"), 2.0]])
def test_what_has_no_logarithm_is_refused(y):
    with pytest.raises(InputError, match="Expected numbers above 0"):
        fit_power_law([1.0, 2.0, 3.0], y)
