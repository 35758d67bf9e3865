"""Tables as float32, and columns that it would blur, since their spread is small against their size."""

import contextlib
from typing import Any

import numpy as np

from ._table_columns import TableColumns, column_offsets
from ._warn import warn_caller

FLOATS = (np.float64, np.float32)


def is_table(X: Any) -> bool:
    """Whether samples are given as an array, a frame or lists of two axes."""
    if not isinstance(X, list | tuple):
        # Frames of polars have no ndim.
        return len(getattr(X, "shape", ())) == 2
    with contextlib.suppress(ValueError):  # lists of several lengths
        return np.ndim(X) == 2
    return False


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


def as_float32(columns: TableColumns, table: np.ndarray) -> np.ndarray:
    """A table less the offsets of its columns, as float32; values that are missing stay so.

    Raises
    ------
    ValueError
        If a number is infinite, or too large for float32.
    """
    table = columns.filled(table)
    centred = table if columns.offset is None else table - columns.offset
    with np.errstate(over="ignore"):
        array: np.ndarray = centred.astype(np.float32, copy=False)
    refuse_infinite(columns, array)
    return array


def refuse_infinite(columns: TableColumns, table: np.ndarray) -> None:
    """Refuse infinite numbers, and say in which columns they are."""
    infinite = np.isinf(table).any(axis=0)
    if infinite.any():
        raise ValueError(
            f"Input X contains infinity or a value too large for dtype('float32'), in columns "
            f"{columns.named(infinite)}."
        )
