"""Thresholds of scores, and the labels below them (NumPy only)."""

import math

import numpy as np
from numpy.typing import ArrayLike

from .._numbers import check_probability


def true_label_values(values: np.ndarray, codes: ArrayLike) -> np.ndarray:
    """Each sample's value at its true label: (n_samples, n_classes), (n_samples,) -> (n_samples,)."""
    return np.take_along_axis(values, np.asarray(codes)[:, None], axis=1).squeeze(1)


def least_calibration_size(confidence_level: float) -> int:
    """Fewest calibration samples for which a set at this level can be less than full."""
    check_probability(confidence_level, "confidence_level")
    return math.ceil(round(confidence_level / (1 - confidence_level), 9))


def score_quantile(scores: np.ndarray, confidence_level: float) -> float:
    """Smallest score that covers a new exchangeable sample with the given confidence.

    This is the ``ceil((n + 1) * confidence_level)``-th smallest of n calibration scores. If there
    are too few scores for the level, it is infinity: every label enters the set, and the guarantee
    holds.

    Vovk, Gammerman, Shafer, "Algorithmic Learning in a Random World", 2005; Lei et al.,
    "Distribution-Free Predictive Inference for Regression", JASA 2018, theorem 2.2.

    Parameters
    ----------
    scores : ndarray (n_calibration,)
    confidence_level : float
        In (0, 1).
    """
    check_probability(confidence_level, "confidence_level")
    # Rounded first: (9 + 1) * 0.9 must be 9, not the next float above it.
    rank = math.ceil(round((len(scores) + 1) * confidence_level, 9))
    return np.inf if rank > len(scores) else float(np.partition(scores, rank - 1)[rank - 1])


def group_quantiles(scores: np.ndarray, groups: np.ndarray, confidence_level: float) -> np.ndarray:
    """Compute the quantile of each group from its own calibration samples only.

    Mondrian conformal prediction: Vovk, Gammerman, Shafer 2005, section 4.5.

    Parameters
    ----------
    scores : ndarray (n_calibration,)
    groups : ndarray of int (n_calibration,)
    confidence_level : float

    Returns
    -------
    quantiles : ndarray (n_groups + 1,)
        The last, infinity, is for groups that have no calibration sample.
    """
    order = np.argsort(groups, kind="stable")
    sizes = np.bincount(groups)
    by_group = np.split(scores[order], np.cumsum(sizes))
    return np.array([score_quantile(own, confidence_level) for own in by_group])


def prediction_sets(scores: np.ndarray, quantile: ArrayLike) -> np.ndarray:
    """Labels whose score is at most the quantile: bool (n_samples, n_classes)."""
    return scores <= quantile
