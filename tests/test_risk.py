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


def p_value_by_hand(losses, limit, significance):
    """A gambler's capital, bet by bet."""
    capital, largest, squares = 1.0, 1.0, 0.25
    for n_before, loss in enumerate(losses):
        variance = squares / (n_before + 1)
        bet = np.sqrt(2 * np.log(1 / significance) / (len(losses) * variance))
        capital *= 1 + min(bet, 0.75 / (1 - limit)) * (limit - loss)
        largest = max(largest, capital)
        mean = (0.5 + sum(losses[: n_before + 1])) / (n_before + 2)
        squares += (loss - mean) ** 2
    return 1 / largest


@pytest.mark.parametrize("limit", [0.1, 0.3, 0.6])
@pytest.mark.parametrize("losses", [[0, 0, 0.5, 0, 0.25, 0.125, 0], [0] * 30, [1, 0] * 4, [1] * 5])
def test_betting_p_values_are_one_over_a_gamblers_largest_capital(losses, limit):
    losses = np.array(losses, dtype=float)
    by_hand = p_value_by_hand(losses, limit, 0.2)
    assert _risk.betting_p_value(losses, limit, 0.2) == pytest.approx(by_hand)
    by_hand = p_value_by_hand(losses, limit, 0.05)
    assert _risk.betting_p_value(losses, limit) == pytest.approx(by_hand)


def test_losses_above_the_limit_show_nothing():
    assert _risk.betting_p_value(np.ones(20), 0.5) == 1


def test_drops_are_losses_from_minus_one_to_one():
    drops = np.array([0, 0, -1, 0, 1, 0, 0])
    expected = _risk.betting_p_value(np.array([0.5, 0.5, 0, 0.5, 1, 0.5, 0.5]), 0.6)
    assert _risk.drop_p_value(drops, 0.2) == pytest.approx(expected)


def test_costs_are_losses_from_the_cheapest_to_the_most_expensive_exit():
    of_costs = _risk.cost_p_value(np.array([0.25, 0.5, 1.25]))
    expected = _risk.betting_p_value(np.array([0, 0.25, 0.25, 1, 0, 0]), 0.75)
    costs = np.array([0.25, 0.5, 0.5, 1.25, 0.25, 0.25])
    assert of_costs(costs, 1.0) == pytest.approx(expected)
    further = np.array([0.1, 0.5, 0.5, 3.0, 0.25, 0.25])
    assert of_costs(further, 1.0) == pytest.approx(expected)


def test_a_cost_that_all_exits_have_keeps_to_a_limit_above_it():
    of_costs = _risk.cost_p_value(np.array([0.5, 0.5]))
    assert of_costs(np.full(5, 0.5), 0.6) == 0
    assert of_costs(np.full(5, 0.5), 0.5) == 1


def test_binomial_sums_are_those_of_scipy():
    rng = np.random.default_rng(0)
    for n_trials, rate in [(1, 0.5), (20, 0.1), (1000, 0.9), (10**6, 0.3), (10**7, 1e-4)]:
        spread = 4 * np.sqrt(n_trials * rate)
        counts = rng.normal(n_trials * rate, spread, size=50).clip(0, n_trials).astype(int)
        for n_events in [0, n_trials, *counts.tolist()]:
            expected = binom.cdf(n_events, n_trials, rate)
            assert _risk.binomial_cdf(n_events, n_trials, rate) == pytest.approx(
                expected, rel=1e-7, abs=1e-290
            )
    assert _risk.binomial_cdf(0, 0, 0.5) == _risk.binomial_cdf(3, 9, 0) == 1


def test_a_p_value_of_just_the_significance_passes():
    point, p_value = _risk.last_certified([None, None], lambda *asked: asked[2], 0.1, 0.9)
    assert (point, p_value) == (1, pytest.approx(0.1))
