"""Groups of samples and labels, within each of which sets hold the truth (NumPy only)."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


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
