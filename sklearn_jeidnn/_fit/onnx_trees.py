"""Fitted trees as ONNX graphs, from a table's numbers to logits.

skl2onnx 1.20 sends missing values of extremely randomised trees the wrong way, and refuses boosted trees of several
classes of scikit-learn 1.9.
"""

from typing import Any, NamedTuple

import numpy as np
from sklearn.ensemble import ExtraTreesClassifier, HistGradientBoostingClassifier
from sklearn.pipeline import Pipeline

from .._engines.onnx_graphs import NUMBERS
from .classifiers import ClassifierStage
from .onnx_answers import LOG_PROBABILITIES, as_model, log_probabilities_of
from .onnx_categories import CategorySplits, category_splits, columns_of_features
from .trees import MOST_EXTRA_SAMPLES, N_EXTRA, DistilledExtraTrees

# As many as the trees that are made here may have; larger ones stay in scikit-learn. A graph takes 35 bytes a node.
MOST_NODES = 2 * N_EXTRA * MOST_EXTRA_SAMPLES
# A table with the columns of zeros and ones that stand for sets of categories.
WITH_SETS = "with_sets"


class _Nodes(NamedTuple):
    """Nodes of one tree; of leaves only the weights are read."""

    feature: np.ndarray  # (n_nodes,)
    threshold: np.ndarray  # (n_nodes,), up to which a sample goes to the left
    left: np.ndarray  # (n_nodes,)
    right: np.ndarray  # (n_nodes,)
    missing_left: np.ndarray  # (n_nodes,), whether a missing value goes to the left
    is_leaf: np.ndarray  # (n_nodes,)
    weights: np.ndarray  # (n_nodes, n_targets), what a leaf adds


def trees_as_onnx(stage: ClassifierStage, most_nodes: int | None = None) -> bytes | None:
    """Return the graph of a stage that is trees; None of any other classifier, and of larger ones.

    Trees of more than ``most_nodes`` nodes (by default ``MOST_NODES``) are larger.
    """
    most_nodes = MOST_NODES if most_nodes is None else most_nodes
    model = _model_of(stage.classifier)
    if model is None or sum(len(tree.feature) for tree in model.nodes) > most_nodes:
        return None
    return model.serialised(stage)


def _model_of(classifier: Any) -> "_Model | None":
    """What a fitted classifier computes; None if it is no trees."""
    # Boosted trees may stand behind an encoder.
    before, trees = classifier if isinstance(classifier, Pipeline) else (None, classifier)
    if isinstance(trees, HistGradientBoostingClassifier):
        splits = category_splits(trees, before)
        columns = columns_of_features(trees, before)
        n_columns = (before or trees).n_features_in_
        nodes = _boosted_nodes(trees, columns, splits, n_columns)
        return _Model(nodes, trees._baseline_prediction.ravel(), splits, is_boosted=True)
    if isinstance(trees, ExtraTreesClassifier | DistilledExtraTrees):
        nodes = [_extra_nodes(tree.tree_, len(trees.estimators_)) for tree in trees.estimators_]
        return _Model(nodes, np.zeros(len(trees.classes_)), None, is_boosted=False)
    return None


def _boosted_nodes(
    trees: HistGradientBoostingClassifier,
    columns: np.ndarray,
    splits: CategorySplits | None,
    n_columns: int,
) -> list[_Nodes]:
    """Nodes of all trees; those that ask for a category read a column that stands behind those of the table."""
    predictors = [
        (target, tree)
        for of_iteration in trees._predictors
        for target, tree in enumerate(of_iteration)
    ]
    found = []
    for i, (target, tree) in enumerate(predictors):
        nodes = tree.nodes
        number = np.full(len(nodes), -1) if splits is None else splits.set_of_nodes[i]
        of_set = number >= 0
        weights = np.zeros((len(nodes), trees.n_trees_per_iteration_))
        weights[:, target] = nodes["value"]
        found.append(
            _Nodes(
                feature=np.where(of_set, n_columns + number, columns[nodes["feature_idx"]]),
                threshold=np.where(of_set, 0.5, nodes["num_threshold"]),
                left=nodes["left"],
                right=nodes["right"],
                missing_left=nodes["missing_go_to_left"],
                is_leaf=nodes["is_leaf"].astype(bool),
                weights=weights,
            )
        )
    return found


