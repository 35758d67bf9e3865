"""Of the answers that are given no more are wrong than was asked for; what nothing shows is left to a human."""

import copy
import pickle
import warnings

import numpy as np
import pytest
from scipy.stats import binom
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_jeidnn import EarlyExitClassifier, metrics
from sklearn_jeidnn._operate import deferral
from sklearn_jeidnn._operate.certification import random_halves
from sklearn_jeidnn._operate.deferral import Deferral, LabelledAnswers, ThresholdPath
from sklearn_jeidnn.pipeline import last_step

from .conftest import TinyConv, quick_classifier

N_DRAWS = 600
# Exceeded by chance once in a thousand tests.
MOST_BROKEN = binom.isf(1e-3, N_DRAWS, 0.1)


def drawn(rng, n_samples, worst=0.5):
    """Answers whose errors are as likely as they say; ``worst`` is the error of the least sure ones."""
    doubt = worst * rng.random(n_samples) ** 3
    return LabelledAnswers(confidence=1 - doubt, wrong=rng.random(n_samples) < doubt)


def true_error(threshold, worst=0.5):
    """Error of the answers of :func:`drawn` from a threshold on: doubt is uniform to the third power."""
    largest = min(1.0, ((1 - threshold) / worst) ** (1 / 3))
    return worst * largest**3 / 4


def test_the_true_error_of_the_simulation_is_what_it_says():
    answers = drawn(np.random.default_rng(0), 10**6)
    for threshold in (0.6, 0.9, 0.99):
        assert answers.wrong_from(threshold).mean() == pytest.approx(
            true_error(threshold), rel=0.05
        )


@pytest.mark.parametrize("misleading", [False, True])
@pytest.mark.parametrize("risk, n_samples", [(0.02, 400), (0.05, 200), (0.08, 1000)])
@pytest.mark.filterwarnings("ignore")
def test_the_risk_is_seldom_broken(risk, n_samples, misleading):
    rng, broken, answered = np.random.default_rng(0), 0, []
    for _ in range(N_DRAWS):
        gates = drawn(rng, 100)
        if misleading:
            # As if nothing were wrong: the order begins with thresholds that break the risk.
            gates = LabelledAnswers(confidence=gates.confidence, wrong=np.zeros(100, dtype=bool))
        found = Deferral(gates=gates, labelled=drawn(rng, n_samples)).certified(risk, 0.9)
        broken += found.certified and true_error(found.threshold) > risk
        answered.append(found.n_answered / n_samples)
    assert broken <= MOST_BROKEN
    assert np.mean(answered) > (0.4 if n_samples == 1000 else 0.05)


@pytest.mark.parametrize("confidence", [0.8, 0.99])
def test_the_threshold_is_the_last_that_passes_and_the_certificate_counts_what_it_answers(
    confidence,
):
    rng = np.random.default_rng(1)
    gates, labelled = drawn(rng, 300), drawn(rng, 2000)
    found = Deferral(gates=gates, labelled=labelled).certified(0.05, confidence)
    path = ThresholdPath.of(gates).from_surest(0.05).thresholds
    wrong = [labelled.wrong_from(threshold) for threshold in path]
    p_values = [binom.cdf(own.sum(), len(own), 0.05) for own in wrong]
    fails = next(i for i, p in enumerate(p_values) if p > 1 - confidence)
    assert 0 < fails
    assert found.threshold == path[fails - 1]
    assert found.p_value == pytest.approx(p_values[fails - 1])
    assert (found.n_answered, found.n_errors) == (len(wrong[fails - 1]), wrong[fails - 1].sum())
    assert (found.n_samples, found.certified) == (2000, True)


def test_no_threshold_behind_one_that_fails_is_taken():
    gates = drawn(np.random.default_rng(1), 300)
    first, second, *_ = ThresholdPath.of(gates).from_surest(0.05).thresholds
    between = np.linspace(first - 1e-6, second + 1e-6, 200)
    sure, least = np.full(500, 1 - 1e-6), np.full(20000, second - 1e-3)
    wrong = np.concatenate([np.zeros(500), np.arange(200) < 60, np.zeros(20000)])
    confidence = np.concatenate([sure, between, least])
    labelled = LabelledAnswers(confidence=confidence, wrong=wrong.astype(bool))
    assert labelled.wrong.mean() < 0.01
    found = Deferral(gates=gates, labelled=labelled).certified(0.05, 0.9)
    assert found.threshold == first
    assert found.n_answered == 500


