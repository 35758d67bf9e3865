import numpy as np
import pytest

from sklearn_jeidnn import conformal


def test_quantile_is_the_finite_sample_one():
    scores = np.arange(1, 10) / 10
    assert conformal.score_quantile(scores, 0.5) == 0.5
    assert conformal.score_quantile(scores, 0.9) == 0.9


def test_too_few_scores_give_full_sets():
    assert conformal.score_quantile(np.zeros(8), 0.9) == np.inf
    assert conformal.prediction_sets(np.ones((2, 3)), np.inf).all()


@pytest.mark.parametrize("confidence_level", [0.5, 0.8, 0.9, 0.95, 0.99])
def test_least_calibration_size_is_the_first_that_is_enough(confidence_level):
    enough = conformal.least_calibration_size(confidence_level)
    assert np.isfinite(conformal.score_quantile(np.zeros(enough), confidence_level))
    assert conformal.score_quantile(np.zeros(enough - 1), confidence_level) == np.inf


def test_true_label_values_take_the_column_of_the_code():
    scores = conformal.lac_scores(np.array([[0.75, 0.25], [0.125, 0.875]]))
    assert conformal.true_label_values(scores, [1, 1]).tolist() == [0.75, 0.125]


def test_a_label_that_scores_exactly_the_quantile_is_in_the_set():
    assert conformal.prediction_sets(np.array([[0.3, 0.31]]), 0.3).tolist() == [[True, False]]
