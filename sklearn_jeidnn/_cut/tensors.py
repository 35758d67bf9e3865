"""Take and join samples of tensors, in the memory format that they have."""

from collections.abc import Sequence

import torch

# Largest difference between equal tensors, relative to their largest number or 1.
TOLERANCE = 1e-3


def take_rows(tensor: torch.Tensor, rows: torch.Tensor, axis: int = 0) -> torch.Tensor:
    """Take some samples of a tensor, in its memory format.

    Parameters
    ----------
    tensor : tensor (n_samples, ...)
        Samples along ``axis``.
    rows : tensor of int (n_taken,)
    axis : int, default=0
    """
    # index_select copies samples that lie in one piece, five times as fast as indexing does.
    if tensor.ndim == 4 and axis == 0 and not tensor.is_contiguous():
        return tensor.permute(0, 2, 3, 1).index_select(0, rows).permute(0, 3, 1, 2)
    return tensor.index_select(axis, rows)


def join_rows(tensors: Sequence[torch.Tensor], axis: int = 0) -> torch.Tensor:
    """Join the samples of several tensors, in the memory format of the first."""
    if tensors[0].ndim == 4 and axis == 0 and not tensors[0].is_contiguous():
        return torch.cat([t.permute(0, 2, 3, 1) for t in tensors]).permute(0, 3, 1, 2)
    return torch.cat(tuple(tensors), axis)


def repeat_samples(tensors: Sequence[torch.Tensor], n_samples: int) -> tuple[torch.Tensor, ...]:
    """Repeat samples until there are ``n_samples``: tensors (n_given, ...) -> (n_samples, ...)"""
    numbers = torch.arange(n_samples) % len(tensors[0])
    return tuple(tensor[numbers.to(tensor.device)] for tensor in tensors)


def same(first: torch.Tensor, second: torch.Tensor, least_scale: float = 1.0) -> bool:
    """Whether two tensors are equal up to rounding, in relation to the larger of their scale and ``least_scale``."""
    if first.shape != second.shape:
        return False
    if not first.numel():
        return True
    if not first.is_floating_point():
        return torch.equal(first, second)
    scale = first.nan_to_num().abs().amax().clamp(min=least_scale)
    close = torch.isclose(first, second, rtol=0, atol=float(TOLERANCE * scale), equal_nan=True)
    return bool(close.all())
