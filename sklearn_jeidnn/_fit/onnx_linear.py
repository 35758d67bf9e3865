"""The linear model in front of a slow classifier as an ONNX graph, from a table's numbers to logits."""

from typing import Any, NamedTuple

import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder

from .._engines.onnx_graphs import NUMBERS
from .classifiers import ClassifierStage
from .onnx_answers import Positions, as_model, log_probabilities_of

# Positions of categories that are encoded at once: an encoder answers a column for each category of each column.
ENCODED_AT_ONCE = 1000


class _Term(NamedTuple):
    """What some columns of a table add to the scores."""

    name: str  # (n_samples, n_scores)
    steps: list[Any]  # nodes from a table to it
    constants: dict[str, np.ndarray]  # what they read
    rest: np.ndarray  # (n_scores,), what is added for every sample


def linear_as_onnx(stage: ClassifierStage) -> bytes | None:
    """Return the graph of a stage that is the linear model made here; None of any other classifier."""
    if not _is_linear(stage.classifier):
        return None
    columns, model = stage.classifier
    # What has no columns is not fitted.
    terms = [
        _TERMS[name](part, np.asarray(own), model.coef_[:, columns.output_indices_[name]].T)
        for name, part, own in columns.transformers_
        if len(own)
    ]
    intercept = sum([term.rest for term in terms], start=model.intercept_)
    constants = {"intercept": intercept.astype(np.float32)}
    for term in terms:
        constants |= term.constants
    steps = [step for term in terms for step in term.steps]
    steps += _sum_of([term.name for term in terms])
    return as_model([*steps, *log_probabilities_of("scores", len(intercept))], constants, stage)


def _is_linear(classifier: Any) -> bool:
    """Whether a classifier is one behind columns of their own."""
    if not isinstance(classifier, Pipeline) or len(classifier) != 2:
        return False
    columns, model = classifier
    return isinstance(columns, ColumnTransformer) and isinstance(model, LogisticRegression)


def _of_numbers(part: Pipeline, columns: np.ndarray, weights: np.ndarray) -> _Term:
    """Numbers, scaled, and whether they are missing; weights are (n_columns + n_indicators, n_scores)."""
    imputer, scaler = part
    n = len(columns)
    fill = imputer.transform(np.full((1, n), np.nan, dtype=np.float32))[0, :n]
    of_missing = np.zeros((n, weights.shape[1]))
    of_missing[imputer.indicator_.features_] = weights[n:] / scaler.scale_[n:, None]
    mean = scaler.mean_[:n].astype(np.float32)
    constants = {
        "number_columns": columns.astype(np.int64),
        "fill": fill.astype(np.float32),
        "mean": mean,
        "scale": scaler.scale_[:n].astype(np.float32),
        "weights": np.concatenate([weights[:n], of_missing]).astype(np.float32),
    }
    # Versions of scikit-learn differ in whether they subtract the rounded mean or the mean itself.
    none_missing = np.zeros(len(weights) - n, dtype=np.float32)
    rest = scaler.transform(np.append(mean, none_missing)[None])[0] @ weights
    return _Term("of_numbers", _steps_of_numbers(), constants, rest)


def _steps_of_numbers() -> list[Any]:
    from onnx import TensorProto, helper

    node = helper.make_node
    return [
        node("Gather", [NUMBERS, "number_columns"], ["of_columns"], axis=1),
        node("IsNaN", ["of_columns"], ["is_missing"]),
        node("Where", ["is_missing", "fill", "of_columns"], ["filled"]),
        node("Sub", ["filled", "mean"], ["centred"]),
        node("Div", ["centred", "scale"], ["scaled"]),
        node("Cast", ["is_missing"], ["missing_as_numbers"], to=TensorProto.FLOAT),
        node("Concat", ["scaled", "missing_as_numbers"], ["all_numbers"], axis=1),
        node("MatMul", ["all_numbers", "weights"], ["of_numbers"]),
    ]


def _of_categories(encoder: OneHotEncoder, columns: np.ndarray, weights: np.ndarray) -> _Term:
    """Categories, each position of which adds what stands in a table."""
    from onnx import helper

    places = [Positions.all_of(own) for own in encoder.categories_]
    positions = Positions(columns, [len(own) for own in places])
    steps = [
        *positions.steps(NUMBERS, "places"),
        helper.make_node("Gather", ["table", "places"], ["of_each"], axis=0),
        helper.make_node("ReduceSum", ["of_each", "columns"], ["of_categories"], keepdims=0),
    ]
    table = _added_by(encoder, places, weights)
    constants = {**positions.constants(), "table": table, "columns": np.array([1])}
    return _Term("of_categories", steps, constants, np.zeros(weights.shape[1]))


def _added_by(encoder: OneHotEncoder, places: list[np.ndarray], weights: np.ndarray) -> np.ndarray:
    """What the positions of all columns add to the scores, one after the other: float32 (n_places, n_scores)."""
    ends = np.cumsum(_widths(encoder))
    added = []
    for k, own in enumerate(places):
        block = slice(ends[k - 1] if k else 0, ends[k])
        for some in np.array_split(own, np.arange(ENCODED_AT_ONCE, len(own), ENCODED_AT_ONCE)):
            encoded = encoder.transform(np.tile(some[:, None], len(places)))
            added.append(encoded[:, block] @ weights[block])
    return np.concatenate(added).astype(np.float32)


def _widths(encoder: OneHotEncoder) -> list[int]:
    """How many columns an encoder answers for each of its own; infrequent categories share one."""
    infrequent = getattr(encoder, "infrequent_categories_", [None] * len(encoder.categories_))
    return [
        len(own) if rare is None else len(own) - len(rare) + 1
        for own, rare in zip(encoder.categories_, infrequent, strict=True)
    ]


def _sum_of(terms: list[str]) -> list[Any]:
    """Nodes that add terms and the intercept."""
    from onnx import helper

    names = ["intercept", *terms]
    sums = ["intercept", *(f"sum.{k}" for k in range(len(terms) - 1)), "scores"]
    return [
        helper.make_node("Add", [sums[k], names[k + 1]], [sums[k + 1]]) for k in range(len(terms))
    ]


# By the names that a ColumnTransformer gives its parts.
_TERMS = {"remainder": _of_numbers, "onehotencoder": _of_categories}
