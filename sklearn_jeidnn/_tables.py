"""The ready network for tables."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.neighbors import KNeighborsClassifier
from torch import nn

from ._encoding import (
    ColumnIndicators,
    InputNoise,
    MissingFilled,
    PiecewiseLinearEncoding,
    RobustScaling,
    bin_edges,
    column_spreads,
    count_blocks,
    gaps_of_few_values,
    indicators_of,
)

# Categories of a column that the network tells apart, as boosted trees do.
MOST_CATEGORIES = 255

# Noise of the ready network, in standard deviations, and on columns of few values in shares of the gap between them;
# the share of samples that a bearable one may cost the nearest neighbour, and the samples that tell it.
NOISES, DISCRETE_NOISES = (0.05, 0.2), (0.0, 0.4)
MOST_LOST, MOST_LOST_DISCRETE = 0.02, 0.04
NEIGHBOUR_SAMPLES, FEWEST_NEIGHBOURS = 4000, 40


class _InputLayers(NamedTuple):
    """What the columns of a table go through first."""

    scaling: RobustScaling
    indicators: ColumnIndicators | None
    fill: np.ndarray | None  # (n_features,)
    deviation: np.ndarray  # (n_features,), as column_spreads tells it

    @classmethod
    def of(cls, X: ArrayLike, categorical: np.ndarray) -> "_InputLayers":
        """Layers for a table (n_samples, n_features), some of whose columns hold positions of categories."""
        spreads = column_spreads(X)
        numeric = np.flatnonzero(~categorical)
        chosen = numeric if categorical.any() else None
        return cls(
            scaling=RobustScaling(spreads.centre[numeric], spreads.scale[numeric], chosen),
            indicators=indicators_of(X, categorical, MOST_CATEGORIES),
            fill=spreads.centre if np.isnan(X).any() else None,
            deviation=spreads.deviation,
        )

    def __call__(self, X: np.ndarray) -> np.ndarray:
        """What nearest neighbours are told by: (n_samples, n_columns + n_indicators)."""
        samples = torch.as_tensor(X, dtype=torch.float32)
        parts = [] if self.indicators is None else [self.indicators(samples)]
        filled = samples if self.fill is None else MissingFilled(self.fill)(samples)
        array: np.ndarray = torch.cat([self.scaling(filled), *parts], dim=1).numpy()
        return array


def bearable_noise(
    X: ArrayLike,
    y: np.ndarray,
    deviations: np.ndarray,
    categorical: np.ndarray | None = None,
    *,
    noises: Sequence[float] = NOISES,
    most_lost: float = MOST_LOST,
) -> float:
    """Largest noise under which a sample's nearest neighbour still tells its class.

    See decisions 39 and 43.

    Parameters
    ----------
    X : ndarray (n_samples, n_features)
    y : ndarray of int (n_samples,)
    deviations : ndarray (n_features,)
        What the noise on each column is relative to.
    categorical : ndarray of bool (n_features,), default=None
        Which columns hold positions of categories; None means none.
    noises : sequence of float
    most_lost : float
        Share of samples that it may cost the nearest neighbour.

    Returns
    -------
    float
        One of ``noises``.
    """
    rng = np.random.default_rng(0)
    some = rng.permutation(len(y))[:NEIGHBOUR_SAMPLES]
    X, y = np.asarray(X, dtype=np.float64)[some], y[some]
    if not deviations.any() or len(y) < FEWEST_NEIGHBOURS:
        return min(noises)
    none = np.zeros(X.shape[1], dtype=bool)
    layers = _InputLayers.of(X, none if categorical is None else categorical)
    drawn = deviations * rng.standard_normal(X.shape)
    without, *accuracies = (
        _neighbours_accuracy(layers(X), layers(X + noise * drawn), y) for noise in (0, *noises)
    )
    bearable = [n for n, a in zip(noises, accuracies, strict=True) if without - a <= most_lost]
    return max(bearable, default=min(noises))


def _neighbours_accuracy(known: np.ndarray, asked: np.ndarray, y: np.ndarray) -> float:
    """How often the nearest sample of the other half has the same class, as seen from where samples are asked."""
    halves = np.arange(len(y)) % 2 == 0
    scores = [
        KNeighborsClassifier(1).fit(known[half], y[half]).score(asked[~half], y[~half])
        for half in (halves, ~halves)
    ]
    return float(np.mean(scores))


class TabularBlock(nn.Module):
    """Residual block: normalise, widen, ReLU, dropout, project back, add."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.linear1 = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.linear2 = nn.Linear(width, width)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        inner = self.linear1(self.norm(hidden))
        change: torch.Tensor = self.linear2(self.dropout(torch.relu(inner)))
        return hidden + change


