"""What samples look like, and their parts: those that train, set the gates, calibrate (NumPy only)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

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

    @property
    def n_classes(self) -> int:
        return len(self.classes)

    def check_shapes(self, arrays: Arrays) -> None:
        """Refuse samples of another shape than those of ``fit``."""
        shapes = tuple(array.shape[1:] for array in arrays)
        if shapes != self.sample_shapes:
            came, fitted = (s[0] if len(s) == 1 else s for s in (shapes, self.sample_shapes))
            raise ValueError(
                f"X has samples of shape {came}, but {self.estimator_name} was fitted on samples of shape {fitted}."
            )

    def encode(self, arrays: Arrays) -> Arrays:
        """What the module takes: of a lone array floats, unless it embeds whole numbers."""
        if self.input_names is not None:
            return arrays
        (array,) = arrays
        return (as_integers(array) if self.embeds else np.asarray(array, np.float32),)

    def codes(self, y: Any, n_samples: int, name: str) -> np.ndarray:
        """Labels -> columns of ``classes``.

        Raises
        ------
        ValueError
            If there are more or fewer labels than samples, or a label that ``fit`` did not see.
        """
        y = np.asarray(y)
        if y.shape != (n_samples,):
            raise ValueError(f"{name} has shape {y.shape}, but there are {n_samples} samples.")
        unknown = sorted(set(y.tolist()) - set(self.classes.tolist()), key=str)
        if unknown:
            raise ValueError(
                f"{name} has labels {unknown[:5]} that are not among classes_ {self.classes[:12].tolist()}."
            )
        codes: np.ndarray = np.searchsorted(self.classes, y)
        return codes

    def as_user_input(self, arrays: Arrays) -> np.ndarray | dict[str, np.ndarray]:
        """One array, or a dict of them where the inputs have names: as a user gives ``X``."""
        if self.input_names is None:
            return arrays[0]
        return dict(zip(self.input_names, arrays, strict=True))

    def example(self, n_samples: int) -> Arrays:
        """Samples of the right shapes and dtypes, for counting and timing: numbers of no meaning."""
        random = np.random.default_rng(0)
        arrays = []
        for shape, dtype in zip(self.sample_shapes, self.dtypes, strict=True):
            # 1 is a token of any vocabulary, and a mask that hides nothing.
            size = (n_samples, *shape)
            if dtype.kind == "f":
                arrays.append(random.standard_normal(size).astype(dtype))
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


def iter_chunks(arrays: Arrays, least: int) -> Iterator[Arrays]:
    """Samples of arrays of one length, a chunk at a time, as views; no samples are one chunk.

    Parameters
    ----------
    arrays : tuple of ndarray (n_samples, ...)
    least : int
        Fewest samples of a chunk.
    """
    n_samples = len(arrays[0])
    sample_bytes = sum(array.nbytes for array in arrays) / max(n_samples, 1)
    step = max(least, int(CHUNK_BYTES / max(sample_bytes, 1)))
    for start in range(0, max(n_samples, 1), step):
        yield tuple(array[start : start + step] for array in arrays)
