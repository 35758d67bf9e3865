"""Guarantees hold over repeated splits, inside exact binomial bands."""

import copy
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom
from sklearn.datasets import load_digits

from sklearn_jeidnn import conformal, metrics
from sklearn_jeidnn._operate import risk as p_values
from sklearn_jeidnn._operate.certification import risk_losses

from .conftest import FULL_DESCENT, gates_descend, quick_classifier


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


@pytest.fixture(scope="module")
def calibrated(digits, fresh_digits):
    """An estimator with 400 rows for the gates and 400 that calibrate; and rows that it never saw."""
    X, y = fresh_digits
    with gates_descend(FULL_DESCENT):
        clf = quick_classifier(cost_weight=0.3).fit(*digits, X_val=X[:800], y_val=y[:800])
    return clf, X[800:], y[800:]


@pytest.mark.parametrize("groups", ["pooled", "exit", "class", "exit_and_class"])
@pytest.mark.parametrize("score", list(conformal.SCORES))
def test_mean_coverage_of_each_grouping_is_the_laws_over_splits(calibrated, score, groups):
    clf, X, y = calibrated
    own = copy.copy(clf).set_params(conformity_score=score, condition_on=groups).conformalize(X, y)
    scores, numbers = own.conformity_scores_, own._predictor.calibration.sets.groups
    n_groups, half = numbers.max() + 1, len(y) // 2
    rng, excess, variance = np.random.default_rng(0), np.zeros(n_groups), np.zeros(n_groups)
    for _ in range(300):
        calibration, test = np.split(rng.permutation(len(y)), [half])
        quantiles = conformal.group_quantiles(scores[calibration], numbers[calibration], 0.9)
        quantiles = np.append(quantiles, np.full(n_groups, np.inf))[numbers[test]]
        covered = np.bincount(numbers[test], scores[test] <= quantiles, minlength=n_groups)
        n, m = (np.bincount(numbers[rows], minlength=n_groups) for rows in (calibration, test))
        rank = np.ceil(np.round((n + 1) * 0.9, 9))
        # Full sets, of groups with too few rows, cover all.
        excess += np.where(rank > n, 0, covered - m * rank / (n + 1))
        spread = m * rank * (n + 1 - rank) * (n + 1 + m) / ((n + 1) ** 2 * (n + 2))
        variance += np.where(rank > n, 0, spread)
    random = variance > 0
    assert np.all(excess[random] >= -4.5 * np.sqrt(variance[random]))
    # Equal rows tie, and cover each other.
    assert excess.sum() <= 4.5 * np.sqrt(variance.sum()) + 300 * 0.002 * half


def test_sets_of_an_exit_with_too_few_calibration_rows_are_full(calibrated):
    clf, X, y = calibrated
    taken = clf.predict_exit(X)
    rare = np.argmin(np.where(np.bincount(taken) > 0, np.bincount(taken), len(X)))
    few = np.r_[np.flatnonzero(taken == rare)[:5], np.flatnonzero(taken != rare)]
    own = copy.copy(clf).set_params(condition_on="exit").conformalize(X[few], y[few])
    sets = own.predict_set(X)
    assert sets[taken == rare].all()
    assert not sets[taken != rare].all()


def test_groups_of_the_users_own_come_by_a_function_or_by_hand(calibrated):
    clf, X, y = calibrated

    def dark(X):
        return np.where(X.mean(1) < 4.9, "dark", "light")

    half = len(X) // 2
    told = copy.copy(clf).set_params(condition_on=dark).conformalize(X[:half], y[:half])
    by_hand = copy.copy(clf).conformalize(X[:half], y[:half], groups=dark(X[:half]))
    sets = told.predict_set(X[half:])
    assert np.array_equal(by_hand.predict_set(X[half:], groups=dark(X[half:])), sets)
    for group in ("dark", "light"):
        of_calibration, own = dark(X[:half]) == group, dark(X[half:]) == group
        band = metrics.coverage_band(of_calibration.sum(), own.sum(), 0.9, probability=0.999)
        assert band[0] <= metrics.coverage(sets[own], y[half:][own]) <= band[1]
    assert by_hand.predict_set(X[half:], groups=np.full(len(X) - half, "new")).all()
    with pytest.raises(ValueError, match="with groups, but none are given here"):
        by_hand.predict_set(X)
    with pytest.raises(ValueError, match="without groups, but some are given here"):
        clf.predict_set(X, groups=y)
    with pytest.raises(ValueError, match="groups has shape"):
        by_hand.predict_set(X, groups=["dark"])


def test_several_levels_give_nested_sets_in_one_call(calibrated):
    clf, X, _ = calibrated
    sets = clf.predict_set(X, confidence_level=[0.8, 0.9, 0.99])
    assert sets.shape == (len(X), 10, 3)
    assert np.array_equal(sets[..., 1], clf.predict_set(X, confidence_level=0.9))
    assert np.all(np.diff(sets.astype(int), axis=2) >= 0)
    for levels in ([], [0.9, 1.0], [[0.9]], "0.9"):
        with pytest.raises(ValueError, match="confidence_level"):
            clf.predict_set(X, confidence_level=levels)


