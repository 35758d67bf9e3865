"""Categories that boosted trees ask for, as columns of zeros and ones of an ONNX graph.

The operator for trees that ONNX Runtime 1.17 reads compares numbers only.
"""

from typing import Any, NamedTuple

import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier

from .onnx_answers import Positions


class CategorySplits(NamedTuple):
    """Categories of some columns of a table, and the sets of them that go to the left in trees."""

    columns: np.ndarray  # (n_columns,), of the table
    codes: list[np.ndarray]  # of each column (n_places,), see Positions
    # Whether a code goes to the right; the last one stands for missing values and unknown categories.
    goes_right: list[np.ndarray]  # (n_codes + 1, n_sets) each
    set_of_nodes: list[
        np.ndarray
    ]  # of each tree (n_nodes,), of all sets; -1 where it compares a number

    @property
    def _positions(self) -> Positions:
        return Positions(self.columns, [len(codes) for codes in self.codes])

    def steps(self, table: str, joined: str) -> list[Any]:
        """Nodes of a graph, from a table to the same with a column of zeros and ones for each set."""
        from onnx import TensorProto, helper

        node = helper.make_node
        of_column = [f"codes.{k}" for k in range(len(self.columns))]
        sides = [f"sides.{k}" for k in range(len(self.columns))]
        return [
            *self._positions.steps(table, "places"),
            node("Gather", ["all_codes", "places"], ["codes"], axis=0),
            node("Split", ["codes", "ones"], of_column, axis=1),
            *(
                node("Gather", [f"goes_right.{k}", codes], [side], axis=0)
                for k, (codes, side) in enumerate(zip(of_column, sides, strict=True))
            ),
            node("Concat", sides, ["all_sides"], axis=2),
            node("Flatten", ["all_sides"], ["sides"], axis=1),
            node("Cast", ["sides"], ["sides_as_numbers"], to=TensorProto.FLOAT),
            node("Concat", [table, "sides_as_numbers"], [joined], axis=1),
        ]

    def constants(self) -> dict[str, np.ndarray]:
        """Arrays that the nodes read, by name."""
        return {
            **self._positions.constants(),
            "all_codes": np.concatenate(self.codes),
            "ones": np.ones(len(self.columns), dtype=np.int64),
            **{f"goes_right.{k}": sides for k, sides in enumerate(self.goes_right)},
        }


def columns_of_features(
    trees: HistGradientBoostingClassifier, before: ColumnTransformer | None
) -> np.ndarray:
    """Which column of a table each feature of boosted trees is (n_features,).

    Parameters
    ----------
    trees : HistGradientBoostingClassifier
        Fitted.
    before : ColumnTransformer or None
        What a table goes through before (see :func:`boosted_trees`).
    """
    columns = np.arange(trees.n_features_in_)
    if before is not None:
        used = [own for name, _, own in before.transformers_ if name != "remainder"]
        columns = np.concatenate(used)
    is_categorical = trees.is_categorical_
    if is_categorical is None:
        return columns
    # scikit-learn puts categories first.
    return np.concatenate([columns[is_categorical], columns[~is_categorical]])


def category_splits(
    trees: HistGradientBoostingClassifier, before: ColumnTransformer | None
) -> CategorySplits | None:
    """Return what boosted trees ask of categories; None if they ask for numbers only.

    Parameters
    ----------
    trees, before
        As in :func:`columns_of_features`.
    """
    predictors = [tree for of_iteration in trees._predictors for tree in of_iteration]
    asks = [_asks_for_category(tree.nodes) for tree in predictors]
    if not any(own.any() for own in asks):
        return None
    asked = [_asked(tree, own) for tree, own in zip(predictors, asks, strict=True)]
    # Sorted by column.
    sets, number = np.unique(np.concatenate(asked), axis=0, return_inverse=True)
    features = np.unique(sets[:, 0])
    codes, n_codes = _codes(trees, before)
    return CategorySplits(
        columns=columns_of_features(trees, before)[features],
        codes=[codes[k] for k in features],
        goes_right=[_goes_right(sets[sets[:, 0] == k, 1:], n_codes[k]) for k in features],
        set_of_nodes=_numbered(asks, number.ravel()),
    )


def _asks_for_category(nodes: np.ndarray) -> np.ndarray:
    """Which nodes ask for the category of a sample: bool (n_nodes,)."""
    asks: np.ndarray = (nodes["is_categorical"] & ~nodes["is_leaf"]).astype(bool)
    return asks


def _asked(tree: Any, asks: np.ndarray) -> np.ndarray:
    """For each such node its feature, whether each code goes to the left, and a missing value: int (n_asking, 258)."""
    nodes = tree.nodes[asks]
    bits = np.unpackbits(
        tree.raw_left_cat_bitsets.astype("<u4").view(np.uint8), axis=1, bitorder="little"
    )
    left = bits[nodes["bitset_idx"]] if len(nodes) else bits[:0]
    return np.column_stack(
        [nodes["feature_idx"].astype(np.int32), left, nodes["missing_go_to_left"]]
    )


def _goes_right(left: np.ndarray, n_codes: int) -> np.ndarray:
    """Sets (n_sets, 257) as they are looked up by code: (n_codes + 1, n_sets)."""
    known_and_missing = np.concatenate([left[:, :n_codes], left[:, -1:]], axis=1)
    right: np.ndarray = 1 - known_and_missing.T.astype(np.uint8)
    return right


def _numbered(asks: list[np.ndarray], number: np.ndarray) -> list[np.ndarray]:
    """Numbers of sets (n_asking,) for the nodes of each tree, -1 for those that do not ask."""
    everywhere = np.full(sum(map(len, asks)), -1)
    everywhere[np.concatenate(asks)] = number
    return np.split(everywhere, np.cumsum([len(own) for own in asks])[:-1])


def _codes(
    trees: HistGradientBoostingClassifier, before: ColumnTransformer | None
) -> tuple[list[np.ndarray], list[int]]:
    """For each column of categories the codes that encoders answer for all positions, and how many codes there are."""
    encoders = [trees._preprocessor.named_transformers_["encoder"]]
    if before is not None:
        encoders.insert(0, before.named_transformers_["ordinalencoder"])
    places = [Positions.all_of(own) for own in encoders[0].categories_]
    # The longest one has those of all, but for a missing value at its end.
    table = np.tile(max(places, key=len)[:, None], len(places))
    for encoder in encoders:
        table = encoder.transform(table)
    n_codes = [int(np.count_nonzero(~np.isnan(own))) for own in encoders[-1].categories_]
    # To the trees, what has no code is missing.
    codes: np.ndarray = np.where(np.isnan(table), n_codes, table).astype(np.int32)
    own_codes = zip(codes.T, places, strict=True)
    return [np.append(column[: len(own) - 1], column[-1]) for column, own in own_codes], n_codes
