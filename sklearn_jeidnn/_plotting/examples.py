"""What samples are like that leave at an exit: some of their images, or means of a table's features."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from .._given import as_numpy, is_tensor
from .._image_shapes import checked_image_shape, has_channels_last, seen_image_shape

# Samples of a feature that are told as a category at most.
MOST_CATEGORIES = 20


class ExampleImages(NamedTuple):
    """Images drawn at random at each exit."""

    images: list[np.ndarray]  # for each exit (n_examples, height, width, 1 or 3), from 0 to 1
    captions: list[list[str]]  # for each exit, of each image
    are_wrong: list[np.ndarray]  # for each exit, whether the label of an image is wrong


class FeatureMeans(NamedTuple):
    """Means of the features in which exits differ most."""

    names: list[str]  # (n_features,)
    means: np.ndarray  # (n_features, n_exits), NaN where no sample leaves
    overall: np.ndarray  # (n_features,)
    deviations: (
        np.ndarray
    )  # (n_features, n_exits), of the means, in standard deviations of the samples
    are_shares: np.ndarray  # (n_features,), whether means are shares of a category


def images_of(X: Any, image_shape: Iterable[int] | None) -> np.ndarray | None:
    """Images (n_samples, height, width, 1 or 3) from 0 to 1; None if samples are rows of a table.

    Parameters
    ----------
    X : array-like (n_samples, ...)
    image_shape : tuple of int or None
        Of flattened images.
    """
    array = _as_array(X)
    if image_shape is not None:
        shape = checked_image_shape(image_shape)
        if array is None or array[0].size != np.prod(shape):
            came = "a frame" if array is None else f"samples of shape {array.shape[1:]}"
            raise ValueError(f"image_shape={shape} does not fit X, which has {came}.")
        array = array.reshape(len(array), *shape)
    if array is None or array.ndim == 2:
        return None
    return _drawable(array, seen_image_shape(array.shape[1:]) if image_shape is None else shape)


def _as_array(X: Any) -> np.ndarray | None:
    """Samples as an array; None if they are a frame."""
    if hasattr(X, "columns"):
        return None
    array = np.asarray(as_numpy(X, "X") if is_tensor(X) else X)
    if array.ndim < 2 or not len(array):
        raise ValueError(
            f"X has shape {array.shape}; ExitExamplesDisplay draws images (n_samples, height, width), with channels or "
            f"flattened, and tables (n_samples, n_features) of at least one sample."
        )
    return array


def _drawable(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Images with channels last, one or three of them, from 0 to 1."""
    if len(shape) == 2:
        array = array[..., None]
    elif not has_channels_last(shape):
        array = np.moveaxis(array, 1, -1)
    if array.shape[-1] != 3:
        array = array[..., :3] if array.shape[-1] > 3 else array[..., :1]
    numbers = np.nan_to_num(array.astype(np.float32))
    low, high = numbers.min(), numbers.max()
    scaled: np.ndarray = (numbers - low) / max(high - low, np.float32(1e-12))
    return scaled


def example_images(
    images: np.ndarray,
    exit_index: np.ndarray,
    n_exits: int,
    *,
    labels: tuple[np.ndarray | None, np.ndarray | None],
    n_examples: int,
    rng: np.random.RandomState,
) -> ExampleImages:
    """Draw images at random, without replacement, among those that leave at each exit.

    Parameters
    ----------
    images : ndarray (n_samples, height, width, n_channels)
    exit_index : ndarray of int (n_samples,)
    n_exits : int
    labels : pair of (ndarray (n_samples,) or None)
        Predicted and true labels, as far as they are known.
    n_examples : int
        Most images of an exit.
    rng : RandomState
    """
    predicted, true = labels
    rows = [rng.permutation(np.flatnonzero(exit_index == i))[:n_examples] for i in range(n_exits)]
    wrong = np.zeros(len(images), dtype=bool)
    if predicted is not None and true is not None:
        wrong = predicted != true
    captions = [[_caption(predicted, true, wrong, row) for row in own] for own in rows]
    return ExampleImages([images[own] for own in rows], captions, [wrong[own] for own in rows])


