"""What the operating points of a frontier do to labelled samples."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from .. import metrics
from .._operate.calibration import with_uniform_gaps
from .._operate.frontier import COST_WEIGHT_GRID
from .._plotting.intervals import wilson_interval
from .._predictor import Predictor
from ..conformal import RoutedSamples
from .samples import LabelledAnswers


class Share(NamedTuple):
    """A share of samples, with the interval that holds the true share with 95 % confidence (Wilson)."""

    value: float
    low: float
    high: float
    n_samples: int

    @classmethod
    def of(cls, flags: np.ndarray) -> "Share":
        """Of the samples for which flags (n_samples,) are True; NaN if there are no samples."""
        if not len(flags):
            return cls(math.nan, math.nan, math.nan, 0)
        low, high = wilson_interval(int(flags.sum()), len(flags))
        return cls(float(np.mean(flags)), low, high, len(flags))


class Figures(NamedTuple):
    """What an operating point does to samples, in a few numbers."""

    cost_weight: float  # NaN where the point has none
    mean_cost: float
    accuracy: Share
    coverage: Share | None  # of prediction sets; None if no sample calibrates
    mean_set_size: float | None
    exit_rates: tuple[float, ...]

    @property
    def seen(self) -> tuple[object, ...]:
        """All that a reader sees of it: points that agree in this are one to him."""
        return self[2:]


@dataclass(frozen=True, kw_only=True)
class PointOnSamples:
    """What a classifier at one operating point answers for labelled samples.

    Parameters
    ----------
    cost_weight : float
        NaN where the point has none.
    exit_costs : ndarray (n_exits,)
    codes, labels, exit_index : ndarray of int (n_samples,)
        True and answered labels as columns of ``classes_``, and exits taken.
    probabilities : ndarray (n_samples, n_classes)
    sets : ndarray of bool (n_samples, n_classes) or None
        None if no sample calibrates.
    """

    cost_weight: float
    exit_costs: np.ndarray
    codes: np.ndarray
    labels: np.ndarray
    exit_index: np.ndarray
    probabilities: np.ndarray
    sets: np.ndarray | None

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def n_exits(self) -> int:
        return len(self.exit_costs)

    @cached_property
    def right(self) -> np.ndarray:
        """Whether the label is right: bool (n_samples,)."""
        right: np.ndarray = self.labels == self.codes
        return right

    @cached_property
    def confidence(self) -> np.ndarray:
        """Probability of the label answered: (n_samples,)."""
        confidence: np.ndarray = self.probabilities.max(axis=1)
        return confidence

    @cached_property
    def covered(self) -> np.ndarray | None:
        """Whether the set holds the truth: bool (n_samples,)."""
        return None if self.sets is None else self.sets[np.arange(len(self)), self.codes]

    @cached_property
    def set_sizes(self) -> np.ndarray | None:
        """Number of labels in each set: (n_samples,)."""
        return None if self.sets is None else self.sets.sum(axis=1)

    @cached_property
    def figures(self) -> Figures:
        return Figures(
            cost_weight=self.cost_weight,
            mean_cost=metrics.mean_cost(self.exit_index, self.exit_costs),
            accuracy=Share.of(self.right),
            coverage=None if self.covered is None else Share.of(self.covered),
            mean_set_size=None if self.set_sizes is None else float(np.mean(self.set_sizes)),
            exit_rates=tuple(metrics.exit_rates(self.exit_index, self.n_exits).tolist()),
        )


def point_on_samples(
    predictor: Predictor, samples: LabelledAnswers, confidence_level: float
) -> PointOnSamples:
    """What a predictor at its operating point answers, from the answers of every exit, as if samples were routed."""
    answers = samples.answers.of_point(predictor.point)
    taken = answers.exits(predictor.point.gates, predictor.cascade.exit_mass)
    probabilities = predictor.calibration.probabilities(answers.at(taken), taken)
    sets = None
    if predictor.samples is not None:
        routed = RoutedSamples(probabilities, taken, samples.uniform, samples.groups)
        sets = predictor.sets_of(routed, [confidence_level], allow_empty=True)[..., 0]
    return PointOnSamples(
        cost_weight=predictor.point.cost_weight,
        exit_costs=predictor.cascade.exit_costs,
        codes=samples.codes,
        labels=np.maximum(answers.labels[np.arange(len(answers)), taken], 0),
        exit_index=taken,
        probabilities=with_uniform_gaps(probabilities),
        sets=sets,
    )


class Frontier(NamedTuple):
    """Operating points that differ on some samples, the cheapest first."""

    points: list[Figures]
    own: int  # number of the classifier's own point


def frontier_on_samples(
    predictor: Predictor,
    samples: LabelledAnswers,
    confidence_level: float,
    own: Figures,
    *,
    has_others: bool,
) -> Frontier:
    """The classifier's own point among those of its frontier; alone if its gates are of one point."""
    found = {own.seen: own}
    for figures in _of_frontier(predictor, samples, confidence_level) if has_others else ():
        found.setdefault(figures.seen, figures)
    points = sorted(found.values(), key=lambda figures: (figures.mean_cost, figures.accuracy))
    return Frontier(points, next(i for i, figures in enumerate(points) if figures is own))


def _of_frontier(
    predictor: Predictor, samples: LabelledAnswers, confidence_level: float
) -> Iterator[Figures]:
    for i in range(len(COST_WEIGHT_GRID)):
        moved = predictor.moved_to(predictor.frontier.grid_point(i))
        yield point_on_samples(moved, samples, confidence_level).figures
