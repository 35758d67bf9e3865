"""Input layers for the numeric columns of a table: piecewise-linear encoding, robust scaling, and noise."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import nn

# Values are set apart from the others of their column if the gap between them is this many times as wide as all that
# is left without it; at most so many gaps of a column, and only few values or few samples (see decision 38).
FAR, MOST_GAPS, FEW_VALUES, FEW_SAMPLES = 3.0, 4, 3, 0.02
# Bin edges further out would let a difference overflow.
LARGEST = 1e37
# Scaled values are clipped smoothly, from about here on.
CLIP = 3.0
# What is left of a scaled value before it is clipped smoothly.
MOST_DEVIATIONS = 100.0


def count_blocks(state: Iterable[str]) -> int:
    """How many submodules ``blocks.0``, ``blocks.1``, ... a state dict, of which the names are given, is of."""
    return len({name.split(".")[1] for name in state if name.startswith("blocks.")})


class ColumnSpreads(NamedTuple):
    """Where the ordinary values of each column lie, however far out the others are."""

    centre: np.ndarray  # (n_features,), median
    scale: np.ndarray  # (n_features,), interquartile range; half the range if that is 0
    deviation: np.ndarray  # (n_features,), standard deviation as quantiles tell it


class PiecewiseLinearEncoding(nn.Module):
    """Encode each column of numbers by how far its value has come through each of the column's bins.

    One value per bin: 0 below the bin, 1 above it, linear inside [1]_. A column of two values
    keeps one bin, so one-hot columns pass unchanged (up to scale).

    Parameters
    ----------
    edges : list of ndarray
        Increasing bin edges of each column; a column of one edge has no bin.

    References
    ----------
    .. [1] Gorishniy, Rubachev, Babenko, "On Embeddings for Numerical Features in Tabular Deep
       Learning", NeurIPS 2022, equation 1.
    """

    column: torch.Tensor
    scale: torch.Tensor
    lower: torch.Tensor

    def __init__(self, edges: Sequence[np.ndarray]) -> None:
        super().__init__()
        bins_per_column = [len(column_edges) - 1 for column_edges in edges]
        column = np.repeat(np.arange(len(edges)), bins_per_column)
        lower = np.concatenate([column_edges[:-1] for column_edges in edges])
        width = np.concatenate([np.diff(column_edges) for column_edges in edges])
        self.register_buffer("column", torch.as_tensor(column))
        self.register_buffer("scale", torch.as_tensor(1 / width, dtype=torch.float32))
        self.register_buffer("lower", torch.as_tensor(lower, dtype=torch.float32))

    @property
    def n_outputs(self) -> int:
        return len(self.column)

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        """(n_samples, n_features) -> (n_samples, n_bins_total)"""
        # The difference is exact where value and edge are close; a product of the two terms would not be.
        through_bin = (X.index_select(1, self.column) - self.lower) * self.scale
        return through_bin.clamp(0, 1)


class ColumnIndicators(nn.Module):
    """Tell which category each column has, and which values are missing: one value each, 0 or 1.

    Parameters
    ----------
    column : array-like of int (n_indicators,)
        The column that each indicator reads.
    category : array-like (n_indicators,)
        What it looks for there; NaN for a missing value.
    """

    column: torch.Tensor
    category: torch.Tensor
    missing: torch.Tensor

    def __init__(self, column: ArrayLike, category: ArrayLike) -> None:
        super().__init__()
        self.register_buffer("column", torch.as_tensor(column, dtype=torch.int64))
        self.register_buffer("category", torch.as_tensor(category, dtype=torch.float32))
        self.register_buffer("missing", self.category.isnan())

    @property
    def n_outputs(self) -> int:
        return len(self.column)

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        """(n_samples, n_features) -> (n_samples, n_indicators)"""
        cells = X.index_select(1, self.column)
        return ((cells == self.category) | (cells.isnan() & self.missing)).to(X.dtype)


class MissingFilled(nn.Module):
    """Put a value of the column where one is missing.

    Parameters
    ----------
    fill : array-like (n_features,)
    """

    fill: torch.Tensor

    def __init__(self, fill: ArrayLike) -> None:
        super().__init__()
        self.register_buffer("fill", torch.as_tensor(fill, dtype=torch.float32))

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        """(n_samples, n_features) -> (n_samples, n_features)"""
        return torch.where(X.isnan(), self.fill, X)


class RobustScaling(nn.Module):
    """Centre each column, divide it by its ordinary spread, and clip it smoothly to ±3 [1]_.

    Parameters
    ----------
    centre, scale : array-like (n_columns,)
        What is subtracted, and what the difference is divided by; 0 for a constant column.
    columns : array-like of int (n_columns,), default=None
        The columns that are scaled; None takes all.

    References
    ----------
    .. [1] Holzmüller, Grinsztajn, Steinwart, "Better by Default: Strong Pre-Tuned MLPs and Boosted
       Trees on Tabular Data", NeurIPS 2024, section 3.
    """

    centre: torch.Tensor
    factor: torch.Tensor
    reach: torch.Tensor
    columns: torch.Tensor | None

    def __init__(
        self, centre: ArrayLike, scale: ArrayLike, columns: ArrayLike | None = None
    ) -> None:
        super().__init__()
        columns = None if columns is None else torch.as_tensor(columns, dtype=torch.int64)
        self.register_buffer("columns", columns)
        scale = np.asarray(scale, dtype=np.float64)
        # A column whose spread float32 cannot invert carries nothing that bins do not.
        usable = scale > 1 / LARGEST
        factor = np.where(usable, 1 / np.where(usable, scale, 1), 0)
        self.register_buffer("centre", torch.as_tensor(centre, dtype=torch.float32))
        self.register_buffer("factor", torch.as_tensor(factor, dtype=torch.float32))
        reach = np.minimum(MOST_DEVIATIONS * scale, LARGEST)
        self.register_buffer("reach", torch.as_tensor(reach, dtype=torch.float32))

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        """(n_samples, n_features) -> (n_samples, n_columns)"""
        X = X if self.columns is None else X.index_select(1, self.columns)
        scaled = (X - self.centre).clamp(-self.reach, self.reach) * self.factor
        return scaled * (1 + (scaled / CLIP).square()).rsqrt()


def indicators_of(
    X: ArrayLike, categorical: np.ndarray, most_categories: int
) -> ColumnIndicators | None:
    """Indicators of the categories and the missing values of a table; None if it has neither.

    Parameters
    ----------
    X : ndarray (n_samples, n_features)
        Of columns of categories their numbers; below 0 for none that is known.
    categorical : ndarray of bool (n_features,)
    most_categories : int
        Categories of a column that are told apart: the most frequent ones.
    """
    column, category = [], []
    for i, (values, is_categorical) in enumerate(zip(np.asarray(X).T, categorical, strict=True)):
        missing = np.isnan(values)
        found: list[float] = []
        if is_categorical:
            distinct, counts = np.unique(values[~missing & (values >= 0)], return_counts=True)
            frequent = np.argsort(-counts, kind="stable")[:most_categories]
            found = np.sort(distinct[frequent]).tolist()
        found += [np.nan] * bool(missing.any())
        column += [i] * len(found)
        category += found
    return ColumnIndicators(column, category) if column else None


def bin_edges(X: ArrayLike, n_bins: int) -> list[np.ndarray]:
    """Compute the bin edges of each column: its values if they are few, quantiles if they are many.

    Half of the edges are quantiles of the samples, half of the distinct values. So a column that is
    mostly zero keeps edges among its other values. Values far from all others (codes for missing values,
    outliers) get edges of their own, and take none of the others'.

    Parameters
    ----------
    X : ndarray (n_samples, n_features)
    n_bins : int
        Most bins of a column, beside those of values far from all others.

    Returns
    -------
    edges : list of n_features ndarray
        Increasing; a constant column gets one bin.
    """
    return [_column_edges(column, n_bins) for column in _present(X)]


def _present(X: ArrayLike) -> list[np.ndarray]:
    """Values of each column that are not missing, in double precision; 0 where all are."""
    columns = (column[~np.isnan(column)] for column in np.asarray(X, dtype=np.float64).T)
    return [column if len(column) else np.zeros(1) for column in columns]


def column_spreads(X: ArrayLike) -> ColumnSpreads:
    """Where the ordinary values of each column (n_samples, n_features) lie."""
    spreads = [_spread(_ordinary_values(column)) for column in _present(X)]
    return ColumnSpreads(*np.array(spreads).T)


def _ordinary_values(column: np.ndarray) -> np.ndarray:
    """Values of a column without those that are far from all others."""
    first, last, distinct = _ordinary_range(column)
    ordinary: np.ndarray = column[(column >= distinct[first]) & (column <= distinct[last])]
    return ordinary


def _ordinary_range(column: np.ndarray) -> tuple[int, int, np.ndarray]:
    """Positions of the first and the last ordinary value among the distinct values, and these."""
    distinct, counts = np.unique(column, return_counts=True)
    first, last = 0, len(distinct) - 1
    for _ in range(MOST_GAPS):
        inside = distinct[first : last + 1]
        gaps = np.diff(inside)
        if len(gaps) < 2:
            break
        widest = int(gaps.argmax())
        upper = first + widest + 1
        keeps_lower = 2 * (widest + 1) >= len(inside)
        apart = slice(upper, last + 1) if keeps_lower else slice(first, upper)
        n_samples = counts[apart].sum()
        few = apart.stop - apart.start <= FEW_VALUES or n_samples <= FEW_SAMPLES * len(column)
        if not few or gaps[widest] <= FAR * (np.ptp(inside) - gaps[widest]):
            break
        first, last = (first, upper - 1) if keeps_lower else (upper, last)
    return first, last, distinct


def _column_edges(column: np.ndarray, n_bins: int) -> np.ndarray:
    """Bin edges of one column."""
    column = np.clip(column, -LARGEST, LARGEST)
    first, last, distinct = _ordinary_range(column)
    edges: np.ndarray = distinct
    if len(distinct) > n_bins + 1:
        inside = distinct[first : last + 1]
        edges = _quantile_edges(column, inside, n_bins)
        apart = [distinct[:first], distinct[last + 1 :]]
        edges = np.unique([*edges, *(end for side in apart for end in side[[0, -1][: len(side)]])])
    # Two edges that are the same number to the network are one.
    edges = edges[np.append(True, np.diff(np.float32(edges)) > 0)]
    if len(edges) == 1:
        edges = edges[0] + np.array([0, max(1, abs(edges[0]))])
    return edges


def _quantile_edges(column: np.ndarray, distinct: np.ndarray, n_bins: int) -> np.ndarray:
    """Quantiles of the samples in the range of some distinct values, and of these."""
    if len(distinct) <= n_bins + 1:
        return distinct
    inside = column[(column >= distinct[0]) & (column <= distinct[-1])]
    levels = np.linspace(0, 1, n_bins // 2 + 1)
    edges: np.ndarray = np.unique([np.quantile(inside, levels), np.quantile(distinct, levels)])
    return edges


def _spread(values: np.ndarray) -> tuple[float, float, float]:
    """Centre, scale and deviation of values (see :class:`ColumnSpreads`)."""
    low, quarter, median, third, high = np.quantile(values, [0.05, 0.25, 0.5, 0.75, 0.95])
    half_range = np.ptp(values) / 2
    scale = third - quarter if third > quarter else half_range
    deviation = (third - quarter) / 1.349 if third > quarter else (high - low) / 3.29
    return median, scale, deviation


def gaps_of_few_values(X: ArrayLike, n_bins: int) -> np.ndarray:
    """Smallest gap between the values of each column; 0 if they are two or one, NaN if more than ``n_bins + 1``."""
    gaps = []
    for column in _present(X):
        values = np.unique(column)
        gap = np.diff(values).min() if len(values) > 2 else 0
        gaps.append(gap if len(values) <= n_bins + 1 else np.nan)
    return np.array(gaps)


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