def test_sets_that_may_not_be_empty_hold_the_label_that_is_answered(calibrated):
    clf, X, _ = calibrated
    sets = clf.predict_set(X, confidence_level=0.5)
    empty = ~sets.any(axis=1)
    filled = clf.predict_set(X, confidence_level=0.5, allow_empty=False)
    assert empty.any()
    assert np.array_equal(filled[~empty], sets[~empty])
    assert np.array_equal(clf.classes_[filled[empty].argmax(1)], clf.predict(X)[empty])


@pytest.mark.parametrize("score", ["randomized_aps", "randomized_raps"])
def test_random_sets_are_a_rows_own_in_every_batch(calibrated, score):
    clf, X, y = calibrated
    own = copy.copy(clf).set_params(conformity_score=score).conformalize(X[:300], y[:300])
    sets = own.predict_set(X)
    assert np.array_equal(own.predict_set(X[::-1]), sets[::-1])
    assert np.array_equal(own.predict_set(X[7:8]), sets[7:8])


def test_a_score_of_the_users_own_is_taken(calibrated):
    clf, X, y = calibrated
    own = copy.copy(clf).set_params(conformity_score=minus_probability).conformalize(X, y)
    sets = copy.copy(clf).conformalize(X, y).predict_set(X)
    # -p and 1 - p round differently.
    assert np.mean(own.predict_set(X) != sets) < 1e-3


def minus_probability(probabilities, uniform):
    return -probabilities


def test_temperatures_change_neither_labels_nor_exits_and_calibrate(calibrated):
    clf, X, y = calibrated
    raw, predictor = copy.copy(clf), clf._predictor
    ones = np.ones(len(clf.exit_costs_))
    calibration = replace(predictor.calibration, temperatures=ones)
    raw._predictor = replace(predictor, calibration=calibration)
    assert np.array_equal(raw.predict(X), clf.predict(X))
    assert np.array_equal(raw.predict_exit(X), clf.predict_exit(X))
    assert not np.array_equal(raw.predict_proba(X), clf.predict_proba(X))
    loss, raw_loss = (c.calibration_report(X, y)["log_loss"][-1] for c in (clf, raw))
    assert loss < raw_loss + 0.005


def test_temperatures_are_those_of_the_rows_that_leave_at_the_operating_point(calibrated):
    clf, _, _ = calibrated
    other = clf.at(cost_weight=0.001)
    assert other.temperatures_.shape == (len(clf.exit_costs_),)
    assert not np.array_equal(other.temperatures_, clf.temperatures_)


@pytest.mark.parametrize(
    "risk, limit", [("accuracy_drop", 0.05), ("disagreement", 0.1), ("mean_cost", 0.6)]
)
def test_limits_are_broken_in_at_most_5_percent_of_draws(calibrated, risk, limit):
    """Of calibration rows drawn from rows whose mean risk is known exactly."""
    clf, X, y = calibrated
    answers, frontier = clf.exit_answers(X, y), clf._predictor.frontier
    frontier = frontier.of_agreement() if risk == "disagreement" else frontier
    path = frontier.candidates_by_cost
    path = path[::-1] if risk == "mean_cost" else path
    losses = np.stack([risk_losses(frontier, answers, risk, point) for point in path])
    p_value_of = {
        "accuracy_drop": p_values.drop_p_value,
        "disagreement": p_values.binomial_p_value,
        "mean_cost": p_values.cost_p_value(clf.exit_costs_),
    }[risk]
    rng, broken = np.random.default_rng(0), 0
    for _ in range(300):
        sample = rng.integers(len(y), size=300)
        drawn = (own[sample] for own in losses)
        point, _ = p_values.last_certified(drawn, p_value_of, limit, 0.95)
        broken += point >= 0 and losses[point].mean() > limit
    assert broken <= binom.isf(1e-3, 300, 0.05)


def test_half_of_the_calibration_rows_test_and_the_other_half_gives_the_sets(calibrated):
    clf, X, y = calibrated
    controlled = clf.at(max_accuracy_drop=0.2, risk_confidence=0.9)
    assert controlled.risk_.n_samples == 200
    assert len(controlled.conformity_scores_) == 200
    assert controlled.risk_.certified
    assert controlled.risk_.estimate <= 0.2
    assert controlled.mean_cost(X) < clf.exit_costs_[-1]
    low, high = metrics.coverage_band(200, len(X), 0.9, probability=0.99999)
    assert low <= metrics.coverage(controlled.predict_set(X), y) <= high
    assert not hasattr(controlled.at(cost_weight=0.1), "risk_")


