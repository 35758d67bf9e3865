"""What a user gives as ``y``, before scikit-learn's checks (no torch)."""

from numbers import Number
from typing import Any

import numpy as np
from sklearn.utils.validation import column_or_1d

from ._given import as_numpy, is_tensor, refuse_unordered


def read_labels(y: Any, name: str) -> np.ndarray:
    """Labels as an array (n_samples,); a column becomes one with scikit-learn's warning.

    Raises
    ------
    ValueError, TypeError
        If labels are missing, mixed, neither numbers nor text, one-hot, of another shape, or can be read only once.
    """
    if y is None:
        raise ValueError(f"{name} is missing; only a dataset of (sample, label) brings its labels.")
    refuse_unordered(y, name)
    y = as_numpy(y, name) if is_tensor(y) else y
    table = _label_table(y, name)
    if table.ndim not in (1, 2) or table.ndim == 2 and table.shape[1] != 1:
        one_hot = f"looks one-hot; give {name}.argmax(axis=1)"
        what = one_hot if _is_one_hot(table) else "needs one label a sample"
        raise ValueError(
            f"y should be a 1d array, got an array of shape {table.shape} instead: {name} {what}."
        )
    _refuse_missing(table.ravel(), name)
    labels: np.ndarray = column_or_1d(y, warn=True)
    return _sortable(labels, name) if labels.dtype == object else labels


def _label_table(y: Any, name: str) -> np.ndarray:
    """Labels as an array in which those that are missing can be told."""
    try:
        table = np.asarray(y)
        # NumPy makes the word 'nan' of a missing label among words.
        if isinstance(y, list | tuple) and table.dtype.kind in "US":
            table = np.asarray(y, dtype=object)
    except ValueError as error:
        raise ValueError(f"{name} needs one label a sample: {error}") from error
    return table


def _is_one_hot(y: np.ndarray) -> bool:
    if y.ndim != 2 or y.dtype.kind not in "biuf":
        return False
    return bool(((y == 0) | (y == 1)).all() and (y.sum(1) == 1).all())


def _refuse_missing(labels: np.ndarray, name: str) -> None:
    missing = []
    if labels.dtype.kind == "O":
        missing = [i for i, label in enumerate(labels) if _is_missing(label)]
    elif labels.dtype.kind in "fcmM":
        missing = np.flatnonzero(labels != labels).tolist()
    if missing:
        raise ValueError(
            f"{name} has {len(missing)} missing labels ({labels[missing[0]]}), the first of sample {missing[0]}; leave "
            f"these samples out."
        )


def _is_missing(label: Any) -> bool:
    """Whether a label is None, NaN, NaT or pandas's NA, which does not compare."""
    if label is None or type(label).__name__ == "NAType":
        return True
    try:
        return bool(label != label)
    except (TypeError, ValueError):
        return False


def _sortable(labels: np.ndarray, name: str) -> np.ndarray:
    """Labels of any type that can be sorted among each other; numbers as an array of numbers."""
    kinds = {Number if isinstance(label, Number) else type(label) for label in labels}
    names = sorted(kind.__name__ for kind in kinds)
    if len(kinds) > 1:
        raise ValueError(
            f"{name} mixes labels of types {names}; make them all strings: [str(label) for label in {name}]."
        )
    # A column of a data frame of several types holds numbers as objects.
    numbers = np.array(labels.tolist()) if kinds == {Number} else labels
    if numbers.dtype.kind in "biufc":
        return numbers
    if kinds and not issubclass(next(iter(kinds)), str | bytes):
        raise ValueError(
            f"{name} has labels of type {type(labels[0]).__name__}, such as {labels[0]!r}; make them strings or "
            f"numbers: [str(label) for label in {name}]."
        )
    return labels


def all_classes_of(y: np.ndarray, classes: Any, likely: np.ndarray | None) -> np.ndarray:
    """All labels, sorted."""
    found: np.ndarray = np.unique(y)
    if classes is not None:
        return _checked_classes(classes, found)
    if likely is not None and set(found.tolist()) <= set(likely.tolist()):
        return np.sort(likely)
    if len(found) < 2:
        raise ValueError(
            f"y has {len(found)} class (of samples with sample_weight above 0); a classifier "
            f"needs at least 2 classes."
        )
    return found


def _checked_classes(classes: Any, found: np.ndarray) -> np.ndarray:
    labels = np.asarray(classes)
    known: np.ndarray = np.unique(labels)
    if labels.ndim != 1 or len(known) < 2 or len(known) != len(labels):
        raise ValueError(
            f"classes={classes!r} must be at least two different labels, each once, in the order of the module's "
            f"logits."
        )
    unknown = [label for label in found.tolist() if label not in set(known.tolist())]
    if unknown:
        raise ValueError(
            f"y has labels {unknown[:5]} that are not in classes={labels[:12].tolist()}; classes must name every "
            f"label, in the order of the module's logits."
        )
    return known