def test_all_samples_are_answered_if_all_answers_keep_to_the_risk():
    rng = np.random.default_rng(0)
    gates, labelled = drawn(rng, 300), drawn(rng, 3000)
    found = Deferral(gates=gates, labelled=labelled).certified(0.3, 0.9)
    assert (found.threshold, found.n_answered) == (0, 3000)


def test_thresholds_fall_and_part_the_samples_that_set_the_gates_about_evenly():
    gates = drawn(np.random.default_rng(0), 1000)
    thresholds, answered, errors = ThresholdPath.of(gates)
    assert len(thresholds) == deferral.MOST_THRESHOLDS
    assert (np.diff(thresholds) < 0).all() and thresholds[-1] == 0
    np.testing.assert_allclose(answered, np.arange(1, 101) / 100)
    for threshold, share in zip(thresholds, answered, strict=True):
        assert (gates.confidence >= threshold).mean() == share
    assert errors[-1] == pytest.approx(0.125, abs=0.02) and errors[0] < 1e-3


def test_samples_that_rounding_alone_tells_apart_are_on_the_same_side_of_every_threshold():
    rng = np.random.default_rng(0)
    values = np.array([0.6, 0.9, 0.99, 1.0])
    exact = rng.choice(values, size=500)
    # As single precision moves the log-odds.
    confidence = 1 - (1 - exact) * (1 + 4e-6 * rng.random(500))
    assert len(np.unique(confidence)) > 300
    gates = LabelledAnswers(confidence=confidence, wrong=np.zeros(500, dtype=bool))
    thresholds = ThresholdPath.of(gates).thresholds
    assert len(thresholds) == 4
    sides = np.searchsorted(np.sort(thresholds), gates.confidence)
    for value in values:
        assert len(np.unique(sides[exact == value])) == 1


@pytest.mark.parametrize("confidence", [0.25, 1.0])
def test_samples_of_one_confidence_are_answered_all_or_not_at_all(confidence):
    gates = LabelledAnswers(confidence=np.full(9, confidence), wrong=np.zeros(9, dtype=bool))
    assert ThresholdPath.of(gates).thresholds.tolist() == [0]


def test_a_few_samples_that_set_the_gates_suffice_for_an_order():
    rng = np.random.default_rng(0)
    found = Deferral(gates=drawn(rng, 1), labelled=drawn(rng, 500)).certified(0.3, 0.9)
    assert found.threshold == 0


