"""Columns of a table that float32 would blur, since their spread is small against their size."""

import contextlib
from typing import Any

import numpy as np
from sklearn.utils import assert_all_finite

from ._warn import warn_caller

FLOATS = (np.float64, np.float32)
# A column's size is this many times its spread: float32 then resolves less than a 10,000th of the spread.
NARROW = 1000
OFFSET_SAMPLES = 10_000


def is_table(X: Any) -> bool:
    """Whether samples are given as an array, a frame or lists of two axes."""
    if not isinstance(X, list | tuple):
        return getattr(X, "ndim", None) == 2
    with contextlib.suppress(ValueError):  # lists of several lengths
        return np.ndim(X) == 2
    return False


def column_offsets(table: np.ndarray) -> np.ndarray | None:
    """Medians of the columns whose spread is small against their size, 0 for others; None if there are none."""
    some = table[:: max(1, len(table) // OFFSET_SAMPLES)]
    low, median, high = np.quantile(some, [0.1, 0.5, 0.9], axis=0)
    narrow = (high > low) & (np.abs(median) > NARROW * (high - low))
    return np.where(narrow, median, 0) if narrow.any() else None


def warn_of_narrow_columns(X: Any) -> None:
    """Tell that float32 blurs columns of a table that a module of the user's takes as they are."""
    if not is_table(X):
        return
    table = np.asarray(X)
    offset = column_offsets(table) if table.dtype == np.float64 else None
    if offset is not None:
        columns = np.flatnonzero(offset)[:5].tolist()
        warn_caller(
            f"X has columns {columns} whose spread is small against their size, and becomes float32, which blurs "
            f"them; scale them first, with StandardScaler in a pipeline say."
        )


def as_float32(table: np.ndarray, offset: np.ndarray | None) -> np.ndarray:
    """A table less the offsets of its columns, as float32."""
    centred = table if offset is None else table - offset
    with np.errstate(over="ignore"):
        array: np.ndarray = centred.astype(np.float32, copy=False)
    assert_all_finite(array, input_name="X")
    return array
