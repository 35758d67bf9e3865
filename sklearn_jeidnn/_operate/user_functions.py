"""Call functions that a user gives, and check group labels that they return."""

from collections.abc import Callable
from numbers import Real
from typing import Any

import numpy as np

# Kinds of labels by the kind of their dtype; labels of one kind compare.
KINDS = {**dict.fromkeys("biuf", "number"), **dict.fromkeys("US", "text")}


def called(function: Callable[..., Any], name: str, *arguments: Any, takes: str) -> Any:
    """What a user's function returns; an error in it names the parameter, and says what the function ``takes``."""
    try:
        return function(*arguments)
    except Exception as error:
        raise ValueError(f"{name} fails: {error!r}. It is called with {takes}.") from error


def as_group_labels(groups: Any, name: str) -> np.ndarray:
    """Group labels as an array; a column becomes (n_samples,)."""
    try:
        labels = np.asarray(groups)
    except ValueError as error:
        raise ValueError(f"{name} must be one label for each sample: {error}") from error
    return labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels


def kind_of_labels(labels: np.ndarray, name: str) -> str | None:
    """Whether group labels are numbers, text, or of another kind; None if there are none.

    Raises
    ------
    ValueError
        If one is missing, or they are of several kinds, which have no order.
    """
    if labels.dtype.kind != "O":
        if labels.dtype.kind in "fmM" and (labels != labels).any():
            raise ValueError(f"{name} hold missing values (NaN or NaT); every sample needs one.")
        return (KINDS.get(labels.dtype.kind) or str(labels.dtype)) if len(labels) else None
    kinds = {_kind_of_label(label) for label in labels}
    if len(kinds) > 1 or "NoneType" in kinds:
        raise ValueError(
            f"{name} are of several kinds or missing: {sorted(kinds)}; every sample needs one of the same kind."
        )
    return next(iter(kinds), None)


def _kind_of_label(label: Any) -> str:
    if isinstance(label, Real | np.bool_):
        return "number" if label == label else "NoneType"
    return "text" if isinstance(label, str) else type(label).__name__
