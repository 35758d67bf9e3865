"""Columns of a table as numbers, categories and missing values included, and back again (NumPy only)."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ._warn import warn_caller

# The number of a category that fit did not see.
UNSEEN = -1.0
NUMBERS = "fiub"
FROM_DTYPE = "from_dtype"
# Starts of the names that pandas and polars give dtypes of categories.
CATEGORY_DTYPES = ("category", "Categorical", "Enum")
# A column of words that are mostly numbers is likely one of numbers, with words for what is missing.
MOSTLY = 0.5
# What stands for a category that fit did not see, where a member takes words.
UNSEEN_WORD = "unseen"
MOST_NAMED = 10
# A column's size is this many times its spread: float32 then resolves less than a 10,000th of the spread.
NARROW = 1000
OFFSET_SAMPLES = 10_000


@dataclass(frozen=True, kw_only=True)
class TableColumns:
    """What the columns of a table are, as ``fit`` found them.

    Parameters
    ----------
    library : str or None
        "pandas" or "polars" for a data frame, None for an array.
    names : tuple
        Names of a frame's columns, positions of an array's.
    dtypes : tuple
        Of a frame's columns; of an array once.
    categories : tuple of (tuple or None)
        Sorted values of each column of categories; None for a column of numbers.
    offset : ndarray (n_features,) or None
        Subtracted from numbers in double precision before they become float32, so that a column whose spread is
        small against its size (dates as numbers) keeps it. None subtracts nothing.
    fill : ndarray (n_features,)
        What stands for a missing number in a column in which ``fit`` had none: the median. NaN for other columns.
    """

    library: str | None
    names: tuple[Any, ...]
    dtypes: tuple[Any, ...]
    categories: tuple[tuple[Any, ...] | None, ...]
    offset: np.ndarray | None
    fill: np.ndarray

    @property
    def is_categorical(self) -> np.ndarray:
        """Which columns hold categories: bool (n_features,)."""
        return np.array([values is not None for values in self.categories], dtype=bool)

    @property
    def are_plain(self) -> bool:
        """Whether an array comes back as the same array."""
        of_words = self.library is not None or self.is_categorical.any()
        return not of_words and self.offset is None

    def with_statistics(self, table: np.ndarray) -> "TableColumns":
        """The same with medians and offsets of the table of ``fit`` (n_samples, n_features), as numbers."""
        no_number = np.isnan(table).any(axis=0) | self.is_categorical
        medians = np.full(table.shape[1], np.nan)
        medians[~no_number] = np.median(table[:, ~no_number], axis=0)
        offset = column_offsets(table) if table.dtype == np.float64 else None
        if offset is not None:
            offset = np.where(self.is_categorical, 0, offset)
        return replace(self, fill=medians, offset=offset)

    def numbers(self, X: Any) -> np.ndarray:
        """Numbers, and positions of categories: float64 (n_samples, n_features), NaN where a value is missing.

        Parameters
        ----------
        X : table
            With the columns of ``fit``, in their order.
        """
        columns = [
            _as_numbers(name, values) if known is None else _positions(values, known)
            for (name, values, _), known in zip(iter_columns(X), self.categories, strict=True)
        ]
        table = np.stack(columns, axis=1) if columns else np.empty((len(X), 0))
        self._warn_of_unseen(table)
        return table

    def filled(self, table: np.ndarray) -> np.ndarray:
        """Numbers with medians for those that are missing where ``fit`` missed none, with a warning."""
        gaps = np.isnan(table)
        # One NaN has many bit patterns, and samples are told apart by their bits.
        table = np.where(gaps, np.asarray(np.nan, table.dtype), table)
        new = gaps & ~np.isnan(self.fill)
        if not new.any():
            return table
        warn_caller(
            f"X has missing values in columns {self.named(new.any(axis=0))}, where fit had none; the medians of fit "
            f"stand for them. What was measured in fit says nothing about such samples."
        )
        return np.where(new, self.fill.astype(table.dtype), table)

    def _warn_of_unseen(self, table: np.ndarray) -> None:
        unseen = (table == UNSEEN) & self.is_categorical
        if unseen.any():
            warn_caller(
                f"X has categories that fit did not see in {int(unseen.any(axis=1).sum())} samples, in columns "
                f"{self.named(unseen.any(axis=0))}; they count as none of the known ones."
            )

    def named(self, chosen: np.ndarray) -> list[Any]:
        """Names of the first of some columns."""
        return [self.names[i] for i in np.flatnonzero(chosen)[:MOST_NAMED]]

    def as_given(self, table: np.ndarray) -> Any:
        """Numbers as a user gives the table: a frame, or an array.

        Words that ``fit`` did not see, which are not kept, come back as a word of their own.
        """
        numbers = table if self.offset is None else table + self.offset
        if self.library is None and not self.is_categorical.any():
            return numbers
        columns = [
            numbers[:, i] if values is None else _words(numbers[:, i], values)
            for i, values in enumerate(self.categories)
        ]
        if self.library is None:
            array = np.stack([column.astype(object) for column in columns], axis=1)
            return array if _any_words(self.categories) else array.astype(np.float64)
        return _frame(self.library, self.names, columns, self.dtypes)


def column_offsets(table: np.ndarray) -> np.ndarray | None:
    """Medians of the columns whose spread is small against their size, 0 for others; None if there are none."""
    some = table[:: max(1, len(table) // OFFSET_SAMPLES)]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN slice", RuntimeWarning)
        low, median, high = np.nanquantile(some, [0.1, 0.5, 0.9], axis=0)
    narrow = (high > low) & (np.abs(median) > NARROW * (high - low))
    return np.where(narrow, median, 0) if narrow.any() else None


def columns_of(X: Any, categorical_features: Any) -> TableColumns:
    """Find out what the columns of a table are.

    Parameters
    ----------
    X : array (n_samples, n_features), list of lists, or data frame of pandas or polars
    categorical_features : "from_dtype", None, or array-like
        Which columns are categories: by their dtypes and words, none, or by name, position or mask.

    Returns
    -------
    TableColumns
        Without an offset, and NaN for each fill (see :func:`with_statistics`).
    """
    columns = list(iter_columns(X))
    names = tuple(name for name, _, _ in columns)
    chosen = _chosen(categorical_features, names)
    categories = tuple(
        _categories(name, values, dtype, None if chosen is None else name in chosen)
        for name, values, dtype in columns
    )
    return TableColumns(
        library=_library(X),
        names=names,
        dtypes=tuple(dtype for _, _, dtype in columns),
        categories=categories,
        offset=None,
        fill=np.full(len(names), np.nan),
    )


def _library(X: Any) -> str | None:
    """The library whose data frame this is."""
    if not hasattr(X, "columns") or not hasattr(X, "dtypes"):
        return None
    return "polars" if type(X).__module__.startswith("polars") else "pandas"


def iter_columns(X: Any) -> Iterator[tuple[Any, np.ndarray, Any]]:
    """Name, values (n_samples,) and dtype of each column of a table."""
    library = _library(X)
    if library is None:
        array = X if isinstance(X, np.ndarray) else _array_of_lists(X)
        for i in range(array.shape[1]):
            yield i, array[:, i], array.dtype
        return
    for i, (name, dtype) in enumerate(zip(X.columns, X.dtypes, strict=True)):
        column = X.iloc[:, i] if library == "pandas" else X[name]
        yield name, _values(column, dtype), dtype


def _array_of_lists(X: Any) -> np.ndarray:
    array = np.asarray(X)
    # NumPy would turn numbers beside words into words.
    return np.asarray(X, dtype=object) if array.dtype.kind in "US" else array


def _values(column: Any, dtype: Any) -> np.ndarray:
    """Values of a frame's column; those of pandas' nullable numbers are floats."""
    if isinstance(dtype, np.dtype):
        return np.asarray(column)
    if getattr(dtype, "kind", None) in tuple(NUMBERS) and hasattr(dtype, "na_value"):
        floats: np.ndarray = column.to_numpy(dtype=np.float64, na_value=np.nan)
        return floats
    return np.asarray(column.to_numpy())


def _chosen(categorical_features: Any, names: Sequence[Any]) -> set[Any] | None:
    """Names of the columns that are categories; None where dtypes tell."""
    if isinstance(categorical_features, str):
        if categorical_features != FROM_DTYPE:
            raise _not_allowed(categorical_features, "the word is not known")
        return None
    if categorical_features is None:
        return set()
    given = np.asarray(categorical_features)
    if given.ndim != 1 or given.dtype.kind not in "biuUSO":
        raise _not_allowed(categorical_features, "it is no list of columns")
    if given.dtype.kind == "b":
        if len(given) != len(names):
            raise _not_allowed(categorical_features, f"X has {len(names)} columns")
        return {name for name, taken in zip(names, given, strict=True) if taken}
    return {_name_of(entry, names, categorical_features) for entry in given.tolist()}


def _name_of(entry: Any, names: Sequence[Any], given: Any) -> Any:
    if entry in names:
        return entry
    if isinstance(entry, int) and -len(names) <= entry < len(names):
        return names[entry]
    raise _not_allowed(given, f"X has no column {entry!r}, but {list(names)[:MOST_NAMED]}")


def _not_allowed(given: Any, why: str) -> ValueError:
    return ValueError(
        f"categorical_features={given!r} is not allowed: {why}. Give 'from_dtype', None, or names, positions or a "
        f"mask of columns."
    )


def _categories(
    name: Any, values: np.ndarray, dtype: Any, chosen: bool | None
) -> tuple[Any, ...] | None:
    """Sorted categories of a column; None if it is one of numbers."""
    if chosen is None:
        chosen = str(dtype).startswith(CATEGORY_DTYPES) or _has_words(name, values)
    if not chosen:
        return None
    cells = {cell for cell in _cells(name, values) if not is_missing(cell)}
    return tuple(sorted(cells, key=lambda cell: (isinstance(cell, str), cell)))


def _cells(name: Any, values: np.ndarray) -> list[Any]:
    """Cells of a column of categories, each a word or a number."""
    cells: list[Any] = values.tolist()
    for cell in cells:
        if not isinstance(cell, str | bytes | int | float) and not is_missing(cell):
            raise _no_cell(name, cell)
    return cells


def _no_cell(name: Any, cell: Any) -> TypeError:
    return TypeError(
        f"X has {cell!r} in column {name!r}: the argument must be a string or a real number. Make a number or a word "
        f"of each value, in a FunctionTransformer in front."
    )


def _has_words(name: Any, values: np.ndarray) -> bool:
    """Whether a column holds anything but numbers, and numbers written as words."""
    if values.dtype.kind in NUMBERS:
        return False
    cells = [cell for cell in _cells(name, values) if not is_missing(cell)]
    words = [cell for cell in cells if not _is_number(cell)]
    if words and len(words) < MOSTLY * len(cells) and any(isinstance(c, str) for c in cells):
        warn_caller(
            f"X has column {name!r}, which holds mostly numbers, but also words such as {words[0]!r}, and so each of "
            f"its values is a category. If the words mean that a value is missing, replace them by NaN."
        )
    return bool(words)


def _is_number(cell: Any) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def is_missing(cell: Any) -> bool:
    """Whether a cell is None, NaN or pandas' NA."""
    return (
        cell is None
        or (isinstance(cell, float) and cell != cell)
        or type(cell).__name__ in ("NAType", "NaTType")
    )


