"""Members that are classifiers as bytes, with skops, which runs no code of theirs; and whether their trees end."""

import io
import zipfile
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np

from .._store.damaged import DamagedFile
from .trees import DistilledExtraTrees, QuickBoostedTrees, QuickExtraTrees

# Beside what skops trusts; arrays of trees are checked here before they are used.
TRUSTED = (
    "numpy.dtype",
    "sklearn.tree._tree.Tree",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    *(
        f"{kind.__module__}.{kind.__qualname__}"
        for kind in (DistilledExtraTrees, QuickBoostedTrees, QuickExtraTrees)
    ),
)


def _skops() -> Any:
    try:
        import skops.io
        import skops.io.exceptions
    except ImportError as error:
        raise ImportError(
            "a member is a classifier of scikit-learn's, which skops stores: pip install 'sklearn_jeidnn[save]'."
        ) from error
    return skops.io


def as_bytes(classifier: Any) -> bytes:
    """A classifier as bytes."""
    try:
        found: bytes = _skops().dumps(classifier)
    except ImportError:
        raise
    except Exception as error:
        raise TypeError(
            f"the member {classifier!r} cannot be stored by skops ({error}); pickle the classifier as a whole."
        ) from error
    return found


def of_bytes(data: bytes, trusted: Collection[str]) -> Any:
    """The classifier, if all its types are trusted.

    Raises
    ------
    ValueError
        That names the types that are not.
    DamagedFile
        If the arrays of a tree point to nodes that it has not.
    """
    skops = _skops()
    _refuse_compressed(data)
    try:
        classifier = skops.loads(data, trusted=[*TRUSTED, *trusted])
    except skops.exceptions.UntrustedTypesFoundException as error:
        others = sorted({*skops.get_untrusted_types(data=data)} - {*TRUSTED, *trusted})
        raise UntrustedTypes(
            f"a member needs the types {others}, whose code would be run. If you know them and who wrote the file, "
            f"give trusted={others}"
        ) from error
    for owner, tree in _trees_in(classifier, classifier, set()):
        _check_tree(tree, getattr(owner, "n_features_in_", 0))
    return classifier


def _refuse_compressed(data: bytes) -> None:
    """Refuse what would become larger than it is."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        parts = archive.infolist()
    if any(part.compress_type != zipfile.ZIP_STORED for part in parts) or (
        sum(part.file_size for part in parts) > len(data)
    ):
        raise DamagedFile("a member is compressed, as none is that is written here")


class UntrustedTypes(DamagedFile):
    """A file asks for types that nobody has said to trust."""


def _trees_in(value: Any, owner: Any, seen: set[int]) -> Iterator[tuple[Any, Any]]:
    """All trees of an estimator, wherever they are, each with the estimator that holds it."""
    is_number = isinstance(value, str | bytes | int | float)
    if id(value) in seen or is_number or (isinstance(value, np.ndarray) and value.dtype != object):
        return
    seen.add(id(value))
    if type(value).__name__ in ("Tree", "TreePredictor"):
        yield owner, value
        return
    parts: Sequence[Any] = ()
    if isinstance(value, dict):
        parts = list(value.values())
    elif isinstance(value, list | tuple | set):
        parts = list(value)
    elif isinstance(value, np.ndarray):
        parts = value.ravel().tolist()
    elif hasattr(value, "__dict__"):
        parts, owner = list(vars(value).values()), value
    for part in parts:
        yield from _trees_in(part, owner, seen)


def _check_tree(tree: Any, n_features: int) -> None:
    """Refuse a tree whose nodes point to others that it has not, or back, or to columns that it has not."""
    if type(tree).__name__ == "TreePredictor":
        nodes = tree.nodes
        inner = nodes["is_leaf"] == 0
        left, right, feature = nodes["left"], nodes["right"], nodes["feature_idx"]
        of_words = nodes["bitset_idx"][inner & (nodes["is_categorical"] != 0)]
        n_bitsets = min(len(tree.raw_left_cat_bitsets), len(tree.binned_left_cat_bitsets))
        holds = bool((of_words < n_bitsets).all())
    else:
        left, right, feature = tree.children_left, tree.children_right, tree.feature
        inner = left != -1
        holds = tree.n_features == n_features and len(tree.value) == len(left)
    numbers = np.flatnonzero(inner)
    for child in (left, right):
        own = child[inner].astype(np.int64)
        holds &= bool(((own > numbers) & (own < len(left))).all())
    columns = feature[inner].astype(np.int64)
    holds &= bool(((columns >= 0) & (columns < n_features)).all())
    if not holds or not len(left):
        raise DamagedFile("a tree of a member points to nodes or columns that it has not")
