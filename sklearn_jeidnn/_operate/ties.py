"""Values that rounding alone tells apart, made equal (NumPy only)."""

import numpy as np

# Largest rounding error of probabilities and of what gates read.
ROUNDING = 1e-6
# A run of close values that is wider than this many errors is dense, not one value.
WIDEST_TIE = 10


def tied(values: np.ndarray) -> np.ndarray:
    """The same values, each replaced by the least of those that rounding alone tells apart from it.

    Rows of few categories have few values in exact arithmetic, and others in the last digits. Where
    values lie dense, so that one cannot tell, they stay. NaN stays.

    Parameters
    ----------
    values : ndarray (n_values,)
    """
    order = np.argsort(values)
    ordered = values[order]
    # Differences to NaN, which comes last, are NaN.
    starts = np.append(True, ~(np.diff(ordered) <= ROUNDING))
    run = np.cumsum(starts) - 1
    first, last = ordered[starts], ordered[np.append(starts[1:], True)]
    is_tie = last - first <= WIDEST_TIE * ROUNDING
    result = np.empty_like(values)
    result[order] = np.where(is_tie[run], first[run], ordered)
    return result
