"""All labels of a classifier: given, those of an earlier fit, or those of the samples."""

from typing import Any

import numpy as np


def all_classes_of(y: np.ndarray, classes: Any, likely: np.ndarray | None) -> np.ndarray:
    """All labels, sorted."""
    found: np.ndarray = np.unique(y)
    if classes is not None:
        return _checked_classes(classes, found)
    if likely is not None and set(found.tolist()) <= set(likely.tolist()):
        return np.sort(likely)
    if len(found) < 2:
        raise ValueError(
            f"y has {len(found)} class (of samples with sample_weight above 0); a classifier "
            f"needs at least 2 classes."
        )
    return found


def _checked_classes(classes: Any, found: np.ndarray) -> np.ndarray:
    labels = np.asarray(classes)
    known: np.ndarray = np.unique(labels)
    if labels.ndim != 1 or len(known) < 2 or len(known) != len(labels):
        raise ValueError(
            f"classes={classes!r} must be at least two different labels, each once, in the order of the module's "
            f"logits."
        )
    unknown = [label for label in found.tolist() if label not in set(known.tolist())]
    if unknown:
        raise ValueError(
            f"y has labels {unknown[:5]} that are not in classes={labels[:12].tolist()}; classes must name every "
            f"label, in the order of the module's logits."
        )
    return known
