"""Samples as a user gives them, as they can be shown: images, rows of a table, or text."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._cells import is_missing
from .._given import as_array_like
from .._image_shapes import MAX_IMAGE_CHANNELS
from .._table_columns import iter_columns
from .pictures import Pictures

MOST_WORDS = 40
MOST_CHARACTERS = 40
# Shares of rarer categories say little of the samples at an exit.
LEAST_SHARE = 0.05
# From here on numbers are shown without digits after the point.
LARGE = 1e4


@dataclass(frozen=True, kw_only=True)
class Texts:
    """Sentences (n_samples,)."""

    texts: np.ndarray

    def words(self, i: int) -> str:
        """The first words of a sentence."""
        words = str(self.texts[i]).split()
        return " ".join(words[:MOST_WORDS]) + " …" * (len(words) > MOST_WORDS)


@dataclass(frozen=True, kw_only=True)
class Feature:
    """A column whose values at an exit differ from those elsewhere.

    Parameters
    ----------
    name : str
    here, elsewhere : str
        Mean of the samples at the exit and of the others; of a category its share.
    values : ndarray (n_samples,)
        Of all samples.
    """

    name: str
    here: str
    elsewhere: str
    values: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Table:
    """Columns of a table by name: dict of str to ndarray (n_samples,)."""

    columns: dict[str, np.ndarray]

    def telling(self, here: np.ndarray, n_features: int) -> list[Feature]:
        """The columns in which samples at an exit, where ``here`` (n_samples,) is True, differ most from the others."""
        found = [_contrast(name, values, here) for name, values in self.columns.items()]
        order = np.argsort([-size for size, _ in found], kind="stable")[:n_features]
        return [found[i][1] for i in order]


Shown = Pictures | Table | Texts


def _contrast(name: str, values: np.ndarray, here: np.ndarray) -> tuple[float, Feature]:
    """A column, and how far its values here are from those elsewhere, in standard deviations."""
    if values.dtype.kind in "biuf":
        return _contrast_of_numbers(name, values, here)
    return _contrast_of_words(name, np.array([as_text(value) for value in values]), here)


def _contrast_of_numbers(name: str, values: np.ndarray, here: np.ndarray) -> tuple[float, Feature]:
    numbers = values.astype(np.float64)
    known = np.isfinite(numbers)
    parts = numbers[known & here], numbers[known & ~here]
    means = [float(part.mean()) if len(part) else np.nan for part in parts]
    spread = float(numbers[known].std()) if known.any() else 0.0
    size = abs(means[0] - means[1]) / spread if spread > 0 else 0.0
    texts = [f"mean {as_text(mean)}" for mean in means]
    feature = Feature(name=name, here=texts[0], elsewhere=texts[1], values=values)
    return float(np.nan_to_num(size)), feature


def _contrast_of_words(name: str, words: np.ndarray, here: np.ndarray) -> tuple[float, Feature]:
    known, numbers = np.unique(words, return_inverse=True)
    shares = [
        np.bincount(numbers[part], minlength=len(known)) / max(part.sum(), 1)
        for part in (here, ~here)
    ]
    share = np.bincount(numbers) / len(words)
    spread = np.sqrt(np.maximum(share * (1 - share), 1e-12))
    sizes = np.where(share >= LEAST_SHARE, np.abs(shares[0] - shares[1]) / spread, 0.0)
    most = int(sizes.argmax())
    texts = [f"{own[most]:.0%} {known[most]}" for own in shares]
    size = 0.0 if here.all() else float(sizes[most])
    return size, Feature(name=name, here=texts[0], elsewhere=texts[1], values=words)


def as_text(value: Any) -> str:
    """A cell of a table, cut where it is long."""
    value = value.item() if isinstance(value, np.generic) else value
    if is_missing(value):
        return "missing"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < LARGE else f"{value:,.0f}"
    text = " ".join(str(value).split())
    return text if len(text) <= MOST_CHARACTERS else text[: MOST_CHARACTERS - 1] + "…"


def shown_samples(
    X: Any, image_shape: tuple[int, ...] | None, *, is_certain: bool = True
) -> Shown | None:
    """What can be shown of samples as a user gives them; None if nothing can.

    Parameters
    ----------
    X : array-like (n_samples, ...)
    image_shape : tuple of int or None
        Of images whose pixels stand in a row.
    is_certain : bool, default=True
        Whether samples that do not have this shape are refused.
    """
    array = _as_array(X)
    if image_shape is not None:
        fits = array is not None and array[0].size == math.prod(image_shape)
        if fits and array is not None:
            return Pictures.of(array, image_shape)
        if is_certain:
            raise ValueError(
                f"image_shape={image_shape} takes samples of {math.prod(image_shape)} numbers without gaps, and X has "
                f"others; give the shape of one sample of X, or leave image_shape out."
            )
    if array is not None and _is_image(array.shape[1:]):
        return Pictures.of(array, array.shape[1:])
    if _is_text(X):
        return Texts(texts=np.asarray(X, dtype=object))
    return _table(X)


def _as_array(X: Any) -> np.ndarray | None:
    """Samples as an array of finite numbers (n_samples, ...), if that is what they are."""
    if isinstance(X, Mapping) or _is_text(X):
        return None
    given = as_array_like(X)
    array = np.asarray(given.toarray() if hasattr(given, "toarray") else given)
    is_numbers = array.dtype.kind in "biuf" and array.ndim > 1 and array.size > 0
    return array if is_numbers and np.isfinite(array).all() else None


def _is_text(X: Any) -> bool:
    """Whether samples are sentences: a list, an array or a column of text."""
    is_column = getattr(X, "ndim", 0) == 1 and hasattr(X, "dtype")
    if not is_column and not isinstance(X, list | tuple):
        return False
    return len(X) > 0 and all(isinstance(value, str) for value in X)


def _is_image(shape: tuple[int, ...]) -> bool:
    """Whether samples of this shape look like images."""
    if len(shape) == 3:
        return min(shape[0], shape[-1]) <= MAX_IMAGE_CHANNELS
    return len(shape) == 2


def _table(X: Any) -> Table | None:
    """Columns by name, those of an array by number; None if there are none."""
    is_frame = hasattr(X, "columns") and hasattr(X, "dtypes")
    if not is_frame:
        X = None if isinstance(X, Mapping) else np.asarray(as_array_like(X))
        if X is None or X.ndim != 2 or X.dtype.kind not in "biufOUS":
            return None
    found = [(name, values) for name, values, _ in iter_columns(X)]
    names = [str(name) if is_frame else f"column {name}" for name, _ in found]
    # Columns of one name are shown once.
    return Table(columns=dict(zip(names, (values for _, values in found), strict=True)))
