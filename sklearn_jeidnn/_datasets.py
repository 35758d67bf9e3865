"""torch datasets as ``X``: their samples, and their labels, as arrays."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate

from ._given import as_numpy, image_array, is_image, refuse_unordered
from ._samples import GivenSamples, count_samples, is_named
from ._warn import warn_caller

BATCH_SIZE = 256
# A DataLoader makes a list as long as a batch of a dataset without a length.
MOST_AT_ONCE = 2**12


def is_dataset(X: Any) -> bool:
    """Whether ``X`` is a torch dataset.

    Raises
    ------
    TypeError
        If it is a ``DataLoader``, whose order of samples is its own, or can be read only once.
    """
    if isinstance(X, DataLoader):
        raise TypeError(
            "X is a DataLoader, which gives batches in an order of its own. Give the dataset itself, X=loader.dataset "
            "(with iterator_valid__num_workers= as a parameter), or predict with predict_stream(loader, method=...)."
        )
    if isinstance(X, Dataset):
        return True
    if not isinstance(X, np.ndarray):
        refuse_unordered(X)
    return False


class DatasetBatches:
    """Samples of a dataset, a batch at a time in their order; labels that come with them are kept.

    Parameters
    ----------
    dataset : torch Dataset
        Of samples, 1-tuples of a sample, or pairs (sample, label).
    batch_size : int
    options : dict
        Of a ``DataLoader``, but its batch size.

    Attributes
    ----------
    labels : list of ndarray or None
        Of the batches that were read; None if samples come alone.
    n_samples : int
        That were read.
    """

    def __init__(self, dataset: Dataset[Any], batch_size: int, options: dict[str, Any]) -> None:
        self.dataset = dataset
        # A DataLoader without a generator draws from torch's own.
        defaults = {"collate_fn": collate, "generator": torch.Generator()}
        self._options = {**defaults, **options, "batch_size": batch_size}
        if isinstance(dataset, IterableDataset):
            # Several workers would each give all samples.
            self._options |= {"num_workers": 0, "batch_size": min(batch_size, MOST_AT_ONCE)}
        self.labels: list[np.ndarray | None] = []
        self.n_samples = 0

    def __iter__(self) -> Iterator[Any]:
        self.labels, self.n_samples = [], 0
        for batch in DataLoader(self.dataset, **self._options):
            samples, labels = split_batch(batch)
            self.labels.append(labels)
            self.n_samples += count_samples(samples)
            yield samples

    def all_labels(self) -> np.ndarray | None:
        """Labels of all samples that were read: (n_samples, ...); None if they have none."""
        labels = [part for part in self.labels if part is not None]
        return np.concatenate(labels) if labels else None


def collate(samples: list[Any]) -> Any:
    """Samples as a batch, as torch does it, but of images, too."""
    try:
        return default_collate([_with_arrays(sample) for sample in samples])
    except RuntimeError as error:
        raise ValueError(
            f"X is a dataset whose samples differ in shape ({error}); pad or resize them in the dataset."
        ) from error


def _with_arrays(sample: Any) -> Any:
    """A sample with arrays in the place of images, and without a label that is None."""
    if is_image(sample):
        sample = image_array(sample)
    if isinstance(sample, np.ndarray):
        # torch warns of arrays that it may not write to.
        return np.require(sample, requirements="W")
    if is_named(sample):
        return {name: _with_arrays(value) for name, value in sample.items()}
    if isinstance(sample, tuple) and len(sample) == 2 and sample[1] is None:
        sample = sample[:1]
    if isinstance(sample, tuple):
        return tuple(_with_arrays(value) for value in sample)
    return sample


def split_batch(batch: Any) -> tuple[Any, np.ndarray | None]:
    """Samples of a batch as arrays, and their labels if they have some."""
    labels = None
    if isinstance(batch, list | tuple):
        if len(batch) not in (1, 2):
            raise ValueError(
                f"X is a dataset that gives {len(batch)} values a sample; it must give samples, or pairs (sample, "
                f"label), where a sample is an array, or a dict of arrays by the module's inputs."
            )
        batch, labels = batch[0], None if len(batch) == 1 else as_numpy(batch[1], "y")
    if is_named(batch):
        return {name: as_numpy(values) for name, values in batch.items()}, labels
    return as_numpy(batch), labels


def read_dataset(given: GivenSamples, options: dict[str, Any]) -> GivenSamples:
    """Samples and labels of a dataset as arrays; what is no dataset comes back as it is.

    Labels that are given beside the dataset take the place of its own.

    Raises
    ------
    TypeError
        If it has no length, so that nobody knows whether it ends.
    """
    if not is_dataset(given.X):
        return given
    if isinstance(given.X, IterableDataset):
        raise TypeError(
            "X is an IterableDataset; fit and what reads labels take a dataset with a length. Collect its samples in "
            "arrays, or in a dataset with __len__ and __getitem__."
        )
    batches = DatasetBatches(given.X, BATCH_SIZE, options)
    X = _joined(list(batches))
    own = batches.all_labels()
    if given.y is None:
        return replace(given, X=X, y=own)
    if own is not None and not _are_renamed(own, as_numpy(given.y, "y")):
        warn_caller(
            "y is given, and takes the place of the labels in the dataset X, which are others; leave y out if the "
            "dataset's are meant."
        )
    return replace(given, X=X)


def _are_renamed(labels: np.ndarray, others: np.ndarray) -> bool:
    """Whether other labels are the same ones under other names; checks of their number come later."""
    if labels.shape != others.shape or labels.ndim != 1:
        return True
    numbers = [np.unique(own, return_inverse=True)[1] for own in (labels, others)]
    n_pairs = len(np.unique(np.stack(numbers), axis=1).T)
    return bool(n_pairs == numbers[0].max() + 1 == numbers[1].max() + 1)


def _joined(parts: list[Any]) -> Any:
    """Batches as one array, or one dict of arrays."""
    if not parts:
        raise no_samples()
    try:
        if is_named(parts[0]):
            return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return np.concatenate(parts)
    except ValueError as error:
        raise ValueError(f"X is a dataset whose samples differ in shape ({error}).") from error


def no_samples() -> ValueError:
    """The error of a dataset of no samples, in scikit-learn's words."""
    return ValueError(
        "Found array with 0 sample(s): the dataset X is empty, while a minimum of 1 is required."
    )
