"""One pass of the stages over some rows: what each exit reads, kept in memory or on disk."""

import os
import tempfile

import numpy as np
import torch
from torch.utils.data import DataLoader

from ._rows import ExitFeatures, whole_batch

# Features that would take more than this share of the machine's memory are kept in a temporary file.
MEMORY_SHARE = 0.25


def exit_features(network, rows, batch_size, device, *, n_passes=1, collate_fn=whole_batch):
    """Run the stages over some rows and keep what each exit reads.

    Parameters
    ----------
    network : EarlyExitNetwork
    rows : RowsDataset
    batch_size : int
    device : str or torch.device
        Where the network is; what is kept is on the CPU.
    n_passes : int, default=1
        Passes kept, one after the other; more than one make sense where ``collate_fn`` is random.
    collate_fn : callable
        As a DataLoader takes it; may transform rows on their way to the backbone.

    Returns
    -------
    ExitFeatures
        Of ``n_passes * len(rows)`` rows.
    """
    network.eval()
    # A generator of its own: a DataLoader would draw from torch's random numbers.
    loader = DataLoader(rows, batch_size, collate_fn=collate_fn, generator=torch.Generator())
    batches = (batch for _ in range(n_passes) for batch in loader)
    features, labels, weights, n_done = None, [], [], 0
    for given, y in batches:
        with network.inference():
            parts = network.exit_features(*(tensor.to(device) for tensor in given["X"]))
        if features is None:
            features = _room_for(n_passes * len(rows), [part.shape[1] for part in parts])
        for feature, part in zip(features, parts, strict=True):
            feature[n_done : n_done + len(part)] = part.cpu()
        n_done += len(y)
        labels.append(y)
        weights.append(given["sample_weight"])
    return ExitFeatures(features, torch.cat(labels), torch.cat(weights))


def _room_for(n_rows, widths):
    """Empty float32 tensors (n_rows, width), in a file that goes with them where they are large."""
    in_memory = 4 * n_rows * sum(widths) <= MEMORY_SHARE * _memory_bytes()
    room = _in_memory if in_memory else _in_file
    return [room((n_rows, width)) for width in widths]


def _in_memory(shape):
    return torch.empty(shape)


def _in_file(shape):
    with tempfile.TemporaryFile() as file:
        return torch.from_numpy(np.memmap(file, dtype=np.float32, mode="w+", shape=shape))


def _memory_bytes():
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return float("inf")
