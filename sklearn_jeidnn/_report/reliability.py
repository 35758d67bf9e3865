"""How often answers are right, by the probability that they have."""

from dataclasses import dataclass

import numpy as np

from .. import metrics
from .points import PointOnSamples, Share

# A reader asks of a probability whether it is nearly sure; bins of equally many samples would nearly all be so.
EDGES = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)


@dataclass(frozen=True, kw_only=True)
class Bin:
    """The samples whose answer has a probability from ``low`` up to ``high``.

    Parameters
    ----------
    low, high : float
    mean : float
        Mean probability.
    right : Share
        How many of the answers are right.
    """

    low: float
    high: float
    mean: float
    right: Share


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """Bins of samples, and how far probabilities are off beyond chance (see ``metrics.calibration_error``)."""

    bins: list[Bin]
    error: float


def reliability_of(point: PointOnSamples) -> Reliability:
    """The reliability of a classifier's probabilities on labelled samples."""
    right = point.probabilities.argmax(axis=1) == point.codes
    numbers = np.digitize(point.confidence, EDGES[1:-1])
    bins = [
        Bin(
            low=EDGES[number],
            high=EDGES[number + 1],
            mean=float(point.confidence[numbers == number].mean()),
            right=Share.of(right[numbers == number]),
        )
        for number in np.unique(numbers)
    ]
    return Reliability(bins=bins, error=metrics.calibration_error(point.confidence, right))
