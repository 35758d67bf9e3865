"""What displays read from a fitted classifier, and what they refuse."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted

from .._chain import LAST_EXIT, chain_of, exit_labels
from .._history import input_hashes
from .._labels import read_labels
from .._predictor import Predictor
from .._schema import class_codes
from .._warn import warn_caller
from ..pipeline import last_step
from .figures import pyplot

NOT_FITTED = (
    "this %(name)s is not fitted, so there is nothing to draw; call its fit(X, y) first, and give the display other "
    "samples than those."
)


def fitted_classifier(estimator: Any, X: Any, display: type) -> tuple[Any, Any]:
    """The classifier at the end of a fitted estimator, and samples as it takes them.

    Raises
    ------
    ImportError
        If there is no matplotlib.
    NotFittedError, TypeError, AttributeError
        If the estimator is not fitted, or no classifier with exits.
    """
    pyplot(display.__name__)
    if isinstance(estimator, type):
        raise TypeError(
            f"{estimator.__name__} is a class; fit an instance, {estimator.__name__}().fit(X, y), and give that."
        )
    if hasattr(estimator, "fit"):
        check_is_fitted(estimator, msg=NOT_FITTED)
    classifier, X = last_step(estimator, X)
    if not hasattr(classifier, "exit_answers"):
        raise TypeError(
            f"{display.__name__}.from_estimator takes a fitted EarlyExitClassifier, a Pipeline that ends in one, or a "
            f"search over such; got {type(classifier).__name__}. Of anything else draw the answers: from_predictions."
        )
    check_is_fitted(classifier, msg=NOT_FITTED)
    return classifier, X


def names_of_exits(classifier: Any) -> list[str]:
    """Name of each exit of a fitted classifier (n_exits,)."""
    trained = classifier._predictor.cascade.trained
    modules = [member.module for member in trained.members]
    chain = chain_of(modules, trained.exits, classifier.exit_costs_.tolist())
    return exit_labels(classifier.exits_, chain)


def unit_of_cost(classifier: Any) -> str:
    """What costs are: "time" if they were timed, else "cost"."""
    return "time" if hasattr(classifier, "plain_seconds_") else "cost"


def labelled_answers(classifier: Any, X: Any, y: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes of the labels, probabilities and exits; a warning if the classifier has learned from these samples."""
    codes, found = classifier._labelled(X, y, Predictor.probabilities_and_exits)
    probabilities, exit_index = (np.concatenate(part) for part in zip(*found, strict=True))
    warn_if_learned_from(classifier, X, codes)
    return codes, probabilities, exit_index


def warn_if_learned_from(classifier: Any, X: Any, codes: np.ndarray) -> None:
    """Warn if what is drawn is better than it will be on new samples."""
    hashes = classifier._over_chunks(X, lambda _, arrays: input_hashes(arrays))
    leakage = classifier._predictor.leakage_of(np.concatenate(hashes), codes)
    if leakage is not None:
        warn_caller(
            f"{leakage}, so the display shows better answers than new samples would get; give it samples as X and y "
            f"that fit has not seen."
        )


def codes_of_labels(classifier: Any, y: Any, n_samples: int) -> np.ndarray:
    """Columns of labels in ``classes_``: (n_samples,)."""
    return class_codes(classifier.classes_, read_labels(y, "y"), n_samples, "y")


def checked_exits(
    exit_index: ArrayLike, n_exits: int | None = None, n_samples: int | None = None
) -> np.ndarray:
    """Exits of samples (n_samples,), from 0; not checked is what is None.

    Raises
    ------
    ValueError
        If they are no numbers of exits, or there are none.
    """
    exits = np.asarray(exit_index)
    if exits.ndim != 1 or not exits.size or exits.dtype.kind not in "iu" or exits.min() < 0:
        raise ValueError(
            f"exit_index has {exits.dtype} of shape {exits.shape}; give the exit of each sample as a whole number from "
            f"0, as predict_exit does."
        )
    if n_exits is not None and exits.max() >= n_exits:
        raise ValueError(
            f"exit_index has the exit {exits.max()}, but exit_names names {n_exits} exits, from 0 on; name all of them."
        )
    if n_samples is not None and len(exits) != n_samples:
        raise ValueError(f"exit_index has {len(exits)} exits, but there are {n_samples} samples.")
    return exits


def checked_names(exit_names: Sequence[str] | None, exit_index: ArrayLike) -> list[str]:
    """Name of each exit; numbers where none are given."""
    if exit_names is not None:
        return [str(name) for name in exit_names]
    last = int(checked_exits(exit_index).max())
    return [f"exit {i}" for i in range(last)] + [LAST_EXIT if last else "exit 0"]


def checked_costs(exit_costs: ArrayLike | None, n_exits: int) -> np.ndarray | None:
    """Cost of each exit (n_exits,), if any are given."""
    if exit_costs is None:
        return None
    costs = np.asarray(exit_costs, dtype=float)
    if costs.shape != (n_exits,) or not np.isfinite(costs).all():
        raise ValueError(
            f"exit_costs={exit_costs!r} is not allowed; give a finite number for each of the {n_exits} exits."
        )
    return costs


def checked_labels(y: Any, n_samples: int, name: str) -> np.ndarray:
    """Labels (n_samples,).

    Raises
    ------
    ValueError
        If there are more or fewer of them.
    """
    labels = read_labels(y, name)
    if labels.shape != (n_samples,):
        raise ValueError(f"{name} has {len(labels)} labels, but there are {n_samples} samples.")
    return labels


def checked_probabilities(y_proba: ArrayLike) -> np.ndarray:
    """Probabilities (n_samples, n_classes).

    Raises
    ------
    ValueError
        If they are none.
    """
    probabilities = np.asarray(y_proba, dtype=float)
    if probabilities.ndim != 2 or not ((probabilities >= 0) & (probabilities <= 1 + 1e-6)).all():
        raise ValueError(
            f"y_proba has shape {probabilities.shape}; it must be numbers from 0 to 1 of shape (n_samples, n_classes), "
            f"as predict_proba gives them."
        )
    return probabilities


def checked_sets(sets: ArrayLike) -> np.ndarray:
    """Prediction sets: bool (n_samples, n_classes).

    Raises
    ------
    ValueError
        If they are none, or of several confidence levels.
    """
    checked = np.asarray(sets)
    if checked.ndim != 2 or checked.dtype != bool:
        raise ValueError(
            f"sets has {checked.dtype} of shape {checked.shape}; give bool of shape (n_samples, n_classes), as "
            f"predict_set does for one confidence level."
        )
    return checked


def columns_of(y_true: Any, classes: ArrayLike | None, scores: np.ndarray, name: str) -> np.ndarray:
    """Column of each true label in an array of scores (n_samples, n_classes)."""
    labels = checked_labels(y_true, len(scores), "y_true")
    known = np.unique(labels) if classes is None else np.asarray(classes)
    if len(known) != scores.shape[1]:
        raise ValueError(
            f"{name} has {scores.shape[1]} columns, but there are {len(known)} classes; give classes=, the label of "
            f"each column, as classes_ has them."
        )
    if classes is not None and not np.array_equal(known, np.unique(known)):
        raise ValueError(
            f"classes={known[:12].tolist()} must be sorted, each label once, as classes_ is."
        )
    return class_codes(known, labels, len(scores), "y_true")