def _as_numbers(name: Any, values: np.ndarray) -> np.ndarray:
    """A column of numbers as float64, NaN where one is missing."""
    if values.dtype.kind in NUMBERS:
        return values.astype(np.float64)
    cells = [np.nan if is_missing(cell) else cell for cell in values.tolist()]
    try:
        return np.array([float(cell) for cell in cells])
    except ValueError:
        wrong = next(cell for cell in cells if not _is_number(cell))
        raise ValueError(
            f"X has {wrong!r} in column {name!r}, which is one of numbers. Columns of words are categories with "
            f"categorical_features='from_dtype', where fit had words in them; if the word means that a value is "
            f"missing, replace it by NaN."
        ) from None
    except TypeError:
        raise _no_cell(name, next(cell for cell in cells if not _is_cell(cell))) from None


def _is_cell(cell: Any) -> bool:
    return isinstance(cell, str | bytes | int | float)


def _positions(values: np.ndarray, categories: tuple[Any, ...]) -> np.ndarray:
    """Position of each cell among the categories; NaN for missing cells, UNSEEN for others."""
    known = {category: float(i) for i, category in enumerate(categories)}
    return np.array(
        [np.nan if is_missing(cell) else known.get(cell, UNSEEN) for cell in values.tolist()],
        dtype=np.float64,
    )


