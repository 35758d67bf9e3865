"""Rows on their way to a network, and what frozen stages say of them."""

from collections.abc import Sequence
from typing import NamedTuple

import torch


def take_rows(tensor, rows, axis=0):
    """Some rows of a tensor, in its memory format.

    Parameters
    ----------
    tensor : tensor (n_samples, ...)
        Rows along ``axis``.
    rows : tensor of int (n_taken,)
    axis : int, default=0
    """
    # index_select copies whole rows where they lie in one piece, five times as fast as indexing.
    if tensor.ndim == 4 and axis == 0 and not tensor.is_contiguous():
        return tensor.permute(0, 2, 3, 1).index_select(0, rows).permute(0, 3, 1, 2)
    return tensor.index_select(axis, rows)


def join_rows(tensors, axis=0):
    """Rows of several tensors one after the other, in the memory format of the first."""
    if tensors[0].ndim == 4 and axis == 0 and not tensors[0].is_contiguous():
        return torch.cat([t.permute(0, 2, 3, 1) for t in tensors]).permute(0, 3, 1, 2)
    return torch.cat(tensors, axis)


def tiled(tensors, n_rows):
    """So many rows, the same ones again and again: tensors (n_samples, ...) -> (n_rows, ...)"""
    numbers = torch.arange(n_rows) % len(tensors[0])
    return tuple(tensor[numbers.to(tensor.device)] for tensor in tensors)


class RowsDataset(torch.utils.data.Dataset):
    """Rows with their label and weight, fetched a batch at a time.

    Parameters
    ----------
    inputs : tuple of tensor (n_samples, ...)
        What the module takes.
    y : tensor (n_samples,) or (n_samples, n_classes)
        Class codes, or the probabilities to learn.
    weight : tensor (n_samples,)
    """

    def __init__(self, inputs, y, weight):
        self.inputs, self.y, self.weight = inputs, y, weight

    def __len__(self):
        return len(self.y)

    def __getitem__(self, rows):
        rows = torch.as_tensor(rows)
        take = take_rows if rows.ndim else torch.Tensor.__getitem__
        inputs = tuple(take(tensor, rows) for tensor in self.inputs)
        return {"X": inputs, "sample_weight": self.weight[rows]}, self.y[rows]

    def __getitems__(self, rows):
        return RowsBatch(self, rows)


class RowsBatch(Sequence):
    """Some rows of a dataset: one by one for a user's ``collate_fn``, or all at once."""

    def __init__(self, dataset, rows):
        self.dataset, self.rows = dataset, rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        return self.dataset[self.rows[i]]


def whole_batch(batch):
    """``collate_fn`` that indexes once, where the default one stacks row by row."""
    return batch.dataset[batch.rows]


class ExitFeatures(NamedTuple):
    """What frozen stages say of some rows, with what the heads and gates have to learn of them."""

    features: list  # one (n_samples, d_l) for each exit
    y: torch.Tensor  # (n_samples,)
    weight: torch.Tensor  # (n_samples,)

    def take(self, rows):
        features = [take_rows(feature, rows) for feature in self.features]
        return ExitFeatures(features, self.y[rows], self.weight[rows])

    def to(self, device):
        return ExitFeatures(
            [f.to(device) for f in self.features], self.y.to(device), self.weight.to(device)
        )

    def batches(self, batch_size):
        """The rows in random order, a batch at a time; a lone last row is left out, for batch normalisation."""
        for rows in torch.randperm(len(self.y)).split(batch_size):
            if len(rows) > 1:
                yield self.take(rows)


def side_by_side(parts, n_samples):
    """Exit features of each member, of the same rows -> those of all their exits.

    Of several members only the first pass over the rows counts: the transforms of further passes
    differ from member to member.
    """
    if len(parts) == 1:
        return parts[0]
    first = parts[0]
    return ExitFeatures(
        [feature[:n_samples] for part in parts for feature in part.features],
        first.y[:n_samples],
        first.weight[:n_samples],
    )
