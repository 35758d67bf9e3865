"""Ready backbones: a residual network for tables and a small one for images.

Both are plain torch modules with a ``ModuleList`` named ``blocks``, so that they are cut after each
block like any other. ``from_data`` builds one from training samples, which give the shape of the
input and the statistics that the input layer keeps (bins, means).
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import nn

from ._encoding import InputNoise, PiecewiseLinearEncoding, bin_edges
from ._image_shapes import checked_image_shape, has_channels_last, seen_image_shape

__all__ = [
    "BagOfEmbeddings",
    "ImageInput",
    "ImageResNet",
    "InputNoise",
    "PiecewiseLinearEncoding",
    "TabularResNet",
    "bin_edges",
    "default_backbone",
]


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
    """Residual network for tables, with piecewise-linear encoding of its columns.

    Parameters
    ----------
    edges : list of ndarray
        Bin edges of each column (see :func:`bin_edges`).
    n_classes : int
    width : int, default=256
        Units of each layer.
    n_blocks : int, default=6
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
        width: int = 256,
        n_blocks: int = 6,
        dropout: float | None = None,
        noise: ArrayLike | None = None,
    ) -> None:
        super().__init__()
        if dropout is None:
            dropout = 0.3 * min(1, (width / 128) ** 2)
        # Wider networks need smaller steps.
        self.learning_rate = min(1e-2, 2e-3 * 256 / width)
        self.noise = nn.Identity() if noise is None or not np.any(noise) else InputNoise(noise)
        self.encoding = PiecewiseLinearEncoding(edges)
        self.input = nn.Linear(self.encoding.n_outputs, width)
        self.blocks = nn.ModuleList(TabularBlock(width, dropout) for _ in range(n_blocks))
        self.norm = nn.LayerNorm(width)
        self.classifier = nn.Linear(width, n_classes)

    @classmethod
    def from_data(
        cls, X: np.ndarray, n_classes: int, *, n_bins: int = 32, noise: float = 0.2, **params: Any
    ) -> "TabularResNet":
        """Build a network for these training samples.

        Parameters
        ----------
        X : ndarray (n_samples, n_features)
        n_classes : int
        n_bins : int, default=32
            Most bins of each column's encoding.
        noise : float, default=0.2
            Noise on the columns with more than two values while training, in standard deviations
            of the column.
        **params
            Passed to the constructor: ``width``, ``n_blocks``, ``dropout``.
        """
        edges = bin_edges(X, n_bins)
        many_values = [len(column_edges) > 2 for column_edges in edges]
        deviations = np.std(X, axis=0, dtype=np.float64)
        return cls(edges, n_classes, noise=noise * deviations * many_values, **params)

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        """(n_samples, n_features) -> logits (n_samples, n_classes)"""
        hidden = self.input(self.encoding(self.noise(X)))
        for block in self.blocks:
            hidden = block(hidden)
        logits: torch.Tensor = self.classifier(torch.relu(self.norm(hidden)))
        return logits


