"""What a user gives as ``X`` and ``y``, before scikit-learn's checks: images, columns and labels by name (no torch)."""

import contextlib
import re
from collections.abc import Iterator, Sequence
from numbers import Number
from typing import Any

import numpy as np
from sklearn.utils.validation import column_or_1d

# Of columns that a message names.
MOST_NAMED = 10
DATES = "mM"


def as_array_like(X: Any) -> Any:
    """A list of images, or a sequence type of another library's, as one array; anything else as it is.

    Raises
    ------
    ValueError
        If images differ in size or mode, or are numbers of a palette; or if ``X`` holds dates or masked cells.
    """
    # Single samples are predicted in less than a millisecond.
    if type(X) is np.ndarray and X.dtype.kind in "fiub":
        return X
    if is_image(X):
        raise ValueError("X is one image; give a list of images, [image].")
    if _is_list(X) and len(X) and is_image(next(iter(X))):
        return _stacked_images(X)
    if isinstance(X, np.ma.MaskedArray) and np.ma.is_masked(X):
        raise ValueError(
            f"X has {int(np.ma.getmaskarray(X).sum())} masked cells, which would count as what stands under the mask; "
            f"fill them: X.filled(value)."
        )
    if isinstance(X, Sequence) and not isinstance(X, list | tuple | str):
        X = np.asarray(X)
    _refuse_dates(X)
    return X


def _is_list(X: Any) -> bool:
    """Whether ``X`` is a list, or a one-dimensional array or series of objects."""
    is_of_objects = getattr(X, "ndim", 0) == 1 and hasattr(X, "dtype") and X.dtype == object
    return isinstance(X, list | tuple) or is_of_objects


def is_image(value: Any) -> bool:
    """Whether a value is an image of Pillow, which need not be installed."""
    return any(kind.__module__.startswith("PIL.") for kind in type(value).__mro__)


def image_array(image: Any) -> np.ndarray:
    """An image's pixels."""
    if image.mode == "P":
        raise ValueError(
            "X has an image of mode 'P', whose pixels are numbers of a palette; convert it: image.convert('RGB')."
        )
    return np.asarray(image)


def _stacked_images(images: Any) -> np.ndarray:
    arrays = [image_array(image) if is_image(image) else np.asarray(image) for image in images]
    shapes = sorted({array.shape for array in arrays})
    if len(shapes) > 1:
        raise ValueError(
            f"X has images of shapes {shapes[:3]}; they must be alike: image.convert('RGB').resize((width, height))."
        )
    return np.stack(arrays)


def _refuse_dates(X: Any) -> None:
    """Refuse dates, which NumPy would silently turn into huge numbers."""
    dates = [name for name, dtype in _columns(X).items() if dtype.kind in DATES]
    dtype = getattr(X, "dtype", None)
    if dates or (isinstance(dtype, np.dtype) and dtype.kind in DATES):
        where = f"columns {_listed(dates)}" if dates else f"an array of {dtype}"
        raise ValueError(
            f"X has dates or times ({where}); make numbers of them, such as days since a first day or the day of "
            f"the week, in a FunctionTransformer in front."
        )


def _columns(X: Any) -> dict[Any, Any]:
    """Name and dtype of each column of a data frame; none if ``X`` is no data frame."""
    if not hasattr(X, "columns") or not hasattr(X, "dtypes"):
        return {}
    dtypes = [_NoDtype if not hasattr(dtype, "kind") else dtype for dtype in X.dtypes]
    return dict(zip(X.columns, dtypes, strict=False))


class _NoDtype:
    """The dtype of a column that NumPy does not know."""

    kind = "?"


@contextlib.contextmanager
def naming_columns(X: Any) -> Iterator[None]:
    """Say which columns it is that scikit-learn's checks refuse."""
    try:
        yield
    except (ValueError, TypeError) as error:
        message = str(error)
        words = _columns_of_words(X)
        if words and "Input X contains" not in message:
            raise ValueError(_about_words(words, message)) from error
        missing = _columns_not_finite(X) if "Input X contains" in message else []
        if missing:
            named = rf"\1, in columns {_listed(missing)}."
            raise ValueError(re.sub(r"^(Input X contains [^.]*)\.", named, message)) from error
        raise