def _extra_nodes(tree: Any, n_trees: int) -> _Nodes:
    return _Nodes(
        feature=tree.feature,
        threshold=tree.threshold,
        left=tree.children_left,
        right=tree.children_right,
        missing_left=tree.missing_go_to_left,
        is_leaf=tree.children_left == tree.children_right,
        weights=tree.value.reshape(tree.node_count, -1) / n_trees,
    )


class _Model(NamedTuple):
    """Trees, and what their sums are."""

    nodes: list[_Nodes]
    base: np.ndarray  # (n_targets,)
    splits: CategorySplits | None
    is_boosted: bool  # the sums are logits, else probabilities

    def serialised(self, stage: ClassifierStage) -> bytes:
        """Trees, their sum, and logarithms of the probabilities that follow."""
        if self.splits is None:
            return as_model(self._steps(NUMBERS), {}, stage)
        before = self.splits.steps(NUMBERS, WITH_SETS)
        return as_model([*before, *self._steps(WITH_SETS)], self.splits.constants(), stage)

    def _steps(self, table: str) -> list[Any]:
        """Nodes of the graph, from a table to the logarithms."""
        from onnx import helper

        n_targets = self.nodes[0].weights.shape[1]
        sums = helper.make_node(
            "TreeEnsembleRegressor",
            [table],
            ["sums"],
            domain="ai.onnx.ml",
            n_targets=n_targets,
            base_values=self.base.tolist(),
            **_attributes(self.nodes),
        )
        if self.is_boosted:
            return [sums, *log_probabilities_of("sums", n_targets)]
        return [sums, helper.make_node("Log", ["sums"], [LOG_PROBABILITIES])]


def _attributes(nodes: list[_Nodes]) -> dict[str, Any]:
    """Attributes of ``TreeEnsembleRegressor``, which holds the nodes of all trees one after the other."""
    sizes = [len(tree.feature) for tree in nodes]
    of_tree = np.repeat(np.arange(len(nodes)), sizes)
    number = np.concatenate([np.arange(size) for size in sizes])
    feature, threshold, left, right, missing, is_leaf = (
        np.concatenate([tree[k] for tree in nodes]) for k in range(6)
    )
    weights = np.concatenate([tree.weights for tree in nodes])
    # A leaf that adds nothing to any target still has to have one.
    is_added = is_leaf[:, None] & (weights != 0)
    is_added[:, 0] |= is_leaf & ~is_added.any(axis=1)
    place, target = np.nonzero(is_added)
    return {
        "nodes_treeids": of_tree.tolist(),
        "nodes_nodeids": number.tolist(),
        "nodes_featureids": np.where(is_leaf, 0, feature).tolist(),
        "nodes_modes": np.where(is_leaf, "LEAF", "BRANCH_LEQ").tolist(),
        "nodes_values": np.where(is_leaf, 0.0, _rounded_down(threshold)).tolist(),
        "nodes_truenodeids": np.where(is_leaf, 0, left).tolist(),
        "nodes_falsenodeids": np.where(is_leaf, 0, right).tolist(),
        "nodes_missing_value_tracks_true": np.where(is_leaf, 0, missing).tolist(),
        "target_treeids": of_tree[place].tolist(),
        "target_nodeids": number[place].tolist(),
        "target_ids": target.tolist(),
        "target_weights": weights[place, target].tolist(),
    }


def _rounded_down(thresholds: np.ndarray) -> np.ndarray:
    """The largest float32 numbers that are no larger: the same float32 numbers are below them."""
    with np.errstate(over="ignore"):
        near = thresholds.astype(np.float32)
    down: np.ndarray = np.where(near > thresholds, np.nextafter(near, np.float32(-np.inf)), near)
    return down
