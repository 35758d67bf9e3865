import numpy as np

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