def _columns_of_words(X: Any) -> dict[Any, Any]:
    """Columns that are no numbers, and such a value of each."""
    found = {}
    for i, name in enumerate(_columns(X)):
        values = np.asarray(X.iloc[:, i] if hasattr(X, "iloc") else X[name], dtype=object)
        wrong = next((v for v in values if not (v is None or _is_number(v))), None)
        if wrong is not None:
            found[name] = wrong
    return found


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    except TypeError:
        return isinstance(value, complex) or type(value).__name__ == "NAType"
    return True


def _about_words(words: dict[Any, Any], message: str) -> str:
    columns = ", ".join(f"{name!r} (such as {value!r})" for name, value in _first(words.items()))
    names = [name for name, _ in _first(words.items())]
    return (
        f"X has columns that are not numbers: {columns}. Encode them in front: make_pipeline(ColumnTransformer("
        f"[('words', OneHotEncoder(handle_unknown='ignore', sparse_output=False), {names!r})], "
        f"remainder='passthrough'), classifier), or OrdinalEncoder where categories are ordered or very many; the "
        f"ready network for tables (module=None) takes them as they are. "
        f"({message})"
    )


def _columns_not_finite(X: Any) -> list[Any]:
    """Columns of a table with values that are missing or infinite."""
    if _columns(X):
        return [name for name in X.columns if _has_infinite(X[name])]
    array = np.asarray(X)
    if array.ndim != 2:
        return []
    return [i for i in range(array.shape[1]) if _has_infinite(array[:, i])]


def _has_infinite(column: Any) -> bool:
    try:
        with np.errstate(over="ignore"):
            if hasattr(column, "isna") and column.isna().any():
                return True
            return not np.isfinite(np.asarray(column).astype(np.float32)).all()
    except (TypeError, ValueError):
        return False


def _first(names: Any) -> list[Any]:
    return list(names)[:MOST_NAMED]


def _listed(names: list[Any]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return f"{_first(names)}{more}"


def read_labels(y: Any, name: str) -> np.ndarray:
    """Labels as an array (n_samples,); a column becomes one with scikit-learn's warning.

    Raises
    ------
    ValueError
        If labels are missing, mixed, one-hot or of another shape.
    """
    if y is None:
        raise ValueError(f"{name} is missing; only a dataset of (sample, label) brings its labels.")
    table = np.asarray(y)
    if table.ndim == 2 and table.shape[1] > 1:
        one_hot = f"looks one-hot; give {name}.argmax(axis=1)"
        what = one_hot if _is_one_hot(table) else "needs one label a sample"
        raise ValueError(
            f"y should be a 1d array, got an array of shape {table.shape} instead: {name} {what}."
        )
    labels: np.ndarray = column_or_1d(y, warn=True)
    if labels.dtype == object:
        _check_objects(labels, name)
    return labels


def _is_one_hot(y: np.ndarray) -> bool:
    return bool(y.dtype.kind in "biuf" and ((y == 0) | (y == 1)).all() and (y.sum(1) == 1).all())


def _check_objects(labels: np.ndarray, name: str) -> None:
    """Refuse missing labels, and labels that cannot be sorted among each other."""
    missing = [i for i, label in enumerate(labels) if label is None or label is not label]
    if missing:
        raise ValueError(
            f"{name} has {len(missing)} missing labels (None), the first of sample {missing[0]}; leave these "
            f"samples out."
        )
    kinds = {Number if isinstance(label, Number) else type(label) for label in labels}
    if len(kinds) > 1:
        names = sorted(kind.__name__ for kind in kinds)
        raise ValueError(
            f"{name} mixes labels of types {names}; make them all strings: [str(label) for label in {name}]."
        )
