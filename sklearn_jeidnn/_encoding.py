"""Input layers for the numeric columns of a table: piecewise-linear encoding, and noise."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import nn


class PiecewiseLinearEncoding(nn.Module):
    """Encode each numeric column by how far its value has come through each of the column's bins.

    One value per bin: 0 below the bin, 1 above it, linear inside [1]_. A column of two values
    keeps one bin, so one-hot columns pass unchanged (up to scale).

    Parameters
    ----------
    edges : list of ndarray
        Increasing bin edges of each column, at least two each.

    References
    ----------
    .. [1] Gorishniy, Rubachev, Babenko, "On Embeddings for Numerical Features in Tabular Deep
       Learning", NeurIPS 2022, equation 1.
    """

    column: torch.Tensor
    scale: torch.Tensor
    offset: torch.Tensor

    def __init__(self, edges: Sequence[np.ndarray]) -> None:
        super().__init__()
        bins_per_column = [len(column_edges) - 1 for column_edges in edges]
        column = np.repeat(np.arange(len(edges)), bins_per_column)
        lower = np.concatenate([column_edges[:-1] for column_edges in edges])
        width = np.concatenate([np.diff(column_edges) for column_edges in edges])
        self.register_buffer("column", torch.as_tensor(column))
        self.register_buffer("scale", torch.as_tensor(1 / width, dtype=torch.float32))
        self.register_buffer("offset", torch.as_tensor(-lower / width, dtype=torch.float32))

    @property
    def n_outputs(self) -> int:
        return len(self.column)

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        """(n_samples, n_features) -> (n_samples, n_bins_total)"""
        through_bin = X.index_select(1, self.column) * self.scale + self.offset
        return through_bin.clamp(0, 1)


def bin_edges(X: ArrayLike, n_bins: int) -> list[np.ndarray]:
    """Compute the bin edges of each column: its values if they are few, quantiles if they are many.

    Half of the edges are quantiles of the samples, half of the distinct values. So a column that is
    mostly zero keeps edges among its other values.

    Parameters
    ----------
    X : ndarray (n_samples, n_features)
    n_bins : int
        Most bins of a column.

    Returns
    -------
    edges : list of n_features ndarray
        Increasing; a constant column gets one bin.
    """
    return [_column_edges(column, n_bins) for column in np.asarray(X, dtype=np.float64).T]


def _column_edges(column: np.ndarray, n_bins: int) -> np.ndarray:
    """Bin edges of one column."""
    distinct = np.unique(column)
    edges: np.ndarray = distinct
    if len(distinct) > n_bins + 1:
        levels = np.linspace(0, 1, n_bins // 2 + 1)
        edges = np.unique([np.quantile(column, levels), np.quantile(distinct, levels)])
    float32_resolution = 1e-6 * np.abs(edges).max()
    edges = edges[np.append(True, np.diff(edges) > float32_resolution)]
    if len(edges) == 1:
        edges = edges[0] + np.array([0, max(1, abs(edges[0]))])
    return edges


class InputNoise(nn.Module):
    """Gaussian noise on the input while training.

    Parameters
    ----------
    deviations : array-like (n_features,)
        Standard deviation of the noise on each column; 0 adds none.

    References
    ----------
    Bishop, "Training with Noise is Equivalent to Tikhonov Regularization", Neural Computation 1995.
    """

    deviations: torch.Tensor

    def __init__(self, deviations: ArrayLike) -> None:
        super().__init__()
        self.register_buffer("deviations", torch.as_tensor(deviations, dtype=torch.float32))

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        """(n_samples, n_features) -> (n_samples, n_features)"""
        return X + self.deviations * torch.randn_like(X) if self.training else X
