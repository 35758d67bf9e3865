"""Whether held-out samples that a user gives look like those that train (NumPy only)."""

from collections.abc import Iterator

import numpy as np

from .._schema import Arrays
from .._warn import warn_caller

# A column differs where its distribution functions lie this far apart, and by more than chance in a million fits.
# Numbers that differ by less than a part of the deviation count as equal.
LEAST_DISTANCE, FALSE_ALARM, TOLERANCE = 0.4, 1e-6, 0.25
MOST_COLUMNS, MOST_SAMPLES = 500, 2000


def warn_if_unlike(train: Arrays, held_out: Arrays, names: np.ndarray | None) -> None:
    """Warn if columns of tables, or what samples of images and tokens have on average, are of another kind.

    Parameters
    ----------
    train, held_out : tuple of ndarray (n_samples, ...)
        As the module takes them.
    names : ndarray of str (n_features,) or None
        Of the columns.
    """
    differing, n_compared = differing_columns(train, held_out, names)
    if differing:
        warn_caller(
            f"X_val is not like X: {len(differing)} of {n_compared} columns compared are differently distributed, "
            f"{differing[0]} among them. What calibrates on it holds for samples like X_val only. If a pipeline "
            f"transforms X, it must transform X_val as well: sklearn.set_config(enable_metadata_routing=True), "
            f"Pipeline(steps, transform_input=['X_val']) and set_fit_request(X_val=True, y_val=True) of the classifier."
        )


def differing_columns(
    train: Arrays, held_out: Arrays, names: np.ndarray | None = None
) -> tuple[list[str], int]:
    """Names of the columns that differ, and how many were compared."""
    first, second = (
        tuple(_some(array, MOST_SAMPLES) for array in own) for own in (train, held_out)
    )
    n_effective = 1 / (1 / len(first[0]) + 1 / len(second[0]))
    columns = list(_columns(first, second, names))
    # Dvoretzky, Kiefer, Wolfowitz, for two samples.
    chance = np.sqrt(np.log(2 * len(columns) / FALSE_ALARM) / (2 * n_effective))
    least = max(LEAST_DISTANCE, chance)
    found = [name for name, own, other in columns if _distance(own, other) > least]
    return found, len(columns)


def _some(array: np.ndarray, most: int) -> np.ndarray:
    """At most so many samples, evenly from all."""
    if len(array) <= most:
        return array
    some: np.ndarray = array[np.linspace(0, len(array) - 1, most).astype(int)]
    return some


def _columns(
    first: Arrays, second: Arrays, names: np.ndarray | None
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Name and values of each column of tables; of other inputs, of what each sample has on average."""
    for number, (own, other) in enumerate(zip(first, second, strict=True)):
        if own.ndim == 2 and own.dtype.kind == "f":
            for column in _some(np.arange(own.shape[1]), MOST_COLUMNS):
                name = f"column {column}" if names is None else repr(str(names[column]))
                yield name, own[:, column], other[:, column]
        else:
            where = f" of input {number}" if len(first) > 1 else ""
            for name, value, further in zip(SUMMARIES, _summaries(own), _summaries(other)):
                yield f"the {name} of a sample{where}", value, further


SUMMARIES = ("mean", "deviation", "least value", "largest value", "share of zeros")


def _summaries(array: np.ndarray) -> tuple[np.ndarray, ...]:
    """One number for each sample (n_samples,) for each of ``SUMMARIES``."""
    values = array.reshape(len(array), -1)
    values = values if values.dtype.kind == "f" else values.astype(float)
    zeros = (values == 0).mean(axis=1)
    return values.mean(axis=1), values.std(axis=1), values.min(axis=1), values.max(axis=1), zeros


def _distance(first: np.ndarray, second: np.ndarray) -> float:
    """Largest distance of two empirical distribution functions, moved towards each other by part of a deviation.

    Kolmogorov's and Smirnov's (without the move), which calls 0, 1, 2 and 0.01, 1.01, 2.01 wholly different.
    """
    moved = TOLERANCE * first.std()
    first, second = np.sort(first), np.sort(second)
    return max(_excess(first, second, moved), _excess(second, first, moved))


def _excess(first: np.ndarray, second: np.ndarray, moved: float) -> float:
    """Largest amount by which the first function, moved to the right, lies above the second."""
    below = np.arange(1, len(first) + 1) / len(first)
    of_second = np.searchsorted(second, first + moved, side="right") / len(second)
    return float((below - of_second).max())
