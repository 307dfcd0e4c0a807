"""Linear fits reach the minimum that their formula has."""

import torch
from torch.testing import assert_close

from lexome.training.regression import fit, fit_best, loss_of


def features(count=80, width=5, seed=0):
    x = torch.randn(count, width, generator=torch.Generator().manual_seed(seed))
    return x * torch.tensor([1.0, 10.0, 0.1, 1.0, 0.0]) + 3


def test_ridge_equals_its_normal_equations():
    x = features()
    y = x[:, 0] - 0.2 * x[:, 1] + 0.5
    found = fit(x, y, outputs=1, penalty=0.3)
    scale, centre = torch.std_mean(x, 0, correction=0)
    z = ((x - centre) / torch.where(scale > 0, scale, torch.inf)).double()
    gram = z.T @ z / len(z) + 0.3 * torch.eye(5)
    exact = torch.linalg.solve(gram, z.T @ (y - y.mean()).double() / len(z))
    # Stopped by a gradient of 1e-4; measured difference 2e-5.
    assert_close(found(x)[:, 0], (z @ exact + y.mean()).float(), atol=1e-3, rtol=0)


def test_a_logistic_fit_is_a_minimum_of_its_loss():
    x = features()
    y = (x[:, 0] > 3).long()
    found = fit(x, y, outputs=2, penalty=0.1)
    assert (found(x).argmax(1) == y).float().mean() > 0.95
    weaker = fit(x, y, outputs=2, penalty=0.01)
    assert loss_of(weaker(x), y) < loss_of(found(x), y)


def test_a_weight_of_two_counts_an_example_twice():
    x = features()
    y = (x[:, 0] + x[:, 3] > 6).long()
    weights = torch.ones(80)
    weights[:20] = 2
    scaled = (x - x.mean(0)) / 2
    once = fit(scaled, y, outputs=2, penalty=0.1, weights_N=weights, per_feature=True)
    again = fit(torch.cat([scaled, scaled[:20]]), y.repeat(2)[:100], outputs=2, penalty=0.1)
    # Features are scaled by the unweighted spread, which differs a little between the two.
    assert_close(once(scaled), again(scaled), atol=0.1, rtol=0.1)


def test_the_strongest_of_equal_penalties_wins():
    x = features()
    y = (x[:, 0] > 3).long()
    found, score = fit_best(x, y, outputs=2, judge=lambda fitted: 1.0)
    assert score == 1.0
    assert_close(found.weight_CD, fit(x, y, outputs=2, penalty=10.0).weight_CD)
