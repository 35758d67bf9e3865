"""Temperatures that calibrate exits, and errors as calibrated probabilities expect them."""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

# Loss and gradient at some parameters: (n_parameters,) -> value, (n_parameters,)
LossWithGradient = Callable[[np.ndarray], tuple[float, np.ndarray]]

# Bound of logarithms of temperatures and of mixing weights: wide enough for any use, narrow enough for any float.
MAX_LOG_TEMPERATURE = 6.0
# Share of the observed errors; the rest are those that the last exit's calibrated probabilities expect (decision 48).
OBSERVED_SHARE = 0.25
# Weight, in samples, of the assumption that samples which leave at an exit are like all samples there (measured on
# CIFAR-10: with 500 held-out samples, 30 to 100 give the smallest log-loss; with 5,000 all values are alike).
SHRINKAGE_SAMPLES = 30.0
TEMPERATURE_PENALTY = 1e-2


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Logarithms of the probabilities: (..., n_classes) -> (..., n_classes)."""
    shifted = logits - logits.max(-1, keepdims=True)
    log_probs: np.ndarray = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return log_probs


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities: (..., n_classes) -> (..., n_classes)."""
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    probs: np.ndarray = exponentials / exponentials.sum(-1, keepdims=True)
    return probs


def log_losses(logits: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Log-loss at every exit: (n_samples, n_exits, n_classes), (n_samples,) -> (n_samples, n_exits)."""
    return -np.take_along_axis(log_softmax(logits), codes[:, None, None], axis=-1)[..., 0]


def bounded_minimum(
    loss: LossWithGradient, n_parameters: int, least: ArrayLike = -MAX_LOG_TEMPERATURE
) -> np.ndarray:
    """Parameters (n_parameters,) that minimise a smooth loss, starting from 0.

    They lie between ``least`` (a number, or one for each) and ``MAX_LOG_TEMPERATURE``.
    """
    from scipy.optimize import minimize

    bounds = [(low, MAX_LOG_TEMPERATURE) for low in np.broadcast_to(least, n_parameters)]
    minimum: np.ndarray = minimize(loss, np.zeros(n_parameters), jac=True, bounds=bounds).x
    return minimum


def scaled_log_losses(
    logits: np.ndarray, codes: np.ndarray, log_temperatures: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Log-loss of logits divided by temperatures, and its derivative with respect to the log-temperature.

    Parameters
    ----------
    logits : ndarray (..., n_classes)
    codes : ndarray of int (...)
    log_temperatures : ndarray (...)

    Returns
    -------
    losses, derivatives : ndarray (...)
    """
    scaled = logits / np.exp(log_temperatures)[..., None]
    log_probs = log_softmax(scaled)
    of_label = codes[..., None]
    losses = -np.take_along_axis(log_probs, of_label, axis=-1)[..., 0]
    expected = (np.exp(log_probs) * scaled).sum(-1)
    return losses, np.take_along_axis(scaled, of_label, axis=-1)[..., 0] - expected


def fit_temperatures(logits: np.ndarray, codes: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Fit the temperature by which each exit's logits are divided, so that its probabilities are calibrated.

    Minimises the log-loss of these samples: Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern
    Neural Networks", ICML 2017, section 4.2.

    Parameters
    ----------
    logits : ndarray (n_samples, n_exits, n_classes)
    codes, weights : ndarray (n_samples,)

    Returns
    -------
    ndarray (n_exits,)
    """
    logits = logits.astype(np.float64)
    n_samples, n_exits = logits.shape[:2]
    at_every_exit = np.broadcast_to(codes[:, None], (n_samples, n_exits))
    shares = np.asarray(weights, dtype=np.float64) / n_samples

    def log_loss(log_temperatures: np.ndarray) -> tuple[float, np.ndarray]:
        everywhere = np.broadcast_to(log_temperatures, (n_samples, n_exits))
        losses, derivatives = scaled_log_losses(logits, at_every_exit, everywhere)
        # A weak pull towards 1 keeps the temperature finite if every sample is right.
        penalty = TEMPERATURE_PENALTY * np.square(log_temperatures).sum()
        gradient = shares @ derivatives + 2 * TEMPERATURE_PENALTY * log_temperatures
        return (shares @ losses).sum() + penalty, gradient

    temperatures: np.ndarray = np.exp(bounded_minimum(log_loss, n_exits))
    return temperatures


def fit_leavers_temperatures(
    logits: np.ndarray, codes: np.ndarray, exit_index: np.ndarray, of_all: np.ndarray
) -> np.ndarray:
    """Fit the temperature of each exit to the samples that leave there, shrunk towards that of all samples.

    Parameters
    ----------
    logits : ndarray (n_samples, n_classes)
        Of the exit taken.
    codes, exit_index : ndarray of int (n_samples,)
    of_all : ndarray (n_exits,)
        Temperatures for all samples.

    Returns
    -------
    ndarray (n_exits,)
    """
    logits, n_exits = logits.astype(np.float64), len(of_all)

    def log_loss(log_ratios: np.ndarray) -> tuple[float, np.ndarray]:
        log_temperatures = (np.log(of_all) + log_ratios)[exit_index]
        losses, derivatives = scaled_log_losses(logits, codes, log_temperatures)
        penalty = SHRINKAGE_SAMPLES * np.square(log_ratios).sum()
        of_exits = np.bincount(exit_index, weights=derivatives, minlength=n_exits)
        gradient = of_exits + 2 * SHRINKAGE_SAMPLES * log_ratios
        return (losses.sum() + penalty) / len(codes), gradient / len(codes)

    temperatures: np.ndarray = of_all * np.exp(bounded_minimum(log_loss, n_exits))
    return temperatures


def expected_errors(logits: np.ndarray, temperatures: np.ndarray) -> np.ndarray:
    """Probability that the exit's label is wrong, according to the last exit's calibrated probabilities.

    If these are calibrated this is the zero-one loss, averaged over the randomness of the label: the same objective
    with a fraction of its variance. A few hundred held-out samples have only a dozen errors, and gates that learn
    from the errors themselves learn noise. Where an exit's label is the last one's, nothing is gained by going on,
    whatever the label is; an exit's own probabilities would count there how they differ from the last one's.

    Parameters
    ----------
    logits : ndarray (n_samples, n_exits, n_classes)
    temperatures : ndarray (n_exits,)

    Returns
    -------
    ndarray (n_samples, n_exits)
    """
    of_last = softmax(logits[:, -1] / temperatures[-1])
    errors: np.ndarray = 1 - np.take_along_axis(of_last, logits.argmax(-1), axis=-1)
    return errors


def smoothed_errors(
    logits: np.ndarray,
    codes: np.ndarray,
    weights: np.ndarray,
    observed_share: float = OBSERVED_SHARE,
) -> np.ndarray:
    """Errors as they are counted on held-out samples: some observed, the rest expected by the last exit.

    Parameters
    ----------
    logits : ndarray (n_samples, n_exits, n_classes)
    codes, weights : ndarray (n_samples,)
    observed_share : float
        Share of the observed ones.

    Returns
    -------
    ndarray (n_samples, n_exits)
    """
    expected = expected_errors(logits, fit_temperatures(logits, codes, weights))
    observed = logits.argmax(-1) != codes[:, None]
    errors: np.ndarray = observed_share * observed + (1 - observed_share) * expected
    return errors.astype(logits.dtype)
