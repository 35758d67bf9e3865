"""Samples on their way to a network, one batch at a time."""

from collections.abc import Sequence
from typing import Any, TypeAlias, TypedDict

import numpy as np
import torch

from .._cut import take_rows

TRAIN = "iterator_train__"
SAMPLER, BATCH_SAMPLER = TRAIN + "sampler", TRAIN + "batch_sampler"
DROP_LAST = TRAIN + "drop_last"


class BatchInputs(TypedDict):
    """What skorch takes as ``X``."""

    X: tuple[torch.Tensor, ...]
    sample_weight: torch.Tensor


# Inputs and labels of a sample or of several.
Batch: TypeAlias = tuple[BatchInputs, torch.Tensor]


class SamplesDataset(torch.utils.data.Dataset[Batch]):
    """Samples with their labels and weights, fetched one batch at a time.

    Parameters
    ----------
    inputs : tuple of tensor (n_samples, ...)
        What the module takes.
    y : tensor (n_samples,) or (n_samples, n_classes)
        Class codes, or the probabilities to learn.
    weight : tensor (n_samples,)
    """

    def __init__(
        self, inputs: tuple[torch.Tensor, ...], y: torch.Tensor, weight: torch.Tensor
    ) -> None:
        self.inputs, self.y, self.weight = inputs, y, weight

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, rows: int | Sequence[int] | torch.Tensor) -> Batch:
        rows = torch.as_tensor(rows)
        # A user's collate_fn may write into a sample.
        inputs = tuple(
            take_rows(tensor, rows) if rows.ndim else tensor[rows].clone() for tensor in self.inputs
        )
        return {"X": inputs, "sample_weight": self.weight[rows]}, self.y[rows]

    def as_arrays(self) -> list[np.ndarray]:
        """Inputs, labels and weights."""
        return [tensor.numpy() for tensor in (*self.inputs, self.y, self.weight)]

    def __getitems__(self, rows: Sequence[int]) -> "SamplesBatch":
        return SamplesBatch(self, rows)


class SamplesBatch(Sequence[Any]):
    """Some samples of a dataset: one by one for a user's ``collate_fn``, or all at once."""

    def __init__(self, dataset: SamplesDataset, rows: Sequence[int]) -> None:
        self.dataset, self.rows = dataset, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: Any) -> Any:
        return self.dataset[self.rows[i]]


def whole_batch(batch: SamplesBatch) -> Batch:
    """Fetch a batch with one indexing, as a ``collate_fn``; the default one stacks sample by sample."""
    return batch.dataset[batch.rows]


def loader_defaults(options: dict[str, Any], n_samples: int, batch_size: int) -> dict[str, Any]:
    """Return options of the data loaders that go with those that the user gives.

    Parameters
    ----------
    options : dict
        skorch's; a data loader's start with ``iterator_train__`` or ``iterator_valid__``.
    n_samples : int
        Training samples.
    batch_size : int
        Unless ``options`` has one for training; -1 takes all.
    """
    collate = {TRAIN + "collate_fn": whole_batch, "iterator_valid__collate_fn": whole_batch}
    if options.get(BATCH_SAMPLER) is not None:
        # A data loader takes no other batch size beside one.
        return {**collate, TRAIN + "batch_size": 1}
    n_drawn = _count_drawn(options.get(SAMPLER), n_samples)
    batch_size = options.get(TRAIN + "batch_size", batch_size)
    # Batch normalisation cannot learn from a batch of one sample.
    ends_with_one = n_drawn > batch_size > 0 and n_drawn % batch_size == 1
    shuffles = options.get(SAMPLER) is None
    return {**collate, TRAIN + "shuffle": shuffles, DROP_LAST: ends_with_one}


def count_steps(options: dict[str, Any], n_samples: int, batch_size: int) -> int:
    """Return the number of training steps in an epoch; parameters as in :func:`loader_defaults`."""
    if options.get(BATCH_SAMPLER) is not None:
        return _count_drawn(options[BATCH_SAMPLER], n_samples)
    n_drawn = _count_drawn(options.get(SAMPLER), n_samples)
    batch_size = options.get(TRAIN + "batch_size", batch_size)
    if batch_size == -1:
        batch_size = n_samples
    return n_drawn // batch_size if options.get(DROP_LAST) else -(-n_drawn // batch_size)


def _count_drawn(sampler: Any, n_samples: int) -> int:
    """Return how many samples, or batches, a sampler draws; if it does not say, as many as there are samples."""
    return len(sampler) if hasattr(sampler, "__len__") else n_samples