def test_if_nothing_passes_every_sample_is_deferred_and_the_number_that_is_told_suffices():
    rng = np.random.default_rng(0)
    gates = drawn(rng, 500)
    few = Deferral(gates=gates, labelled=drawn(rng, 40))
    with pytest.warns(UserWarning, match="40 samples that calibrate do not show") as caught:
        found = few.certified(0.02, 0.95)
    assert not found.certified and np.isinf(found.threshold) and np.isnan(found.p_value)
    assert (found.n_answered, found.n_errors) == (0, 0)
    # Each time it is asked, also if it is known already.
    with pytest.warns(UserWarning, match="every sample is deferred"):
        assert few.certified(0.02, 0.95) is found
    needed = int(str(caught[0].message).split("About ")[1].split()[0])
    passed = [
        Deferral(gates=gates, labelled=drawn(rng, needed)).certified(0.02, 0.95).certified
        for _ in range(100)
        if not warnings.simplefilter("ignore")
    ]
    assert 0.75 < np.mean(passed) <= 1
    too_few = [
        Deferral(gates=gates, labelled=drawn(rng, needed // 3)).certified(0.02, 0.95).certified
        for _ in range(100)
    ]
    assert np.mean(too_few) < 0.5


def test_a_risk_that_no_threshold_is_expected_to_keep_to_is_told_apart():
    rng = np.random.default_rng(0)
    hopeless = LabelledAnswers(confidence=0.5 + rng.random(300) / 10, wrong=rng.random(300) < 0.5)
    with pytest.warns(UserWarning, match="Give a larger risk: no threshold is expected"):
        Deferral(gates=hopeless, labelled=hopeless).certified(0.01, 0.95)


# samples_needed


def fewest(risk, confidence, error, power):
    """Number by number."""
    for n in range(1, 5000):
        shows = binom.cdf(np.arange(n + 1), n, risk) <= 1 - confidence
        if shows.any() and binom.cdf(np.flatnonzero(shows).max(), n, error) >= power:
            return n
    raise AssertionError("more than 5,000")


@pytest.mark.parametrize("confidence", [0.9, 0.95])
@pytest.mark.parametrize("power", [0.5, 0.9])
@pytest.mark.parametrize(
    "risk, error", [(0.1, 0.0), (0.1, 0.03), (0.1, 0.06), (0.27276889691947076, 0.18973067976528)]
)
def test_samples_needed_are_the_fewest_that_show_a_risk(risk, error, confidence, power):
    found = metrics.samples_needed(risk, confidence=confidence, expected_error=error, power=power)
    assert found == fewest(risk, confidence, error, power)


def test_samples_needed_grow_with_the_share_that_is_deferred():
    assert metrics.samples_needed(0.01) == np.ceil(np.log(0.05) / np.log(0.99)) == 299
    assert metrics.samples_needed(0.01, answered_share=0.5) == 598
    assert metrics.samples_needed(0.01, answered_share=0.75) == 399


@pytest.mark.parametrize(
    "name, value",
    [
        ("risk", 0),
        ("risk", 1),
        ("risk", "little"),
        ("confidence", 1),
        ("expected_error", -0.1),
        ("expected_error", 0.1),
        ("expected_error", 0.0999999),
        ("answered_share", 0),
        ("answered_share", 1.1),
        ("power", 1),
    ],
)
def test_samples_that_make_no_sense_are_refused(name, value):
    with pytest.raises(ValueError, match=rf"\b{name}="):
        metrics.samples_needed(**{"risk": 0.1, name: value})


# The estimator


@pytest.fixture(scope="module")
def clf(digits, fresh_digits):
    """A classifier with 200 rows for the gates and 400 that calibrate."""
    X, y = fresh_digits
    fitted = quick_classifier(module=TinyConv, max_epochs=8).fit(
        *digits, X_val=X[:400], y_val=y[:400]
    )
    return fitted.conformalize(X[400:800], y[400:800])


def test_answers_are_those_of_predict_where_they_are_sure_enough(clf, fresh_digits):
    X, y = (values[800:] for values in fresh_digits)
    found = clf.predict_or_defer(X, risk=0.1)
    labels, deferred, certificate = found
    assert np.array_equal(labels, clf.predict(X))
    assert certificate.certified and certificate.n_samples == 400
    assert np.array_equal(deferred, clf.predict_proba(X).max(axis=1) < certificate.threshold)
    assert 0.02 < deferred.mean() < 0.9
    answered = labels[~deferred] == y[~deferred]
    assert answered.mean() > (labels == y).mean()
    # Three errors in a hundred more than was certified would be chance in fewer than one of a thousand.
    assert answered.mean() > 1 - 0.1 - 0.04


def test_the_samples_that_calibrate_are_those_that_are_counted(clf, fresh_digits):
    X, y = (values[400:800] for values in fresh_digits)
    labels, deferred, certificate = clf.predict_or_defer(X, risk=0.1)
    assert certificate.n_answered == (~deferred).sum()
    assert certificate.n_errors == (labels != y)[~deferred].sum()


def test_a_larger_risk_or_less_confidence_never_defers_more(clf, fresh_digits):
    X = fresh_digits[0][800:]
    shares = [clf.predict_or_defer(X, risk=risk).deferred.mean() for risk in (0.08, 0.12, 0.2)]
    assert shares == sorted(shares, reverse=True) and shares[0] > shares[-1]
    unsure, sure = (clf.predict_or_defer(X, risk=0.1, confidence=c) for c in (0.5, 0.999))
    assert unsure.certificate.threshold < sure.certificate.threshold


def test_a_sample_is_deferred_whatever_comes_with_it(clf, fresh_digits):
    X = fresh_digits[0][800:830]
    alone = [clf.predict_or_defer(row[None], risk=0.1).deferred[0] for row in X]
    assert np.array_equal(alone, clf.predict_or_defer(X, risk=0.1).deferred)


@pytest.mark.parametrize("dtype", [str, object, float, np.int8, bool])
def test_labels_keep_their_dtype(digits, fresh_digits, dtype):
    (X, y), (X_new, y_new) = digits, fresh_digits
    fitted = quick_classifier(max_epochs=2)
    fitted.fit(X, (y % 2).astype(dtype), X_val=X_new[:600], y_val=(y_new[:600] % 2).astype(dtype))
    found = fitted.predict_or_defer(X_new[600:], risk=0.4)
    assert found.labels.dtype == fitted.predict(X_new[600:]).dtype
    assert not found.deferred.all()


def test_the_predictor_and_what_is_pickled_and_saved_answer_the_same(clf, fresh_digits, tmp_path):
    X = fresh_digits[0][800:]
    expected = clf.predict_or_defer(X, risk=0.1)
    clf.save(tmp_path / "model.jeidnn")
    others = [
        clf.predictor(),
        pickle.loads(pickle.dumps(clf)),
        EarlyExitClassifier.load(tmp_path / "model.jeidnn", module=TinyConv),
    ]
    for other in others:
        found = other.predict_or_defer(X, risk=0.1)
        assert found.certificate == expected.certificate
        assert np.array_equal(found.deferred, expected.deferred)


def test_samples_without_an_answer_are_deferred_and_count_as_errors(digits, fresh_digits):
    class WithGaps(TinyConv):
        def forward(self, X):
            return super().forward(X).masked_fill(X[:, :1] == 99, float("nan"))

    (X, y), (X_new, y_new) = digits, fresh_digits
    fitted = quick_classifier(module=WithGaps, max_epochs=4, budget=1.5)
    fitted.fit(X, y, X_val=X_new[:400], y_val=y_new[:400])
    X_broken = X_new.copy()
    X_broken[::50, 0] = 99
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted.conformalize(X_broken[400:1000], y_new[400:1000])
        stays = fitted.predict_exit(X_broken) == len(fitted.exits_)
        broken = stays & (X_broken[:, 0] == 99)
        found = fitted.predict_or_defer(X_broken, risk=0.6, confidence=0.6)
    assert broken.sum() > 0
    assert found.certificate.threshold <= 0.1 or found.deferred[broken].all()
    assert found.deferred[broken].all()
    correct = fitted._predictor.calibration.correct
    assert not correct[broken[400:1000]].any()


def test_a_certified_operating_point_has_only_the_other_half_to_certify_answers(clf, fresh_digits):
    moved = clf.at(max_accuracy_drop=0.3, risk_confidence=0.6)
    found = moved.predict_or_defer(fresh_digits[0][800:], risk=0.15)
    assert found.certificate.n_samples == 200
    answers = clf._predictor.samples.answers
    _, kept = random_halves(answers, clf._predictor.rule.seed)
    calibration = moved._predictor.calibration
    assert np.array_equal(calibration.correct, calibration.codes == answers.codes[kept])


def test_without_samples_that_calibrate_an_error_says_what_to_give(digits, fresh_digits):
    X, y = fresh_digits
    none = quick_classifier(cv=2, validation_fraction=0, max_epochs=2).fit(*digits)
    with pytest.raises(ValueError, match=r"risk=0.2 .*conformalize"):
        none.predict_or_defer(X, risk=0.2)
    none.conformalize(X[:600], y[:600])
    assert none.predict_or_defer(X[600:], risk=0.5).certificate.n_samples == 600


def test_samples_that_networks_learned_from_certify_nothing(clf, digits):
    knows = copy.copy(clf)
    with pytest.warns(UserWarning, match="trained networks"):
        knows.conformalize(*digits)
    with pytest.raises(ValueError, match=r"confidence=0.9 cannot be given: .* trained networks"):
        knows.predict_or_defer(digits[0], risk=0.1, confidence=0.9)


@pytest.mark.parametrize("value", [0, 1, -0.1, np.nan, "0.1", None, True])
@pytest.mark.parametrize("name", ["risk", "confidence"])
def test_what_is_no_probability_is_refused(clf, fresh_digits, name, value):
    for predictor in (clf, clf.predictor()):
        with pytest.raises(ValueError, match=rf"^{name}="):
            predictor.predict_or_defer(fresh_digits[0][:2], **{"risk": 0.1, name: value})


def test_an_unfitted_classifier_says_so():
    with pytest.raises(NotFittedError):
        EarlyExitClassifier().predict_or_defer([[0.0]], risk=0.1)


def test_a_pipelines_classifier_defers_what_its_steps_make_of_samples(digits, fresh_digits):
    X, y = fresh_digits
    pipeline = make_pipeline(StandardScaler(), quick_classifier(max_epochs=4)).fit(*digits)
    last_step(pipeline)[0].conformalize(pipeline[:-1].transform(X[:800]), y[:800])
    classifier, rows = last_step(pipeline, X[800:])
    found = classifier.predict_or_defer(rows, risk=0.3)
    assert np.array_equal(found.labels, pipeline.predict(X[800:]))
    assert not found.deferred.all()


def test_gates_of_the_papers_recipe_defer_too(digits, fresh_digits):
    X, y = fresh_digits
    bilevel = quick_classifier(module=TinyConv, gate_training="bilevel", max_epochs=4)
    bilevel.fit(*digits, X_val=X[:800], y_val=y[:800])
    assert bilevel.predict_or_defer(X[800:], risk=0.6, confidence=0.8).certificate.n_samples == 400
