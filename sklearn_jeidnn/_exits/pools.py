"""Pools: what an exit reads of its stage's output."""

import torch
from torch.nn import functional as F


def average_pool(output: torch.Tensor) -> torch.Tensor:
    """Stage output -> exit feature ``(n_samples, d)``: the mean over positions.

    ``output`` is ``(n, d)``, tokens ``(n, n_tokens, d)`` or maps ``(n, d, height, width)``.
    """
    if output.ndim == 2:
        return output
    return output.mean(1) if output.ndim == 3 else output.flatten(2).mean(2)


def detailed_pool(output: torch.Tensor) -> torch.Tensor:
    """Stage output -> exit feature ``(n_samples, d)`` that keeps more than the mean.

    Vectors stay as they are. Tokens give the first token and the mean. Maps give their deviation,
    and the mean and maximum of each quarter.
    """
    if output.ndim == 2:
        return output
    if output.ndim == 3:
        return torch.cat([output[:, 0], output.mean(1)], dim=1)
    maps = output.contiguous(memory_format=torch.channels_last)
    means, maxima, mean = _quarters(maps)
    variance = _mean_of_positions(maps.square()) - mean.square()
    deviation = variance.clamp(min=1e-6).sqrt()
    return torch.cat([deviation, means.flatten(1), maxima.flatten(1)], dim=1)


def quarters_pool(output: torch.Tensor) -> torch.Tensor:
    """:func:`detailed_pool` without the deviation of maps, the one pool that integers do not compute."""
    if output.ndim != 4:
        return detailed_pool(output)
    means, maxima, _ = _quarters(output.contiguous(memory_format=torch.channels_last))
    return torch.cat([means.flatten(1), maxima.flatten(1)], dim=1)


def _mean_of_positions(maps: torch.Tensor) -> torch.Tensor:
    """``maps.mean((2, 3))`` of channels-last maps, as a matrix product, which is faster."""
    positions = maps.permute(0, 2, 3, 1).flatten(1, 2)
    n_positions = positions.shape[1]
    return (positions.new_full((1, n_positions), 1 / n_positions) @ positions).squeeze(1)


def _quarters(maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mean and maximum of each quarter, (n, d, 2, 2), and the mean of all, (n, d)."""
    height, width = maps.shape[2:]
    if height % 2 or width % 2:
        means, maxima = F.adaptive_avg_pool2d(maps, 2), F.adaptive_max_pool2d(maps, 2)
        return means, maxima, maps.mean((2, 3))
    # Faster than adaptive pools, for maps of even height and width.
    quarter = (height // 2, width // 2)
    means = F.avg_pool2d(maps, quarter)
    return means, F.max_pool2d(maps, quarter), means.mean((2, 3))
