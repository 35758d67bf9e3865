import numpy as np
import pytest
from scipy.stats import betabinom
from sklearn.metrics import brier_score_loss, log_loss

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


@pytest.fixture
def answers():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(4), size=12000)
    return probabilities, (probabilities.cumsum(1) < rng.random((12000, 1))).sum(1)


def test_log_loss_and_brier_score_are_those_of_scikit_learn(answers):
    probabilities, codes = answers
    assert metrics.log_loss(*answers) == pytest.approx(log_loss(codes, probabilities))
    truth = np.eye(4)[codes]
    by_class = [brier_score_loss(truth[:, k], probabilities[:, k]) for k in range(4)]
    assert metrics.brier_score(*answers) == pytest.approx(sum(by_class))


def test_calibration_error_is_nought_of_calibrated_and_the_distance_of_overconfident_answers(
    answers,
):
    probabilities, codes = answers
    confidence, correct = probabilities.max(1), probabilities.argmax(1) == codes
    assert metrics.calibration_error(confidence, correct) < 0.02
    assert metrics.calibration_error(confidence + 0.2, correct) == pytest.approx(0.2, abs=0.02)


def test_chance_adds_nothing_to_the_calibration_error_on_average():
    rng, squares = np.random.default_rng(0), []
    for _ in range(300):
        confidence = rng.uniform(0.5, 1, 90)
        sure, right, n_rows = metrics.reliability_curve(confidence, rng.random(90) < confidence)
        squares.append(np.average((sure - right) ** 2 - right * (1 - right) / (n_rows - 1)))
    assert abs(np.mean(squares)) < 3 * np.std(squares) / np.sqrt(300)


def test_the_report_counts_rows_by_exit_and_all_rows_last(answers):
    exit_index = np.arange(12000) % 2 * 2
    report = metrics.calibration_report(*answers, exit_index, 3)
    assert report["exit"].tolist() == [0, 1, 2, -1]
    assert report["n_rows"].tolist() == [6000, 0, 6000, 12000]
    assert np.isnan(report["log_loss"][1])
    assert report["log_loss"][-1] == pytest.approx(report["log_loss"][[0, 2]].mean())


def test_sets_by_exit_count_the_rows_of_each():
    sets = np.array([[True, False], [True, True], [False, False]])
    coverages, sizes = metrics.sets_by_exit(sets, [0, 1, 0], np.array([0, 0, 2]), 3)
    assert coverages[[0, 2]].tolist() == [1, 0] and sizes[[0, 2]].tolist() == [1.5, 0]
    assert np.isnan(coverages[1])


def test_exits_that_no_row_took_have_a_rate_of_nought_and_sets_of_nan():
    exit_index = np.array([1, 1])
    assert metrics.exit_rates(exit_index, 4).tolist() == [0, 1, 0, 0]
    sets = np.array([[True, False], [True, True]])
    coverages, sizes = metrics.sets_by_exit(sets, [0, 0], exit_index, 4)
    assert np.isnan([*coverages[[0, 2, 3]], *sizes[[0, 2, 3]]]).all()
    assert (coverages[1], sizes[1]) == (1, 1.5)


def test_coverage_is_beta_binomial():
    low, high = metrics.coverage_band(39, 1000, 0.9)
    law = betabinom(1000, 36, 4)
    assert low == pytest.approx(law.ppf(0.005) / 1000)
    assert high == pytest.approx(law.ppf(0.995) / 1000)
    assert metrics.coverage_band(9, 10, 0.9)[0] < 1


def test_reliability_bins_hold_equally_many_rows_and_at_least_two():
    confidence, correct = np.array([0.9, 0.5, 0.6, 0.8, 0.7]), np.array([1, 0, 0, 1, 1])
    sure, right, n_rows = metrics.reliability_curve(confidence, correct)
    np.testing.assert_allclose(sure, [0.6, 0.85])
    np.testing.assert_allclose(right, [1 / 3, 1])
    assert n_rows.tolist() == [3, 2]
    by_default = {n: len(metrics.reliability_curve(np.ones(n), np.ones(n))[2]) for n in (1, 4, 90)}
    assert by_default == {1: 1, 4: 2, 90: 15}
    assert metrics.reliability_curve(confidence, correct, n_bins=1)[2].tolist() == [5]


