"""What a user gives as ``X``, before scikit-learn's checks: images, tensors and columns by name (no torch)."""

import contextlib
import re
import sys
from collections.abc import Iterator, MappingView, Sequence, Set
from typing import Any

import numpy as np

from ._cells import DATES

# Of columns that a message names.
MOST_NAMED = 10
# How messages of NumPy begin, and what they mean.
OF_NUMPY = {
    "setting an array element with a sequence": "has samples that differ in shape; pad or cut them to one.",
    "float() argument must be": "has values that are no numbers; of named values make a data frame, or one dict of "
    "arrays by the names of the module's inputs.",
    "could not convert string to float": "has text; turn it into numbers or tokens in front.",
}
# What gives dense data in a pipeline.
INSTEAD_OF_SPARSE = (
    "or in a pipeline let the step in front give dense data: OneHotEncoder(sparse_output=False), "
    "ColumnTransformer(..., sparse_threshold=0), TruncatedSVD after the counts of words"
)
# Where the messages of checks speak of the samples: at the beginning, and in what to do.
OF_SAMPLES = re.compile(
    r"^(Input |Sparse data was passed for )?X(?=[ \[,])|\bX(?=\.filled|\.toarray|=loader|=skorch)|(?<=list\()X"
)


def as_array_like(X: Any) -> Any:
    """Tensors, a list of images or tensors, or a sequence of another library's as one array; anything else as it is.

    Raises
    ------
    ValueError, TypeError
        If images or tensors differ in shape, images are numbers of a palette, or ``X`` is missing, sparse, has no
        order, can be read only once, or holds dates or masked cells.
    """
    # Single samples are predicted in less than a millisecond.
    if type(X) is np.ndarray and X.dtype.kind in "fiub":
        return X
    if X is None:
        raise ValueError("X is missing (None); give an array (n_samples, ...).")
    if is_sparse(X):
        raise TypeError(
            f"Sparse data was passed for X, but dense data is required. Give X.toarray(), {INSTEAD_OF_SPARSE}."
        )
    if is_tensor(X):
        return as_numpy(X)
    if is_image(X):
        raise ValueError("X is one image; give a list of images, [image].")
    refuse_unordered(X)
    if type(X).__name__ == "LazyFrame":
        raise TypeError("X is a LazyFrame, whose rows are not read yet; give X.collect().")
    if _is_list(X) and len(X):
        first = next(iter(X))
        if is_image(first) or is_tensor(first):
            return _stacked(X)
        _refuse_pairs(first)
    if isinstance(X, np.ma.MaskedArray) and np.ma.is_masked(X):
        raise ValueError(
            f"X has {int(np.ma.getmaskarray(X).sum())} masked cells, which would count as what stands under the mask; "
            f"fill them: X.filled(value)."
        )
    if isinstance(X, Sequence) and not isinstance(X, list | tuple | str):
        X = np.asarray(X)
    _refuse_dates(X)
    if isinstance(X, np.ndarray) and X.dtype.names:
        raise ValueError(
            f"X is a structured array with the fields {_listed(list(X.dtype.names))}; make a data frame of it, "
            f"pandas.DataFrame(X)."
        )
    return X


def _is_list(X: Any) -> bool:
    """Whether ``X`` is a list, or a one-dimensional array or series of objects."""
    is_of_objects = getattr(X, "ndim", 0) == 1 and hasattr(X, "dtype") and X.dtype == object
    return isinstance(X, list | tuple) or is_of_objects


def is_sparse(X: Any) -> bool:
    """Whether samples are a sparse matrix or array of SciPy's, which need not be installed."""
    return hasattr(X, "tocsr")


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


def _stacked(samples: Any) -> np.ndarray:
    """Images or tensors as one array."""
    are_images = is_image(next(iter(samples)))
    arrays = [image_array(sample) if is_image(sample) else as_numpy(sample) for sample in samples]
    shapes = sorted({array.shape for array in arrays})
    if len(shapes) > 1:
        what = (
            "image.convert('RGB').resize((width, height))" if are_images else "pad or resize them"
        )
        raise ValueError(
            f"X has {'images' if are_images else 'tensors'} of shapes {shapes[:3]}; they must be alike: {what}."
        )
    return np.stack(arrays)


def is_tensor(value: Any) -> bool:
    """Whether a value is a torch tensor; there is none before torch is imported."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def as_numpy(values: Any, name: str = "X") -> np.ndarray:
    """An array of what NumPy takes, and of tensors that it does not take.

    Those are tensors with gradients, on another device, or of numbers that NumPy does not have, such as bfloat16, which
    become float32.

    Raises
    ------
    ValueError, TypeError
        If a tensor has no values, or is sparse or nested.
    """
    if not is_tensor(values):
        return np.asarray(values)
    if values.is_nested:
        raise ValueError(
            f"{name} is a nested tensor, of samples of several shapes; pad it: tensor.to_padded_tensor(0.0)."
        )
    if values.is_meta:
        raise ValueError(f"{name} is a tensor on the device 'meta', which has no values.")
    if values.layout is not sys.modules["torch"].strided:
        raise TypeError(
            f"{name} is a sparse tensor ({values.layout}), but dense data is required: tensor.to_dense()."
        )
    values = values.dequantize() if values.is_quantized else values
    values = values.detach().cpu().resolve_conj().resolve_neg()
    try:
        array: np.ndarray = values.numpy()
    except TypeError:
        array = values.float().numpy()
    return array


def refuse_unordered(X: Any, name: str = "X") -> None:
    """Refuse what can be read only once, or has no order.

    Raises
    ------
    TypeError
    """
    kind = type(X).__name__
    if isinstance(X, Iterator):
        batches = "; to predict batches as they come: predict_stream(batches)" * (name == "X")
        raise TypeError(
            f"{name} is a {kind}, which can be read only once; give a list or an array of all samples, "
            f"list({name}){batches}."
        )
    if isinstance(X, Set | MappingView):
        raise TypeError(
            f"{name} is a {kind}, which is no array; give a list or an array of samples."
        )


def _refuse_pairs(sample: Any) -> None:
    """Refuse a list of pairs (sample, label): scikit-learn's splits make one of a torch dataset."""
    if not isinstance(sample, tuple) or len(sample) != 2:
        return
    if (is_image(sample[0]) or np.ndim(sample[0])) and not np.ndim(sample[1]):
        raise ValueError(
            "X is a list of pairs (sample, label), such as cross-validation takes out of a torch dataset; give it "
            "samples and labels apart: X=skorch.helper.SliceDataset(dataset, 0), y=[label for _, label in dataset]."
        )


@contextlib.contextmanager
def naming(name: str) -> Iterator[None]:
    """Let the messages of checks name another parameter than ``X``."""
    try:
        yield
    except (ValueError, TypeError) as error:
        message = OF_SAMPLES.sub(lambda found: f"{found[1] or ''}{name}", str(error))
        message = message if name in message else f"{name}: {message}"
        raise (TypeError if isinstance(error, TypeError) else ValueError)(message) from error


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
    """Say which columns it is that scikit-learn's checks refuse, and what NumPy means."""
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
        what = next((what for how, what in OF_NUMPY.items() if message.startswith(how)), None)
        if what is not None:
            raise type(error)(f"X {what} ({message})") from error
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