class ImageInput(nn.Module):
    """Turn samples of any layout into standardised images, channels first.

    Parameters
    ----------
    image_shape : tuple of int
        Shape of one sample: ``(height, width)``, ``(channels, height, width)`` or
        ``(height, width, channels)``. Of three numbers, the first or the last is the channels': the one
        that is at most 4, else the one besides two equal ones, else the smaller one. Channels come first
        if both fit.
    mean, scale : float
        Mean that is subtracted from every pixel, and scale by which it is divided.
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, image_shape: Iterable[int], mean: float = 0.0, scale: float = 1.0) -> None:
        super().__init__()
        self.image_shape = checked_image_shape(image_shape)
        self.register_buffer("mean", torch.tensor(float(mean)))
        self.register_buffer("scale", torch.tensor(float(scale)))

    @property
    def channels_last(self) -> bool:
        return has_channels_last(self.image_shape)

    @property
    def n_channels(self) -> int:
        if len(self.image_shape) == 2:
            return 1
        return self.image_shape[-1 if self.channels_last else 0]

    @property
    def size(self) -> tuple[int, ...]:
        """(height, width)"""
        return self.image_shape[:2] if self.channels_last else self.image_shape[-2:]

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        """(n_samples, ...) -> (n_samples, n_channels, height, width)"""
        images = ((X - self.mean) / self.scale).reshape(-1, *self.image_shape)
        if self.channels_last:
            return images.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
        images = images.reshape(-1, self.n_channels, *self.size)
        return images.contiguous(memory_format=torch.channels_last)


class ImageBlock(nn.Module):
    """Residual block of two 3x3 convolutions with batch normalisation."""

    def __init__(self, width_in: int, width_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width_out, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(width_out)
        self.conv2 = nn.Conv2d(width_out, width_out, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(width_out)
        self.stride = stride
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or width_in != width_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(width_in, width_out, 1, bias=False), nn.BatchNorm2d(width_out)
            )

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        inner = torch.relu(self.norm1(self.conv1(maps)))
        # Not a stride of the 1x1 convolution, because of has_narrow_strides.
        reduced = maps[:, :, :: self.stride, :: self.stride] if self.stride > 1 else maps
        return torch.relu(self.norm2(self.conv2(inner)) + self.shortcut(reduced))


class ImageResNet(nn.Module):
    """Small residual convolutional network for images of any size.

    The blocks come in three groups; each later group halves the map and doubles the width. Images
    of at least 24 pixels are halved once more by the stem.

    Parameters
    ----------
    image_shape : tuple of int
        Shape of one sample (see :class:`ImageInput`); samples may be flattened.
    n_classes : int
    width : int, default=32
        Channels of the first group.
    n_blocks : int, default=6
        Residual blocks in all, spread evenly over the three groups.
    mean, scale : float
        Mean that is subtracted from every pixel, and scale by which it is divided.

    References
    ----------
    He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, section 4.2.
    """

    def __init__(
        self,
        image_shape: Iterable[int],
        n_classes: int,
        *,
        width: int = 32,
        n_blocks: int = 6,
        mean: float = 0.0,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.input = ImageInput(image_shape, mean, scale)
        large = min(self.input.size) >= 24
        self.stem = nn.Sequential(
            nn.Conv2d(self.input.n_channels, width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.MaxPool2d(2) if large else nn.Identity(),
        )
        group = [3 * i // n_blocks for i in range(n_blocks)]
        widths = [width * 2**g for g in group]
        width_before = [width, *widths[:-1]]
        self.blocks = nn.ModuleList(
            ImageBlock(before, after, 1 if before == after else 2)
            for before, after in zip(width_before, widths, strict=True)
        )
        self.classifier = nn.Linear(widths[-1], n_classes)

    @classmethod
    def from_data(
        cls,
        X: np.ndarray,
        n_classes: int,
        *,
        image_shape: Iterable[int] | None = None,
        **params: Any,
    ) -> "ImageResNet":
        """Build a network for these training samples.

        Parameters
        ----------
        X : ndarray (n_samples, ...)
        n_classes : int
        image_shape : tuple of int, default=None
            Shape of one sample. If None, that of the samples in ``X``; needed if these are flat, or have
            more than four channels.
        **params
            Passed to the constructor: ``width``, ``n_blocks``.

        Raises
        ------
        ValueError
            If ``image_shape`` is not the shape of an image, or has not as many values as a sample.
        """
        if image_shape is None:
            image_shape = seen_image_shape(X.shape[1:])
        image_shape = checked_image_shape(image_shape)
        if np.prod(image_shape) != np.prod(X.shape[1:]):
            raise ValueError(
                f"module__image_shape={image_shape} has {np.prod(image_shape)} values, but a row of X "
                f"has {np.prod(X.shape[1:])} (X.shape={X.shape})."
            )
        mean = np.mean(X, dtype=np.float64)
        scale = np.std(X, dtype=np.float64) or 1.0
        return cls(image_shape, n_classes, mean=mean, scale=scale, **params)

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        """(n_samples, ...) -> logits (n_samples, n_classes)"""
        maps = self.stem(self.input(X))
        for block in self.blocks:
            maps = block(maps)
        logits: torch.Tensor = self.classifier(maps.mean((2, 3)))
        return logits


class BagOfEmbeddings(nn.Module):
    """Linear classifier on the mean of a sample's token embeddings: a companion for text.

    Parameters
    ----------
    n_tokens : int
        Number of embeddings; tokens beyond them use the last one.
    n_classes : int
    width : int, default=64
        Length of an embedding.
    dropout : float, default=0.5
        Share of the mean's units dropped while training.
    ids, mask : str, default=None
        Names of the tokens, and of the 0/1 mask of those that count, if inputs are passed by name.
        If ``mask`` is None, all tokens count.

    References
    ----------
    Joulin, Grave, Bojanowski, Mikolov, "Bag of Tricks for Efficient Text Classification", EACL
    2017.
    """

    ids: Any  # str or None

    def __init__(
        self,
        n_tokens: int,
        n_classes: int,
        *,
        width: int = 64,
        dropout: float = 0.5,
        ids: str | None = None,
        mask: str | None = None,
    ) -> None:
        super().__init__()
        self.ids, self.mask = ids, mask
        self.embedding = nn.Embedding(n_tokens, width)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(width, n_classes)

    @classmethod
    def from_data(
        cls, X: np.ndarray | dict[str, np.ndarray], n_classes: int, **params: Any
    ) -> "BagOfEmbeddings":
        """Build a network for these training samples.

        Parameters
        ----------
        X : ndarray of int (n_samples, length), or dict of such
            In a dict, the array with the largest numbers holds the tokens, and one of zeros and
            ones the mask.
        n_classes : int
        **params
            Passed to the constructor: ``width``, ``dropout``.

        Raises
        ------
        ValueError
            If a dict holds no tokens (n_samples, length).
        """
        if not isinstance(X, dict):
            return cls(int(X.max()) + 1, n_classes, **params)
        largest = {k: int(a.max()) for k, a in X.items() if a.ndim == 2 and a.dtype.kind in "iub"}
        if not largest or max(largest.values()) < 2:
            raise ValueError(
                f"X has keys {sorted(X)}, none of which holds tokens (n_samples, length); give the companions as "
                f"members of module."
            )
        ids = max(largest, key=largest.__getitem__)
        mask = next((k for k, a in largest.items() if a == 1 and X[k].shape == X[ids].shape), None)
        return cls(largest[ids] + 1, n_classes, ids=ids, mask=mask, **params)

    def forward(self, *inputs: torch.Tensor, **named: torch.Tensor) -> torch.Tensor:
        """Tokens (n_samples, length), by position or by name -> logits (n_samples, n_classes)"""
        ids = named[self.ids] if named else inputs[0]
        embedded = self.embedding(ids.clamp(max=self.embedding.num_embeddings - 1))
        counts = torch.ones_like(embedded[..., :1])
        if self.mask is not None:
            counts = named[self.mask][..., None].to(embedded.dtype)
        mean = (embedded * counts).sum(1) / counts.sum(1).clamp(min=1)
        logits: torch.Tensor = self.classifier(self.dropout(mean))
        return logits


def default_backbone(
    n_dimensions: int, params: dict[str, Any]
) -> type[TabularResNet] | type[ImageResNet]:
    """Choose the ready backbone for ``X`` of 2 dimensions (a table) or more (images).

    Images may be flattened if the user's ``params`` give their ``image_shape``.
    """
    return ImageResNet if n_dimensions > 2 or "image_shape" in params else TabularResNet
