"""Layers of the ready network for images: input, flips and shifts while training, stem, residual blocks."""

import math
from collections.abc import Iterable

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ._image_shapes import checked_image_shape, has_channels_last

# Pixels that tell their range.
LIMIT_PIXELS = 1_000_000
# Pixels that make the range so many times as wide are broken, if they are few.
FAR_RANGES = 30
# Images and patches of them that tell how patches vary, and the least variance beside the mean one.
WHITENED_IMAGES, WHITENED_PATCHES, LEAST_VARIANCE = 1000, 50_000, 1e-3
# What filters that start at random are to those that whiten.
RANDOM_FILTERS = 0.05


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


class FlipsAndShifts(nn.Module):
    """Mirror images left to right at random, and shift them by a few pixels, while training.

    Parameters
    ----------
    flip : bool
        Whether half of the images are mirrored.
    shift : int
        Largest shift in each direction, in pixels; what comes in at the border repeats it.
    """

    def __init__(self, flip: bool, shift: int) -> None:
        super().__init__()
        self.flip, self.shift = flip, shift

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(n_samples, n_channels, height, width) -> the same"""
        if not self.training:
            return images
        if self.flip:
            mirrored = torch.rand(images.shape[0], 1, 1, 1, device=images.device) < 0.5
            images = torch.where(mirrored, images.flip(3), images)
        if self.shift:
            n_places = 2 * self.shift + 1
            places = torch.randint(n_places, (2, images.shape[0]), device=images.device)
            images = shifted(images, self.shift, places)
        return images.contiguous(memory_format=torch.channels_last)


def shifted(images: torch.Tensor, most: int, places: torch.Tensor) -> torch.Tensor:
    """Cut each image (n, n_channels, height, width) out of itself with a border of ``most`` pixels around it.

    ``places`` (2, n) says how far down and to the right of the border's corner each begins, from 0 to ``2 * most``.
    """
    height, width = images.shape[2:]
    bordered = F.pad(images, (most,) * 4, mode="replicate")
    rows = places[0, :, None] + torch.arange(height, device=images.device)
    columns = places[1, :, None] + torch.arange(width, device=images.device)
    numbers = torch.arange(images.shape[0], device=images.device)[:, None, None]
    # Indices on both sides of a slice put the channels last.
    return bordered[numbers, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


class ImageStem(nn.Sequential):
    """Convolutions that halve an image several times, each with batch normalisation.

    Parameters
    ----------
    n_channels : int
    width : int
        Channels of the output.
    n_halvings : int
        0 keeps the size, by one convolution.
    """

    def __init__(self, n_channels: int, width: int, n_halvings: int) -> None:
        layers: list[nn.Module] = []
        for number in range(max(1, n_halvings)):
            kernel, stride = (4, 2) if n_halvings else (3, 1)
            n_inputs = width if number else n_channels
            layers += [
                nn.Conv2d(n_inputs, width, kernel, stride, 1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
            ]
        super().__init__(*layers)

    @torch.no_grad()
    def whiten(self, images: torch.Tensor) -> None:
        """Let the first filters start as those that make an image's patches uncorrelated, each with both signs.

        Parameters
        ----------
        images : tensor (n_samples, n_channels, height, width)
        """
        first: nn.Conv2d = self[0]  # type: ignore[assignment]
        filters = whitening_filters(images, first.kernel_size[0], first.out_channels // 2)
        if filters is not None:
            signed = torch.cat([filters, -filters])
            first.weight.normal_(0, RANDOM_FILTERS)
            first.weight[: len(signed)] = signed


def whitening_filters(images: torch.Tensor, size: int, most: int) -> torch.Tensor | None:
    """Filters (n_filters, n_channels, size, size) whose answers on these images are uncorrelated, of variance 1.

    The first ones answer to what varies most. Pixels that do not vary give None, as images smaller than a filter do.
    """
    if min(images.shape[2:]) < size:
        return None
    # Large images have millions of patches: only every few pixels one begins.
    step = math.ceil(math.sqrt(images[:, 0].numel() / WHITENED_PATCHES))
    patches = images.unfold(2, size, step).unfold(3, size, step).permute(0, 2, 3, 1, 4, 5)
    patches = patches.flatten(3).flatten(0, 2).double()
    patches = patches - patches.mean(0)
    variances, directions = torch.linalg.eigh(patches.T @ patches / len(patches))
    mean = variances.mean()
    if not mean > 0:
        return None
    scales = (variances + LEAST_VARIANCE * mean).rsqrt()
    filters = (directions * scales).T.flip(0)[:most]
    # The sign of an eigenvector is the library's; so that it is no chance, the largest number is positive.
    largest = filters.gather(1, filters.abs().argmax(1, keepdim=True))
    filters = filters * largest.sign()
    whitening: torch.Tensor = filters.reshape(-1, images.shape[1], size, size).float()
    return whitening


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
        # Not a stride of the 1x1 convolution, because of has_narrow_strides. An odd map keeps its last row.
        reduced = F.avg_pool2d(maps, self.stride, ceil_mode=True) if self.stride > 1 else maps
        return torch.relu(self.norm2(self.conv2(inner)) + self.shortcut(reduced))


def pixel_limits(X: np.ndarray) -> tuple[float, float]:
    """Values beyond which a pixel is broken: thrice the range of all but the outermost thousandths.

    Where that is many times the range of all but the outermost fortieths, these hold codes or the like, and it is
    thrice the latter's.
    """
    pixels = X.ravel()
    if pixels.size > LIMIT_PIXELS:
        pixels = pixels[np.random.default_rng(0).integers(pixels.size, size=LIMIT_PIXELS)]
    low, inner_low, inner_high, high = np.quantile(pixels, [0.001, 0.025, 0.975, 0.999])
    if 0 < FAR_RANGES * (inner_high - inner_low) < high - low:
        low, high = inner_low, inner_high
    if low == high:
        return float(X.min()), float(X.max())
    return float(2 * low - high), float(2 * high - low)