def _any_words(categories: Sequence[tuple[Any, ...] | None]) -> bool:
    return any(isinstance(value, str) for values in categories for value in values or ())


def _words(positions: np.ndarray, categories: tuple[Any, ...]) -> np.ndarray:
    """Categories at these positions; None for missing ones, a word of its own for those that fit did not see."""
    unseen = UNSEEN_WORD if _any_words([categories]) else None
    # The last two are what -1 and -2 point to.
    table = np.array([*categories, None, unseen], dtype=object)
    rows = np.where(np.isnan(positions), -2, positions).astype(int)
    words: np.ndarray = table[rows]
    return words


def _frame(
    library: str, names: Sequence[Any], columns: Sequence[np.ndarray], dtypes: Sequence[Any]
) -> Any:
    """A data frame of columns with their dtypes."""
    if library == "polars":
        import polars

        return polars.DataFrame(
            [
                polars.Series(
                    name,
                    [None if is_missing(cell) else cell for cell in column.tolist()],
                    dtype=dtype,
                    strict=False,
                )
                for name, column, dtype in zip(names, columns, dtypes, strict=True)
            ]
        )
    import pandas

    series = [_pandas_series(column, dtype) for column, dtype in zip(columns, dtypes, strict=True)]
    frame = pandas.concat(series, axis=1)
    frame.columns = list(names)
    return frame


def _pandas_series(column: np.ndarray, dtype: Any) -> Any:
    import pandas

    if str(dtype) == "category":
        # Categories that fit did not see become missing, as pandas makes them.
        codes = dtype.categories.get_indexer(column)
        return pandas.Series(pandas.Categorical.from_codes(codes, dtype=dtype))
    is_whole = getattr(dtype, "kind", "f") in "iub" and isinstance(dtype, np.dtype)
    if is_whole and np.isnan(column.astype(float)).any():
        return pandas.Series(column)
    return pandas.Series(column).astype(dtype)
