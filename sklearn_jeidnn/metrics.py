"""What to report of early exits and prediction sets (NumPy only)."""

import numpy as np
from scipy.stats import betabinom


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
    return float(np.mean(np.take_along_axis(sets, np.asarray(codes)[:, None], axis=1)))


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
