"""Which axes of an image are its channels, height and width (no torch)."""

import operator
from collections.abc import Iterable

# Of an image whose shape is seen, not given.
MAX_IMAGE_CHANNELS = 4


def checked_image_shape(image_shape: Iterable[int]) -> tuple[int, ...]:
    """An image shape that a user gives, as a tuple of int, if it is one."""
    try:
        shape = tuple(map(operator.index, image_shape))
    except TypeError:
        shape = ()
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise ValueError(
            f"image_shape={image_shape!r} is not the shape of an image; give (height, width), (channels, height, "
            f"width) or (height, width, channels)."
        )
    return shape


def seen_image_shape(sample_shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a sample of ``X``, if it can be seen to be that of an image."""
    channels_fit = len(sample_shape) == 2 or (
        len(sample_shape) == 3 and min(sample_shape[0], sample_shape[-1]) <= MAX_IMAGE_CHANNELS
    )
    if not channels_fit or min(sample_shape) < 1:
        more = f" For images of more channels give module__image_shape={sample_shape}."
        raise ValueError(
            f"X has samples of shape {sample_shape}, which is not the shape of an image: (height, width), (channels, "
            f"height, width) or (height, width, channels) with at most {MAX_IMAGE_CHANNELS} channels."
            f"{more * (len(sample_shape) == 3)}"
        )
    return sample_shape


def has_channels_last(image_shape: tuple[int, ...]) -> bool:
    """Whether the last of three axes holds the channels.

    At most four channels decide; else a height that equals the width; else the shorter one of the first
    and the last axis. Where both ends fit alike, channels come first, as in torch.
    """
    if len(image_shape) == 2 or image_shape[0] <= MAX_IMAGE_CHANNELS:
        return False
    first, middle, last = image_shape
    if last <= MAX_IMAGE_CHANNELS:
        return True
    if (first == middle) != (middle == last):
        return first == middle
    return last < first
