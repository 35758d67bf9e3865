"""What to report of early exits and prediction sets (NumPy only)."""

import numpy as np
from scipy.stats import betabinom

from .conformal import true_label_values


def exit_rates(exit_index, n_exits):
    """Share of rows that took each exit.

    Parameters
    ----------
    exit_index : ndarray (n_samples,)
    n_exits : int

    Returns
    -------
    rates : ndarray (n_exits,)
        Sums to 1.
    """
    return np.bincount(exit_index, minlength=n_exits) / len(exit_index)


def mean_cost(exit_index, exit_costs):
    """Mean cost of rows that took these exits, in the unit of ``exit_costs``.

    Parameters
    ----------
    exit_index : ndarray (n_samples,)
    exit_costs : ndarray (n_exits,)

    Returns
    -------
    float
    """
    return float(np.mean(np.asarray(exit_costs)[exit_index]))


def coverage(sets, codes):
    """Share of rows whose prediction set holds the truth.

    Parameters
    ----------
    sets : ndarray of bool (n_samples, n_classes)
    codes : ndarray of int (n_samples,)
        Column of each row's true class.

    Returns
    -------
    float
    """
    return float(np.mean(true_label_values(sets, codes)))


def mean_set_size(sets):
    """Labels in a set, on average: bool (n_samples, n_classes) -> float"""
    return float(np.mean(np.sum(sets, axis=1)))


def coverage_band(n_calibration, n_test, confidence_level, probability=0.99):
    """Interval that holds the coverage on test rows with the given probability.

    Over random calibration and test rows the number of covered test rows is beta-binomial with
    parameters ``k = ceil((n_calibration + 1) * confidence_level)`` and ``n_calibration + 1 - k``
    (Vovk 2012, "Conditional Validity of Inductive Conformal Predictors"; exact where scores do not tie,
    a lower bound where they do).

    Parameters
    ----------
    n_calibration, n_test : int
    confidence_level : float
    probability : float, default=0.99

    Returns
    -------
    low, high : float
        Where the calibration rows are too few for the level, both are 1.
    """
    rank = np.ceil(np.round((n_calibration + 1) * confidence_level, 9))
    if rank > n_calibration:
        return 1.0, 1.0
    law = betabinom(n_test, rank, n_calibration + 1 - rank)
    tail = (1 - probability) / 2
    return float(law.ppf(tail) / n_test), float(law.ppf(1 - tail) / n_test)


def log_loss(probabilities, codes):
    """Mean of minus the logarithm of the right label's probability.

    Parameters
    ----------
    probabilities : ndarray (n_samples, n_classes)
    codes : ndarray of int (n_samples,)

    Returns
    -------
    float
    """
    true = true_label_values(probabilities, codes)
    return float(-np.mean(np.log(np.maximum(true, np.finfo(true.dtype).tiny))))


def brier_score(probabilities, codes):
    """Mean squared distance of the probabilities from the truth, summed over classes: 0 to 2.

    Parameters
    ----------
    probabilities : ndarray (n_samples, n_classes)
    codes : ndarray of int (n_samples,)

    Returns
    -------
    float
    """
    truth = np.arange(probabilities.shape[1]) == np.asarray(codes)[:, None]
    return float(np.mean(np.sum((probabilities - truth) ** 2, axis=1)))


def reliability_curve(confidence, correct, *, n_bins=15):
    """How often labels are right, beside how sure of them the classifier is, in bins of equally many rows.

    Parameters
    ----------
    confidence : ndarray (n_samples,)
        Probability of the label that is answered.
    correct : ndarray of bool (n_samples,)
    n_bins : int, default=15
        Fewer where bins would hold less than two rows.

    Returns
    -------
    mean_confidence, accuracy : ndarray (n_bins,)
    n_rows : ndarray of int (n_bins,)
    """
    n_bins = max(1, min(n_bins, len(confidence) // 2))
    bins = np.array_split(np.argsort(confidence, kind="stable"), n_bins)
    n_rows = np.array([len(rows) for rows in bins])
    means = [[np.mean(values[rows]) for rows in bins] for values in (confidence, correct)]
    return np.array(means[0]), np.array(means[1]), n_rows


def calibration_error(confidence, correct, *, n_bins=15):
    """Root mean square of the distance between how sure and how often right, less what chance adds to it.

    Debiased estimate over bins of equally many rows: Kumar, Liang, Ma, "Verified Uncertainty
    Calibration", NeurIPS 2019. 0 where the distance is no larger than chance makes it.

    Parameters
    ----------
    confidence : ndarray (n_samples,)
        Probability of the label that is answered.
    correct : ndarray of bool (n_samples,)
    n_bins : int, default=15

    Returns
    -------
    float
        NaN for less than two rows.
    """
    if len(confidence) < 2:
        return float("nan")
    sure, right, n_rows = reliability_curve(confidence, correct, n_bins=n_bins)
    chance = right * (1 - right) / (n_rows - 1)
    squared = np.average((sure - right) ** 2 - chance, weights=n_rows)
    return float(np.sqrt(max(squared, 0)))


PROBABILITY_FIELDS = ("accuracy", "confidence", "log_loss", "brier_score", "calibration_error")


def calibration_report(probabilities, codes, exit_index, n_exits):
    """How good probabilities are, for the rows that leave at each exit and for all rows.

    Parameters
    ----------
    probabilities : ndarray (n_samples, n_classes)
    codes, exit_index : ndarray of int (n_samples,)
    n_exits : int

    Returns
    -------
    structured ndarray (n_exits + 1,)
        Fields ``exit`` (-1 in the last row: all rows), ``n_rows``, ``accuracy``, ``confidence`` (mean
        probability of the label that is answered), ``log_loss``, ``brier_score``,
        ``calibration_error``; NaN at exits that no row took.
    """
    masks = [(number, exit_index == number) for number in range(n_exits)]
    masks.append((-1, np.ones(len(codes), dtype=bool)))
    rows = [
        (number, own.sum(), *_of_probabilities(probabilities[own], codes[own]))
        for number, own in masks
    ]
    dtype = [("exit", int), ("n_rows", int), *((name, float) for name in PROBABILITY_FIELDS)]
    return np.array(rows, dtype=dtype)


def _of_probabilities(probabilities, codes):
    if len(codes) == 0:
        return (np.nan,) * len(PROBABILITY_FIELDS)
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == codes
    return (
        correct.mean(),
        confidence.mean(),
        log_loss(probabilities, codes),
        brier_score(probabilities, codes),
        calibration_error(confidence, correct),
    )


def sets_by_exit(sets, codes, exit_index, n_exits):
    """Coverage and mean set size of the rows that leave at each exit; NaN where none do.

    Parameters
    ----------
    sets : ndarray of bool (n_samples, n_classes)
    codes, exit_index : ndarray of int (n_samples,)
    n_exits : int

    Returns
    -------
    coverages, sizes : ndarray (n_exits,)
    """
    covered = true_label_values(sets, codes)
    n_rows = np.bincount(exit_index, minlength=n_exits)
    with np.errstate(invalid="ignore"):
        return tuple(
            np.bincount(exit_index, weights=values, minlength=n_exits) / n_rows
            for values in (covered, sets.sum(axis=1))
        )
