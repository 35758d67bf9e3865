"""What samples look like, and their parts: those that train, set the gates, calibrate (NumPy only)."""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ._table_columns import TableColumns

Arrays = tuple[np.ndarray, ...]
# Of the samples that are checked and routed together.
CHUNK_BYTES = 2**25


@dataclass(frozen=True, kw_only=True)
class InputSchema:
    """What samples must be like, and the labels they may have.

    Parameters
    ----------
    estimator_name : str
        For messages.
    input_names : tuple of str or None
        Names of the module's inputs where ``X`` is a mapping; None where it is one array.
    sample_shapes : tuple of tuple of int
        Shape of a sample, for each input.
    dtypes : tuple of dtype
        For each input.
    classes : ndarray (n_classes,)
    n_features : int or None
        Length of the second axis of a lone array.
    feature_names : ndarray of str (n_features,) or None
    keeps_integers : bool
        Whether whole numbers stay whole, since a module of the user's may embed them.
    embeds : bool, default=False
        Whether the module does embed the whole numbers of a lone array.
    columns : TableColumns or None, default=None
        Of a table that the ready network for tables takes.
    n_tokens : tuple of (int or None), default=()
        For each input the number of tokens that the module embeds; None for other inputs.
    length : int or None, default=None
        Length of the sentences of ``fit``, where the module takes other lengths, too.
    """

    estimator_name: str
    input_names: tuple[str, ...] | None
    sample_shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[np.dtype, ...]
    classes: np.ndarray
    n_features: int | None
    feature_names: np.ndarray | None
    keeps_integers: bool
    embeds: bool = False
    columns: TableColumns | None = None
    n_tokens: tuple[int | None, ...] = ()
    length: int | None = None

    @property
    def categorical(self) -> np.ndarray | None:
        """Which columns of a table hold positions of categories: bool (n_features,); None if it is no table."""
        return None if self.columns is None else self.columns.is_categorical

    @property
    def n_classes(self) -> int:
        return len(self.classes)

    def check_shapes(self, arrays: Arrays) -> None:
        """Refuse samples of another shape than those of ``fit``."""
        shapes = tuple(array.shape[1:] for array in arrays)
        if shapes in (self.sample_shapes, self._shapes_of_length(shapes)):
            return
        came, fitted = (s[0] if len(s) == 1 else s for s in (shapes, self.sample_shapes))
        sentences = self.length is None and (self.embeds or any(self.n_tokens))
        remedy = " Pad or cut sentences to the length of fit: the module takes no other."
        raise ValueError(
            f"X has samples of shape {came}, but {self.estimator_name} was fitted on samples of shape {fitted}."
            f"{remedy * sentences}"
        )

    def _shapes_of_length(self, shapes: tuple[tuple[int, ...], ...]) -> tuple[tuple[int, ...], ...]:
        """The shapes of ``fit`` with the length of these sentences, where that may differ."""
        fitted = self.sample_shapes
        pairs = list(zip(shapes, fitted, strict=True))
        new = {came[0] for came, own in pairs if came and own[:1] == (self.length,)}
        if len(new) != 1 or 0 in new:
            return fitted
        return tuple((*new, *own[1:]) if own[:1] == (self.length,) else own for own in fitted)

    def plain_inputs(self, X: Any) -> Arrays | None:
        """Samples that are an array of finite floats like that of ``fit``; None if other checks are due.

        scikit-learn's checks would find nothing, and take longer than a single prediction.
        """
        if not self._is_plain(X):
            return None
        if X.dtype != np.float32:
            with np.errstate(over="ignore"):
                X = X.astype(np.float32)
        return (X,) if math.isfinite(X.sum(dtype=np.float64)) else None

    def _is_plain(self, X: Any) -> bool:
        """Whether ``X`` is an array of floats like that of ``fit``; only infinite values are left to refuse."""
        return (
            type(X) is np.ndarray
            and self.input_names is None
            and X.dtype in (np.float32, np.float64)
            and X.shape[1:] == self.sample_shapes[0]
            and len(X) > 0
            and self.dtypes[0] == np.float32
            and (self.columns is None or self.columns.are_plain)
            and self.feature_names is None
        )

    def encode(self, arrays: Arrays) -> Arrays:
        """What the module takes: of a lone array floats, unless it embeds whole numbers."""
        if self.input_names is None:
            (array,) = arrays
            arrays = (as_integers(array) if self.embeds else np.asarray(array, np.float32),)
        for i, (array, n_tokens) in enumerate(zip(arrays, self.n_tokens, strict=False)):
            if n_tokens is not None and len(array):
                self._check_tokens(array, n_tokens, i)
        return arrays

    def _check_tokens(self, array: np.ndarray, n_tokens: int, i: int) -> None:
        """Refuse numbers that the module does not embed, before torch does without naming them."""
        wrong = next(
            (n for n in (int(array.max()), int(array.min())) if not 0 <= n < n_tokens), None
        )
        if wrong is not None:
            name = "X" if self.input_names is None else f"X[{self.input_names[i]!r}]"
            raise ValueError(
                f"{name} has the token {wrong}, but the module embeds {n_tokens} tokens, 0 to {n_tokens - 1}. Map "
                f"unknown tokens to one of these, or give the module a larger embedding."
            )

    @contextlib.contextmanager
    def explaining(self, *parts: Arrays) -> Iterator[None]:
        """Say what it is about these samples that a module does not take, where torch does not."""
        try:
            yield
        except (IndexError, RuntimeError) as error:
            shapes = tuple(array.shape[1:] for array in parts[0])
            if shapes != self.sample_shapes:
                raise ValueError(
                    f"the module does not take samples of shapes {shapes}; those of fit had {self.sample_shapes}: "
                    f"{error}. Pad or cut sentences to the length of fit."
                ) from error
            whole = [a for arrays in parts for a in arrays if a.dtype.kind in "iu" and a.size]
            if isinstance(error, IndexError) and whole:
                least, largest = min(a.min() for a in whole), max(a.max() for a in whole)
                raise ValueError(
                    f"X has whole numbers from {least} to {largest}, and the module looks up one that it does not "
                    f"have: {error}. An nn.Embedding of n has 0 to n - 1."
                ) from error
            raise

    def codes(self, y: Any, n_samples: int, name: str) -> np.ndarray:
        """Labels -> columns of ``classes``."""
        return class_codes(self.classes, y, n_samples, name)

    def as_user_input(self, arrays: Arrays) -> Any:
        """Checked samples as a user gives ``X``: one array or frame, or a dict where the inputs have names."""
        if self.columns is None:
            return self.as_module_input(arrays)
        return self.columns.as_given(arrays[0])

    def as_module_input(self, arrays: Arrays) -> np.ndarray | dict[str, np.ndarray]:
        """Checked samples as the module sees them: one array, or a dict where the inputs have names."""
        if self.input_names is None:
            return arrays[0]
        return dict(zip(self.input_names, arrays, strict=True))

    def as_own_input(self, arrays: Arrays) -> Any:
        """The same as a copy, for a user's code, which may write into it."""
        return self.as_user_input(tuple(array.copy() for array in arrays))

    def example(self, n_samples: int) -> Arrays:
        """Samples of the right shapes and dtypes, for counting and timing: numbers of no meaning."""
        random = np.random.default_rng(0)
        arrays = []
        for shape, dtype in zip(self.sample_shapes, self.dtypes, strict=True):
            # 1 is a token of any vocabulary, and a mask that hides nothing.
            size = (n_samples, *shape)
            if dtype.kind == "f":
                array = random.standard_normal(size).astype(dtype)
                if self.columns is not None:
                    array[:, self.columns.is_categorical] = 0
                arrays.append(array)
            else:
                arrays.append(np.ones(size, dtype=dtype))
        return tuple(arrays)


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Checked and labelled samples.

    Parameters
    ----------
    inputs : tuple of ndarray (n_samples, ...)
        One for each input of the module.
    codes : ndarray of int (n_samples,)
        Columns of the labels in ``classes``.
    weights : ndarray (n_samples,)
        As a user gives them, in double precision: they may be very small or very large.
    """

    inputs: Arrays
    codes: np.ndarray
    weights: np.ndarray

    def __len__(self) -> int:
        return len(self.codes)

    def take(self, rows: np.ndarray) -> "Samples":
        """Some of the samples."""
        return Samples(
            inputs=tuple(array[rows] for array in self.inputs),
            codes=self.codes[rows],
            weights=self.weights[rows],
        )

    def encoded(self, schema: InputSchema) -> "Samples":
        """The same as the module takes them."""
        return Samples(inputs=schema.encode(self.inputs), codes=self.codes, weights=self.weights)


def class_codes(classes: np.ndarray, y: Any, n_samples: int, name: str) -> np.ndarray:
    """Labels -> columns of ``classes``, which are sorted.

    Raises
    ------
    ValueError
        If there are more or fewer labels than samples, or a label that ``fit`` did not see.
    """
    y = np.asarray(y)
    if y.shape != (n_samples,):
        raise ValueError(f"{name} has shape {y.shape}, but there are {n_samples} samples.")
    unknown = sorted(set(y.tolist()) - set(classes.tolist()), key=str)
    if unknown:
        raise ValueError(
            f"{name} has labels {unknown[:5]} that are not among classes_ {classes[:12].tolist()}"
            f"{_what_to_do(classes, y)}."
        )
    codes: np.ndarray = np.searchsorted(classes, y)
    return codes


def _what_to_do(classes: np.ndarray, y: np.ndarray) -> str:
    """What a user who gives these labels may have meant."""
    kinds = classes.dtype.kind, y.dtype.kind
    if kinds[1] == "f" and not np.array_equal(y, np.trunc(y)):
        return "; numbers with a fraction are no labels: give the classes that fit was given, not scores or targets"
    if (kinds[0] in "biuf") != (kinds[1] in "biuf"):
        return f"; give labels of the type that fit was given, such as {classes.tolist()[0]!r}"
    return "; leave these samples out, or fit on samples that have these labels (classes= names them beforehand)"


def as_integers(array: np.ndarray) -> np.ndarray:
    """float32 or integers -> int64.

    Raises
    ------
    ValueError
        If a value is not a whole number.
    """
    if array.dtype.kind == "f" and not np.array_equal(array, np.trunc(array)):
        raise ValueError(
            "X has numbers with a fraction, but the module takes whole numbers (it was fitted on integers)."
        )
    return array.astype(np.int64)


def iter_chunks(arrays: Arrays, least: int, answer_bytes: int = 0) -> Iterator[Arrays]:
    """Samples of arrays of one length, a chunk at a time, as views; no samples are one chunk.

    Parameters
    ----------
    arrays : tuple of ndarray (n_samples, ...)
    least : int
        Fewest samples of a chunk.
    answer_bytes : int, default=0
        What the answer for a sample takes, beside the sample.
    """
    n_samples = len(arrays[0])
    sample_bytes = sum(array.nbytes for array in arrays) / max(n_samples, 1) + answer_bytes
    step = max(least, int(CHUNK_BYTES / max(sample_bytes, 1)))
    for start in range(0, max(n_samples, 1), step):
        yield tuple(array[start : start + step] for array in arrays)
