"""Prediction sets from scores of calibration samples (NumPy only)."""

from collections.abc import Sequence

import numpy as np

from .blocks import blocks
from .groups import Grouping, RoutedSamples
from .quantiles import group_quantiles, prediction_sets, true_label_values
from .rounding import rounding_of
from .scores import SCORES, Score, checked_scores, raps_scores


class ConformalSets:
    """Prediction sets from the scores of the calibration samples.

    Scores that differ by no more than rounding count as equal. Samples without an answer, whose
    probabilities are NaN, have infinite scores when they calibrate, and sets of all labels.

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
    scores, groups, upper : ndarray (n_calibration,)
        Score of each calibration sample's true label, its group, and the largest score that rounding may make of it.
    """

    def __init__(
        self, score: Score, groups: Grouping, rows: RoutedSamples, codes: np.ndarray
    ) -> None:
        self.score, self._groups = score, groups
        self._known_quantiles: dict[float, np.ndarray] = {}
        self.scores, self.groups = np.empty(len(codes)), np.empty(len(codes), dtype=int)
        self.upper = np.empty(len(codes))
        for block in blocks(len(codes)):
            own, answered = _with_uniform_gaps(rows.take(block))
            scores, group = self._scored(own)
            group = np.broadcast_to(group, scores.shape)
            upper = scores + rounding_of(score, own, scores)
            self.groups[block] = true_label_values(group, codes[block])
            for of_samples, of_labels in ((self.scores, scores), (self.upper, upper)):
                values = true_label_values(of_labels, codes[block])
                of_samples[block] = np.where(answered, values, np.inf)

    @classmethod
    def of_scores(
        cls,
        score: Score,
        groups: Grouping,
        *,
        scores: np.ndarray,
        group_numbers: np.ndarray,
        upper: np.ndarray,
    ) -> "ConformalSets":
        """The sets of calibration samples whose scores are known already."""
        found = cls.__new__(cls)
        found.score, found._groups, found._known_quantiles = score, groups, {}
        found.scores, found.groups, found.upper = scores, group_numbers, upper
        return found

    def _scored(self, rows: RoutedSamples) -> tuple[np.ndarray, np.ndarray]:
        """Score and group of each sample and label."""
        if _is_builtin(self.score):
            return self.score(rows.probabilities, rows.uniform), self._groups(rows)
        # The user's function may write into what it is given.
        scores = self.score(rows.probabilities.copy(), rows.uniform.copy())
        return checked_scores(scores, rows.probabilities.shape), self._groups(rows)

    def _quantiles(self, confidence_level: float) -> np.ndarray:
        """Quantile of each group at this level, computed once; rounding counts for the labels."""
        if confidence_level not in self._known_quantiles:
            found = group_quantiles(self.upper, self.groups, confidence_level)
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
            If False, add the label with the smallest score to an empty set, and those that tie with
            it.

        Returns
        -------
        ndarray of bool (n_samples, n_classes, n_levels)
        """
        quantiles = [self._quantiles(level) for level in confidence_levels]
        sets = np.empty((*rows.probabilities.shape, len(quantiles)), dtype=bool)
        for block in blocks(len(sets)):
            own, answered = _with_uniform_gaps(rows.take(block))
            scores, group = self._scored(own)
            widths = rounding_of(self.score, own, scores)
            lower = scores - widths
            known = np.minimum(group, len(quantiles[0]) - 1)
            for level, quantile in enumerate(quantiles):
                sets[block, :, level] = prediction_sets(lower, quantile[known])
            if not allow_empty:
                sets[block] |= _best_where_empty(sets[block], lower, scores + widths)
            sets[block][~answered] = True
        return sets


def _is_builtin(score: Score) -> bool:
    return getattr(score, "func", score) in (*SCORES.values(), raps_scores)


def _with_uniform_gaps(rows: RoutedSamples) -> tuple[RoutedSamples, np.ndarray]:
    """Samples with uniform probabilities where there are none, and whether there were any: bool (n_samples,)."""
    probabilities = rows.probabilities
    answered = ~np.isnan(probabilities[:, 0])
    if answered.all():
        return rows, answered
    filled = np.where(answered[:, None], probabilities, 1 / probabilities.shape[1])
    return rows._replace(probabilities=filled), answered


def _best_where_empty(sets: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """The labels that may have the smallest score, for each empty set: bool as ``sets``."""
    best: np.ndarray = lower <= upper.min(axis=1, keepdims=True)
    return best[:, :, None] & ~sets.any(axis=1, keepdims=True)
