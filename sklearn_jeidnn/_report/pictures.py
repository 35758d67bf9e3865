"""Small pictures of images, as PNG."""

import base64
import math
import struct
import zlib
from dataclasses import dataclass

import numpy as np

from .._image_shapes import has_channels_last

# Longest side of a picture, in pixels: as many as a page shows.
LONGEST_SIDE = 72
GREY, COLOUR = 0, 2
SIGNATURE = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Images as a user gives them.

    Parameters
    ----------
    images : ndarray (n_samples, height, width) or (n_samples, height, width, channels)
    low, high : float
        What is black and what is white.
    """

    images: np.ndarray
    low: float
    high: float

    @classmethod
    def of(cls, images: np.ndarray, image_shape: tuple[int, ...]) -> "Pictures":
        """Images (n_samples, ...) of any numbers: the largest is white, the smallest black, and 0 if none is less."""
        shaped = images.reshape(len(images), *image_shape)
        if len(image_shape) == 3 and not has_channels_last(image_shape):
            shaped = np.moveaxis(shaped, 1, -1)
        return cls(images=shaped, low=min(0.0, float(images.min())), high=float(images.max()))

    def data_uri(self, i: int) -> str:
        """The picture of image ``i``, to be written into a page."""
        grey = (self.images[i].astype(np.float64) - self.low) / max(self.high - self.low, 1e-12)
        pixels = np.round(255 * _of_screen(_shrunk(grey))).astype(np.uint8)
        return "data:image/png;base64," + base64.b64encode(as_png(pixels)).decode()


def _shrunk(image: np.ndarray) -> np.ndarray:
    """An image of at most ``LONGEST_SIDE``, of the means of its blocks."""
    step = math.ceil(max(image.shape[:2]) / LONGEST_SIDE)
    height, width = (max(1, side // step) for side in image.shape[:2])
    down, right = min(step, image.shape[0]), min(step, image.shape[1])
    blocks = image[: height * down, : width * right].reshape(height, down, width, right, -1)
    means: np.ndarray = blocks.mean(axis=(1, 3))
    return means


def _of_screen(image: np.ndarray) -> np.ndarray:
    """The three colours of an image (height, width, channels), or its mean over channels: (height, width, 3 or 1)."""
    has_colours = image.shape[-1] in (3, 4)
    return image[..., :3] if has_colours else image.mean(axis=-1, keepdims=True)


def as_png(pixels: np.ndarray) -> bytes:
    """Pixels of bytes (height, width, 1 or 3) as a file: ISO/IEC 15948."""
    height, width, channels = pixels.shape
    kind = GREY if channels == 1 else COLOUR
    header = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)
    # Each line begins with its filter, 0 for none.
    lines = np.pad(pixels.reshape(height, -1), ((0, 0), (1, 0)))
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b"")]
    return SIGNATURE + b"".join(_chunk(name, data) for name, data in chunks)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
