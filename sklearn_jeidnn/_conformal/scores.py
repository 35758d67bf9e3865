"""Conformity scores: functions of probabilities (NumPy only)."""

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import ArrayLike

from .quantiles import prediction_sets, score_quantile, true_label_values

# Probabilities (n_samples, n_classes), uniform numbers (n_samples,) -> scores (n_samples, n_classes)
Score = Callable[[np.ndarray, np.ndarray], np.ndarray]


def lac_scores(probabilities: np.ndarray, uniform: ArrayLike | None = None) -> np.ndarray:
    """Conformity score of every label: one minus its probability.

    Least ambiguous set-valued classifier: Sadinle, Lei, Wasserman, "Least Ambiguous Set-Valued
    Classifiers with Bounded Error Levels", JASA 2019.

    Parameters
    ----------
    probabilities : ndarray (n_samples, n_classes)
    uniform : ignored

    Returns
    -------
    scores : ndarray (n_samples, n_classes)
    """
    return 1 - probabilities


def aps_scores(probabilities: np.ndarray, uniform: ArrayLike = 0.0) -> np.ndarray:
    """Conformity score of every label: the total probability of the labels at least as probable, minus one.

    Adaptive prediction sets: Romano, Sesia, Candès, "Classification with Valid and Adaptive
    Coverage", NeurIPS 2020. The score is computed as minus the total probability of the less
    probable labels. Sums that start at the most probable label would round to 1 and tie, because
    most labels lie near the full total.

    Parameters
    ----------
    probabilities : ndarray (n_samples, n_classes)
    uniform : ndarray (n_samples,) or float, default=0
        Share of the label's own probability that is not counted. Random numbers in [0, 1) make
        sets as small as the level allows.

    Returns
    -------
    scores : ndarray (n_samples, n_classes)
    """
    return _mass_and_penalty(probabilities, uniform, np.zeros(probabilities.shape[1]))


def raps_scores(
    probabilities: np.ndarray,
    uniform: ArrayLike = 0.0,
    *,
    penalty: float = 0.01,
    n_free: int = 1,
) -> np.ndarray:
    """Conformity score of every label: :func:`aps_scores`, plus a penalty that grows with the label's rank.

    Regularised adaptive prediction sets: Angelopoulos, Bates, Jordan, Malik, "Uncertainty Sets for
    Image Classifiers using Conformal Prediction", ICLR 2021.

    Parameters
    ----------
    probabilities : ndarray (n_samples, n_classes)
    uniform : ndarray (n_samples,) or float, default=0
        As in :func:`aps_scores`.
    penalty : float, default=0.01
        What is added for each rank after the first ``n_free``.
    n_free : int, default=1
        Number of most probable labels without a penalty.

    Returns
    -------
    scores : ndarray (n_samples, n_classes)
    """
    ranks = np.arange(1, probabilities.shape[1] + 1)
    return _mass_and_penalty(probabilities, uniform, penalty * np.maximum(ranks - n_free, 0))


def _mass_and_penalty(
    probabilities: np.ndarray, uniform: ArrayLike, penalties: np.ndarray
) -> np.ndarray:
    """Cumulated probability minus one, plus the penalty of each rank (n_classes,)."""
    order = np.argsort(probabilities, axis=1)
    ascending = np.take_along_axis(probabilities, order, axis=1)
    scores = -np.reshape(uniform, (-1, 1)) * ascending + penalties[::-1]
    scores[:, 1:] -= np.cumsum(ascending[:, :-1], axis=1)
    placed: np.ndarray = np.empty_like(scores)
    np.put_along_axis(placed, order, scores, axis=1)
    return placed


RANDOMIZED = "randomized_"
SCORES: dict[str, Score] = {
    "lac": lac_scores,
    "aps": aps_scores,
    "raps": raps_scores,
    RANDOMIZED + "aps": aps_scores,
    RANDOMIZED + "raps": raps_scores,
}
PENALTIES = (0.001, 0.01, 0.03, 0.1, 0.3)
FREE_LABELS = (1, 2, 3, 5)
CHOICE_LEVEL = 0.9


def smallest_raps(probabilities: np.ndarray, codes: np.ndarray) -> Score:
    """:func:`raps_scores` with the penalties that give the smallest sets at level 0.9.

    The samples must not be those that calibrate.

    Parameters
    ----------
    probabilities : ndarray (n_samples, n_classes)
    codes : ndarray of int (n_samples,)
    """
    tried = [
        partial(raps_scores, penalty=penalty, n_free=n_free)
        for penalty in PENALTIES
        for n_free in FREE_LABELS
        if n_free < probabilities.shape[1]
    ]

    def mean_size(score: partial[np.ndarray]) -> float:
        scores = score(probabilities)
        quantile = score_quantile(true_label_values(scores, codes), CHOICE_LEVEL)
        return float(np.mean(prediction_sets(scores, quantile)))

    return min(tried, key=mean_size)


def checked_scores(scores: ArrayLike, shape: tuple[int, ...]) -> np.ndarray:
    """Scores of a user's function; refuse what are no numbers, another shape, and NaN."""
    scores = np.asarray(scores)
    if scores.shape != shape or scores.dtype.kind not in "biuf":
        raise ValueError(
            f"conformity_score returned an array of shape {scores.shape} and dtype {scores.dtype} for probabilities of "
            f"shape {shape}; it must return a score for each sample and label."
        )
    if np.isnan(scores).any():
        n_bad = int(np.isnan(scores).any(axis=1).sum())
        raise ValueError(
            f"conformity_score returned NaN for {n_bad} of {len(scores)} samples; return a number for each label "
            f"(infinity for one that no set should hold)."
        )
    return scores.astype(float, copy=False)
