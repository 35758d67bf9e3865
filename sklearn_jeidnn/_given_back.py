"""Columns of a table as a user gave them, made from numbers (NumPy; pandas or polars where a frame was given)."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ._cells import is_missing, is_word

# What stands for a category that fit did not see, where a member takes words.
UNSEEN_WORD = "unseen"


def any_words(categories: Sequence[tuple[Any, ...] | None]) -> bool:
    """Whether a category of any column is text."""
    return any(is_word(value) for values in categories for value in values or ())


def words(positions: np.ndarray, categories: tuple[Any, ...], missing: Any) -> np.ndarray:
    """Categories at these positions: objects (n_samples,); a word of its own for those that ``fit`` did not see.

    Parameters
    ----------
    positions : ndarray (n_samples,)
        NaN where a value is missing.
    categories : tuple
    missing : None, NaN or NA
        What stands for a missing value.
    """
    unseen = _unseen_word(categories) if any_words([categories]) else missing
    table = np.empty(len(categories) + 2, dtype=object)
    # The last two are what -1 and -2 point to.
    table[:] = [*categories, missing, unseen]
    rows = np.where(np.isnan(positions), -2, positions).astype(int)
    found: np.ndarray = table[rows]
    return found


def _unseen_word(categories: tuple[Any, ...]) -> str:
    """A word that is none of the categories."""
    word = UNSEEN_WORD
    while word in categories:
        word += "_"
    return word


def written(numbers: np.ndarray, missing: Any) -> np.ndarray:
    """Numbers as words: objects (n_samples,)"""
    found = np.empty(len(numbers), dtype=object)
    found[:] = [
        missing if number != number else str(int(number)) if number == int(number) else str(number)
        for number in numbers
    ]
    return found


def frame(
    library: str, names: Sequence[Any], columns: Sequence[np.ndarray], dtypes: Sequence[Any]
) -> Any:
    """A data frame of columns with their dtypes, or wider ones where numbers do not fit these.

    Parameters
    ----------
    library : {"pandas", "polars"}
    names : sequence (n_features,)
    columns : sequence of ndarray (n_samples,)
    dtypes : sequence (n_features,)
    """
    if library == "polars":
        import polars

        series = map(_polars_series, names, columns, dtypes)
        return polars.DataFrame(list(series))
    import pandas

    found = pandas.concat(list(map(_pandas_series, columns, dtypes)), axis=1)
    found.columns = list(names)
    return found


def _polars_series(name: str, column: np.ndarray, dtype: Any) -> Any:
    import polars

    cells = [None if is_missing(cell) else cell for cell in column.tolist()]
    series = polars.Series(name, cells, dtype=dtype, strict=False)
    if dtype.is_integer() or dtype == polars.Boolean:
        numbers = polars.Series(name, cells, dtype=polars.Float64, strict=False)
        return series if series.cast(polars.Float64).equals(numbers) else numbers
    return series


def _pandas_series(column: np.ndarray, dtype: Any) -> Any:
    import pandas

    if str(dtype) == "category":
        # Categories that fit did not see become missing, as pandas makes them.
        codes = dtype.categories.get_indexer(column)
        return pandas.Series(pandas.Categorical.from_codes(codes, dtype=dtype))
    if str(dtype) == "object":
        return pandas.Series(column, dtype=object)
    if not _fits(column, dtype):
        numbers = pandas.Series(column.astype(np.float64))
        return numbers if isinstance(dtype, np.dtype) else numbers.astype("Float64")
    return pandas.Series(column).astype(dtype)


def _fits(column: np.ndarray, dtype: Any) -> bool:
    """Whether numbers are the same in a dtype of pandas; True of dtypes of anything else."""
    if getattr(dtype, "kind", "O") not in ("f", "i", "u", "b"):
        return True
    own = getattr(dtype, "numpy_dtype", None) or getattr(dtype, "subtype", None) or dtype
    numbers = column.astype(np.float64)
    missing = np.isnan(numbers)
    takes_missing = own is not dtype or own.kind == "f"
    if missing.any() and not takes_missing:
        return False
    present = numbers[~missing]
    with np.errstate(over="ignore", invalid="ignore"):
        back = present.astype(own).astype(np.float64)
    if own.kind == "f":
        return bool(np.isfinite(back).all())
    return np.array_equal(back, present)
