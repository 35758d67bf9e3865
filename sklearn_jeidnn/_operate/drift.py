"""Whether new samples are like the calibration samples, as far as exits can tell (NumPy and SciPy only)."""

from typing import NamedTuple

import numpy as np
from scipy.stats import chi2_contingency, ks_2samp

from .._warn import warn_caller
from .ties import tied

# Exits with fewer expected samples in the smaller group are counted together with their neighbours.
LEAST_EXPECTED = 5
# Exits, as int, and scores of some samples: two of (n_samples,).
ExitsAndScores = tuple[np.ndarray, np.ndarray]


class Exchangeability(NamedTuple):
    """P-values: how probable differences as large as these are if the samples are exchangeable."""

    exit_rates: float  # of the exits that samples take (chi-squared)
    scores: float  # of the probability of the predicted label (Kolmogorov-Smirnov)
    p_value: float  # of both together (Bonferroni)


def compare_samples(known: ExitsAndScores, new: ExitsAndScores) -> Exchangeability:
    """Compare two groups of samples by the exits they take and by a score."""
    of_exits = _rates_p_value(known[0], new[0])
    of_scores = float(ks_2samp(*_without_rounding(known[1], new[1])).pvalue)
    return Exchangeability(of_exits, of_scores, min(1.0, 2 * min(of_exits, of_scores)))


def _without_rounding(known: np.ndarray, new: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same scores; equal samples have equal ones, whatever their batches."""
    scores = tied(np.concatenate([known, new]))
    return scores[: len(known)], scores[len(known) :]


def warn_if_different(
    known: ExitsAndScores, new: ExitsAndScores, significance: float
) -> Exchangeability:
    """Compare two groups of samples, and warn if the p-value is less than ``significance``."""
    found = compare_samples(known, new)
    if found.p_value < significance:
        warn_caller(
            f"X is not like the calibration samples (p-value {found.p_value:.2g}): {found}. Prediction sets and "
            f"limits need not hold for it; conformalize on labelled samples like X.",
        )
    return found


def _rates_p_value(exits: np.ndarray, other_exits: np.ndarray) -> float:
    """P-value of the exit rates of two groups of samples; 1 if there is nothing to compare."""
    n_exits = 1 + max(exits.max(), other_exits.max())
    counts = np.stack([np.bincount(own, minlength=n_exits) for own in (exits, other_exits)])
    smaller = counts.sum(axis=1).min() / counts.sum()
    merged = _with_neighbours(counts, LEAST_EXPECTED / smaller)
    return 1.0 if merged.shape[1] < 2 else float(chi2_contingency(merged).pvalue)


def _with_neighbours(counts: np.ndarray, least: float) -> np.ndarray:
    """Add up columns from the left until each sum is at least ``least``; what is left over joins the last."""
    columns: list[np.ndarray] = []
    current = np.zeros(len(counts), dtype=int)
    for column in counts.T:
        current = current + column
        if current.sum() >= least:
            columns, current = [*columns, current], np.zeros_like(current)
    if columns:
        columns[-1] = columns[-1] + current
    return np.array(columns).T.reshape(len(counts), -1)
