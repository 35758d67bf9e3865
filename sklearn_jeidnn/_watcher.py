"""Samples of a predictor, watched as they come (NumPy only)."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ._conformal.groups import RoutedSamples
from ._operate.calibration import with_uniform_gaps
from ._operate.coverage import CoverageBounds, CoverageCounts
from ._operate.watching import Observed, Watch
from ._predictor import Predictor
from ._schema import Arrays


class Watcher:
    """Whether the samples that a predictor answers are like those that calibrated it, asked as they come.

    :meth:`Predictor.watch` makes it. Three bets are made against each sample: on the exit it takes, on the probability
    of its label among those that left there, and on the label. If all samples, those that calibrate and those that
    come, are exchangeable (a random order of samples of one kind), the wealth *ever* reaches ``1 / alpha`` with
    probability at most ``alpha``, however long one watches. So an alarm says, with that confidence, that samples have
    changed, or that they depend on their order. It needs no labels, and so sees nothing of labels that change where
    samples stay the same: for that give the labels that come late to :meth:`update_labels`.

    All of a sample's answers must be those of this predictor, at its operating point. The state is small and does not
    grow. It keeps no samples.

    Attributes
    ----------
    alpha, confidence_level : float
    n_seen : int
        Samples so far.
    wealth : float
        Of the best of the three bets, divided by three.
    alarm : bool
        Whether the wealth has ever reached ``1 / alpha``.
    alarm_at : int or None
        After which sample.
    """

    def __init__(
        self,
        predictor: Predictor,
        checked: Callable[[Any], Arrays],
        *,
        alpha: float,
        confidence_level: float,
        random_state: int,
    ) -> None:
        self.alpha, self.confidence_level = alpha, confidence_level
        self._predictor, self._checked = predictor, checked
        calibration = predictor.calibration
        n_exits = len(predictor.cascade.exits) + 1
        self._watch = Watch(
            Observed(calibration.exit_index, calibration.confidence, calibration.codes),
            n_exits=n_exits,
            n_classes=predictor.schema.n_classes,
            alpha=alpha,
            seed=random_state,
        )
        # Each exit, and all together.
        self._counts = [
            CoverageCounts(confidence_level, alpha / (n_exits + 1)) for _ in range(n_exits + 1)
        ]

    @property
    def n_seen(self) -> int:
        return self._watch.n_seen

    @property
    def wealth(self) -> float:
        return self._watch.wealth

    @property
    def alarm(self) -> bool:
        return self._watch.alarm_at is not None

    @property
    def alarm_at(self) -> int | None:
        return self._watch.alarm_at

    def update(self, X: Any) -> "Watcher":
        """Predict samples, and take in what they are answered.

        Parameters
        ----------
        X : array-like (n_samples, ...)
            In the order in which they came.

        Returns
        -------
        Watcher
            Itself.
        """
        routed = self._predictor.answers(self._checked(X)).routed
        return self.update_answers(routed.probabilities, routed.exit_index)

    def update_answers(self, probabilities: Any, exits: Any) -> "Watcher":
        """Take in what samples were answered already.

        Parameters
        ----------
        probabilities : array-like (n_samples, n_classes)
            As ``predict_proba`` gives them.
        exits : array-like (n_samples,)
            As ``predict_exit`` gives them.

        Returns
        -------
        Watcher
            Itself.

        Raises
        ------
        ValueError
            If these are no such arrays.
        """
        probabilities, exits = np.asarray(probabilities, dtype=np.float64), np.asarray(exits)
        self._check(probabilities, exits)
        known = with_uniform_gaps(probabilities)
        self._watch.update(Observed(exits, known.max(axis=1), known.argmax(axis=1)))
        return self

    def _check(self, probabilities: np.ndarray, exits: np.ndarray) -> None:
        n_classes, n_exits = self._predictor.schema.n_classes, len(self._counts) - 1
        if probabilities.ndim != 2 or probabilities.shape[1] != n_classes:
            raise ValueError(
                f"probabilities have shape {probabilities.shape}; give (n_samples, {n_classes}), as predict_proba does."
            )
        self._check_exits(exits, len(probabilities), n_exits)

    def _check_exits(self, exits: np.ndarray, n_samples: int, n_exits: int) -> None:
        if exits.shape != (n_samples,) or exits.dtype.kind not in "iu":
            raise ValueError(
                f"exits are {exits.dtype} of shape {exits.shape}; give whole numbers ({n_samples},), as predict_exit "
                f"does."
            )
        if n_samples and not 0 <= exits.min() <= exits.max() < n_exits:
            raise ValueError(
                f"exits are from {exits.min()} to {exits.max()}, but there are {n_exits}: 0 to {n_exits - 1}."
            )

    def update_labels(self, X: Any, y: Any, groups: Any = None) -> "Watcher":
        """Take in labels that came late: whether the prediction sets of their samples hold them.

        Samples whose label is known must be chosen without a look at the label, or coverage is that of those chosen.

        Parameters
        ----------
        X : array-like (n_samples, ...)
        y : array-like (n_samples,)
        groups : array-like (n_samples,), default=None
            If ``conformalize`` was given groups.

        Returns
        -------
        Watcher
            Itself.
        """
        self._predictor.rule.check_groups(groups)
        arrays = self._checked(X)
        routed = self._predictor.routed(arrays, self._predictor.group_numbers(arrays, groups))
        codes = self._predictor.schema.codes(y, len(routed.exit_index), "y")
        return self.update_coverage(routed.exit_index, self.covered(routed, codes))

    def covered(self, routed: RoutedSamples, codes: np.ndarray) -> np.ndarray:
        """Whether prediction sets hold labels, of samples that have run: bool (n_samples,)."""
        sets = self._predictor.sets_of(routed, [self.confidence_level], allow_empty=True)
        covered: np.ndarray = sets[np.arange(len(codes)), codes, 0]
        return covered

    def update_coverage(self, exits: Any, covered: Any) -> "Watcher":
        """Take in whether sets at ``confidence_level`` held the truth, where that is known already.

        Parameters
        ----------
        exits : array-like of int (n_samples,)
        covered : array-like of bool (n_samples,)

        Returns
        -------
        Watcher
            Itself.
        """
        exits, covered = np.asarray(exits), np.asarray(covered)
        if covered.ndim != 1 or covered.dtype.kind != "b":
            raise ValueError(
                f"covered is {covered.dtype} of shape {covered.shape}; give True or False for each sample."
            )
        self._check_exits(exits, len(covered), len(self._counts) - 1)
        for exit_index, counts in enumerate(self._counts[:-1]):
            counts.update(covered[exits == exit_index])
        self._counts[-1].update(covered)
        return self

    def coverage(self) -> dict[str, CoverageBounds]:
        """Coverage where labels came back, by exit and for "all exits".

        Returns
        -------
        dict of str to CoverageBounds
            With the fields ``n_samples``, ``n_covered``, ``coverage``, ``low`` and ``high``, between which the true
            coverages are at all times with probability ``1 - alpha``, and ``is_below``: whether coverage is shown to be
            below ``confidence_level``, with that confidence. Calibration promises the level on average over calibration
            samples; a little below it is shown of an unlucky draw of them, too.
        """
        names = [*self._predictor.cascade.exits, "last exit", "all exits"]
        return {name: counts.bounds() for name, counts in zip(names, self._counts, strict=True)}
