"""Split-conformal prediction sets (NumPy only).

Scores are computed on calibration rows that trained and chose nothing, and kept: any confidence
level can be asked later. A score is a function of one row and one label; larger is worse.
"""

import math
from functools import partial
from typing import NamedTuple

import numpy as np

# Rows whose scores are held in memory at once.
ROWS_AT_ONCE = 2**13


def lac_scores(probabilities, uniform=None):
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


def aps_scores(probabilities, uniform=0.0):
    """Conformity score of every label: the mass of the labels at least as probable, less one.

    Adaptive prediction sets: Romano, Sesia, Candès, "Classification with Valid and Adaptive
    Coverage", NeurIPS 2020. The mass is counted from the other end, as minus that of the less
    probable labels: near the full mass, where most labels lie, sums that start at the most probable
    label round to 1 and tie.

    Parameters
    ----------
    probabilities : ndarray (n_samples, n_classes)
    uniform : ndarray (n_samples,) or float, default=0
        Share of the label's own probability that is not counted; random numbers in [0, 1) make
        sets as small as the level allows.

    Returns
    -------
    scores : ndarray (n_samples, n_classes)
    """
    return _mass_and_penalty(probabilities, uniform, np.zeros(probabilities.shape[1]))


def raps_scores(probabilities, uniform=0.0, *, penalty=0.01, n_free=1):
    """As :func:`aps_scores`, plus a penalty for each label beyond the most probable ones.

    Regularised adaptive prediction sets: Angelopoulos, Bates, Jordan, Malik, "Uncertainty Sets for
    Image Classifiers using Conformal Prediction", ICLR 2021.

    Parameters
    ----------
    probabilities : ndarray (n_samples, n_classes)
    uniform : ndarray (n_samples,) or float, default=0
    penalty : float, default=0.01
    n_free : int, default=1
        Labels that cost no penalty.

    Returns
    -------
    scores : ndarray (n_samples, n_classes)
    """
    ranks = np.arange(1, probabilities.shape[1] + 1)
    return _mass_and_penalty(probabilities, uniform, penalty * np.maximum(ranks - n_free, 0))


def _mass_and_penalty(probabilities, uniform, penalties):
    """Cumulated mass less one, and the penalty of each rank (n_classes,)."""
    order = np.argsort(probabilities, axis=1)
    ascending = np.take_along_axis(probabilities, order, axis=1)
    scores = -np.reshape(uniform, (-1, 1)) * ascending + penalties[::-1]
    scores[:, 1:] -= np.cumsum(ascending[:, :-1], axis=1)
    placed = np.empty_like(scores)
    np.put_along_axis(placed, order, scores, axis=1)
    return placed


RANDOMIZED = "randomized_"
SCORES = {
    "lac": lac_scores,
    "aps": aps_scores,
    "raps": raps_scores,
    RANDOMIZED + "aps": aps_scores,
    RANDOMIZED + "raps": raps_scores,
}
PENALTIES = (0.001, 0.01, 0.03, 0.1, 0.3)
FREE_LABELS = (1, 2, 3, 5)
CHOICE_LEVEL = 0.9


def smallest_raps(probabilities, codes):
    """The penalties of :func:`raps_scores` that give the smallest sets at level 0.9 on rows that do not calibrate.

    Parameters
    ----------
    probabilities : ndarray (n_samples, n_classes)
    codes : ndarray of int (n_samples,)

    Returns
    -------
    callable
        As :func:`raps_scores`.
    """
    tried = [
        partial(raps_scores, penalty=penalty, n_free=n_free)
        for penalty in PENALTIES
        for n_free in FREE_LABELS
        if n_free < probabilities.shape[1]
    ]

    def mean_size(score):
        scores = score(probabilities)
        quantile = score_quantile(true_label_values(scores, codes), CHOICE_LEVEL)
        return np.mean(prediction_sets(scores, quantile))

    return min(tried, key=mean_size)


def row_uniform(arrays, seed):
    """A number in [0, 1) for each row, told by the row's values and the seed alone.

    So that a row gets the same set in every batch. It is part of the score, a fixed function of the
    row: rows that are exchangeable stay so. Multilinear hashing, whose numbers are uniform and
    pairwise independent over seeds: Lemire, Kaser, "Strongly Universal String Hashing is Fast", The
    Computer Journal 2014.

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


def _words(array):
    """Bits of the rows' numbers: uint32 (n_samples, n_words)"""
    array = array.astype(np.int32) if array.dtype.kind == "b" else array
    # Adding 0 turns -0.0, which equals 0.0, into the same bits.
    return np.ascontiguousarray(array + array.dtype.type(0)).reshape(len(array), -1).view(np.uint32)


