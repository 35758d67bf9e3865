"""What a user gives as ``X``, ``y`` and weights -> checked samples (scikit-learn's checks)."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import assert_all_finite
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    _check_sample_weight,
    _num_samples,
    check_array,
    check_consistent_length,
    validate_data,
)

from ._columns import warn_of_narrow_columns
from ._given import as_array_like, as_numpy, is_tensor, naming, naming_columns
from ._history import SampleHistory, sample_hashes
from ._labels import all_classes_of, read_labels
from ._parts import Parts, folded_parts, given_parts, held_out_parts
from ._plain_samples import as_fitted
from ._schema import Arrays, InputSchema, Samples, iter_chunks
from ._table_columns import TableColumns
from ._table_samples import is_readable, read_first_table, read_table

LOGIT_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class GivenSamples:
    """Samples as a user gives them."""

    X: Any
    y: Any
    weights: Any = None

    @property
    def is_empty(self) -> bool:
        return self.X is None and self.y is None and self.weights is None


@dataclass(frozen=True, kw_only=True)
class ReadingOptions:
    """How the samples of a fit are read.

    Parameters
    ----------
    estimator_name : str
        For messages.
    keeps_integers : bool
        Whether a lone array of whole numbers stays one.
    takes_tables : bool
        Whether the network takes tables with categories and missing values.
    categorical_features : "from_dtype", None or array-like
        Which columns of such a table are categories.
    classes : array-like (n_classes,), default=None
        All labels; None takes those of the samples.
    likely_classes : ndarray (n_classes,), default=None
        All labels, if the samples have no other ones.
    last : InputSchema, default=None
        Of the fit that this one goes on from: samples must be like its, with no further labels.
    """

    estimator_name: str
    keeps_integers: bool
    takes_tables: bool
    categorical_features: Any
    classes: Any = None
    likely_classes: np.ndarray | None = None
    last: InputSchema | None = None


def read_parts(
    given: GivenSamples,
    held_out: GivenSamples,
    options: ReadingOptions,
    *,
    validation_fraction: float,
    rng: np.random.RandomState,
    n_folds: Callable[[InputSchema, int], int | None],
    earlier: SampleHistory | None = None,
) -> tuple[InputSchema, Parts]:
    """Check what ``fit`` is given, and split it into disjoint parts.

    Parameters
    ----------
    given, held_out : GivenSamples
        Without held-out samples a share of the others is held out.
    options : ReadingOptions
    validation_fraction : float
    rng : numpy.random.RandomState
    n_folds : callable
        Schema and number of samples -> number of folds; None if some samples set the gates alone. Not asked if
        held-out samples are given.
    earlier : SampleHistory, default=None
        Of the members that come trained; what they were not trained on is held out again.
    """
    schema, samples = _read_training(given, options)
    if options.last is not None:
        _check_like_last(schema, options.last)
    hashes = sample_hashes(samples.inputs, samples.codes, schema.classes)
    if held_out.is_empty:
        folds = n_folds(schema, len(samples))
        if folds is not None:
            parts = folded_parts(samples, hashes, earlier, validation_fraction, folds, rng)
            return schema, parts
        return schema, held_out_parts(samples, hashes, earlier, validation_fraction, rng)
    if held_out.X is None or held_out.y is None:
        raise ValueError(
            "X_val and y_val go together (and sample_weight_val with them); one is missing."
        )
    others = _read_held_out(schema, held_out)
    others_hashes = sample_hashes(others.inputs, others.codes, schema.classes)
    return schema, given_parts(samples, hashes, others, others_hashes, earlier, rng)


def _check_like_last(schema: InputSchema, last: InputSchema) -> None:
    further = sorted(set(schema.classes.tolist()) - set(last.classes.tolist()), key=str)
    if further or schema.input_names != last.input_names:
        what = f"y has the new labels {further[:5]}" if further else "X has other inputs"
        raise ValueError(
            f"warm_start=True goes on with the network of the last fit, but {what}; give warm_start=False."
        )
    were, are = last.feature_names, schema.feature_names
    if were is not None and are is not None and not np.array_equal(were, are):
        raise ValueError(
            f"warm_start=True goes on with the network of the last fit, on columns {were[:8].tolist()} in this order, "
            f"but X has columns {are[:8].tolist()}; give the columns as before, or warm_start=False."
        )
    if schema.sample_shapes != last.sample_shapes:
        raise ValueError(
            f"warm_start=True goes on with the network of the last fit, on samples of shape {last.sample_shapes}, "
            f"but X has samples of shape {schema.sample_shapes}; give warm_start=False."
        )


class _FirstInputs(NamedTuple):
    """What ``fit`` is given, checked."""

    names: tuple[str, ...] | None
    arrays: Arrays
    y: np.ndarray
    columns: TableColumns | None = None


def _read_training(given: GivenSamples, options: ReadingOptions) -> tuple[InputSchema, Samples]:
    witness = _witness_class(options.estimator_name)()
    names, inputs, y, columns = _first_inputs(witness, given, options)
    check_classification_targets(y)
    weights = check_weights(given.weights, inputs[0])
    kept = weights > 0
    inputs, y, weights = tuple(array[kept] for array in inputs), y[kept], weights[kept]
    likely = options.likely_classes
    if options.last is not None and options.classes is None:
        likely = options.last.classes
    all_classes = all_classes_of(y, options.classes, likely)
    schema = InputSchema(
        estimator_name=options.estimator_name,
        input_names=names,
        sample_shapes=tuple(array.shape[1:] for array in inputs),
        dtypes=tuple(array.dtype for array in inputs),
        classes=all_classes,
        n_features=getattr(witness, "n_features_in_", None),
        feature_names=getattr(witness, "feature_names_in_", None),
        keeps_integers=options.keeps_integers,
        columns=columns,
    )
    codes = np.searchsorted(all_classes, y)
    return schema, Samples(inputs=inputs, codes=codes, weights=weights)


def _first_inputs(
    witness: BaseEstimator, given: GivenSamples, options: ReadingOptions
) -> _FirstInputs:
    last = options.last
    y = given.y if given.y is None else read_labels(given.y, "y")
    if is_named(given.X):
        y = validate_data(witness, X="no_validation", y=y)
        arrays = named_arrays(given.X)
        if last is not None and set(arrays) == set(last.input_names or ()):
            arrays = {name: arrays[name] for name in last.input_names or ()}
        check_consistent_length(next(iter(arrays.values())), y)
        return _FirstInputs(tuple(arrays), tuple(arrays.values()), y)
    X = as_array_like(given.X)
    if options.takes_tables and is_readable(X):
        known = None if last is None else last.columns
        table, y, columns = read_first_table(witness, X, y, options.categorical_features, known)
        return _FirstInputs(None, (table,), y, columns)
    warn_of_narrow_columns(X)
    with naming_columns(X):
        dtype = _dtype(X, options.keeps_integers)
        X, y = validate_data(witness, X, y, dtype=dtype, allow_nd=True)
    return _FirstInputs(None, (X,), y)


def _dtype(X: Any, keeps_integers: bool) -> type:
    """A module may embed whole numbers, which is seen once it is built; ready backbones take floats."""
    return np.int64 if keeps_integers and np.asarray(X).dtype.kind in "iu" else np.float32


def check_weights(weights: Any, samples: np.ndarray, name: str = "sample_weight") -> np.ndarray:
    """Finite weights, none below 0, one above, one for each sample; 1 if there are none: float64 (n_samples,)."""
    try:
        weights = as_numpy(weights, name) if is_tensor(weights) else weights
        checked: np.ndarray = _check_sample_weight(
            weights, samples, dtype=np.float64, ensure_non_negative=True
        )
        # scikit-learn lets a lone NaN pass.
        assert_all_finite(checked, input_name=name)
        # Its older versions let zeros pass, too.
        if not checked.any():
            raise ValueError("all weights are 0; at least one must be above 0.")
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: {error}") from error
    return checked


def _read_held_out(schema: InputSchema, given: GivenSamples) -> Samples:
    """Checked samples with labels, those of weight 0 left out."""
    with naming("X_val"):
        inputs = check_inputs(schema, given.X)
    codes = codes_of(schema, given.y, len(inputs[0]), "y_val")
    weights = check_weights(given.weights, inputs[0], "sample_weight_val")
    samples = Samples(inputs=inputs, codes=codes, weights=weights)
    return samples.take(weights > 0)


def codes_of(schema: InputSchema, y: Any, n_samples: int, name: str = "y") -> np.ndarray:
    """Columns of the labels in ``classes``: whatever ``fit`` takes as labels -> (n_samples,)."""
    return schema.codes(read_labels(y, name), n_samples, name)


def check_inputs(schema: InputSchema, X: Any) -> Arrays:
    """Arrays of samples like those of the training.

    Raises
    ------
    ValueError, TypeError
        Where they are not.
    """
    inputs = as_fitted(schema, named_arrays(X)) if is_named(X) else _checked_array(schema, X)
    schema.check_shapes(inputs)
    return inputs


def _checked_array(schema: InputSchema, X: Any) -> Arrays:
    if schema.input_names is not None:
        raise ValueError(f"X is an array, but {schema.estimator_name} was fitted on a mapping.")
    plain = schema.plain_inputs(X)
    if plain is not None:
        return plain
    witness = _witness_class(schema.estimator_name)()
    # Of tokens, check_shapes says whether another length will do.
    if not schema.embeds:
        witness.n_features_in_ = schema.n_features
    if schema.feature_names is not None:
        witness.feature_names_in_ = schema.feature_names
    X = as_array_like(X)
    if schema.columns is not None and is_readable(X):
        return (read_table(witness, X, schema.columns),)
    with naming_columns(X):
        dtype = _dtype(X, schema.keeps_integers)
        return (validate_data(witness, X, dtype=dtype, allow_nd=True, reset=schema.embeds),)


@lru_cache
def _witness_class(name: str) -> type:
    """An estimator on which scikit-learn notes what it sees of ``X``, so that nobody else's is touched."""
    return type(name, (ClassifierMixin, BaseEstimator), {})


