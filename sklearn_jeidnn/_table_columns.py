"""Columns of a table as numbers, categories and missing values included, and back again (NumPy only)."""

import warnings
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from numbers import Integral
from typing import Any

import numpy as np

from ._cells import (
    NUMBERS,
    UNSEEN,
    are_written,
    as_numbers,
    categories_of,
    first_missing,
    positions,
)
from ._given_back import any_words, frame, words, written
from ._warn import warn_caller

FROM_DTYPE = "from_dtype"
MOST_NAMED = 10
# A column's size is this many times its spread: float32 then resolves less than a 10,000th of the spread.
NARROW = 1000
OFFSET_SAMPLES = 10_000
# float32 holds whole numbers up to here.
LARGEST_WHOLE = 2**24
# And double precision.
LARGEST_EXACT = 2**53


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
    missing : tuple of (None, NaN or NA)
        What stands for a missing value in each column of objects.
    written : tuple of bool
        Whether the numbers of each column are written as words, in a frame.
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
    missing: tuple[Any, ...]
    written: tuple[bool, ...]
    offset: np.ndarray | None
    fill: np.ndarray

    # Asked before every prediction.
    @cached_property
    def is_categorical(self) -> np.ndarray:
        """Which columns hold categories: bool (n_features,)."""
        return np.array([values is not None for values in self.categories], dtype=bool)

    @cached_property
    def are_plain(self) -> bool:
        """Whether an array comes back as the same array."""
        of_words = self.library is not None or self.is_categorical.any()
        return bool(not of_words and self.offset is None)

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
        if self.library == "pandas" and not self.is_categorical.any() and _are_numbers(X.dtypes):
            # One column after the other takes longer than the network.
            numbers: np.ndarray = X.to_numpy(dtype=np.float64, copy=True)
            return numbers
        return self.numbers_of([(name, values) for name, values, _ in iter_columns(X)], len(X))

    def numbers_of(self, named: Sequence[tuple[Any, np.ndarray]], n_samples: int) -> np.ndarray:
        """The same of the names and values (n_samples,) of all columns, in their order."""
        columns = [
            as_numbers(name, values) if known is None else positions(name, values, known)
            for (name, values), known in zip(named, self.categories, strict=True)
        ]
        table = np.stack(columns, axis=1) if columns else np.empty((n_samples, 0))
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

    def rounded(self, table: np.ndarray) -> list[Any]:
        """Names of a frame's columns of whole numbers, such as identifiers, that float32 may have rounded."""
        large = (np.abs(table) > LARGEST_WHOLE).any(axis=0) & ~self.is_categorical
        floats = [str(dtype).lower().startswith("float") for dtype in self.dtypes]
        return [] if self.library is None else self.named(large & ~np.array(floats, dtype=bool))

    def as_given(self, table: np.ndarray) -> Any:
        """Numbers as a user gives the table: a frame, or an array.

        Words that ``fit`` did not see, which are not kept, come back as a word of their own.
        """
        numbers = table if self.offset is None else table + self.offset
        if self.library is None and not self.is_categorical.any():
            return numbers
        columns = [self._column(i, numbers[:, i]) for i in range(len(self.names))]
        if self.library is None:
            array = np.stack([column.astype(object) for column in columns], axis=1)
            return array if any_words(self.categories) else array.astype(np.float64)
        return frame(self.library, self.names, columns, self.dtypes)

    def _column(self, i: int, numbers: np.ndarray) -> np.ndarray:
        """A column as words or numbers (n_samples,)."""
        known = self.categories[i]
        if known is not None:
            return words(numbers, known, self.missing[i])
        return written(numbers, self.missing[i]) if self.written[i] else numbers


def _are_numbers(dtypes: Iterable[Any]) -> bool:
    """Whether all columns of a frame are NumPy's numbers."""
    return all(isinstance(dtype, np.dtype) and dtype.kind in NUMBERS for dtype in dtypes)


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
        categories_of(name, values, dtype, None if chosen is None else i in chosen)
        for i, (name, values, dtype) in enumerate(columns)
    )
    library = _library(X)
    return TableColumns(
        library=library,
        names=names,
        dtypes=tuple(dtype for _, _, dtype in columns),
        categories=categories,
        missing=tuple(first_missing(values) for _, values, _ in columns),
        written=tuple(
            library is not None and own is None and are_written(name, values)
            for (name, values, _), own in zip(columns, categories, strict=True)
        ),
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
    """Values of a frame's column (n_samples,); those of nullable numbers are floats, unless floats would merge them."""
    if isinstance(dtype, np.dtype):
        return np.asarray(column)
    values: np.ndarray
    if getattr(dtype, "kind", None) in tuple(NUMBERS) and hasattr(dtype, "na_value"):
        values = column.to_numpy(dtype=np.float64, na_value=np.nan)
    else:
        values = np.asarray(column.to_numpy())
    is_whole = str(dtype).lower().startswith(("int", "uint"))
    merges = is_whole and values.dtype.kind == "f" and (np.abs(values) > LARGEST_EXACT).any()
    if values.ndim == 1 and not merges:
        return values
    # Beside large identifiers, cells that are arrays or records.
    objects = np.empty(len(column), dtype=object)
    objects[:] = list(column)
    return objects


def _chosen(given: Any, names: Sequence[Any]) -> set[int] | None:
    """Positions of the columns that are categories; None where dtypes tell."""
    if isinstance(given, str):
        if given != FROM_DTYPE:
            one = f"; for one column give [{given!r}]" if given in names else ""
            raise _not_allowed(given, f"the word is not known{one}")
        return None
    if given is None:
        return set()
    entries = given.tolist() if hasattr(given, "tolist") else given
    if isinstance(entries, Mapping) or not np.iterable(entries):
        raise _not_allowed(given, "it is no list of columns")
    entries = list(entries)
    if entries and all(isinstance(entry, bool | np.bool_) for entry in entries):
        if len(entries) != len(names):
            raise _not_allowed(given, f"X has {len(names)} columns")
        return set(np.flatnonzero(entries).tolist())
    return {i for entry in entries for i in _positions_of(entry, names, given)}


def _positions_of(entry: Any, names: Sequence[Any], given: Any) -> list[int]:
    """Positions of the columns that an entry names; several may have one name."""
    if isinstance(entry, bool | float) or not isinstance(entry, Hashable):
        raise _not_allowed(given, "it is no list of columns")
    if entry in names:
        return [i for i, name in enumerate(names) if name == entry]
    if isinstance(entry, Integral) and -len(names) <= entry < len(names):
        return [int(entry) % len(names)]
    raise _not_allowed(given, f"X has no column {entry!r}, but {list(names)[:MOST_NAMED]}")


def _not_allowed(given: Any, why: str) -> ValueError:
    return ValueError(
        f"categorical_features={given!r} is not allowed: {why}. Give 'from_dtype', None, or names, positions or a "
        f"mask of columns."
    )
