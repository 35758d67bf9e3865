"""Guarantees hold over repeated splits, inside exact binomial bands."""

import numpy as np
import pytest
from scipy.stats import binom
from sklearn.datasets import load_digits

from sklearn_jeidnn import conformal, metrics

from .conftest import quick_classifier


@pytest.fixture(scope="module")
def routed():
    """Probabilities of rows that an estimator never saw, at the exits they take, and their codes."""
    X, y = load_digits(return_X_y=True)
    clf = quick_classifier(cost_weight=0.3).fit(X[:500], y[:500])
    return clf.predict_proba(X[500:]), y[500:]


@pytest.mark.parametrize("confidence_level", [0.8, 0.9, 0.95])
@pytest.mark.parametrize("n_calibration", [19, 200])
def test_coverage_over_splits_is_at_least_the_level(routed, confidence_level, n_calibration):
    """Mean coverage of 1,000 random splits: at least the level, at most 1 / (n + 1) above it."""
    probabilities, codes = routed
    scores = conformal.lac_scores(probabilities)
    true_scores = conformal.true_label_values(scores, codes)
    rng = np.random.default_rng(0)
    coverages = []
    for _ in range(1000):
        order = rng.permutation(len(codes))
        quantile = conformal.score_quantile(true_scores[order[:n_calibration]], confidence_level)
        coverages.append(np.mean(true_scores[order[n_calibration:]] <= quantile))
    error = 4 * np.std(coverages) / np.sqrt(len(coverages))
    expected = np.ceil((n_calibration + 1) * confidence_level - 1e-9) / (n_calibration + 1)
    assert abs(np.mean(coverages) - expected) <= error + 1e-3
    assert np.mean(coverages) >= confidence_level - error


def test_single_splits_stay_inside_the_beta_binomial_band_as_often_as_it_says(routed):
    probabilities, codes = routed
    true_scores = conformal.true_label_values(conformal.lac_scores(probabilities), codes)
    low, high = metrics.coverage_band(100, len(codes) - 100, 0.9, probability=0.9)
    rng, inside = np.random.default_rng(1), []
    for _ in range(1000):
        order = rng.permutation(len(codes))
        quantile = conformal.score_quantile(true_scores[order[:100]], 0.9)
        inside.append(low <= np.mean(true_scores[order[100:]] <= quantile) <= high)
    assert binom.cdf(sum(inside), 1000, 0.9) > 1e-3


def test_the_estimators_own_sets_cover_new_rows(digits, fresh_digits):
    X, y = fresh_digits
    clf = quick_classifier().fit(*digits, X_val=X[:400], y_val=y[:400])
    sets = clf.predict_set(X[400:], confidence_level=0.9)
    low, high = metrics.coverage_band(
        len(clf.conformity_scores_), len(sets), 0.9, probability=0.999
    )
    assert low <= metrics.coverage(sets, y[400:]) <= high
