"""What NumPy and torch call differently: every function takes arrays of either, and imports no torch."""

from collections.abc import Sequence

import numpy as np

from .policy import Array, namespace_of


def join(parts: Sequence[Array]) -> Array:
    """Join samples of several arrays (n_of_part, ...)."""
    return parts[0] if len(parts) == 1 else namespace_of(parts[0]).concatenate(tuple(parts))


def places_of(mask: Array) -> Array:
    """Where a mask (n_samples,) is true: (n_true,)"""
    places = mask.nonzero()
    return places[0] if isinstance(places, tuple) else places.flatten()


def take(array: Array, rows: Array) -> Array:
    """Some samples (n_rows, ...) of an array."""
    return array[rows] if isinstance(array, np.ndarray) else array.index_select(0, rows)


def is_on_gpu(array: Array) -> bool:
    """Whether the host must wait for a GPU to know what is in an array."""
    return bool(getattr(array, "is_cuda", False))


def empty_like(array: Array, n_samples: int) -> Array:
    """An array (n_samples, ...) of samples like those of another, to be written."""
    if isinstance(array, np.ndarray):
        return np.empty((n_samples, *array.shape[1:]), array.dtype)
    return array.new_empty(n_samples, *array.shape[1:])


def write_rows(array: Array, rows: Array, values: Array) -> None:
    """Write samples (n_rows, ...) into rows (n_rows,) of an array."""
    if isinstance(array, np.ndarray):
        array[rows] = values
    else:
        array.index_copy_(0, rows, values)
