"""Cells of one column of a table: words, numbers, or missing (NumPy only)."""

import math
import re
from numbers import Number
from typing import Any

import numpy as np

from ._warn import warn_caller

# The number of a category that fit did not see.
UNSEEN = -1.0
NUMBERS = "fiub"
DATES = "mM"
# Starts of the names that pandas and polars give dtypes of categories, and of columns in which all is missing.
CATEGORY_DTYPES = ("category", "Categorical", "Enum", "Null")
# A column of words that are mostly numbers is likely one of numbers, with words for what is missing.
MOSTLY = 0.5
# Postcodes and the like are digits, but no numbers.
LEADING_ZERO = re.compile(r"\s*0\d")


def is_missing(cell: Any) -> bool:
    """Whether a cell is None, NaN or pandas' NA."""
    return (
        cell is None
        or (isinstance(cell, float) and cell != cell)
        or type(cell).__name__ in ("NAType", "NaTType")
    )


def is_word(cell: Any) -> bool:
    """Whether a cell is text."""
    return isinstance(cell, str | bytes)


def cells_of(name: Any, values: np.ndarray) -> list[Any]:
    """Cells of a column, each a word, a number of Python's, or missing.

    Raises
    ------
    TypeError
        If a cell is anything else.
    """
    if values.dtype.kind in DATES and len(values):
        raise _no_cell(name, values[0])
    return [_plain(name, cell) for cell in values.tolist()]


def _plain(name: Any, cell: Any) -> Any:
    if isinstance(cell, np.generic):
        cell = cell.item()
    if isinstance(cell, str | bytes | int | float) or is_missing(cell):
        return cell
    # Decimals and fractions.
    if isinstance(cell, Number) and not isinstance(cell, complex):
        return float(cell)  # type: ignore[arg-type]  # Number promises nothing
    raise _no_cell(name, cell)


def _no_cell(name: Any, cell: Any) -> TypeError:
    return TypeError(
        f"X has {cell!r} in column {name!r}: the argument must be a string or a real number. Make a number or a word "
        f"of each value, in a FunctionTransformer in front."
    )


def categories_of(
    name: Any, values: np.ndarray, dtype: Any, chosen: bool | None
) -> tuple[Any, ...] | None:
    """Sorted categories of a column; None if it is one of numbers.

    Parameters
    ----------
    name : hashable
        Of the column, for messages.
    values : ndarray (n_samples,)
    dtype : dtype
        Of the column as it was given.
    chosen : bool or None
        Whether it is one of categories; None lets its dtype and its words tell.
    """
    if chosen is None:
        chosen = str(dtype).startswith(CATEGORY_DTYPES) or _has_words(name, values)
    if not chosen:
        return None
    cells = {cell for cell in cells_of(name, values) if not is_missing(cell)}
    return tuple(sorted(cells, key=_place))


def _place(cell: Any) -> tuple[str, Any]:
    """Where a category comes: numbers first, which compare among each other, then words of each type."""
    return (type(cell).__name__ if is_word(cell) else "", cell)


def _has_words(name: Any, values: np.ndarray) -> bool:
    """Whether a column holds anything but numbers and numbers written as words, or could, but holds nothing."""
    if values.dtype.kind in NUMBERS:
        return False
    cells = [cell for cell in cells_of(name, values) if not is_missing(cell)]
    words = [cell for cell in cells if not _is_number(cell)]
    if words and len(words) < MOSTLY * len(cells) and not any(map(_is_code, words)):
        warn_caller(
            f"X has column {name!r}, which holds mostly numbers, but also words such as {words[0]!r}, and so each of "
            f"its values is a category. If the words mean that a value is missing, replace them by NaN."
        )
    return bool(words) or not cells


def _is_code(cell: Any) -> bool:
    """Whether a word is digits that begin with a zero."""
    return isinstance(cell, str) and LEADING_ZERO.match(cell) is not None


def _is_number(cell: Any) -> bool:
    return _is_float(cell) and not _is_code(cell)


def _is_float(cell: Any) -> bool:
    try:
        _as_float(cell)
    except ValueError:
        return False
    return True


def _as_float(cell: Any) -> float:
    try:
        return float(cell)
    except OverflowError:
        return math.inf if cell > 0 else -math.inf


def are_written(name: Any, values: np.ndarray) -> bool:
    """Whether the numbers of a column are written as words."""
    if values.dtype.kind in NUMBERS:
        return False
    cells = [cell for cell in cells_of(name, values) if not is_missing(cell)]
    return bool(cells) and all(isinstance(cell, str) for cell in cells)


def first_missing(values: np.ndarray) -> Any:
    """What stands for a missing value in a column of objects: None, NaN or NA; None where nothing is missing."""
    cells = values.tolist() if values.dtype == object else []
    return next((cell for cell in cells if is_missing(cell)), None)


def as_numbers(name: Any, values: np.ndarray) -> np.ndarray:
    """A column of numbers as float64, NaN where one is missing."""
    if values.dtype.kind in NUMBERS:
        return values.astype(np.float64)
    cells = [np.nan if is_missing(cell) else cell for cell in cells_of(name, values)]
    try:
        return np.array([_as_float(cell) for cell in cells])
    except ValueError:
        wrong = next(cell for cell in cells if not _is_float(cell))
        raise ValueError(
            f"X has {wrong!r} in column {name!r}, which is one of numbers. If it is one of categories, fit must know: "
            f"name it, too, in categorical_features, or leave that at 'from_dtype', which takes columns that have "
            f"words in fit. If the word means that a value is missing, replace it by NaN."
        ) from None


def positions(name: Any, values: np.ndarray, categories: tuple[Any, ...]) -> np.ndarray:
    """Position of each cell among the categories; NaN for missing cells, UNSEEN for others."""
    known = {category: float(i) for i, category in enumerate(categories)}
    found = _looked_up(known, values)
    others = [i for i, position in enumerate(found) if position is None]
    cells = cells_of(name, values[others])
    for i, cell in zip(others, cells, strict=True):
        found[i] = np.nan if is_missing(cell) else known.get(cell, UNSEEN)
    return np.array(found, dtype=np.float64)


def _looked_up(known: dict[Any, float], values: np.ndarray) -> list[float | None]:
    """Position of each cell that is a known category as it comes, which nearly all are; None for others."""
    if values.dtype.kind not in DATES:
        try:
            return list(map(known.get, values.tolist()))
        except TypeError:  # cells that have no hash
            pass
    return [None] * len(values)
