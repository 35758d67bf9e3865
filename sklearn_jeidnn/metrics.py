"""Metrics of early exits, probabilities and prediction sets (NumPy and SciPy only)."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import betabinom

from ._conformal.quantiles import true_label_values
from ._numbers import check_number, check_probability
from ._operate import deferral

__all__ = [
    "brier_score",
    "calibration_error",
    "calibration_report",
    "coverage",
    "coverage_band",
    "exit_rates",
    "log_loss",
    "mean_cost",
    "mean_set_size",
    "reliability_curve",
    "samples_needed",
    "sets_by_exit",
]


def exit_rates(exit_index: np.ndarray, n_exits: int) -> np.ndarray:
    """Share of samples that took each exit.

    Parameters
    ----------
    exit_index : ndarray (n_samples,)
    n_exits : int

    Returns
    -------
    rates : ndarray (n_exits,)
        Sums to 1.
    """
    return np.bincount(_as_exits(exit_index, n_exits), minlength=n_exits) / len(exit_index)


def mean_cost(exit_index: np.ndarray, exit_costs: ArrayLike) -> float:
    """Mean cost of samples that took these exits, in the unit of ``exit_costs``.

    Parameters
    ----------
    exit_index : ndarray (n_samples,)
    exit_costs : array-like (n_exits,)

    Returns
    -------
    float
    """
    costs = np.asarray(exit_costs, dtype=float)
    if costs.ndim != 1 or not (np.isfinite(costs) & (costs >= 0)).all():
        raise ValueError(
            f"exit_costs={exit_costs!r} is not allowed; give a finite number from 0 for each exit."
        )
    return float(np.mean(costs[_as_exits(exit_index, len(costs))]))


def _as_exits(exit_index: np.ndarray, n_exits: int) -> np.ndarray:
    """Exits of at least one sample, from 0 to ``n_exits - 1``; others are refused."""
    check_number(n_exits, "n_exits", least=1, whole=True)
    exits = np.asarray(exit_index)
    if exits.ndim != 1 or not exits.size or exits.dtype.kind not in "iu":
        raise ValueError(
            f"exit_index has {exits.dtype} of shape {exits.shape}; give the exits of at least one sample, as integers."
        )
    if exits.min() < 0 or exits.max() >= n_exits:
        raise ValueError(
            f"exit_index has exits from {exits.min()} to {exits.max()}, but there are {n_exits} exits, from 0 on."
        )
    return exits


def coverage(sets: np.ndarray, codes: ArrayLike) -> float:
    """Share of samples whose prediction set holds the truth.

    Parameters
    ----------
    sets : ndarray of bool (n_samples, n_classes)
    codes : array-like of int (n_samples,)
        Column of each sample's true class.

    Returns
    -------
    float
    """
    return float(np.mean(true_label_values(sets, codes)))


def mean_set_size(sets: np.ndarray) -> float:
    """Mean number of labels in a set: bool (n_samples, n_classes) -> float."""
    return float(np.mean(np.sum(sets, axis=1)))


def coverage_band(
    n_calibration: int, n_test: int, confidence_level: float, probability: float = 0.99
) -> tuple[float, float]:
    """Interval that holds the coverage on test samples with the given probability.

    Over random calibration and test samples, the number of covered test samples is beta-binomial
    with parameters ``k = ceil((n_calibration + 1) * confidence_level)`` and
    ``n_calibration + 1 - k`` (Vovk 2012, "Conditional Validity of Inductive Conformal Predictors").
    This is exact if scores do not tie, and a lower bound if they do.

    Parameters
    ----------
    n_calibration, n_test : int
    confidence_level : float
    probability : float, default=0.99

    Returns
    -------
    low, high : float
        If the calibration samples are too few for the level, both are 1.
    """
    check_number(n_calibration, "n_calibration", least=0, whole=True)
    check_number(n_test, "n_test", least=1, whole=True)
    check_probability(confidence_level, "confidence_level")
    check_probability(probability, "probability")
    rank = np.ceil(np.round((n_calibration + 1) * confidence_level, 9))
    if rank > n_calibration:
        return 1.0, 1.0
    law = betabinom(n_test, rank, n_calibration + 1 - rank)
    tail = (1 - probability) / 2
    return float(law.ppf(tail) / n_test), float(law.ppf(1 - tail) / n_test)


def samples_needed(
    risk: float,
    *,
    confidence: float = 0.95,
    expected_error: float = 0.0,
    answered_share: float = 1.0,
    power: float = 0.9,
) -> int:
    """How many labelled samples it takes to certify the error of the answers that a classifier gives.

    :meth:`EarlyExitClassifier.predict_or_defer` certifies a threshold if, of the ``m`` labelled samples that it
    answers, so few are answered wrong, ``k``, that ``P(Binomial(m, risk) <= k) <= 1 - confidence``. The fewest ``m``
    are returned for which that happens with probability ``power``, if answers are wrong at the rate
    ``expected_error``; if a share is answered, ``m / answered_share``, of which ``m`` are answered on average.
    Without errors ``m`` is ``log(1 - confidence) / log(1 - risk)``, rounded up.

    Parameters
    ----------
    risk : float
        Largest share of wrong answers among those that are given.
    confidence : float, default=0.95
        Probability with which the risk is kept to.
    expected_error : float, default=0.0
        Share of wrong answers among those that are given; it must be less than the risk.
    answered_share : float, default=1.0
        Share of samples that are answered.
    power : float, default=0.9
        Probability with which so many samples suffice.

    Returns
    -------
    int
        Samples that train nothing and set no gates: those that calibrate.

    Raises
    ------
    ValueError
        If a number is not in its range, or ``expected_error`` is so close to ``risk`` that more than ten million
        answers would be needed.

    Examples
    --------
    >>> from sklearn_jeidnn.metrics import samples_needed
    >>> samples_needed(0.01), samples_needed(0.01, expected_error=0.005)
    (299, 2546)
    """
    needed = deferral.samples_needed(
        risk,
        confidence,
        expected_error=expected_error,
        answered_share=answered_share,
        power=power,
    )
    if needed is None:
        raise ValueError(
            f"expected_error={expected_error!r} is not less than risk={risk!r}, or so close to it that more than ten "
            f"million answers would be needed; give a larger risk, or the error of surer answers."
        )
    return needed


# Not scikit-learn's: log_loss clips probabilities at 2e-16, which makes certain but wrong answers cheaper, and warns of
# float32 probabilities in double precision; brier_score_loss takes several classes from version 1.7 on, we allow 1.6.
def log_loss(probabilities: np.ndarray, codes: ArrayLike) -> float:
    """Mean of minus the logarithm of the true label's probability.

    Parameters
    ----------
    probabilities : ndarray (n_samples, n_classes)
    codes : array-like of int (n_samples,)

    Returns
    -------
    float
    """
    true = true_label_values(_as_probabilities(probabilities), codes)
    return float(-np.mean(np.log(np.maximum(true, np.finfo(true.dtype).tiny))))


def brier_score(probabilities: np.ndarray, codes: ArrayLike) -> float:
    """Mean squared distance of the probabilities from the truth, summed over classes: 0 to 2.

    Parameters
    ----------
    probabilities : ndarray (n_samples, n_classes)
    codes : array-like of int (n_samples,)

    Returns
    -------
    float
    """
    probabilities = _as_probabilities(probabilities)
    truth = np.arange(probabilities.shape[1]) == np.asarray(codes)[:, None]
    return float(np.mean(np.sum((probabilities - truth) ** 2, axis=1)))


def _as_probabilities(probabilities: np.ndarray) -> np.ndarray:
    """Probabilities (n_samples, n_classes); what is none is refused."""
    checked = np.asarray(probabilities)
    if checked.ndim != 2 or not ((checked >= 0) & (checked <= 1 + 1e-6)).all():
        raise ValueError(
            "probabilities must be numbers from 0 to 1 of shape (n_samples, n_classes); got "
            f"{checked.dtype} of shape {checked.shape}, or numbers outside of it or NaN."
        )
    return checked


def reliability_curve(
    confidence: np.ndarray, correct: np.ndarray, *, n_bins: int = 15
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean confidence and accuracy in bins of equally many samples.

    Parameters
    ----------
    confidence : ndarray (n_samples,)
        Probability of the predicted label.
    correct : ndarray of bool (n_samples,)
        Whether the predicted label is the true one.
    n_bins : int, default=15
        Fewer if bins would hold less than two samples.

    Returns
    -------
    mean_confidence, accuracy : ndarray (n_bins,)
    n_rows : ndarray of int (n_bins,)
        Number of samples in each bin.
    """
    check_number(n_bins, "n_bins", least=1, whole=True)
    if not np.isfinite(confidence).all():
        raise ValueError("confidence has numbers that are not finite; give probabilities.")
    n_bins = max(1, min(n_bins, len(confidence) // 2))
    bins = np.array_split(np.argsort(confidence, kind="stable"), n_bins)
    n_rows = np.array([len(rows) for rows in bins])
    means = [[np.mean(values[rows]) for rows in bins] for values in (confidence, correct)]
    return np.array(means[0]), np.array(means[1]), n_rows


def calibration_error(confidence: np.ndarray, correct: np.ndarray, *, n_bins: int = 15) -> float:
    """Root mean squared distance between confidence and accuracy, without what chance adds to it.

    Debiased estimate over bins of equally many samples: Kumar, Liang, Ma, "Verified Uncertainty
    Calibration", NeurIPS 2019. It is 0 if the distance is no larger than chance makes it.

    Parameters
    ----------
    confidence : ndarray (n_samples,)
        Probability of the predicted label.
    correct : ndarray of bool (n_samples,)
        Whether the predicted label is the true one.
    n_bins : int, default=15

    Returns
    -------
    float
        NaN for less than two samples.
    """
    if len(confidence) < 2:
        return float("nan")
    sure, right, n_rows = reliability_curve(confidence, correct, n_bins=n_bins)
    chance = right * (1 - right) / (n_rows - 1)
    squared = np.average((sure - right) ** 2 - chance, weights=n_rows)
    return float(np.sqrt(max(squared, 0)))


PROBABILITY_FIELDS = ("accuracy", "confidence", "log_loss", "brier_score", "calibration_error")


def calibration_report(
    probabilities: np.ndarray, codes: np.ndarray, exit_index: np.ndarray, n_exits: int
) -> np.ndarray:
    """How good probabilities are, for the samples that leave at each exit and for all samples.

    Parameters
    ----------
    probabilities : ndarray (n_samples, n_classes)
    codes, exit_index : ndarray of int (n_samples,)
    n_exits : int

    Returns
    -------
    structured ndarray (n_exits + 1,)
        Fields ``exit`` (-1 in the last row: all samples), ``n_rows`` (number of samples),
        ``accuracy``, ``confidence`` (mean probability of the predicted label), ``log_loss``,
        ``brier_score``, ``calibration_error``; NaN at exits that no sample took.
    """
    masks = [(number, exit_index == number) for number in range(n_exits)]
    masks.append((-1, np.ones(len(codes), dtype=bool)))
    rows = [
        (number, own.sum(), *_of_probabilities(probabilities[own], codes[own]))
        for number, own in masks
    ]
    dtype = [("exit", int), ("n_rows", int), *((name, float) for name in PROBABILITY_FIELDS)]
    return np.array(rows, dtype=dtype)


def _of_probabilities(probabilities: np.ndarray, codes: np.ndarray) -> tuple[Any, ...]:
    """The values of ``PROBABILITY_FIELDS``; NaN if there are no samples."""
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


def sets_by_exit(
    sets: np.ndarray, codes: ArrayLike, exit_index: np.ndarray, n_exits: int
) -> tuple[np.ndarray, np.ndarray]:
    """Coverage and mean set size of the samples that leave at each exit.

    Parameters
    ----------
    sets : ndarray of bool (n_samples, n_classes)
    codes, exit_index : ndarray of int (n_samples,)
    n_exits : int

    Returns
    -------
    coverages, sizes : ndarray (n_exits,)
        NaN at exits that no sample took.
    """
    n_rows = np.bincount(exit_index, minlength=n_exits)

    def means(values: np.ndarray) -> np.ndarray:
        return np.bincount(exit_index, weights=values, minlength=n_exits) / n_rows

    with np.errstate(invalid="ignore"):
        return means(true_label_values(sets, codes)), means(sets.sum(axis=1))