def test_calibration_error_weighs_bins_by_their_rows_and_takes_chance_off():
    confidence, correct = np.array([0.9, 0.5, 0.6, 0.8, 0.7]), np.array([1, 0, 0, 1, 1])
    first = (0.6 - 1 / 3) ** 2 - 1 / 3 * 2 / 3 / 2
    second = (0.85 - 1) ** 2
    pooled = (0.7 - 0.6) ** 2 - 0.6 * 0.4 / 4
    assert first * 3 + second * 2 < 0 and pooled < 0
    assert metrics.calibration_error(confidence, correct) == 0
    sure = np.array([0.9, 0.7, 0.7, 0.8, 0.7])
    expected = np.sqrt((3 * ((0.7 - 1 / 3) ** 2 - 1 / 9) + 2 * 0.15**2) / 5)
    assert metrics.calibration_error(sure, correct) == pytest.approx(expected)
    assert metrics.calibration_error(sure, correct, n_bins=1) == pytest.approx(
        np.sqrt(max((0.76 - 0.6) ** 2 - 0.06, 0))
    )


def test_calibration_error_takes_two_rows():
    assert np.isnan(metrics.calibration_error(np.array([0.5]), np.array([1])))
    assert metrics.calibration_error(np.array([0.5, 0.5]), np.array([1, 1])) == 0.5


def test_calibration_error_takes_fifteen_bins(answers):
    probabilities, codes = answers
    confidence, correct = probabilities.max(1) ** 2, probabilities.argmax(1) == codes
    by_default = metrics.calibration_error(confidence, correct)
    assert by_default == metrics.calibration_error(confidence, correct, n_bins=15)
    assert by_default != metrics.calibration_error(confidence, correct, n_bins=16)


def test_the_report_gives_the_accuracy_and_the_mean_probability_of_the_label():
    probabilities = np.array([[0.75, 0.25], [0.5, 0.5], [0.25, 0.75], [0.125, 0.875]])
    report = metrics.calibration_report(probabilities, np.array([0, 0, 1, 0]), np.zeros(4, int), 1)
    assert report["accuracy"].tolist() == [0.75, 0.75]
    assert report["confidence"].tolist() == [0.71875, 0.71875]


@pytest.mark.parametrize("costs", [[1.0, np.nan], [1.0, -0.1], [1.0, np.inf], [[1.0, 2.0]]])
def test_costs_that_make_no_sense_are_refused(costs):
    with pytest.raises(ValueError, match="exit_costs"):
        metrics.mean_cost(np.array([0, 1]), costs)


@pytest.mark.parametrize("exits", [[-1, 0], [0, 2], [0.0, 1.0], []])
def test_exits_that_are_not_there_are_refused(exits):
    for call in (metrics.exit_rates, lambda e, n: metrics.mean_cost(e, np.ones(n))):
        with pytest.raises(ValueError, match="exit_index"):
            call(np.array(exits), 2)


@pytest.mark.parametrize("wrong", [np.nan, -0.1, 1.1])
def test_probabilities_that_are_none_are_refused(wrong):
    probabilities = np.array([[0.5, 0.5], [wrong, 0.5]])
    for metric in (metrics.log_loss, metrics.brier_score):
        with pytest.raises(ValueError, match="probabilities"):
            metric(probabilities, [0, 1])


def test_numbers_of_bins_and_levels_that_make_no_sense_are_refused():
    for n_bins in (0, -1, 1.5, np.nan):
        with pytest.raises(ValueError, match="n_bins"):
            metrics.reliability_curve(np.full(4, 0.5), np.ones(4, bool), n_bins=n_bins)
    with pytest.raises(ValueError, match="confidence"):
        metrics.calibration_error(np.array([0.5, np.nan]), np.ones(2, bool))
    good = {"n_calibration": 99, "n_test": 10, "confidence_level": 0.9, "probability": 0.9}
    for name in good:
        for wrong in (-1, np.nan, 2.5):
            with pytest.raises(ValueError, match=name):
                metrics.coverage_band(**{**good, name: wrong})
