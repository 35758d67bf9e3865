"""What a user gives as ``X`` -> a tuple of arrays with one entry a row (NumPy only)."""

from collections.abc import Mapping

import numpy as np
from scipy.sparse import issparse
from sklearn.utils.validation import check_array


def is_named(X):
    """Whether ``X`` is several arrays by name, as a module of several inputs takes them."""
    # Some of SciPy's sparse arrays are dicts, too.
    return isinstance(X, Mapping) and not issparse(X)


def named_arrays(X):
    """Arrays of a mapping, floats as float32, integers as int64.

    Parameters
    ----------
    X : mapping of str to array-like (n_samples, ...)

    Returns
    -------
    dict of str to ndarray

    Raises
    ------
    ValueError, TypeError
        Where it is empty, a name is no str, an array is not of finite numbers, or the arrays differ in length.
    """
    if not X or not all(isinstance(name, str) for name in X):
        raise ValueError(
            f"X is a mapping with keys {list(X)}; a mapping must have at least one key, each the name of an argument "
            f"of the module's forward."
        )
    arrays = {name: _numbers(values, f"X[{name!r}]") for name, values in X.items()}
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"X has inconsistent numbers of samples: {lengths}; they must be equal.")
    return arrays


def _numbers(values, name):
    array = check_array(values, ensure_2d=False, allow_nd=True, input_name=name)
    if array.dtype.kind == "b":
        return array
    return array.astype(np.int64 if array.dtype.kind in "iu" else np.float32)


def holds_integers(X):
    """Whether ``X`` is an array, a list or a data frame of integers."""
    return np.asarray(X).dtype.kind in "iu"


def as_integers(array):
    """float32 or integers -> int64.

    Raises
    ------
    ValueError
        Where a value is not a whole number.
    """
    if array.dtype.kind == "f" and not np.array_equal(array, np.trunc(array)):
        raise ValueError(
            "X has numbers with a fraction, but the module takes whole numbers (it was fitted on integers)."
        )
    return array.astype(np.int64)


def pieces(X, n_bytes, least):
    """Rows of arrays a piece at a time, as views; what is no array comes whole.

    Parameters
    ----------
    X : array-like or mapping
        As a user gives it.
    n_bytes : int
        Size of a piece.
    least : int
        Fewest rows of a piece.
    """
    arrays = tuple(X.values()) if is_named(X) else (X,)
    whole = all(isinstance(array, np.ndarray) and array.ndim for array in arrays)
    if not whole or len({len(array) for array in arrays}) != 1:
        yield X
        return
    for part in pieces_of(arrays, n_bytes, least):
        yield dict(zip(X, part, strict=True)) if is_named(X) else part[0]


def pieces_of(arrays, n_bytes, least):
    """As :func:`pieces`, of arrays of one length; no rows are one piece."""
    n_rows = len(arrays[0])
    row_bytes = sum(array.nbytes for array in arrays) / max(n_rows, 1)
    step = max(least, int(n_bytes / max(row_bytes, 1)))
    for start in range(0, max(n_rows, 1), step):
        yield tuple(array[start : start + step] for array in arrays)


def rows_of(batch):
    """A batch as arrays; labels that stand beside the rows are left out."""
    if isinstance(batch, list | tuple) and len(batch) == 2:
        batch = batch[0]
    if is_named(batch):
        return {name: np.asarray(values) for name, values in batch.items()}
    return np.asarray(batch)
