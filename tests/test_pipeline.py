"""A classifier's own methods at the end of pipelines and searches."""

import numpy as np
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import make_column_transformer
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_jeidnn.model_selection import accuracy_at_budget, mean_cost
from sklearn_jeidnn.pipeline import at, last_step, with_last_step

from .conftest import quick_classifier

GRID = {"earlyexitclassifier__cost_weight": [0.1]}


def tiny():
    return quick_classifier(max_epochs=1, module__width=16, module__n_blocks=2)


@pytest.fixture(scope="module")
def piped(digits):
    return make_pipeline(StandardScaler(), tiny()).fit(*digits)


@pytest.fixture(scope="module")
def searched(digits):
    pipeline = make_pipeline(StandardScaler(), tiny())
    return GridSearchCV(pipeline, GRID, cv=2, error_score="raise").fit(*digits)


def test_the_last_step_is_asked_with_samples_as_it_takes_them(piped, fresh_digits):
    X, y = fresh_digits
    classifier, rows = last_step(piped, X)
    assert classifier is piped[-1]
    np.testing.assert_array_equal(rows, piped[:-1].transform(X))
    np.testing.assert_array_equal(classifier.predict(rows), piped.predict(X))
    assert classifier.predict_set(rows).shape == (len(X), 10)
    assert mean_cost(piped, X, y) == classifier.mean_cost(rows)


@pytest.mark.parametrize(
    "build",
    [
        lambda clf: clf,
        lambda clf: make_pipeline(clf),
        lambda clf: make_pipeline("passthrough", clf),
        lambda clf: make_pipeline(StandardScaler(), make_pipeline(PCA(20, random_state=0), clf)),
        lambda clf: make_pipeline(make_column_transformer((StandardScaler(), slice(0, 30))), clf),
        lambda clf: make_pipeline(
            StandardScaler(), RandomizedSearchCV(clf, {"cost_weight": [0.1]}, n_iter=1, cv=2)
        ),
    ],
)
def test_pipelines_and_searches_may_contain_each_other(build, digits):
    X, y = digits
    estimator = build(tiny()).fit(X, y)
    classifier, rows = last_step(estimator, X)
    np.testing.assert_array_equal(classifier.predict(rows), estimator.predict(X))
    cheaper = at(estimator, cost_weight=10.0)
    np.testing.assert_array_equal(cheaper.predict(X), classifier.at(cost_weight=10.0).predict(rows))
    assert mean_cost(cheaper, X) <= mean_cost(estimator, X)
    assert 0 <= accuracy_at_budget(5.0)(estimator, X, y) <= 1


def test_another_point_leaves_the_estimator_as_it_was(piped, searched, fresh_digits):
    X = fresh_digits[0]
    for estimator in (piped, searched):
        before = estimator.predict_proba(X)
        cheaper = at(estimator, cost_weight=10.0)
        assert mean_cost(cheaper, X) <= mean_cost(estimator, X)
        np.testing.assert_array_equal(estimator.predict_proba(X), before)
    assert at(piped, cost_weight=10.0)[0] is piped[0]


def test_a_classifier_with_a_certified_point_goes_back_into_its_pipeline(piped, fresh_digits):
    X = fresh_digits[0]
    classifier, rows = last_step(piped, X)
    certified = with_last_step(piped, classifier.control_risk(rows, max_disagreement=0.2))
    assert certified[-1].risk_.limit == 0.2 and not hasattr(piped[-1], "risk_")
    assert certified.predict(X).shape == (len(X),)


def test_a_frozen_classifier_is_found(piped, fresh_digits):
    assert last_step(FrozenEstimator(piped))[0] is piped[-1]


def test_what_does_not_end_in_one_classifier_is_refused(digits, piped):
    X, y = digits
    others = [
        CalibratedClassifierCV(FrozenEstimator(piped)),
        make_pipeline(StandardScaler(), LogisticRegression()),
        make_pipeline(StandardScaler(), "passthrough"),
    ]
    for other in others:
        with pytest.raises(TypeError, match="is not an EarlyExitClassifier, a Pipeline that ends"):
            at(other, cost_weight=0.1)
    unfitted = GridSearchCV(quick_classifier(), {"cost_weight": [0.1]})
    with pytest.raises(AttributeError, match="GridSearchCV has no best_estimator_; fit it"):
        last_step(unfitted, X)
    with pytest.raises(NotFittedError):
        at(make_pipeline(quick_classifier()), cost_weight=0.1)
