"""The ready network for images, and which changes of images leave their classes alone."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ._encoding import count_blocks
from ._image_layers import (
    WHITENED_IMAGES,
    FlipsAndShifts,
    ImageBlock,
    ImageInput,
    ImageStem,
    pixel_limits,
    shifted,
)
from ._image_shapes import checked_image_shape, seen_image_shape

# The shorter side of the maps that blocks take is halved until it is less than twice this.
LEAST_MAP = 6
# Images that training shows to a network in all, and the fewest and most epochs that this may come to (decision 44).
SHOWN_IMAGES, FEWEST_EPOCHS, MOST_EPOCHS = 250_000, 20, 100
# Shifts while training are at most this share of the shorter side, and at least a pixel.
SHIFT_SHARE = 1 / 16
# The small network that tells which changes of images are bearable: its width, how it is trained, and the share of
# what it knows beyond the most frequent class that a bearable change may cost (decision 44).
TRIAL_WIDTH, TRIAL_STEPS, TRIAL_BATCH, TRIAL_LR = 16, 150, 128, 1e-2
TRIAL_IMAGES, FEWEST_TRIAL_IMAGES = 4000, 100
MOST_LOST = 0.1
# What it knows must be so many times its standard error.
CERTAIN = 4.0


class Changes(NamedTuple):
    """Random changes of images while training."""

    flip: bool
    shift: int  # pixels


class ImageResNet(nn.Module):
    """Small residual convolutional network for images of any size.

    A stem halves the images until the shorter side is below 24 pixels. The blocks come in two groups: the first
    halves maps of at least 12 pixels once more, the second halves them and doubles the width.

    Parameters
    ----------
    image_shape : tuple of int
        Shape of one sample (see :class:`ImageInput`); samples may be flattened.
    n_classes : int
    width : int, default=64
        Channels of the first group.
    n_blocks : int, default=2
        Residual blocks in all, spread evenly over the two groups.
    mean, scale : float
        Mean that is subtracted from every pixel, and scale by which it is divided.
    limits : tuple of float, default=(-inf, inf)
        Pixels below the first or above the second are set to it.
    flip : bool, default=False
        Whether images are mirrored left to right at random while training.
    shift : int, default=0
        Pixels by which images are shifted at random while training, at most.
    max_epochs : int, default=100
        Epochs that the network suggests.

    References
    ----------
    He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, section 4.2.
    Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", 2024, section 3.1 (filters that begin as whitening).
    """

    learning_rate = 8e-3

    def __init__(
        self,
        image_shape: Iterable[int],
        n_classes: int,
        *,
        width: int = 64,
        n_blocks: int = 2,
        mean: float = 0.0,
        scale: float = 1.0,
        limits: tuple[float, float] = (-np.inf, np.inf),
        flip: bool = False,
        shift: int = 0,
        max_epochs: int = MOST_EPOCHS,
    ) -> None:
        super().__init__()
        self.max_epochs = max_epochs
        self.input = ImageInput(image_shape, mean, scale, limits)
        self.changes = FlipsAndShifts(flip, shift) if flip or shift else nn.Identity()
        n_halvings = max(0, int(math.log2(max(1, min(self.input.size) / LEAST_MAP))))
        stem_width = max(1, 3 * width // 4)
        self.stem = ImageStem(self.input.n_channels, stem_width, max(0, n_halvings - 1))
        group = [2 * i // n_blocks for i in range(n_blocks)]
        widths = [width * 2**g for g in group]
        strides = [1 if g == before else 2 for before, g in zip([0, *group], group)]
        strides[0] = 2 if n_halvings else 1
        self.blocks = nn.ModuleList(
            ImageBlock(before, after, stride)
            for before, after, stride in zip([stem_width, *widths], widths, strides)
        )
        self.classifier = nn.Linear(widths[-1], n_classes)

    @classmethod
    def from_data(
        cls,
        X: np.ndarray,
        n_classes: int,
        *,
        y: np.ndarray | None = None,
        image_shape: Iterable[int] | None = None,
        flip: bool | None = None,
        shift: int | None = None,
        **params: Any,
    ) -> "ImageResNet":
        """Build a network for these training samples.

        Parameters
        ----------
        X : ndarray (n_samples, ...)
        n_classes : int
        y : ndarray of int (n_samples,), default=None
            Class codes, which tell whether the samples bear flips and shifts.
        image_shape : tuple of int, default=None
            Shape of one sample. If None, that of the samples in ``X``; needed if these are flat, or have
            more than four channels.
        flip : bool, default=None
            Whether images are mirrored while training. None does so where the samples bear it (see
            :func:`bearable_changes`); without ``y`` not.
        shift : int, default=None
            Largest shift while training, in pixels. None takes a sixteenth of the shorter side, at least 1, where
            the samples bear it; without ``y`` 0.
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
        limits = pixel_limits(X)
        pixels = np.clip(X, *limits)
        params = {
            "mean": np.mean(pixels, dtype=np.float64),
            "scale": np.std(pixels, dtype=np.float64) or 1.0,
            "limits": limits,
            "max_epochs": int(np.clip(SHOWN_IMAGES // len(X), FEWEST_EPOCHS, MOST_EPOCHS)),
            **params,
        }
        if flip is None or shift is None:
            told = Changes(False, 0) if y is None else bearable_changes(X, y, image_shape)
            flip = told.flip if flip is None else flip
            shift = told.shift if shift is None else shift
        network = cls(image_shape, n_classes, flip=flip, shift=shift, **params)
        few = torch.as_tensor(X[:WHITENED_IMAGES], dtype=torch.float32)
        network.stem.whiten(network.input(few))
        return network

    @property
    def settings(self) -> dict[str, Any]:
        """What of the network its state does not tell."""
        changes = self.changes if isinstance(self.changes, FlipsAndShifts) else Changes(False, 0)
        return {
            "image_shape": list(self.input.image_shape),
            "limits": [float(limit) for limit in self.input.limits],
            "flip": bool(changes.flip),
            "shift": int(changes.shift),
            "max_epochs": int(self.max_epochs),
        }

    @classmethod
    def of_state(
        cls, state: Mapping[str, torch.Tensor], *, limits: Iterable[float], **settings: Any
    ) -> "ImageResNet":
        """A network of the sizes of a state dict, which it does not hold yet."""
        n_classes, widest = state["classifier.weight"].shape
        n_blocks = count_blocks(state)
        low, high = limits
        return cls(
            n_classes=n_classes,
            width=widest // (2 if n_blocks > 1 else 1),
            n_blocks=n_blocks,
            limits=(low, high),
            **settings,
        )

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        """(n_samples, ...) -> logits (n_samples, n_classes)"""
        return self.of_scaled(self.changes(self.input(X)))

    def of_scaled(self, images: torch.Tensor) -> torch.Tensor:
        """(n_samples, n_channels, height, width), as the input layer scales them -> logits (n_samples, n_classes)"""
        maps = self.stem(images)
        for block in self.blocks:
            maps = block(maps)
        logits: torch.Tensor = self.classifier(maps.mean((2, 3)))
        return logits


def bearable_changes(X: np.ndarray, y: np.ndarray, image_shape: tuple[int, ...]) -> Changes:
    """Changes under which a small network still tells an image's class.

    It learns from half of the images, at most, as they are, and is asked about others as they are, mirrored, and
    shifted. See decision 44.

    Parameters
    ----------
    X : ndarray (n_samples, ...)
    y : ndarray of int (n_samples,)
        Class codes.
    image_shape : tuple of int

    Returns
    -------
    Changes
        None at all where images are too few, or the network has learned too little to tell.
    """
    some = np.random.default_rng(0).permutation(len(y))[:TRIAL_IMAGES]
    if len(some) < FEWEST_TRIAL_IMAGES:
        return Changes(False, 0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        learned, asked = np.array_split(some, 2)
        network = _trial_network(X[learned], y[learned], image_shape)
        images = network.input(torch.as_tensor(X[asked], dtype=torch.float32))
        shift = max(1, round(SHIFT_SHARE * min(network.input.size)))
        places = torch.randint(2 * shift + 1, (2, len(images)))
        codes = torch.as_tensor(y[asked])
        plain, *changed = (
            _share_right(network, asked_of, codes)
            for asked_of in (images, images.flip(3), shifted(images, shift, places))
        )
    known = plain - np.bincount(y[asked]).max() / len(asked)
    if known < CERTAIN * math.sqrt(plain * (1 - plain) / len(asked)):
        return Changes(False, 0)
    flips, shifts = (bool(plain - share <= MOST_LOST * known) for share in changed)
    return Changes(flips, shift if shifts else 0)


def _trial_network(X: np.ndarray, y: np.ndarray, image_shape: tuple[int, ...]) -> ImageResNet:
    """A small network that has learned from images as they are."""
    n_classes = int(y.max()) + 1
    network = ImageResNet.from_data(X, n_classes, image_shape=image_shape, width=TRIAL_WIDTH)
    network.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    samples, codes = torch.as_tensor(X, dtype=torch.float32), torch.as_tensor(y)
    optimizer = torch.optim.AdamW(network.parameters(), lr=TRIAL_LR)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, TRIAL_STEPS)
    with torch.enable_grad():
        for _ in range(TRIAL_STEPS):
            rows = torch.randint(len(codes), (TRIAL_BATCH,))
            optimizer.zero_grad()
            F.cross_entropy(network(samples[rows]), codes[rows]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return network.eval()


@torch.no_grad()
def _share_right(network: ImageResNet, images: torch.Tensor, codes: torch.Tensor) -> float:
    """How often a network is right about images that its input layer has scaled."""
    answers = [network.of_scaled(part).argmax(1) for part in torch.split(images, TRIAL_BATCH)]
    return float((torch.cat(answers) == codes).double().mean())
