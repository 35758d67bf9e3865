import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_jeidnn.model_selection import (
    accuracy_at_budget,
    cheapest_within,
    cost_adjusted_accuracy,
    mean_cost,
    most_accurate_within,
)

from .conftest import quick_classifier

RESULTS = {
    "mean_test_accuracy": np.array([0.95, 0.945, 0.90, 0.5]),
    "mean_test_mean_cost": np.array([1.0, 0.6, 0.3, 0.2]),
}


@pytest.mark.parametrize(
    "refit, chosen",
    [
        (cheapest_within(0.01), 1),
        (cheapest_within(0), 0),
        (cheapest_within(0.1), 2),
        (most_accurate_within(0.7), 1),
        (most_accurate_within(0.25), 3),
        (most_accurate_within(0.1), 3),
    ],
)
def test_refit_callables_choose_by_accuracy_and_cost(refit, chosen):
    assert refit(RESULTS) == chosen


def test_a_refit_callable_says_which_scorers_it_needs():
    with pytest.raises(ValueError, match="mean_test_mean_cost"):
        cheapest_within()({"mean_test_accuracy": [1.0]})


def test_scorers_say_what_the_estimator_says(fitted, fresh_digits):
    accuracy, cost = fitted.score(*fresh_digits), fitted.mean_cost(fresh_digits[0])
    assert mean_cost(fitted, *fresh_digits) == cost
    assert cost_adjusted_accuracy(0.2)(fitted, *fresh_digits) == accuracy - 0.2 * cost
    assert accuracy_at_budget(0.9)(fitted, *fresh_digits) == fitted.at(budget=0.9).score(
        *fresh_digits
    )


def test_a_search_over_pipelines_scores_and_refits_by_accuracy_and_cost(digits):
    pipeline = make_pipeline(StandardScaler(), quick_classifier())
    search = GridSearchCV(
        pipeline,
        {"earlyexitclassifier__cost_weight": [0, 5]},
        scoring={
            "accuracy": "accuracy",
            "mean_cost": mean_cost,
            "within_budget": accuracy_at_budget(0.9),
        },
        refit=most_accurate_within(0.81),
        cv=2,
    ).fit(*digits)
    assert search.best_params_["earlyexitclassifier__cost_weight"] == 5
    assert search.cv_results_["mean_test_within_budget"].min() > 0.5


@pytest.mark.parametrize("value", [-1, np.nan, np.inf, "cheap", None, True])
def test_numbers_of_scorers_that_make_no_sense_are_refused_before_the_search(value):
    for scorer, name in (
        (accuracy_at_budget, "budget"),
        (most_accurate_within, "budget"),
        (cost_adjusted_accuracy, "cost_weight"),
        (cheapest_within, "max_accuracy_drop"),
    ):
        with pytest.raises(ValueError, match=f"{name}={value!r} is not allowed"):
            scorer(value)
