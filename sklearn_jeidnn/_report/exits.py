"""The exits at an operating point: who leaves where, how well, and examples."""

from dataclasses import dataclass

import numpy as np

from .pictures import Pictures
from .points import PointOnSamples, Share
from .shown import Feature, Shown, Table

MOST_PICTURES, MOST_ROWS = 8, 5
# Of all exits together, so that a page stays small.
MOST_EXAMPLES_OF_ALL = 64
N_FEATURES = 4


@dataclass(frozen=True, kw_only=True)
class Example:
    """A sample, and what it was answered.

    Parameters
    ----------
    number : int
        Its position among the samples.
    truth, answer : str
        Labels.
    probability : float
        Of the answer.
    """

    number: int
    truth: str
    answer: str
    probability: float


@dataclass(frozen=True, kw_only=True)
class ExitSummary:
    """The samples that leave at one exit.

    Parameters
    ----------
    number : int
    name : str
    cost : float
    n_samples : int
    rate : float
        Share of all samples.
    accuracy : Share
    coverage : Share or None
    mean_set_size : float or None
    examples : list of Example
        From the surest answer to the least sure.
    features : list of Feature
        The most telling ones, if samples are rows of a table.
    """

    number: int
    name: str
    cost: float
    n_samples: int
    rate: float
    accuracy: Share
    coverage: Share | None
    mean_set_size: float | None
    examples: list[Example]
    features: list[Feature]


def exit_summaries(
    point: PointOnSamples, names: list[str], classes: np.ndarray, shown: Shown | None
) -> list[ExitSummary]:
    """Summaries of all exits, with examples if there is something to show."""
    n_examples = 0
    if shown is not None:
        most = MOST_PICTURES if isinstance(shown, Pictures) else MOST_ROWS
        n_taken = len(np.unique(point.exit_index))
        n_examples = max(1, min(most, MOST_EXAMPLES_OF_ALL // n_taken))
    return [
        _summary(point, number, name, classes, shown, n_examples)
        for number, name in enumerate(names)
    ]


def _summary(
    point: PointOnSamples,
    number: int,
    name: str,
    classes: np.ndarray,
    shown: Shown | None,
    n_examples: int,
) -> ExitSummary:
    here = point.exit_index == number
    sizes, covered = point.set_sizes, point.covered
    return ExitSummary(
        number=number,
        name=name,
        cost=float(point.exit_costs[number]),
        n_samples=int(here.sum()),
        rate=float(here.mean()),
        accuracy=Share.of(point.right[here]),
        coverage=None if covered is None else Share.of(covered[here]),
        mean_set_size=None if sizes is None or not here.any() else float(sizes[here].mean()),
        examples=[_example(point, row, classes) for row in _spread(point, here, n_examples)],
        features=shown.telling(here, N_FEATURES) if isinstance(shown, Table) else [],
    )


def _spread(point: PointOnSamples, here: np.ndarray, n_examples: int) -> list[int]:
    """Samples at an exit, evenly spread from the surest answer to the least sure."""
    rows = np.flatnonzero(here)
    by_confidence = rows[np.argsort(-point.confidence[rows], kind="stable")]
    n_shown = min(n_examples, len(rows))
    if not n_shown:
        return []
    positions = np.linspace(0, len(rows) - 1, n_shown).round().astype(int)
    return [int(row) for row in by_confidence[positions]]


def _example(point: PointOnSamples, row: int, classes: np.ndarray) -> Example:
    return Example(
        number=row,
        truth=str(classes[point.codes[row]]),
        answer=str(classes[point.labels[row]]),
        probability=float(point.confidence[row]),
    )
