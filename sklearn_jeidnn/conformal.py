"""Split-conformal prediction sets (NumPy only).

Scores are computed on calibration samples that trained and chose nothing. They are kept, so that
any confidence level can be asked for later. A score is a function of one sample and one label;
larger is worse.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ._numbers import check_probability

__all__ = [
    "GROUPS",
    "SCORES",
    "ConformalSets",
    "RoutedSamples",
    "aps_scores",
    "by_class",
    "by_exit",
    "by_exit_and_class",
    "by_own_groups",
    "group_quantiles",
    "lac_scores",
    "least_calibration_size",
    "pooled",
    "prediction_sets",
    "raps_scores",
    "row_uniform",
    "score_quantile",
    "smallest_raps",
    "true_label_values",
]

# Probabilities (n_samples, n_classes), uniform numbers (n_samples,) -> scores (n_samples, n_classes)
Score = Callable[[np.ndarray, np.ndarray], np.ndarray]

# Samples whose scores are held in memory at once.
ROWS_AT_ONCE = 2**13


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


def row_uniform(arrays: Sequence[np.ndarray], seed: int) -> np.ndarray:
    """Compute a number in [0, 1) for each sample from its values and the seed alone.

    A sample therefore gets the same set in every batch. The number is part of the score, a fixed
    function of the sample, so exchangeable samples stay exchangeable. Multilinear hashing, whose
    numbers are uniform and pairwise independent over seeds: Lemire, Kaser, "Strongly Universal
    String Hashing is Fast", The Computer Journal 2014.

    Parameters
    ----------
    arrays : sequence of ndarray (n_samples, ...)
        Of numbers of 4 or 8 bytes, or of booleans.
    seed : int

    Returns
    -------
    ndarray (n_samples,)
    """
    words = [_words(array) for array in arrays]
    n_words = sum(own.shape[1] for own in words)
    offset, *factors = np.random.default_rng(seed).integers(
        2**64, size=n_words + 1, dtype=np.uint64
    )
    hashed = np.full(len(arrays[0]), offset)
    for block in _blocks(len(hashed)):
        own = np.concatenate([part[block] for part in words], axis=1)
        # Wraps around at 2 ** 64, as it should.
        hashed[block] += own.astype(np.uint64) @ np.array(factors, dtype=np.uint64)
    return (hashed >> np.uint64(32)) / 2.0**32


def _words(array: np.ndarray) -> np.ndarray:
    """Bits of the samples' numbers: uint32 (n_samples, n_words)."""
    array = array.astype(np.int32) if array.dtype.kind == "b" else array
    # Adding 0 turns -0.0, which equals 0.0, into the same bits.
    return np.ascontiguousarray(array + array.dtype.type(0)).reshape(len(array), -1).view(np.uint32)


def _blocks(n_samples: int) -> list[slice]:
    """Slices of at most ``ROWS_AT_ONCE`` samples."""
    return [slice(start, start + ROWS_AT_ONCE) for start in range(0, n_samples, ROWS_AT_ONCE)]


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


class RoutedSamples(NamedTuple):
    """What scores and groups read of samples."""

    probabilities: np.ndarray  # (n_samples, n_classes), of the exits taken
    exit_index: np.ndarray  # (n_samples,)
    uniform: np.ndarray  # (n_samples,), 0 for scores that are not random
    groups: np.ndarray  # (n_samples,), given by the user, else 0

    def take(self, rows: np.ndarray | slice) -> "RoutedSamples":
        """Some of the samples."""
        return RoutedSamples(*(column[rows] for column in self))


def pooled(rows: RoutedSamples) -> np.ndarray:
    """One group for all samples and labels."""
    return np.zeros((1, 1), dtype=int)


def by_exit(rows: RoutedSamples) -> np.ndarray:
    """A group for each exit."""
    return rows.exit_index[:, None]


def by_class(rows: RoutedSamples) -> np.ndarray:
    """A group for each label."""
    return np.arange(rows.probabilities.shape[1])[None]


def by_exit_and_class(rows: RoutedSamples) -> np.ndarray:
    """A group for each pair of exit and label."""
    pairs: np.ndarray = by_exit(rows) * rows.probabilities.shape[1] + by_class(rows)
    return pairs


def by_own_groups(rows: RoutedSamples) -> np.ndarray:
    """The groups that the user gives."""
    return rows.groups[:, None]


# Samples -> group of each sample and label, of a shape that broadcasts to (n_samples, n_classes).
Grouping = Callable[[RoutedSamples], np.ndarray]
GROUPS: dict[str, Grouping] = {
    "pooled": pooled,
    "exit": by_exit,
    "class": by_class,
    "exit_and_class": by_exit_and_class,
}


class ConformalSets:
    """Prediction sets from the scores of the calibration samples.

    Parameters
    ----------
    score : callable
        Probabilities (n_samples, n_classes), uniform numbers (n_samples,) -> score of each label
        (n_samples, n_classes).
    groups : callable
        :class:`RoutedSamples` -> group of each sample and label, an int.
    rows : RoutedSamples
        The calibration samples.
    codes : ndarray of int (n_calibration,)

    Attributes
    ----------
    scores, groups : ndarray (n_calibration,)
        Score of each calibration sample's true label, and its group.
    """

    def __init__(
        self, score: Score, groups: Grouping, rows: RoutedSamples, codes: np.ndarray
    ) -> None:
        self._score, self._groups = score, groups
        self._known_quantiles: dict[float, np.ndarray] = {}
        self.scores, self.groups = np.empty(len(codes)), np.empty(len(codes), dtype=int)
        for block in _blocks(len(codes)):
            scores, group = self._scored(rows.take(block))
            group = np.broadcast_to(group, scores.shape)
            self.scores[block] = true_label_values(scores, codes[block])
            self.groups[block] = true_label_values(group, codes[block])

    def _scored(self, rows: RoutedSamples) -> tuple[np.ndarray, np.ndarray]:
        """Score and group of each sample and label."""
        return self._score(rows.probabilities, rows.uniform), self._groups(rows)

    def _quantiles(self, confidence_level: float) -> np.ndarray:
        """Quantile of each group at this level, computed once."""
        if confidence_level not in self._known_quantiles:
            found = group_quantiles(self.scores, self.groups, confidence_level)
            self._known_quantiles[confidence_level] = found
        return self._known_quantiles[confidence_level]

    def sets(
        self,
        rows: RoutedSamples,
        confidence_levels: Sequence[float],
        *,
        allow_empty: bool = True,
    ) -> np.ndarray:
        """Labels that hold the truth with each confidence.

        Parameters
        ----------
        rows : RoutedSamples
        confidence_levels : sequence of float (n_levels,)
        allow_empty : bool, default=True
            If False, add the label with the smallest score to an empty set.

        Returns
        -------
        ndarray of bool (n_samples, n_classes, n_levels)
        """
        quantiles = [self._quantiles(level) for level in confidence_levels]
        sets = np.empty((*rows.probabilities.shape, len(quantiles)), dtype=bool)
        for block in _blocks(len(sets)):
            scores, group = self._scored(rows.take(block))
            known = np.minimum(group, len(quantiles[0]) - 1)
            for level, quantile in enumerate(quantiles):
                sets[block, :, level] = prediction_sets(scores, quantile[known])
            if not allow_empty:
                sets[block] |= _best_where_empty(sets[block], scores)
        return sets


def _best_where_empty(sets: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The label with the smallest score, for each empty set: bool as ``sets``."""
    best: np.ndarray = np.arange(scores.shape[1]) == scores.argmin(axis=1)[:, None]
    return best[:, :, None] & ~sets.any(axis=1, keepdims=True)
