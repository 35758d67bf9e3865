"""Classifiers that are made here as ONNX graphs, from a table's numbers to logits."""

from typing import Any

from .classifiers import ClassifierStage
from .onnx_linear import linear_as_onnx
from .onnx_trees import trees_as_onnx


def classifier_as_onnx(stage: Any, most_nodes: int | None = None) -> bytes | None:
    """Return the graph of a stage that is a classifier made here, a serialised ``onnx.ModelProto``; None of any other.

    It takes ``NUMBERS`` (n_samples, n_features), float32, and returns ``ANSWERS`` (n_samples, n_classes). Trees of more
    than ``most_nodes`` nodes (by default ``onnx_trees.MOST_NODES``) have none.
    """
    if not isinstance(stage, ClassifierStage) or not stage.as_numbers:
        return None
    return linear_as_onnx(stage) or trees_as_onnx(stage, most_nodes)