class TabularResNet(nn.Module):
    """Residual network for tables that reads each column binned and scaled.

    Parameters
    ----------
    edges : list of ndarray
        Bin edges of each column (see :func:`bin_edges`).
    n_classes : int
    scaling : RobustScaling, default=None
        Scales the columns that are read beside their bins. If None, only the bins are read.
    indicators : ColumnIndicators, default=None
        Of categories and missing values.
    fill : array-like (n_features,), default=None
        What stands for a missing value, beside its indicator.
    width : int, default=192
        Units of each layer.
    n_blocks : int, default=3
        Residual blocks of two layers each.
    dropout : float, default=None
        Share of units dropped inside each block while training. If None, 0.3, and less if ``width``
        is below 128, since narrow networks tend to underfit.
    noise : array-like (n_features,), default=None
        Standard deviation of the noise added to each column while training.

    References
    ----------
    Gorishniy, Rubachev, Khrulkov, Babenko, "Revisiting Deep Learning Models for Tabular Data",
    NeurIPS 2021 (the residual network). Layer normalisation replaces batch normalisation, so that
    the output of a sample never depends on its batch.
    """

    def __init__(
        self,
        edges: Sequence[np.ndarray],
        n_classes: int,
        *,
        scaling: RobustScaling | None = None,
        indicators: ColumnIndicators | None = None,
        fill: ArrayLike | None = None,
        width: int = 192,
        n_blocks: int = 3,
        dropout: float | None = None,
        noise: ArrayLike | None = None,
    ) -> None:
        super().__init__()
        if dropout is None:
            dropout = 0.3 * min(1, (width / 128) ** 2)
        self.dropout = dropout
        # Wider networks need smaller steps.
        self.learning_rate = min(1e-2, 2e-3 * 256 / width)
        self.noise = nn.Identity() if noise is None or not np.any(noise) else InputNoise(noise)
        self.encoding = PiecewiseLinearEncoding(edges)
        self.scaling = scaling
        self.indicators = indicators
        self.fill = nn.Identity() if fill is None else MissingFilled(fill)
        n_inputs = self.encoding.n_outputs
        n_inputs += 0 if scaling is None else len(scaling.centre)
        n_inputs += 0 if indicators is None else indicators.n_outputs
        self.input = nn.Linear(n_inputs, width)
        self.blocks = nn.ModuleList(TabularBlock(width, dropout) for _ in range(n_blocks))
        self.norm = nn.LayerNorm(width)
        self.classifier = nn.Linear(width, n_classes)

    @classmethod
    def from_data(
        cls,
        X: np.ndarray,
        n_classes: int,
        *,
        y: np.ndarray | None = None,
        categorical: np.ndarray | None = None,
        n_bins: int = 16,
        noise: float | None = None,
        discrete_noise: float | None = None,
        **params: Any,
    ) -> "TabularResNet":
        """Build a network for these training samples.

        Parameters
        ----------
        X : ndarray (n_samples, n_features)
            NaN where a value is missing.
        n_classes : int
        y : ndarray of int (n_samples,), default=None
            Class codes, which tell how much noise the samples bear.
        categorical : ndarray of bool (n_features,), default=None
            Which columns hold positions of categories, from 0. The 255 most frequent categories of a column are
            told apart. None means no column.
        n_bins : int, default=16
            Most bins of each column's encoding.
        noise : float, default=None
            Noise while training on columns of more than ``n_bins + 1`` values, in standard deviations
            of the column as its quartiles tell them. None takes 0.2 where the samples bear it
            (see :func:`bearable_noise`), else 0.05; without ``y`` 0.05.
        discrete_noise : float, default=None
            Noise while training on columns of 3 to ``n_bins + 1`` values, as a share of the smallest gap
            between them. None takes 0.4 where the samples bear it, else 0; without ``y`` 0.
        **params
            Passed to the constructor: ``width``, ``n_blocks``, ``dropout``.
        """
        X = np.asarray(X)
        if categorical is None:
            categorical = np.zeros(X.shape[1], dtype=bool)
        layers = _InputLayers.of(X, categorical)
        gaps = gaps_of_few_values(X, n_bins)
        gaps[categorical] = 0
        continuous = np.where(np.isnan(gaps), layers.deviation, 0)
        if noise is None:
            noise = min(NOISES) if y is None else bearable_noise(X, y, continuous, categorical)
        discrete = np.nan_to_num(gaps)
        if discrete_noise is None:
            discrete_noise = min(DISCRETE_NOISES)
            if y is not None:
                discrete_noise = bearable_noise(
                    X,
                    y,
                    discrete,
                    categorical,
                    noises=DISCRETE_NOISES,
                    most_lost=MOST_LOST_DISCRETE,
                )
        edges = bin_edges(X, n_bins)
        return cls(
            [np.zeros(1) if no_number else own for own, no_number in zip(edges, categorical)],
            n_classes,
            scaling=layers.scaling,
            indicators=layers.indicators,
            fill=layers.fill,
            noise=noise * continuous + discrete_noise * discrete,
            **params,
        )

    @property
    def settings(self) -> dict[str, Any]:
        """What of the network its state does not tell."""
        return {"dropout": self.dropout}

    @classmethod
    def of_state(cls, state: Mapping[str, torch.Tensor], *, dropout: float) -> "TabularResNet":
        """A network of the sizes of a state dict, which it does not hold yet."""

        def n_of(name: str) -> int:
            return len(state[name])

        scaling = indicators = None
        if "scaling.centre" in state:
            zeros = np.zeros(n_of("scaling.centre"))
            columns = zeros if "scaling.columns" in state else None
            scaling = RobustScaling(zeros, zeros, columns)
        if "indicators.column" in state:
            zeros = np.zeros(n_of("indicators.column"))
            indicators = ColumnIndicators(zeros, zeros)
        return cls(
            [np.arange(n_of("encoding.column") + 1)],
            n_of("classifier.weight"),
            scaling=scaling,
            indicators=indicators,
            fill=np.zeros(n_of("fill.fill")) if "fill.fill" in state else None,
            width=n_of("input.weight"),
            n_blocks=count_blocks(state),
            dropout=dropout,
            noise=np.ones(n_of("noise.deviations")) if "noise.deviations" in state else None,
        )

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        """(n_samples, n_features) -> logits (n_samples, n_classes)"""
        told = [] if self.indicators is None else [self.indicators(X)]
        X = self.noise(self.fill(X))
        scaled = [] if self.scaling is None else [self.scaling(X)]
        hidden = self.input(torch.cat([self.encoding(X), *scaled, *told], dim=1))
        for block in self.blocks:
            hidden = block(hidden)
        logits: torch.Tensor = self.classifier(torch.relu(self.norm(hidden)))
        return logits
