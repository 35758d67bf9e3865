import numpy as np
import pytest
from scipy.stats import chi2_contingency, ks_2samp

from sklearn_jeidnn._operate import drift as _drift


def sample(rng, rates, n_samples, shift=0.0):
    return rng.choice(len(rates), p=rates, size=n_samples), rng.normal(size=n_samples) + shift


def test_like_rows_are_told_apart_as_rarely_as_the_p_value_says():
    rng, rates = np.random.default_rng(0), [0.6, 0.35, 0.04, 0.01]
    p_values = [
        _drift.compare_samples(sample(rng, rates, 200), sample(rng, rates, 60)).p_value
        for _ in range(500)
    ]
    assert np.mean(np.array(p_values) < 0.05) < 0.08


def test_other_exit_rates_and_other_scores_are_seen():
    rng, rates = np.random.default_rng(0), [0.6, 0.4, 0.0]
    known = sample(rng, rates, 500)
    by_exits = _drift.compare_samples(known, sample(rng, [0.3, 0.6, 0.1], 300))
    assert by_exits.exit_rates < 1e-4 < by_exits.scores
    by_scores = _drift.compare_samples(known, sample(rng, rates, 300, shift=0.7))
    assert by_scores.scores < 1e-4 < by_scores.exit_rates


def test_a_lone_exit_says_nothing():
    alone = np.zeros(9, dtype=int), np.arange(9.0)
    assert _drift.compare_samples(alone, alone) == (1, 1, 1)


def taken(*counts):
    """Exits of samples, by how many take each, and scores that tell nothing."""
    exits = np.repeat(np.arange(len(counts)), counts)
    return exits, np.linspace(0, 1, len(exits))


def p_value_of(*counts):
    return chi2_contingency(np.array(counts)).pvalue


@pytest.mark.parametrize(
    "known, new, merged",
    [
        # Of as many samples an exit is counted by itself from ten on, five in each.
        ((8, 12), (2, 18), [(8, 12), (2, 18)]),
        # Of 100 and 20, from thirty on, five of which are of the 20.
        ((21, 79), (9, 11), [(21, 79), (9, 11)]),
        # Neighbours are counted together until they are enough ...
        ((4, 4, 12), (1, 1, 18), [(8, 12), (2, 18)]),
        ((8, 0, 12), (2, 0, 18), [(8, 12), (2, 18)]),
        # ... and what is left over at the end joins the last.
        ((8, 7, 5), (2, 16, 2), [(8, 12), (2, 18)]),
        ((8, 10, 6, 1), (2, 12, 9, 2), [(8, 10, 7), (2, 12, 11)]),
    ],
)
def test_exits_with_few_samples_are_counted_with_their_neighbours(known, new, merged):
    found = _drift.compare_samples(taken(*known), taken(*new))
    assert found.exit_rates == pytest.approx(p_value_of(*merged))


@pytest.mark.parametrize(
    "known, new", [((7, 13), (2, 18)), ((20, 80), (9, 11)), ((2, 1), (0, 3)), ((0, 1), (1,))]
)
def test_too_few_samples_for_two_exits_say_nothing(known, new):
    assert _drift.compare_samples(taken(*known), taken(*new)).exit_rates == 1


def test_the_p_value_is_twice_the_smaller_of_the_two():
    (known, scores), (new, others) = taken(15, 25), taken(5, 35)
    for shift in (0.0, 0.5):
        found = _drift.compare_samples((known, scores), (new, others + shift))
        assert found.scores == ks_2samp(scores, others + shift).pvalue
        assert found.p_value == 2 * min(found.exit_rates, found.scores) < 1
    assert found.p_value == 2 * found.scores


def test_a_warning_is_given_if_the_p_value_is_less_than_the_significance(recwarn):
    known, new = taken(15, 25), taken(5, 35)
    p_value = _drift.compare_samples(known, new).p_value
    for significance in (p_value, p_value / 2):
        found = _drift.warn_if_different(known, new, significance)
        assert found == _drift.compare_samples(known, new)
    assert not recwarn.list
    with pytest.warns(UserWarning, match="X is not like the calibration samples"):
        assert _drift.warn_if_different(known, new, 2 * p_value) == found