def test_fit_keeps_to_a_limit_as_at_does(digits, fresh_digits):
    X, y = fresh_digits
    asked = {"budget": 0.9, "risk_confidence": 0.95}
    clf = quick_classifier(**asked).fit(*digits, X_val=X[:800], y_val=y[:800])
    assert clf.risk_.risk == "mean_cost"
    assert clf.risk_.certified
    assert clf.mean_cost(X[800:]) < 0.9
    assert clf.at(**asked).risk_ == clf.risk_


def test_too_few_rows_stay_with_the_full_network_and_say_so(calibrated):
    clf, X, y = calibrated
    with pytest.warns(UserWarning, match="5 samples do not show any operating point"):
        controlled = clf.control_risk(X[:5], max_disagreement=0.01)
    assert not controlled.risk_.certified
    assert (controlled.predict_exit(X) == len(clf.exits_)).all()
    with pytest.warns(UserWarning, match="leave at the first exit"):
        controlled = clf.control_risk(X[:5], budget=clf.exit_costs_[0] + 1e-3)
    assert (controlled.predict_exit(X) == 0).all()


def test_warnings_name_the_line_that_asked(calibrated, digits):
    clf, X, y = calibrated
    asked = {"max_accuracy_drop": 0.0, "risk_confidence": 0.999}
    few = quick_classifier(max_epochs=1, **asked)
    noise = np.random.default_rng(0).uniform(0, 16, size=X.shape).astype(np.float32)
    for call in (
        lambda: clf.control_risk(X[:5], max_disagreement=0.01),
        lambda: copy.copy(clf).at(**asked),
        lambda: few.fit(*digits),
        lambda: clf.check_exchangeability(noise),
    ):
        with pytest.warns(UserWarning) as caught:
            call()
        assert [warning.filename for warning in caught] == [__file__]


def test_disagreement_needs_no_labels(calibrated):
    clf, X, y = calibrated
    controlled = clf.control_risk(X[:400], max_disagreement=0.1)
    plain = clf.predict_backbone(X[400:])
    assert controlled.risk_.n_samples == 400
    assert np.mean(plain != controlled.predict(X[400:])) <= 0.15
    assert len(controlled.conformity_scores_) == 400


@pytest.mark.filterwarnings("ignore:400 samples do not show any operating point")
def test_at_a_limit_of_disagreement_the_last_exit_is_the_plain_backbone(calibrated):
    """Else no limit below what the last exit gains by listening to earlier ones could be kept."""
    clf, X, y = calibrated
    # So low that some samples stay to the end, or all.
    controlled = clf.control_risk(X[:400], max_disagreement=0.02)
    stay = controlled.predict_exit(X) == len(clf.exits_)
    assert stay.any()
    plain = clf.predict_backbone(X)
    assert np.array_equal(controlled.predict(X)[stay], plain[stay])
    probabilities = controlled.predict_proba(X)[stay]
    assert np.array_equal(clf.classes_[probabilities.argmax(1)], plain[stay])
    # What every exit answers does not depend on the point, so that other points can be reached from it.
    answers, others = (c.exit_answers(X, y) for c in (clf, controlled))
    np.testing.assert_array_equal(answers.logits, others.logits)
    back = controlled.at(cost_weight=clf.cost_weight)
    assert np.array_equal(
        back.predict_proba(X), clf.at(cost_weight=clf.cost_weight).predict_proba(X)
    )


def test_no_point_that_passes_leaves_the_plain_backbones_answer(calibrated):
    clf, X, y = calibrated
    with pytest.warns(UserWarning, match="answers as the plain backbone"):
        controlled = clf.control_risk(X[:5], y[:5], max_accuracy_drop=0.0)
    assert np.array_equal(controlled.predict(X), clf.predict_backbone(X))


def test_limits_are_asked_for_one_at_a_time_and_in_their_range(calibrated):
    clf, X, y = calibrated
    with pytest.raises(ValueError, match="takes one of"):
        clf.control_risk(X, y)
    with pytest.raises(ValueError, match="y is missing"):
        clf.control_risk(X, max_accuracy_drop=0.1)
    with pytest.raises(ValueError, match="y is given"):
        clf.control_risk(X, y, max_disagreement=0.1)
    with pytest.raises(ValueError, match="max_disagreement=1.5 .*at least 0 and below 1"):
        clf.control_risk(X, max_disagreement=1.5)
    with pytest.raises(ValueError, match="risk_confidence"):
        clf.control_risk(X, max_disagreement=0.1, risk_confidence=1.0)
    with pytest.raises(ValueError, match="risk_confidence=0.9 is the confidence of a limit"):
        clf.at(cost_weight=0.1, risk_confidence=0.9)


def test_rows_like_the_calibration_rows_raise_no_warning_and_others_do(calibrated):
    clf, X, _ = calibrated
    assert clf.check_exchangeability(X).p_value > 0.01
    noise = np.random.default_rng(0).uniform(0, 16, size=X.shape).astype(np.float32)
    with pytest.warns(UserWarning, match="X is not like the calibration samples"):
        found = clf.check_exchangeability(noise)
    assert found.p_value < 1e-6
