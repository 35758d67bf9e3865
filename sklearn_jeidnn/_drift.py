"""Are new rows like the calibration rows, as far as exits can tell? (NumPy only)"""

from typing import NamedTuple

import numpy as np
from scipy.stats import chi2_contingency, ks_2samp

# Exits whose rows are fewer, expected in the smaller sample, are counted with their neighbours.
LEAST_EXPECTED = 5


class Exchangeability(NamedTuple):
    """Chance of differences as large as these, were the rows exchangeable."""

    exit_rates: float  # p-value: which exits rows take (chi-squared)
    scores: float  # p-value: probability of the label that is answered (Kolmogorov-Smirnov)
    p_value: float  # of the two together (Bonferroni)


def compare_rows(known, new):
    """Two samples of rows, by the exits they take and by a score.

    Parameters
    ----------
    known, new : pair of ndarray (n_samples,)
        Exits, as int, and scores.

    Returns
    -------
    Exchangeability
    """
    of_exits = _rates_p_value(known[0], new[0])
    of_scores = float(ks_2samp(known[1], new[1]).pvalue)
    return Exchangeability(of_exits, of_scores, min(1.0, 2 * min(of_exits, of_scores)))


def _rates_p_value(exits, other_exits):
    n_exits = 1 + max(exits.max(), other_exits.max())
    counts = np.stack([np.bincount(own, minlength=n_exits) for own in (exits, other_exits)])
    smaller = counts.sum(axis=1).min() / counts.sum()
    merged = _with_neighbours(counts, LEAST_EXPECTED / smaller)
    return 1.0 if merged.shape[1] < 2 else float(chi2_contingency(merged).pvalue)


def _with_neighbours(counts, least):
    """Columns added up from the left until each has enough rows; what is left over joins the last."""
    columns, current = [], np.zeros(len(counts), dtype=int)
    for column in counts.T:
        current = current + column
        if current.sum() >= least:
            columns, current = [*columns, current], np.zeros_like(current)
    if columns:
        columns[-1] = columns[-1] + current
    return np.array(columns).T.reshape(len(counts), -1)
