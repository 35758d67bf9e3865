import numpy as np
import pytest
from scipy.optimize import approx_fprime, minimize, minimize_scalar

from sklearn_jeidnn._operate import temperatures
from sklearn_jeidnn._operate.temperatures import (
    ScaledLogLoss,
    expected_errors,
    fit_leavers_temperatures,
    fit_temperatures,
    log_losses,
    log_softmax,
    smoothed_errors,
    softmax,
)

from .conftest import calibrated_logits, drawn_labels


def test_temperatures_undo_the_scaling_of_calibrated_logits():
    logits, codes = calibrated_logits(5000)
    scaled = np.stack([logits, 3 * logits, 0.5 * logits], axis=1)
    found = fit_temperatures(scaled, codes, np.ones(len(codes)))
    np.testing.assert_allclose(found, [1.0, 3.0, 0.5], rtol=0.1)


def test_temperatures_stay_finite_where_every_row_is_right():
    logits = 10 * np.eye(4, dtype=np.float32)[:, None]
    found = fit_temperatures(logits, np.arange(4), np.ones(4))
    assert np.isfinite(found).all() and (found > 0).all()


def test_temperatures_stay_finite_where_sure_exits_are_wrong():
    logits = np.array([[[0.0, -1e4]], [[-1e4, 0.0]], [[0.0, -1e30]]], dtype=np.float32)
    found = fit_temperatures(logits, np.array([1, 0, 1]), np.ones(3))
    assert np.isfinite(found).all() and (found > 1).all()


def test_rows_of_no_weight_do_not_move_temperatures():
    logits, codes = calibrated_logits(2000)
    weights = np.repeat([2.0, 0.0], 1000)
    wrong = np.where(weights > 0, codes, (codes + 1) % 4)
    found = fit_temperatures(logits[:, None], wrong, weights)
    alone = fit_temperatures(logits[:1000, None], codes[:1000], np.ones(1000))
    np.testing.assert_allclose(found, alone, rtol=1e-5)


def test_temperatures_of_leavers_follow_their_rows_and_where_few_leave_those_of_all():
    rng = np.random.default_rng(0)
    logits = 3 * rng.standard_normal((3010, 4), dtype=np.float32)
    # Twice as sure as is right.
    codes = drawn_labels(logits / 2, rng)
    exit_index = np.repeat([0, 1], [3000, 10])
    own = fit_leavers_temperatures(logits, codes, exit_index, np.array([1.0, 1.0, 5.0]))
    assert abs(own[0] - 2) < 0.1
    assert 1 < own[1] < 1.5
    assert own[2] == 5


def test_expected_errors_of_calibrated_logits_are_the_errors_on_average():
    logits, codes = calibrated_logits(5000)
    exits = np.stack([logits[:, ::-1], logits], axis=1)
    expected = expected_errors(exits, np.ones(2)).mean(0)
    errors = (exits.argmax(-1) != codes[:, None]).mean(0)
    np.testing.assert_allclose(expected, errors, atol=0.02)


def test_an_exit_that_says_what_the_last_one_says_is_expected_to_be_as_often_wrong():
    logits, _ = calibrated_logits(500)
    exits = np.stack([3 * logits, logits], axis=1)
    expected = expected_errors(exits, np.array([0.5, 1.0]))
    assert np.array_equal(expected[:, 0], expected[:, 1])


def test_errors_are_counted_partly_as_they_fell_partly_as_the_last_exit_expects():
    logits, codes = calibrated_logits(500)
    exits = np.stack([logits[:, ::-1], 3 * logits], axis=1)
    counted = smoothed_errors(exits, codes, np.ones(500), 0.5)
    found = fit_temperatures(exits, codes, np.ones(500))
    of_last = softmax(exits[:, 1] / found[1])
    expected = 1 - np.take_along_axis(of_last, exits.argmax(-1), axis=1)
    fell = exits.argmax(-1) != codes[:, None]
    np.testing.assert_allclose(counted, (fell + expected) / 2, rtol=1e-5)
    assert counted.dtype == exits.dtype


