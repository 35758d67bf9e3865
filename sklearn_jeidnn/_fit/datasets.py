"""Samples on their way to a network, one batch at a time."""

from collections.abc import Sequence
from typing import Any, TypeAlias, TypedDict

import torch

from .._cut import take_rows


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
