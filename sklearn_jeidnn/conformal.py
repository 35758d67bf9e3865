"""Split-conformal prediction sets (NumPy only).

Scores are computed on calibration rows that trained and chose nothing, and kept: any confidence
level can be asked later.
"""

import math

import numpy as np


def lac_scores(probabilities):
    """Conformity score of every label: one minus its probability; larger is worse.

    Least ambiguous set-valued classifier: Sadinle, Lei, Wasserman, "Least Ambiguous Set-Valued
    Classifiers with Bounded Error Levels", JASA 2019.

    Parameters
    ----------
    probabilities : ndarray (n_samples, n_classes)

    Returns
    -------
    scores : ndarray (n_samples, n_classes)
    """
    return 1 - probabilities


def true_label_scores(scores, codes):
    """Scores of the right labels: (n_samples, n_classes), (n_samples,) -> (n_samples,)"""
    return np.take_along_axis(scores, np.asarray(codes)[:, None], axis=1).squeeze(1)


def least_calibration_size(confidence_level):
    """Fewest calibration rows for which a set at this level can be less than full."""
    return math.ceil(round(confidence_level / (1 - confidence_level), 9))


def score_quantile(scores, confidence_level):
    """Smallest score that covers a new exchangeable row with the given confidence.

    The ``ceil((n + 1) * confidence_level)``-th smallest of n calibration scores. Too few scores
    for the level give infinity: every label enters the set, and the guarantee holds.

    Vovk, Gammerman, Shafer, "Algorithmic Learning in a Random World", 2005; Lei et al.,
    "Distribution-Free Predictive Inference for Regression", JASA 2018, theorem 2.2.

    Parameters
    ----------
    scores : ndarray (n_calibration,)
    confidence_level : float
        In (0, 1).

    Returns
    -------
    float
    """
    # Rounded first: (9 + 1) * 0.9 must be 9, not the next float above it.
    rank = math.ceil(round((len(scores) + 1) * confidence_level, 9))
    return np.inf if rank > len(scores) else float(np.partition(scores, rank - 1)[rank - 1])


def prediction_sets(scores, quantile):
    """Labels whose score is at most the quantile: bool (n_samples, n_classes)"""
    return scores <= quantile
