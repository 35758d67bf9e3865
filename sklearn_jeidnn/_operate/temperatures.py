"""Temperatures that calibrate exits, and errors as calibrated probabilities expect them."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .._conformal.blocks import blocks

# Bound of logarithms of temperatures and of mixing weights: wide enough for any use, narrow enough for any float.
MAX_LOG_TEMPERATURE = 6.0
# Share of the observed errors; the rest are those that the last exit's calibrated probabilities expect (decision 48).
OBSERVED_SHARE = 0.25
# Weight, in samples, of the assumption that samples which leave at an exit are like all samples there (measured on
# CIFAR-10: with 500 held-out samples, 30 to 100 give the smallest log-loss; with 5,000 all values are alike).
SHRINKAGE_SAMPLES = 30.0
TEMPERATURE_PENALTY = 1e-2
# Log-temperatures that are tried first: with few or tiny logits the loss can have two minima.
GRID = np.linspace(-MAX_LOG_TEMPERATURE, MAX_LOG_TEMPERATURE, 7)
MOST_STEPS, TOLERANCE = 100, 1e-6
# Numbers that are computed at a time, so that they stay in the processor's cache.
BLOCK = 2**15


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


@dataclass(frozen=True, kw_only=True)
class ScaledLogLoss:
    """Log-loss of logits that are divided by temperatures, as a function of these.

    Parameters
    ----------
    shifted : ndarray (n_classes, n_samples)
        Logits less the largest of their sample.
    of_label : ndarray (n_samples,)
        The label's.
    """

    shifted: np.ndarray
    of_label: np.ndarray

    @classmethod
    def of(cls, logits: np.ndarray, codes: np.ndarray) -> "ScaledLogLoss":
        """Of logits (n_samples, n_classes), whose right classes are ``codes`` (n_samples,)."""
        shifted = np.array(logits.T, dtype=np.float64, order="C")
        shifted -= shifted.max(0)
        return cls(shifted=shifted, of_label=shifted[codes, np.arange(len(codes))])

    def __call__(self, log_temperatures: np.ndarray) -> np.ndarray:
        """Log-loss of each sample, and its two derivatives by the log-temperature: (n_samples,) -> (3, n_samples)"""
        inverse = np.exp(-log_temperatures)
        scaled, of_label = self.shifted * inverse, self.of_label * inverse
        powers = np.exp(scaled)
        total = powers.sum(0)
        powers *= scaled
        mean = powers.sum(0) / total
        powers *= scaled
        variance = powers.sum(0) / total - mean * mean
        slope = of_label - mean
        return np.stack([np.log(total) - of_label, slope, variance - slope])


def _penalised_fit(
    logits: np.ndarray,
    codes: np.ndarray,
    exit_index: np.ndarray,
    *,
    shares: np.ndarray,
    of_all: np.ndarray,
    penalty: float,
) -> np.ndarray:
    """Temperatures (n_exits,) with the least log-loss, each penalised by the square of its log-ratio to ``of_all``.

    Parameters
    ----------
    logits : ndarray (n_samples, n_classes)
    codes, exit_index : ndarray of int (n_samples,)
    shares : ndarray (n_samples,)
        By which losses are multiplied before they are added up.
    of_all : ndarray (n_exits,)
    penalty : float
    """
    n_exits, together = len(of_all), blocks(len(codes), max(1, BLOCK // logits.shape[1]))
    of_blocks = [ScaledLogLoss.of(logits[rows], codes[rows]) for rows in together]

    def loss(log_ratios: np.ndarray) -> np.ndarray:
        of_samples = (np.log(of_all) + log_ratios)[exit_index]
        found = [of_block(of_samples[rows]) for rows, of_block in zip(together, of_blocks)]
        parts = np.concatenate(found, axis=1)
        sums = [np.bincount(exit_index, shares * part, n_exits) for part in parts]
        penalties = [np.square(log_ratios), 2 * log_ratios, np.full(n_exits, 2.0)]
        return np.array(sums) + penalty * np.array(penalties)

    temperatures: np.ndarray = of_all * np.exp(_least(loss, n_exits))
    return temperatures


def _least(loss: Callable[[np.ndarray], np.ndarray], n_parameters: int) -> np.ndarray:
    """Where several functions of one number each are least, between the bounds: (n_parameters,)

    The best of a grid, then Newton's steps; where these leave the bracket, or do not shrink to half, the bracket is
    halved instead. ``loss`` gives values and two derivatives (3, n_parameters) at (n_parameters,).
    """
    values = np.stack([loss(np.full(n_parameters, tried))[0] for tried in GRID])
    best = values.argmin(0)
    low: np.ndarray
    here: np.ndarray
    low, here, high = GRID[np.clip([best - 1, best, best + 1], 0, len(GRID) - 1)]
    step = high - low
    for _ in range(MOST_STEPS):
        _, slope, curvature = loss(here)
        low, high = np.where(slope > 0, low, here), np.where(slope > 0, here, high)
        newton = -slope / np.where(curvature > 0, curvature, np.nan)
        inside = (low <= here + newton) & (here + newton <= high)
        shrinks = np.abs(newton) <= np.abs(step) / 2
        step = np.where(inside & shrinks, newton, (low + high) / 2 - here)
        here = here + step
        if np.abs(step).max() < TOLERANCE:
            break
    return here


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
    n_samples, n_exits, n_classes = logits.shape
    return _penalised_fit(
        logits.reshape(-1, n_classes),
        np.repeat(codes, n_exits),
        np.tile(np.arange(n_exits), n_samples),
        shares=np.repeat(weights / n_samples, n_exits),
        of_all=np.ones(n_exits),
        # A weak pull towards 1 keeps the temperature finite if every sample is right.
        penalty=TEMPERATURE_PENALTY,
    )


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
    n_samples = len(codes)
    return _penalised_fit(
        logits,
        codes,
        exit_index,
        shares=np.full(n_samples, 1 / n_samples),
        of_all=of_all,
        penalty=SHRINKAGE_SAMPLES / n_samples,
    )


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
