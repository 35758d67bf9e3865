"""Samples that a predictor is given, checked against those of ``fit`` (NumPy only)."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ._columns import as_float32, is_table
from ._given import as_array_like, is_sparse, naming, naming_columns
from ._schema import Arrays, InputSchema
from ._warn import warn_caller

# Kinds of dtypes that hold numbers, and objects, which may.
NUMBERS, OBJECTS = "fiub", "O"


def check_plainly(schema: InputSchema, X: Any) -> Arrays:
    """Arrays of samples like those of the training.

    Raises
    ------
    ValueError, TypeError
        Where they are not.
    """
    if isinstance(X, Mapping) and not is_sparse(X):
        inputs = (
            as_fitted(schema, _named_arrays(X)) if _has_inputs(schema) else (_table(schema, X),)
        )
    else:
        inputs = (_lone_array(schema, X),)
    schema.check_shapes(inputs)
    return inputs


def _has_inputs(schema: InputSchema) -> bool:
    """Whether a mapping names inputs of a module, not columns of a table (or, which is refused, nothing)."""
    return (
        schema.input_names is not None or schema.columns is None or schema.columns.library is None
    )


def _table(schema: InputSchema, X: Mapping[str, Any]) -> np.ndarray:
    """A table from its columns by name, each a list or an array (n_samples,), None where a value is missing."""
    assert schema.columns is not None
    names = [str(name) for name in schema.columns.names]
    other = sorted(set(names) ^ {str(name) for name in X})
    if other:
        raise ValueError(
            f"X has columns {sorted(map(str, X))[:8]}, but {schema.estimator_name} was fitted on columns {names[:8]}: "
            f"{other[:8]} are in one of both."
        )
    named = [(name, _column(name, X[name])) for name in names]
    lengths = {name: len(values) for name, values in named}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"X has inconsistent numbers of samples: {lengths}; they must be equal.")
    if not named or not lengths[names[0]]:
        raise ValueError("X has 0 samples; give at least one.")
    return as_float32(schema.columns, schema.columns.numbers_of(named, lengths[names[0]]))


def _column(name: str, values: Any) -> np.ndarray:
    if isinstance(values, list | tuple):
        # NumPy would turn numbers beside words into words.
        cells = np.empty(len(values), dtype=object)
        cells[:] = values
        return cells
    column = np.asarray(values)
    if column.ndim != 1:
        raise ValueError(f"X has {column.ndim} axes in column {name!r}; give one value a sample.")
    return column


def as_fitted(schema: InputSchema, arrays: Mapping[str, np.ndarray]) -> Arrays:
    """Named arrays in the order and with the dtypes of ``fit``."""
    name = schema.estimator_name
    if schema.input_names is None:
        raise ValueError(f"X is a mapping, but {name} was fitted on an array.")
    if set(arrays) != set(schema.input_names):
        raise ValueError(
            f"X has keys {sorted(arrays)}, but {name} was fitted on keys {sorted(schema.input_names)}."
        )
    dtypes = zip(schema.input_names, schema.dtypes, strict=True)
    return tuple(_with_dtype(arrays[key], dtype, f"X[{key!r}]") for key, dtype in dtypes)


def _with_dtype(array: np.ndarray, dtype: np.dtype, name: str) -> np.ndarray:
    """Numbers of the dtype of ``fit``, if they have the same values in it."""
    if array.dtype == dtype:
        return array
    cast = array.astype(dtype)
    changed = dtype.kind != "f" and cast != array
    if np.any(changed):
        raise ValueError(
            f"{name} has {array.dtype} numbers such as {array[changed][0]}, but fit was given {dtype} there."
        )
    return cast


def _named_arrays(X: Mapping[str, Any]) -> dict[str, np.ndarray]:
    arrays = {}
    for name, values in X.items():
        with naming(f"X[{name!r}]"):
            arrays[name] = _numbers(as_array_like(values), keeps_integers=True)
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"X has inconsistent numbers of samples: {lengths}; they must be equal.")
    return arrays


def _lone_array(schema: InputSchema, X: Any) -> np.ndarray:
    if schema.input_names is not None:
        raise ValueError(f"X is an array, but {schema.estimator_name} was fitted on a mapping.")
    plain = schema.plain_inputs(X)
    if plain is not None:
        return plain[0]
    X = as_array_like(X)
    _check_names(schema, X)
    is_of_columns = is_table(X)
    if is_of_columns and not schema.embeds:
        _check_width(schema, X)
    if schema.columns is None or not is_of_columns:
        return _numbers(X, keeps_integers=schema.keeps_integers)
    with naming_columns(X):
        table = schema.columns.numbers(X)
    if not len(table):
        raise ValueError("X has 0 samples; give at least one.")
    return as_float32(schema.columns, table)


def _check_names(schema: InputSchema, X: Any) -> None:
    """Refuse a frame of other columns, or in another order, and tell of one that has no names."""
    if schema.feature_names is None:
        return
    names = getattr(X, "columns", None)
    if names is None:
        warn_caller(
            f"X does not have feature names, but {schema.estimator_name} was fitted with feature names: the order of "
            f"its columns is taken for that of fit."
        )
        return
    came, fitted = [str(name) for name in names], schema.feature_names.tolist()
    if came != fitted:
        other = sorted(set(came) ^ set(fitted))[:8]
        what = f"{other} are in one of both" if other else "their order differs"
        raise ValueError(
            f"X has columns {came[:8]}, but {schema.estimator_name} was fitted on columns {fitted[:8]}: {what}. Give "
            f"X[list(names of fit)]."
        )


def _check_width(schema: InputSchema, X: Any) -> None:
    width = X.shape[1] if hasattr(X, "shape") else np.shape(X)[1]
    if schema.n_features is not None and width != schema.n_features:
        raise ValueError(
            f"X has {width} features, but {schema.estimator_name} is expecting {schema.n_features} features as input."
        )


def _numbers(values: Any, *, keeps_integers: bool) -> np.ndarray:
    """An array of finite numbers: float32, or of whole numbers int64 if these are kept."""
    with naming_columns(values):
        given = np.asarray(values)
        if given.dtype.kind == OBJECTS:
            given = given.astype(np.float64)
    if given.dtype.kind not in NUMBERS or not given.ndim:
        raise ValueError(
            f"X is {given.dtype} of shape {given.shape}; it must hold numbers for each sample."
        )
    if not len(given):
        raise ValueError("X has 0 samples; give at least one.")
    if given.dtype.kind in "iub" and keeps_integers:
        return given if given.dtype.kind == "b" else given.astype(np.int64)
    with np.errstate(over="ignore"):
        array = given.astype(np.float32, copy=False)
    _check_finite(values, array)
    return array


def _check_finite(values: Any, array: np.ndarray) -> None:
    with naming_columns(values):
        if np.isnan(array).any():
            raise ValueError("Input X contains NaN.")
        if np.isinf(array).any():
            raise ValueError("Input X contains infinity or a value too large for dtype('float32').")
