import numpy as np
import pytest

from sklearn_jeidnn import metrics


def test_exit_rates_and_mean_cost_count_rows():
    exit_index = np.array([0, 0, 0, 2])
    assert metrics.exit_rates(exit_index, 3).tolist() == [0.75, 0, 0.25]
    assert metrics.mean_cost(exit_index, [0.2, 0.5, 1.0]) == pytest.approx(0.4)


def test_coverage_and_set_size_count_labels():
    sets = np.array([[True, True], [False, True]])
    assert metrics.coverage(sets, [0, 0]) == 0.5
    assert metrics.mean_set_size(sets) == 1.5


def test_coverage_band_holds_simulated_coverage_as_often_as_it_says():
    rng = np.random.default_rng(0)
    low, high = metrics.coverage_band(50, 200, 0.9, probability=0.95)
    calibration, test = rng.random((2000, 50)), rng.random((2000, 200))
    quantile = np.sort(calibration, axis=1)[:, int(np.ceil(51 * 0.9)) - 1]
    covered = (test <= quantile[:, None]).mean(1)
    assert 0.93 <= np.mean((covered >= low) & (covered <= high)) <= 0.99


def test_coverage_band_is_full_where_calibration_rows_are_too_few():
    assert metrics.coverage_band(5, 100, 0.9) == (1.0, 1.0)
