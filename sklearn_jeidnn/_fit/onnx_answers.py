"""What graphs of classifiers that are made here have in common: their first column, their end, their format."""

from typing import Any

import numpy as np

from .._cells import UNSEEN
from .._engines.onnx_graphs import ANSWERS, NUMBERS, OPSET
from .classifiers import ClassifierStage

# Of the operators for trees, and of the format that ONNX Runtime 1.17 reads.
TREES_OPSET, IR_VERSION = 3, 9
LOG_PROBABILITIES = "log_probabilities"


class Positions:
    """Positions of categories in some columns of a table, as places in one array that holds something for each.

    Each column has a place for each position from ``UNSEEN`` to one that no category has, and one for missing values.

    Parameters
    ----------
    columns : ndarray (n_columns,)
        Of the table.
    sizes : sequence of int (n_columns,)
        How many places each has.
    """

    def __init__(self, columns: np.ndarray, sizes: Any) -> None:
        self.columns = columns
        self.sizes = np.asarray(sizes)

    @staticmethod
    def all_of(categories: np.ndarray) -> np.ndarray:
        """What stands at the places of a column with these positions, NaN among them or not: float32 (n_places,)."""
        highest = np.max(categories[~np.isnan(categories)], initial=UNSEEN)
        known = np.arange(UNSEEN, highest + 2, dtype=np.float32)
        return np.append(known, np.float32(np.nan))

    def steps(self, table: str, places: str) -> list[Any]:
        """Nodes of a graph, from a table to places (n_samples, n_columns)."""
        from onnx import TensorProto, helper

        node = helper.make_node
        return [
            node("Gather", [table, "category_columns"], ["positions"], axis=1),
            # No number compares with NaN, which no integer holds.
            node("GreaterOrEqual", ["positions", "unseen"], ["is_known"]),
            node("Min", ["positions", "unknown"], ["bounded"]),
            node("Where", ["is_known", "bounded", "missing"], ["found"]),
            node("Cast", ["found"], ["whole"], to=TensorProto.INT32),
            node("Add", ["whole", "starts"], [places]),
        ]

    def constants(self) -> dict[str, np.ndarray]:
        """Arrays that the nodes read, by name."""
        sizes = self.sizes
        last = sizes - 1 + int(UNSEEN)
        return {
            "category_columns": self.columns.astype(np.int64),
            "unseen": np.array(UNSEEN, dtype=np.float32),
            "unknown": (last - 1).astype(np.float32),
            "missing": last.astype(np.float32),
            "starts": (np.cumsum(sizes) - sizes - int(UNSEEN)).astype(np.int32),
        }


def log_probabilities_of(scores: str, n_scores: int) -> list[Any]:
    """Nodes from logits to ``LOG_PROBABILITIES``; a lone one is that of the second of two classes."""
    from onnx import helper

    steps = []
    if n_scores == 1:
        steps = [
            helper.make_node("Sub", [scores, scores], ["of_first"]),
            helper.make_node("Concat", ["of_first", scores], ["of_both"], axis=1),
        ]
        scores = "of_both"
    return [*steps, helper.make_node("LogSoftmax", [scores], [LOG_PROBABILITIES], axis=1)]


def as_model(steps: list[Any], constants: dict[str, np.ndarray], stage: ClassifierStage) -> bytes:
    """Return nodes up to ``LOG_PROBABILITIES`` of a classifier's own classes as the graph of a stage.

    Parameters
    ----------
    steps : list of onnx.NodeProto
    constants : dict of ndarray
        What they read, by name.
    stage : ClassifierStage
        Whose floor probabilities have, and whose classes the answers are of.
    """
    from onnx import TensorProto, helper, numpy_helper

    own = LOG_PROBABILITIES
    constants = {**constants, "least": np.log(stage.least_probability, dtype=np.float32)}
    columns, n_classes = stage.columns, stage.schema.n_classes
    if not np.array_equal(columns, np.arange(n_classes)):
        # A column more, which classes have that the classifier has not seen.
        of_class = np.full(n_classes, len(columns))
        of_class[columns] = np.arange(len(columns))
        constants |= {"one_more": np.array([0, 1]), "of_class": of_class, "classes": np.array([1])}
        steps = [
            *steps,
            helper.make_node("Pad", [own, "one_more", "least", "classes"], ["with_unseen"]),
            helper.make_node("Gather", ["with_unseen", "of_class"], ["of_all"], axis=1),
        ]
        own = "of_all"
    graph = helper.make_graph(
        [*steps, helper.make_node("Max", [own, "least"], [ANSWERS])],
        "classifier",
        [helper.make_tensor_value_info(NUMBERS, TensorProto.FLOAT, ["n", None])],
        [helper.make_tensor_value_info(ANSWERS, TensorProto.FLOAT, ["n", None])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", TREES_OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
    data: bytes = model.SerializeToString()
    return data