def checked_chunks(schema: InputSchema, chunks: Iterable[Any], least: int) -> Iterator[Arrays]:
    """Checked samples a chunk at a time: copies and answers of all samples are never held at once.

    Parameters
    ----------
    schema : InputSchema
    chunks : iterable
        Of what a user gives as ``X``.
    least : int
        Fewest samples of a chunk, but of the last.
    """
    for chunk in chunks:
        yield from iter_chunks(check_inputs(schema, chunk), least, schema.n_classes * LOGIT_BYTES)


def iter_user_chunks(X: Any, least: int) -> Iterator[Any]:
    """What a user gives as ``X`` a chunk at a time, as views; what is no array comes whole."""
    arrays = tuple(X.values()) if is_named(X) else (X,)
    are_arrays = all(isinstance(array, np.ndarray) and array.ndim for array in arrays)
    if not are_arrays or len({len(array) for array in arrays}) != 1:
        yield X
        return
    for part in iter_chunks(arrays, least):
        yield dict(zip(X, part, strict=True)) if is_named(X) else part[0]


def count_samples(X: Any) -> int:
    """Number of samples in what a user gives as ``X``."""
    counted = next(iter(X.values())) if is_named(X) and X else X
    return int(_num_samples(counted))


def is_named(X: Any) -> bool:
    """Whether ``X`` is several arrays by name, as a module of several inputs takes them."""
    # Some of SciPy's sparse arrays are dicts, too.
    return isinstance(X, Mapping) and not issparse(X)


def named_arrays(X: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Arrays of a mapping, floats as float32, integers as int64.

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
    arrays = {}
    for name, values in X.items():
        with naming(f"X[{name!r}]"), naming_columns(values):
            arrays[name] = _numbers(values)
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"X has inconsistent numbers of samples: {lengths}; they must be equal.")
    return arrays


def _numbers(values: Any) -> np.ndarray:
    values = as_array_like(values)
    given = np.asarray(values)
    if given.dtype.kind in "USmM" or (given.ndim == 0 and not issparse(values)):
        raise ValueError(
            f"X is {given.dtype} of shape {given.shape}; it must hold numbers for each sample, such as the "
            f"tokens of words."
        )
    array: np.ndarray = check_array(values, ensure_2d=False, allow_nd=True, input_name="X")
    if array.dtype.kind == "b":
        return array
    return array.astype(np.int64 if array.dtype.kind in "iu" else np.float32)