def test_the_derivatives_are_those_of_the_loss():
    logits, codes = calibrated_logits(5)
    where = np.array([-0.5, 0.0, 0.3, 1.0, 2.0])
    of_samples = ScaledLogLoss.of(logits, codes)
    losses, slopes, curvatures = of_samples(where)
    scaled = logits / np.exp(where)[:, None]
    np.testing.assert_allclose(losses, log_losses(scaled[:, None], codes)[:, 0], rtol=1e-5)
    for order, derivatives in [(0, slopes), (1, curvatures)]:
        numerical = approx_fprime(where, lambda v, order=order: of_samples(v)[order])
        np.testing.assert_allclose(derivatives, np.diag(numerical), atol=1e-5)


def test_log_losses_are_those_of_the_right_label():
    logits, codes = calibrated_logits(20)
    exits = np.stack([logits, 2 * logits], axis=1)
    expected = -np.log(softmax(exits)[np.arange(20), :, codes])
    np.testing.assert_allclose(log_losses(exits, codes), expected, rtol=1e-5, atol=1e-6)


def test_large_logits_do_not_overflow():
    logits = np.array([[1000.0, 0.0], [-1000.0, 0.0], [-5000.0, -5001.0]])
    exact = [[0, -1000], [-1000, 0], [-np.log1p(np.exp(-1)), -np.log1p(np.exp(-1)) - 1]]
    np.testing.assert_allclose(log_softmax(logits), exact)
    np.testing.assert_allclose(softmax(logits), np.exp(exact))


def least_at(loss):
    """Where a function of one number is least."""
    return minimize_scalar(loss, bounds=(-6, 6), method="bounded", options={"xatol": 1e-9}).x


# Few samples, so that penalties matter.
FEW, CODES = np.array([[4.0, 0, 0], [0, 3, 0], [0, 0, 2], [2, 0, 0], [3, 1, 0]]), np.arange(5) % 3


@pytest.mark.parametrize("weights", [np.ones(5), np.array([2.0, 1, 1, 0.5, 0.5])])
@pytest.mark.parametrize("codes", [FEW.argmax(axis=1), CODES])
def test_temperatures_minimise_the_mean_log_loss_and_a_hundredth_of_their_squared_logarithm(
    weights, codes
):
    exits = np.stack([FEW, 0.25 * FEW], axis=1)

    def loss(log_temperature, logits):
        losses = log_losses(logits[:, None] / np.exp(log_temperature), codes)[:, 0]
        return weights @ losses / 5 + 0.01 * log_temperature**2

    expected = [least_at(lambda v, own=own: loss(v, own)) for own in (FEW, 0.25 * FEW)]
    found = fit_temperatures(exits, codes, weights)
    np.testing.assert_allclose(np.log(found), expected, atol=2e-4)


@pytest.mark.parametrize("copies", [1, 40])
def test_temperatures_of_leavers_weigh_thirty_samples_for_those_of_all(copies):
    logits, codes = np.tile(FEW, (copies, 1)), np.tile(CODES, copies)
    exit_index, of_all = np.tile([0, 0, 0, 1, 1], copies), np.array([0.5, 2.0])

    def loss(log_ratio, exit_number):
        own = exit_index == exit_number
        temperature = of_all[exit_number] * np.exp(log_ratio)
        losses = log_losses(logits[own][:, None] / temperature, codes[own])
        return losses.sum() + 30 * log_ratio**2

    expected = [least_at(lambda v, own=own: loss(v, own)) for own in (0, 1)]
    found = fit_leavers_temperatures(logits, codes, exit_index, of_all)
    np.testing.assert_allclose(np.log(found / of_all), expected, atol=2e-4)


