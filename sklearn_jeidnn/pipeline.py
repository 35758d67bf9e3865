"""The classifier at the end of a fitted pipeline or search: its own methods, and other operating points.

scikit-learn's pipelines pass on ``predict`` and its kin, but no method of a classifier's own.

>>> from sklearn.datasets import load_digits
>>> from sklearn.pipeline import make_pipeline
>>> from sklearn.preprocessing import StandardScaler
>>> from sklearn_jeidnn import EarlyExitClassifier
>>> from sklearn_jeidnn.pipeline import at, last_step
>>> X, y = load_digits(return_X_y=True)
>>> classifier = EarlyExitClassifier(max_epochs=5, random_state=0)
>>> pipeline = make_pipeline(StandardScaler(), classifier).fit(X[:400], y[:400])
>>> fitted, rows = last_step(pipeline, X[400:410])
>>> fitted.predict_set(rows).shape
(10, 10)
>>> at(pipeline, cost_weight=0.3).predict(X[400:410]).shape
(10,)
"""

import copy
from typing import Any

from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline

__all__ = ["at", "last_step", "with_last_step"]


def last_step(estimator: Any, X: Any = None) -> tuple[Any, Any]:
    """The classifier at the end of a fitted estimator, and samples as it takes them.

    Parameters
    ----------
    estimator : EarlyExitClassifier, Pipeline that ends in one, or search over such
        Fitted. Pipelines and searches may contain each other.
    X : array-like (n_samples, ...), default=None
        Samples as ``estimator`` takes them.

    Returns
    -------
    classifier : EarlyExitClassifier
        The fitted one itself: what changes it (``conformalize``) changes ``estimator``.
    X : array-like or None
        What the steps before the classifier make of ``X``.

    Raises
    ------
    TypeError
        If the estimator ends in something else, or wraps classifiers in another way.
    AttributeError
        If a search has no ``best_estimator_``, since it is not fitted or has ``refit=False``.
    """
    if isinstance(estimator, Pipeline):
        X = X if X is None or len(estimator) == 1 else estimator[:-1].transform(X)
        return last_step(estimator[-1], X)
    inside = _wrapped(estimator)
    if inside is not None:
        return last_step(inside, X)
    if not hasattr(estimator, "predict_exit"):
        raise TypeError(
            f"{estimator!r} is not an EarlyExitClassifier, a Pipeline that ends in one, or a search over such; "
            f"what it answers is not one such classifier's."
        )
    return estimator, X


def _wrapped(estimator: Any) -> Any:
    """The estimator that a search chose, or that is frozen; None if it is neither."""
    if isinstance(estimator, FrozenEstimator):
        return estimator.estimator
    if not hasattr(estimator, "cv") or not hasattr(estimator, "refit"):
        return None
    if not hasattr(estimator, "best_estimator_"):
        raise AttributeError(
            f"{type(estimator).__name__} has no best_estimator_; fit it, with refit=True or a refit callable."
        )
    return estimator.best_estimator_


def with_last_step(estimator: Any, classifier: Any) -> Any:
    """The same fitted estimator with another fitted classifier at its end.

    Parameters
    ----------
    estimator : EarlyExitClassifier, Pipeline that ends in one, or search over such
        Fitted; it is not changed.
    classifier : EarlyExitClassifier
        For instance ``last_step(estimator)[0].control_risk(...)``.

    Returns
    -------
    EarlyExitClassifier or Pipeline
        It shares the steps before the classifier with ``estimator``. Of a search, it is the best estimator.
    """
    if isinstance(estimator, Pipeline):
        *steps, (name, last) = estimator.steps
        other = copy.copy(estimator)
        other.steps = [*steps, (name, with_last_step(last, classifier))]
        return other
    inside = _wrapped(estimator)
    if inside is not None:
        return with_last_step(inside, classifier)
    last_step(estimator)
    return classifier


def at(estimator: Any, **operating_point: Any) -> Any:
    """A fitted pipeline, or the best estimator of a search, at another operating point of its classifier.

    Parameters
    ----------
    estimator : EarlyExitClassifier, Pipeline that ends in one, or search over such
        Fitted; it is not changed.
    **operating_point
        As :meth:`EarlyExitClassifier.at` takes them, for instance ``budget=0.5``.

    Returns
    -------
    EarlyExitClassifier or Pipeline
        Fitted, and as :func:`with_last_step` returns it.
    """
    classifier, _ = last_step(estimator)
    return with_last_step(estimator, classifier.at(**operating_point))
