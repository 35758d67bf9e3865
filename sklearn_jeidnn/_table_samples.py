"""Tables that the ready network takes, with categories and missing values: what a user gives -> numbers."""

from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_array, check_consistent_length, validate_data

from ._cells import NUMBERS
from ._columns import FLOATS, as_float32, is_table, refuse_infinite
from ._table_columns import TableColumns, columns_of
from ._warn import warn_caller

# as_float32 refuses infinite numbers, and says in which columns they are.
ALLOWING_GAPS = {"dtype": FLOATS, "ensure_all_finite": False}


def is_readable(X: Any) -> bool:
    """Whether samples are a table whose columns can be read one by one."""
    return is_table(X) and not issparse(X)


def read_first_table(
    witness: BaseEstimator,
    X: Any,
    y: Any,
    categorical_features: Any,
    known: TableColumns | None,
) -> tuple[np.ndarray, Any, TableColumns]:
    """Numbers of a table of ``fit``, its labels, and what its columns are.

    Parameters
    ----------
    witness : BaseEstimator
        Notes the names and the number of columns.
    X : table (n_samples, n_features)
    y : array-like (n_samples,)
    categorical_features : "from_dtype", None or array-like
    known : TableColumns or None
        Of the fit that this one goes on from.
    """
    if _is_of_numbers(X):
        X, y = validate_data(witness, X, y, **ALLOWING_GAPS)
        columns = columns_of(X, categorical_features) if known is None else known
        table = columns.numbers(X) if columns.is_categorical.any() else X
    else:
        y = validate_data(witness, X="no_validation", y=y)
        validate_data(witness, X, y, skip_check_array=True)
        columns = columns_of(X, categorical_features) if known is None else known
        table = _checked_numbers(witness, X, columns)
        check_consistent_length(table, y)
    if known is None:
        refuse_infinite(columns, table)
        _look_for_values(columns, table)
        columns = columns.with_statistics(table)
    return as_float32(columns, table), y, columns


def read_table(witness: BaseEstimator, X: Any, columns: TableColumns) -> np.ndarray:
    """Numbers of a table with the columns of ``fit``: float32 (n_samples, n_features)."""
    if _is_of_numbers(X) and not columns.is_categorical.any():
        return as_float32(columns, validate_data(witness, X, reset=False, **ALLOWING_GAPS))
    validate_data(witness, X, reset=False, skip_check_array=True)
    return as_float32(columns, _checked_numbers(witness, X, columns))


def _look_for_values(columns: TableColumns, table: np.ndarray) -> None:
    """Refuse a table without any value, and warn of columns without any."""
    empty = np.isnan(table).all(axis=0)
    if empty.all():
        raise ValueError("X contains no value: every cell is missing (NaN or None).")
    if empty.any():
        warn_caller(
            f"X has columns without any value: {columns.named(empty)}; nothing is learned from them."
        )


def _is_of_numbers(X: Any) -> bool:
    """Whether it is an array of numbers, of complex ones too, which scikit-learn refuses."""
    return isinstance(X, np.ndarray) and X.dtype.kind in (*NUMBERS, "c")


def _checked_numbers(witness: BaseEstimator, X: Any, columns: TableColumns) -> np.ndarray:
    table: np.ndarray = check_array(
        columns.numbers(X),
        estimator=witness,
        input_name="X",
        **ALLOWING_GAPS,
    )
    return table
