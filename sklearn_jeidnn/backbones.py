"""Ready backbones: a residual network for tables and a small one for images.

Both are plain torch modules with a ``ModuleList`` named ``blocks``, so that they are cut after each
block like any other. ``from_data`` builds one from training samples, which give the shape of the
input and the statistics that the input layer keeps (bins, means).
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import nn

from ._encoding import InputNoise, PiecewiseLinearEncoding, RobustScaling, bin_edges
from ._image_shapes import checked_image_shape, has_channels_last, seen_image_shape
from ._tables import TabularResNet

__all__ = [
    "BagOfEmbeddings",
    "ImageInput",
    "ImageResNet",
    "InputNoise",
    "PiecewiseLinearEncoding",
    "RobustScaling",
    "TabularResNet",
    "bin_edges",
    "default_backbone",
]

# Pixels that tell their range.
LIMIT_PIXELS = 1_000_000


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
    limits : tuple of float, default=(-inf, inf)
        Pixels below the first or above the second are set to it.
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(
        self,
        image_shape: Iterable[int],
        mean: float = 0.0,
        scale: float = 1.0,
        limits: tuple[float, float] = (-np.inf, np.inf),
    ) -> None:
        super().__init__()
        self.image_shape = checked_image_shape(image_shape)
        self.limits = limits
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
        pixels = X.clamp(*self.limits)
        images = ((pixels - self.mean) / self.scale).reshape(-1, *self.image_shape)
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


def _pixel_limits(X: np.ndarray) -> tuple[float, float]:
    """Values beyond which a pixel is broken: thrice the range of all but the outermost thousandths."""
    pixels = X.ravel()
    if pixels.size > LIMIT_PIXELS:
        pixels = pixels[np.random.default_rng(0).integers(pixels.size, size=LIMIT_PIXELS)]
    low, high = np.quantile(pixels, [0.001, 0.999])
    if low == high:
        return float(X.min()), float(X.max())
    return float(2 * low - high), float(2 * high - low)


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
    limits : tuple of float, default=(-inf, inf)
        Pixels below the first or above the second are set to it.

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
        limits: tuple[float, float] = (-np.inf, np.inf),
    ) -> None:
        super().__init__()
        self.input = ImageInput(image_shape, mean, scale, limits)
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
        limits = _pixel_limits(X)
        pixels = np.clip(X, *limits)
        mean = np.mean(pixels, dtype=np.float64)
        scale = np.std(pixels, dtype=np.float64) or 1.0
        return cls(image_shape, n_classes, mean=mean, scale=scale, limits=limits, **params)

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
