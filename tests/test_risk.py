"""P-values are rarely small where the limit is broken, and sequences stop where they must."""

import numpy as np
import pytest
from scipy.stats import binom

from sklearn_jeidnn._operate import risk as _risk

N_DRAWS = 1000
# Exceeded by chance once in a thousand tests.
MOST_REJECTED = binom.isf(1e-3, N_DRAWS, 0.05)


def drops(rng, worse, better, n_samples):
    return rng.choice([1, -1, 0], p=[worse, better, 1 - worse - better], size=n_samples)


@pytest.mark.parametrize("worse, better", [(0.02, 0.01), (0.2, 0.19), (0.01, 0)])
def test_a_drop_that_breaks_its_limit_is_seldom_passed(worse, better):
    rng = np.random.default_rng(0)
    passed = [
        _risk.drop_p_value(drops(rng, worse, better, 500), 0.01) <= 0.05 for _ in range(N_DRAWS)
    ]
    assert sum(passed) <= MOST_REJECTED


def test_a_small_drop_is_seen_with_a_few_thousand_rows():
    rng = np.random.default_rng(0)
    passed = [_risk.drop_p_value(drops(rng, 0.01, 0.01, 3000), 0.01) <= 0.05 for _ in range(200)]
    assert np.mean(passed) > 0.8


def test_costs_at_their_limit_are_seldom_passed_and_lower_ones_often():
    rng, of_costs = np.random.default_rng(0), _risk.cost_p_value(np.array([0.2, 0.6, 1.1]))
    costs = rng.choice([0.2, 0.6, 1.1], p=[0.5, 0.3, 0.2], size=(N_DRAWS, 500))
    mean = 0.5 * 0.2 + 0.3 * 0.6 + 0.2 * 1.1
    assert sum(of_costs(own, mean) <= 0.05 for own in costs) <= MOST_REJECTED
    assert np.mean([of_costs(own, mean + 0.06) <= 0.05 for own in costs]) > 0.9


def test_binomial_p_values_are_exact():
    events = np.array([True] * 3 + [False] * 97)
    assert _risk.binomial_p_value(events, 0.1) == pytest.approx(binom.cdf(3, 100, 0.1))


def test_a_limit_that_nothing_can_break_is_certain():
    assert _risk.betting_p_value(np.ones(5), 1.0) == 0


def test_a_sequence_stops_at_the_first_point_that_fails():
    def losses():
        for rate in (0, 0, 1):
            yield np.full(100, bool(rate))
        raise AssertionError("read on after a failure")

    point, p_value = _risk.last_certified(losses(), _risk.binomial_p_value, 0.1, 0.95)
    assert point == 1
    assert p_value == pytest.approx(0.9**100)


def test_where_the_first_point_fails_none_passes():
    point, p_value = _risk.last_certified([np.ones(9)], _risk.binomial_p_value, 0.1, 0.95)
    assert point == -1
    assert np.isnan(p_value)
