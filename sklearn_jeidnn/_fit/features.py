"""Run the stages once over some samples, and keep in memory or on disk what each exit reads."""

import errno
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader

from .._cut import take_rows
from .._exits.network import EarlyExitNetwork
from .datasets import Batch, SamplesDataset, whole_batch

# Features that would take more than this share of the machine's memory are kept in a temporary file.
MEMORY_SHARE = 0.25
# Errors of file systems (or, None, of operating systems) that cannot reserve space: zeros are written instead.
CANNOT_RESERVE = (None, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS)
WRITTEN_AT_ONCE = 2**24


class ExitFeatures(NamedTuple):
    """What each exit reads of some samples, with their labels and weights."""

    features: list[torch.Tensor]  # one (n_samples, d_l) for each exit
    y: torch.Tensor  # (n_samples,)
    weight: torch.Tensor  # (n_samples,)

    def take(self, rows: torch.Tensor) -> "ExitFeatures":
        """Return the features of some of the samples."""
        features = [take_rows(feature, rows) for feature in self.features]
        return ExitFeatures(features, self.y[rows], self.weight[rows])

    def last_exit(self) -> "ExitFeatures":
        """Return the features of the last exit alone."""
        return self._replace(features=self.features[-1:])

    def to(self, device: str | torch.device) -> "ExitFeatures":
        return ExitFeatures(
            [f.to(device) for f in self.features], self.y.to(device), self.weight.to(device)
        )

    def batches(self, batch_size: int) -> Iterator["ExitFeatures"]:
        """Yield the samples in random order, one batch at a time.

        A last batch of one sample is left out, since batch normalisation cannot learn from it.
        """
        for rows in torch.split(torch.randperm(len(self.y)), batch_size):
            if len(rows) > 1:
                yield self.take(rows)


def concatenate_exits(members: Sequence[ExitFeatures], n_samples: int) -> ExitFeatures:
    """Join the exit features of several members, of the same samples, into those of all their exits.

    If there are several members, only the first pass over the samples is kept: the transforms of further
    passes differ from member to member.
    """
    if len(members) == 1:
        return members[0]
    first = members[0]
    return ExitFeatures(
        [feature[:n_samples] for member in members for feature in member.features],
        first.y[:n_samples],
        first.weight[:n_samples],
    )


def exit_features(
    network: EarlyExitNetwork,
    samples: SamplesDataset,
    batch_size: int,
    device: str | torch.device,
    *,
    n_passes: int = 1,
    collate_fn: Callable[[Any], Any] = whole_batch,
) -> ExitFeatures:
    """Run the stages over some samples and keep what each exit reads.

    Parameters
    ----------
    network : EarlyExitNetwork
    samples : SamplesDataset
    batch_size : int
    device : str or torch.device
        Device of the network; the features are kept on the CPU.
    n_passes : int, default=1
        Number of passes, kept one after the other; useful if ``collate_fn`` is random.
    collate_fn : callable
        As a DataLoader takes it; may transform samples on their way to the backbone.

    Returns
    -------
    ExitFeatures
        Of ``n_passes * len(samples)`` samples.
    """
    network.eval()
    # With a separate generator the DataLoader does not draw from torch's random numbers.
    loader: DataLoader[Batch] = DataLoader(
        samples, batch_size, collate_fn=collate_fn, generator=torch.Generator()
    )
    batches = (batch for _ in range(n_passes) for batch in loader)
    features: list[torch.Tensor] = []
    labels, weights, n_done = [], [], 0
    for batch_features, y, weight in _run_batches(network, batches, device):
        if not features:
            widths = [feature.shape[1] for feature in batch_features]
            features = _room_for(n_passes * len(samples), widths)
        for feature, part in zip(features, batch_features, strict=True):
            feature[n_done : n_done + len(part)] = part.cpu()
        n_done += len(y)
        labels.append(y)
        weights.append(weight)
    return ExitFeatures(features, torch.cat(labels), torch.cat(weights))


def _run_batches(
    network: EarlyExitNetwork, batches: Iterable[Batch], device: str | torch.device
) -> Iterator[ExitFeatures]:
    for inputs, y in batches:
        with network.inference():
            features = network.exit_features(*(tensor.to(device) for tensor in inputs["X"]))
        yield ExitFeatures(features, y, inputs["sample_weight"])


def _room_for(n_samples: int, widths: Sequence[int]) -> list[torch.Tensor]:
    """Return empty float32 tensors (n_samples, width).

    If they are large, they lie in a temporary file, which is deleted with them.
    """
    n_bytes = 4 * n_samples * sum(widths)
    if n_bytes <= MEMORY_SHARE * _memory_bytes():
        return [torch.empty((n_samples, width)) for width in widths]
    try:
        return [_in_file((n_samples, width)) for width in widths]
    except OSError as error:
        folder = tempfile.gettempdir()
        raise OSError(
            f"exit features of {n_samples} samples need {n_bytes / 1e9:.3g} GB in the temporary folder {folder!r}, "
            f"where {shutil.disk_usage(folder).free / 1e9:.3g} GB are free ({error}); name a larger folder in the "
            f"environment variable TMPDIR, or lower feature_passes or the number of exits."
        ) from error


def check_room(n_bytes: float, name: str, value: Any, besides: float = 0.0) -> None:
    """Refuse a parameter for which more is needed than the machine's memory and what is free ``besides``."""
    room = _memory_bytes() + besides
    if n_bytes > room:
        raise ValueError(
            f"{name}={value!r} needs {n_bytes / 1e9:.3g} GB, but there is room for {room / 1e9:.3g} GB; give less."
        )


def _in_file(shape: tuple[int, int]) -> torch.Tensor:
    with tempfile.TemporaryFile() as file:
        _reserve(file, 4 * math.prod(shape))
        return torch.from_numpy(np.memmap(file, dtype=np.float32, mode="r+", shape=shape))


def _reserve(file: Any, n_bytes: int) -> None:
    """Take the space of a file from the disk now: where a mapped file finds none later, the process is killed."""
    try:
        os.posix_fallocate(file.fileno(), 0, n_bytes)
    except (AttributeError, OSError) as error:
        if getattr(error, "errno", None) not in CANNOT_RESERVE:
            raise
        zeros = bytes(min(n_bytes, WRITTEN_AT_ONCE))
        for start in range(0, n_bytes, WRITTEN_AT_ONCE):
            file.write(zeros[: n_bytes - start])
        file.flush()


def _memory_bytes() -> float:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return float("inf")