def _blocks(n_samples):
    return [slice(start, start + ROWS_AT_ONCE) for start in range(0, n_samples, ROWS_AT_ONCE)]


def true_label_values(values, codes):
    """What stands at the right labels: (n_samples, n_classes), (n_samples,) -> (n_samples,)"""
    return np.take_along_axis(values, np.asarray(codes)[:, None], axis=1).squeeze(1)


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


def group_quantiles(scores, groups, confidence_level):
    """Quantile of each group from its own calibration rows; a group borrows from no other.

    Mondrian conformal prediction: Vovk, Gammerman, Shafer 2005, section 4.5.

    Parameters
    ----------
    scores : ndarray (n_calibration,)
    groups : ndarray of int (n_calibration,)
    confidence_level : float

    Returns
    -------
    quantiles : ndarray (n_groups + 1,)
        The last, infinity, is for groups of which no calibration row is.
    """
    order = np.argsort(groups, kind="stable")
    sizes = np.bincount(groups)
    by_group = np.split(scores[order], np.cumsum(sizes))
    return np.array([score_quantile(own, confidence_level) for own in by_group])


def prediction_sets(scores, quantile):
    """Labels whose score is at most the quantile: bool (n_samples, n_classes)"""
    return scores <= quantile


class AnsweredRows(NamedTuple):
    """What scores and groups read of rows."""

    probabilities: np.ndarray  # (n_samples, n_classes), of the exits taken
    exit_index: np.ndarray  # (n_samples,)
    uniform: np.ndarray  # (n_samples,), 0 for scores that are not random
    own_groups: np.ndarray  # (n_samples,), the user's, 0 where there are none

    def take(self, rows):
        return AnsweredRows(*(column[rows] for column in self))


def pooled(rows):
    return np.zeros((1, 1), dtype=int)


def by_exit(rows):
    return rows.exit_index[:, None]


def by_class(rows):
    return np.arange(rows.probabilities.shape[1])[None]


def by_exit_and_class(rows):
    return by_exit(rows) * rows.probabilities.shape[1] + by_class(rows)


def by_own_groups(rows):
    return rows.own_groups[:, None]


# Group of each row and label, of a shape that broadcasts to (n_samples, n_classes).
GROUPS = {
    "pooled": pooled,
    "exit": by_exit,
    "class": by_class,
    "exit_and_class": by_exit_and_class,
}


class ConformalSets:
    """Scores of the calibration rows, and sets by them.

    Parameters
    ----------
    score : callable
        Probabilities (n_samples, n_classes), uniform numbers (n_samples,) -> score of each label
        (n_samples, n_classes).
    groups : callable
        :class:`AnsweredRows` -> group of each row and label, an int.
    rows : AnsweredRows
        That calibrate.
    codes : ndarray of int (n_calibration,)

    Attributes
    ----------
    scores, groups : ndarray (n_calibration,)
        Score of each calibration row's right label, and its group.
    """

    def __init__(self, score, groups, rows, codes):
        self._score, self._groups, self._known_quantiles = score, groups, {}
        self.scores, self.groups = np.empty(len(codes)), np.empty(len(codes), dtype=int)
        for block in _blocks(len(codes)):
            scores, group = self._scored(rows.take(block))
            group = np.broadcast_to(group, scores.shape)
            self.scores[block] = true_label_values(scores, codes[block])
            self.groups[block] = true_label_values(group, codes[block])

    def _scored(self, rows):
        return self._score(rows.probabilities, rows.uniform), self._groups(rows)

    def _quantiles(self, confidence_level):
        if confidence_level not in self._known_quantiles:
            found = group_quantiles(self.scores, self.groups, confidence_level)
            self._known_quantiles[confidence_level] = found
        return self._known_quantiles[confidence_level]

    def sets(self, rows, confidence_levels, *, allow_empty=True):
        """Labels that hold the truth with each confidence.

        Parameters
        ----------
        rows : AnsweredRows
        confidence_levels : sequence of float (n_levels,)
        allow_empty : bool, default=True
            False adds the label of least score to an empty set.

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


def _best_where_empty(sets, scores):
    best = np.arange(scores.shape[1]) == scores.argmin(axis=1)[:, None]
    return best[:, :, None] & ~sets.any(axis=1, keepdims=True)
