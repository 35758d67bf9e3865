"""What chance explains: intervals of accuracies, alone and beside those of the plain backbone on the same samples."""

import math
from typing import NamedTuple

import numpy as np
from scipy.stats import binomtest

# Two-sided 95 %, and one-sided 5 %.
TWO_SIDED, ONE_SIDED = 1.96, 1.645
CONFIDENCE, SIGNIFICANCE = 0.95, 0.05
SAME, HIGHER = "same accuracy", "higher accuracy"
# Loss of accuracy that samples must exclude before two accuracies are called the same.
SAME_WITHIN = 0.01


class CostCurve(NamedTuple):
    """Operating points of a classifier.

    ``low`` and ``high`` bound the accuracy by what chance explains of its difference to the plain backbone's.
    """

    mean_cost: np.ndarray  # (n_points,), relative to one pass of the plain backbone
    accuracy: np.ndarray  # (n_points,)
    low: np.ndarray  # (n_points,)
    high: np.ndarray  # (n_points,)

    @classmethod
    def of(cls, mean_cost: np.ndarray, right: np.ndarray, plain_right: np.ndarray) -> "CostCurve":
        """Points of known costs from what is right: bool (n_points, n_samples) and (n_samples,)."""
        low, high = paired_interval(right, plain_right, TWO_SIDED)
        plain = plain_right.mean()
        return cls(
            mean_cost, right.mean(axis=1), np.maximum(plain + low, 0), np.minimum(plain + high, 1)
        )


def paired_interval(
    right: np.ndarray, plain_right: np.ndarray, z: float
) -> tuple[np.ndarray, np.ndarray]:
    """Interval of the difference of two accuracies on the same samples.

    The adjusted Wald interval: Bonett, Price, "Adjusted Wald Confidence Interval for a Difference of Binomial
    Proportions Based on Paired Data", Journal of Educational and Behavioral Statistics 2012. It is not empty where no
    sample is answered differently.

    Parameters
    ----------
    right : ndarray of bool (..., n_samples)
    plain_right : ndarray of bool (n_samples,)
        Of the plain backbone.
    z : float
        Standard errors on each side.

    Returns
    -------
    low, high : ndarray (...)
        Of the accuracy minus the plain backbone's.
    """
    n_samples = right.shape[-1] + 2
    gained = ((right & ~plain_right).sum(axis=-1) + 1) / n_samples
    lost = ((~right & plain_right).sum(axis=-1) + 1) / n_samples
    difference = gained - lost
    chance = z * np.sqrt((gained + lost - difference**2) / n_samples)
    return difference - chance, difference + chance


def accuracy_in_words(right: np.ndarray, plain_right: np.ndarray) -> str | None:
    """What samples show of an accuracy beside the plain backbone's; None if that is neither the same nor better.

    McNemar's exact test (one-sided, 5 %) says whether chance explains a difference.

    Parameters
    ----------
    right, plain_right : ndarray of bool (n_samples,)
    """
    gained, lost = int((right & ~plain_right).sum()), int((~right & plain_right).sum())
    if _is_shown(gained, lost):
        return HIGHER
    excludes_loss = paired_interval(right, plain_right, ONE_SIDED)[0] >= -SAME_WITHIN
    return SAME if excludes_loss and not _is_shown(lost, gained) else None


def _is_shown(more: int, less: int) -> bool:
    """Whether chance does not explain that samples answered differently are rather of one kind."""
    if more <= less:
        return False
    return bool(binomtest(more, more + less, alternative="greater").pvalue < SIGNIFICANCE)


def wilson_interval(n_right: int, n_samples: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share; (0, 1) if there are no samples."""
    if not n_samples:
        return 0.0, 1.0
    found = binomtest(n_right, n_samples).proportion_ci(CONFIDENCE, method="wilson")
    return float(found.low), float(found.high)


def wilson_errors(n_right: np.ndarray, n_samples: np.ndarray) -> np.ndarray:
    """Distances from shares down and up to the ends of :func:`wilson_interval`: (2, n_shares)."""
    errors = []
    for right, n in zip(n_right.tolist(), n_samples.tolist(), strict=True):
        low, high = wilson_interval(right, n)
        share = right / n if n else math.nan
        # Rounding may put an end on the other side of 0 or 1.
        errors.append((max(share - low, 0), max(high - share, 0)))
    return np.array(errors).reshape(-1, 2).T
