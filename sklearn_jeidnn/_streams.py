"""Batches that come one after the other, for ``predict_stream`` (no torch)."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ._given import as_array_like, is_image
from ._samples import is_named


def check_batches(batches: Any) -> Iterable[Any]:
    """Return an iterable of batches, and refuse what is one batch itself."""
    if isinstance(batches, str | bytes | Mapping) or not np.iterable(batches):
        raise TypeError(
            f"batches is a {type(batches).__name__}; give an iterable of batches, such as [X], or call predict(X)."
        )
    if getattr(batches, "ndim", None) in (1, 2):
        raise ValueError(
            f"batches is one table ({type(batches).__name__}), of which each row would be a batch; give an iterable of "
            f"tables, such as [X], or call predict(X)."
        )
    iterable: Iterable[Any] = batches
    return iterable


def unpack_batch(batch: Any) -> Any:
    """The samples of a batch; labels that stand beside them are left out."""
    if isinstance(batch, tuple) and len(batch) > 2:
        raise ValueError(
            f"a batch has {len(batch)} entries; give an array (n_samples, ...), a dict of such, or a pair (samples, "
            f"labels)."
        )
    if isinstance(batch, list | tuple) and len(batch) and is_image(batch[0]):
        return as_array_like(batch)
    # A loader gives the samples of a dataset without labels in a list of one.
    alone = isinstance(batch, list | tuple) and len(batch) == 1 and np.ndim(batch[0]) > 1
    if alone or _is_pair(batch):
        batch = batch[0]
    if is_named(batch):
        return {name: as_array_like(values) for name, values in batch.items()}
    return as_array_like(batch)


def _is_pair(batch: Any) -> bool:
    """Whether a batch is samples and labels; a list of two rows of a table is none."""
    if not isinstance(batch, list | tuple) or len(batch) != 2:
        return False
    return not (isinstance(batch, list) and np.ndim(batch[0]) == np.ndim(batch[1]) == 1)
