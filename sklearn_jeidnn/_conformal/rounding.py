"""How far rounding may move scores: what lies closer counts as a tie (NumPy only).

Networks compute in single precision, so a sample gets other last digits in another batch. Rows of few categories have
equal scores in exact arithmetic. If they were compared as they come, the last digit would decide which labels enter.
"""

from functools import partial

import numpy as np

from .groups import RoutedSamples
from .scores import Score, aps_scores, lac_scores, raps_scores

# Largest rounding error of the log-odds of labels: two such errors are twice the largest difference that was measured
# (see decision 29).
LOG_ODDS = 1e-5
# Of scores that a user computes, relative to the score or to 1.
OWN_SCORES = 1e-5


def rounding_of(score: Score, rows: RoutedSamples, scores: np.ndarray) -> np.ndarray:
    """Largest rounding error of each score: (n_samples, n_classes).

    Parameters
    ----------
    score : callable
    rows : RoutedSamples
    scores : ndarray (n_samples, n_classes)
        What the score says of them.
    """
    if score is lac_scores:
        share = scores
    elif score is aps_scores:
        share = -scores
    elif isinstance(score, partial) and score.func is raps_scores:
        # Penalties are exact.
        share = -aps_scores(rows.probabilities, rows.uniform)
    else:
        return np.where(np.isfinite(scores), OWN_SCORES * np.maximum(1, np.abs(scores)), 0)
    widths: np.ndarray = LOG_ODDS * np.abs(share * (1 - share))
    return widths
