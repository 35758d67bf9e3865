"""Whether new samples are like the calibration samples, asked as they come (NumPy only).

Conformal test martingales: Vovk, Petej, Nouretdinov, Ahlberg, Carlsson, Gammerman, "Retrain or not retrain: conformal
test martingales for change-point detection", COPA 2021.
"""

from typing import NamedTuple

import numpy as np

from .bets import Bets

# Confidences are ranked in bins of their log-odds, evenly from one of these to the other.
LEAST_LOG_ODDS, MOST_LOG_ODDS, BINS_OF_ONE = -8.0, 16.0, 32
N_CONFIDENCES = int((MOST_LOG_ODDS - LEAST_LOG_ODDS) * BINS_OF_ONE)


class Observed(NamedTuple):
    """What is watched of samples."""

    exit_index: np.ndarray  # of int (n_samples,), the exit taken
    confidence: np.ndarray  # (n_samples,), probability of the predicted label there
    codes: np.ndarray  # of int (n_samples,), the predicted label as a column of the classes

    def take(self, rows: slice) -> "Observed":
        """Some of the samples."""
        return Observed(*(column[rows] for column in self))


class Ranks:
    """Ranks of values among those that came before, in each group, as smoothed conformal p-values.

    If values are exchangeable within groups, p-values are independent and uniform, from the first that is asked for:
    each value is compared with all that came before, calibration samples and new ones, and ties are broken at random.
    Only counts are kept, so the state does not grow.

    Parameters
    ----------
    n_groups, n_values : int
        Groups and values are whole numbers from 0, below these.
    """

    def __init__(self, n_groups: int, n_values: int) -> None:
        self._counts = np.zeros((n_groups, n_values), dtype=np.int64)

    def add(self, groups: np.ndarray, values: np.ndarray) -> None:
        """Take in values that are not asked about."""
        np.add.at(self._counts, (groups, values), 1)

    def p_values(self, groups: np.ndarray, values: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        """Share of values, up to each one and in its group, that are larger; small for values that are rarely so large.

        Parameters
        ----------
        groups, values : ndarray of int (n_samples,)
        uniform : ndarray (n_samples,)
            Random numbers that break ties.
        """
        at_least = np.cumsum(self._counts[:, ::-1], axis=1)[:, ::-1]
        of_value = self._counts[groups, values]
        # Samples of one call are compared in their order, as short integers, which is faster.
        own_groups, own_values = groups.astype(np.int16), values.astype(np.int32)
        earlier = np.tri(len(values), k=-1, dtype=bool) & (own_groups[:, None] == own_groups)
        larger = at_least[groups, values] - of_value
        larger = larger + _count(earlier & (own_values > own_values[:, None]))
        equal = 1 + of_value + _count(earlier & (own_values == own_values[:, None]))
        n_known = 1 + at_least[groups, 0] + _count(earlier)
        self.add(groups, values)
        shares: np.ndarray = (larger + uniform * equal) / n_known
        return shares


def _count(pairs: np.ndarray) -> np.ndarray:
    """How many are True in each row."""
    found: np.ndarray = pairs.view(np.uint8).sum(axis=1, dtype=np.uint32)
    return found.astype(np.int64)


class Watch:
    """Three bets that samples are not like those that calibrate: on exits, confidences, and predicted labels.

    Exits are ranked among all samples, confidences among those that left at the same exit, predicted labels among all.
    The state is a few thousand numbers, however many samples come. It does not depend on how they are divided into
    calls.

    Parameters
    ----------
    known : Observed
        Of the calibration samples, in any order.
    n_exits, n_classes : int
    alpha : float
        Greatest probability of an alarm, at any time, if all samples are exchangeable with the calibration samples.
    seed : int
        Of the random numbers that break ties.

    Attributes
    ----------
    wealth : float
        The largest capital of the three bets, divided by three; the alarm is raised when it reaches ``1 / alpha``.
    alarm_at : int or None
        Number of samples after which the alarm was raised.
    n_seen : int
    """

    def __init__(
        self, known: Observed, *, n_exits: int, n_classes: int, alpha: float, seed: int
    ) -> None:
        self.alpha = alpha
        self._random = np.random.default_rng(seed)
        self._ranks = (
            Ranks(1, n_exits),
            Ranks(n_exits, N_CONFIDENCES),
            Ranks(1, n_classes),
        )
        self._bets = Bets(len(self._ranks))
        self.wealth, self.most_wealth, self.n_seen = 1 / len(self._ranks), 0.0, 0
        self.alarm_at: int | None = None
        values = self._grouped(known, self._random.random(len(known.codes)))
        for ranks, (groups, own) in zip(self._ranks, values, strict=True):
            ranks.add(groups, own)

    def update(self, new: Observed) -> None:
        """Take in new samples, in their order."""
        start = 0
        while start < len(new.codes):
            rows = slice(start, start + self._bets.n_left)
            self._update(new.take(rows))
            start = rows.stop

    def _update(self, new: Observed) -> None:
        random = self._random.random((len(new.codes), 1 + len(self._ranks))).T
        values = self._grouped(new, random[0])
        p_values = [
            ranks.p_values(groups, own, uniform)
            for ranks, (groups, own), uniform in zip(self._ranks, values, random[1:], strict=True)
        ]
        wealth = self._bets.update(np.stack(p_values)).max(axis=0) / len(self._ranks)
        reached = np.flatnonzero(wealth >= 1 / self.alpha)
        if len(reached) and self.alarm_at is None:
            self.alarm_at = self.n_seen + int(reached[0]) + 1
        self.n_seen += len(wealth)
        self.wealth, self.most_wealth = float(wealth[-1]), max(self.most_wealth, wealth.max())

    def _grouped(
        self, samples: Observed, uniform: np.ndarray
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Group and value of each sample, for each bet."""
        together = np.zeros(len(samples.codes), dtype=int)
        return [
            (together, samples.exit_index),
            (samples.exit_index, _bins(samples.confidence, uniform)),
            (together, samples.codes),
        ]


def _bins(confidence: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """Bin of each confidence.

    Edges lie at random, anew for each sample: rounding, which may differ between calls, then moves next to no sample
    into another bin, where samples of few kinds might all lie at an edge.
    """
    share = np.clip(confidence, 1e-300, 1 - 1e-16)
    log_odds = np.log(share) - np.log1p(-share)
    places = (log_odds - LEAST_LOG_ODDS) * BINS_OF_ONE + uniform
    bins: np.ndarray = np.clip(places, 0, N_CONFIDENCES - 1).astype(int)
    return bins
