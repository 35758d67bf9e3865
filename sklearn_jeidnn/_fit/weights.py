"""Weights of samples and of their classes as one weight for each sample."""

from typing import Any

import numpy as np
import torch
from sklearn.utils.class_weight import compute_sample_weight

from .._engines.torch_engine import as_tensors
from .._schema import InputSchema, Samples
from .datasets import SamplesDataset
from .spec import CascadeSpec


def normalised_weights(class_weight: Any, schema: InputSchema, samples: Samples) -> np.ndarray:
    """Return weights that include those of classes and have mean 1, in double precision: (n_samples,)."""
    labels = schema.classes[samples.codes]
    if isinstance(class_weight, dict):
        # scikit-learn takes weights of labels that are not there for a mistake; checks have told those.
        present = set(labels.tolist())
        class_weight = {label: w for label, w in class_weight.items() if label in present}
    of_classes = compute_sample_weight(class_weight, labels)
    # Divided by the largest first, so that no product or sum overflows.
    given, of_classes = (own / (own.max() or 1.0) for own in (samples.weights, of_classes))
    weights = given * of_classes
    if not weights.any():
        raise ValueError(
            f"class_weight={class_weight!r} (times sample_weight) is 0 for all of {len(samples)} samples; give a "
            f"weight above 0 to at least one class that is there."
        )
    normalised: np.ndarray = weights / weights.mean()
    return normalised


def as_dataset(spec: CascadeSpec, schema: InputSchema, samples: Samples) -> SamplesDataset:
    """Return samples as skorch takes them, with their normalised weights."""
    return SamplesDataset(
        as_tensors(schema.encode(samples.inputs)),
        torch.as_tensor(samples.codes),
        torch.as_tensor(np.float32(normalised_weights(spec.class_weight, schema, samples))),
    )