def loss_of_one_temperature(logits, codes):
    """What the temperature of a lone exit minimises, as a function of its logarithm."""

    def loss(log_temperature):
        losses = log_losses(logits[:, None] / np.exp(log_temperature), codes)
        return losses.mean() + 0.01 * np.square(log_temperature).sum()

    return loss


# Tiny logits that are right: a temperature of 1 hardly matters, one of a hundredth makes them sure.
TWO_MINIMA = [
    ([[0.01, 0.0]], [0]),
    ([[0.003, 0.005], [0.125, -0.184]], [1, 0]),
    ([[0.025, -0.013, -0.003], [16.738, 0.002, -0.001], [10.885, -42.4, -0.238]], [0, 0, 0]),
    ([[0.013, 0.417, -4.137], [0.004, 0.006, -0.181]], [1, 1]),
    ([[-0.029, 0.002], [-0.297, 20.073], [0.003, -0.002]], [1, 1, 0]),
]


@pytest.mark.parametrize("logits, codes", TWO_MINIMA)
def test_no_other_temperature_is_better_where_the_loss_has_two_minima(logits, codes):
    logits, codes = np.array(logits), np.array(codes)
    loss = loss_of_one_temperature(logits, codes)
    found = np.log(fit_temperatures(logits[:, None], codes, np.ones(len(codes))))[0]
    assert loss(found) <= min(map(loss, np.linspace(-6, 6, 601))) + 1e-6


def test_steps_that_lead_to_and_fro_end_at_the_minimum(monkeypatch):
    """From 0 Newton's step leads to -5.9, and from there back to 0."""
    monkeypatch.setattr(temperatures, "GRID", np.array([-6.0, 0.0, 6.0]))
    logits, codes = np.array([[0.446, 0.003], [-1.839, 0.044]]), np.array([0, 1])
    found = np.log(fit_temperatures(logits[:, None], codes, np.ones(2)))[0]
    expected = least_at(loss_of_one_temperature(logits, codes))
    assert found == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_logarithms_of_temperatures_stay_within_six_of_zero(sign):
    """Sure and wrong, or nearly blind and right."""
    logits, codes = np.array([[[0.0, 1e4]], [[0.0, 1e4]]]) * sign ** np.arange(2), np.zeros(2, int)
    if sign < 0:
        logits = np.array([[[1e-3, 0.0]]] * 2)
    found = np.log(fit_temperatures(logits, codes, np.full(2, 1e4)))
    np.testing.assert_allclose(found, 6 * sign, atol=1e-9)


@pytest.mark.parametrize("exponent", range(-4, 31, 2))
def test_temperatures_have_no_more_loss_than_those_of_a_quasi_newton_method(exponent):
    rng = np.random.default_rng(exponent + 4)
    logits, codes = rng.standard_normal((7, 3)) * 10.0**exponent, rng.integers(3, size=7)
    loss = loss_of_one_temperature(logits, codes)
    expected = minimize(loss, np.zeros(1), bounds=[(-6, 6)]).fun
    found = np.log(fit_temperatures(logits[:, None], codes, np.ones(7)))[0]
    assert loss(found) <= expected + 1e-7 * max(1.0, expected)


def test_samples_of_no_weight_leave_a_temperature_of_one():
    logits, codes = calibrated_logits(20)
    assert fit_temperatures(logits[:, None], codes, np.zeros(20)) == 1


def test_temperatures_do_not_depend_on_how_many_samples_are_computed_at_a_time(monkeypatch):
    logits, codes = calibrated_logits(50)
    exits, exit_index = np.stack([logits, 3 * logits], axis=1), np.arange(50) % 2
    fits = []
    for at_once in (temperatures.BLOCK, 28):
        monkeypatch.setattr(temperatures, "BLOCK", at_once)
        of_all = fit_temperatures(exits, codes, np.ones(50))
        leavers = fit_leavers_temperatures(exits[:, 1], codes, exit_index, of_all)
        fits.append([of_all, leavers])
    np.testing.assert_allclose(fits[0], fits[1], rtol=1e-9)