def _caption(
    predicted: np.ndarray | None, true: np.ndarray | None, wrong: np.ndarray, row: int
) -> str:
    """The label answered; if it is wrong, the true one, too."""
    if predicted is None:
        return "" if true is None else str(true[row])
    return (
        f"{predicted[row]}\nnot {true[row]}"
        if true is not None and wrong[row]
        else str(predicted[row])
    )


def feature_means(
    X: Any,
    exit_index: np.ndarray,
    n_exits: int,
    *,
    feature_names: Sequence[str] | None,
    n_features: int,
) -> FeatureMeans:
    """Means by exit of the features in which exits differ most.

    Features are ordered by how far the mean of a sample's exit lies from that of all samples, on average over the
    samples, in standard deviations. A column of words is one feature for each of its most frequent words, the share of
    samples that have it; of two words for the more frequent one.

    Parameters
    ----------
    X : frame or array-like (n_samples, n_features)
    exit_index : ndarray of int (n_samples,)
    n_exits : int
    feature_names : sequence of str or None
        None takes the frame's, else numbers.
    n_features : int
        Most features.
    """
    names, values, are_shares = _features(X, feature_names)
    overall, spread = _mean(values), _spread(values)
    of_exits = [values[exit_index == i] for i in range(n_exits)]
    means = np.stack([_mean(own) for own in of_exits], axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        deviations = (means - overall[:, None]) / spread[:, None]
    counts = np.bincount(exit_index, minlength=n_exits)
    distances = np.where(np.isfinite(deviations), np.abs(deviations), 0) @ counts
    most = np.argsort(-distances, kind="stable")[:n_features]
    return FeatureMeans(
        [names[i] for i in most], means[most], overall[most], deviations[most], are_shares[most]
    )


def _mean(values: np.ndarray) -> np.ndarray:
    """Means of columns without values that are missing; NaN if there are none."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        mean: np.ndarray = np.where(known, values, 0).sum(axis=0) / known.sum(axis=0)
    return mean


def _spread(values: np.ndarray) -> np.ndarray:
    """Standard deviations of columns without values that are missing."""
    spread: np.ndarray = np.sqrt(_mean((values - _mean(values)) ** 2))
    return spread


def _features(
    X: Any, feature_names: Sequence[str] | None
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Names, values (n_samples, n_features) and whether these say that a sample has a category (n_features,)."""
    columns = _columns(X)
    own_names = [str(name) for name in X.columns] if hasattr(X, "columns") else None
    numbered = own_names or [f"feature {i}" for i in range(len(columns))]
    names = numbered if feature_names is None else [str(name) for name in feature_names]
    if len(names) != len(columns):
        raise ValueError(f"feature_names has {len(names)} names, but X has {len(columns)} columns.")
    found = [
        feature for name, column in zip(names, columns) for feature in _of_column(name, column)
    ]
    values = np.stack([values for _, values, _ in found], axis=1)
    return [name for name, _, _ in found], values, np.array([is_share for *_, is_share in found])


def _columns(X: Any) -> list[np.ndarray]:
    if not hasattr(X, "columns"):
        return list(np.asarray(X).T)
    return [np.asarray(X[name]) for name in X.columns]


def _of_column(name: str, column: np.ndarray) -> list[tuple[str, np.ndarray, bool]]:
    """A column of numbers as it is, another one as whether a sample has each of its most frequent values."""
    if column.dtype.kind in "iuf":
        return [(name, column.astype(float), False)]
    try:
        return [(name, column.astype(float), column.dtype.kind == "b")]
    except (TypeError, ValueError):
        words = column.astype(str)
    known, counts = np.unique(words, return_counts=True)
    n_told = 1 if len(known) == 2 else MOST_CATEGORIES
    most = known[np.argsort(-counts, kind="stable")[:n_told]]
    return [(f"{name} = {word}", (words == word).astype(float), True) for word in most.tolist()]
