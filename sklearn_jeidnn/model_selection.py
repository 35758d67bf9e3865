"""Scorers and ``refit`` callables for ``GridSearchCV`` over classifiers that exit early.

>>> from sklearn.datasets import load_digits
>>> from sklearn.model_selection import GridSearchCV
>>> from sklearn_jeidnn import EarlyExitClassifier
>>> from sklearn_jeidnn.model_selection import cheapest_within, mean_cost
>>> X, y = load_digits(return_X_y=True)
>>> search = GridSearchCV(
...     EarlyExitClassifier(max_epochs=5, random_state=0),
...     {"cost_weight": [0.03, 0.3]},
...     scoring={"accuracy": "accuracy", "mean_cost": mean_cost},
...     refit=cheapest_within(0.01),
...     cv=2,
... )
>>> search.fit(X[:400], y[:400]).best_params_["cost_weight"] in (0.03, 0.3)
True
"""

import numpy as np
from sklearn.pipeline import Pipeline


def mean_cost(estimator, X, y=None):
    """Scorer: mean cost of a row, for a report or a ``refit`` callable (less is better, so not for ``refit=`` itself).

    Parameters
    ----------
    estimator : EarlyExitClassifier, or Pipeline that ends in one
        Fitted.
    X : array-like (n_samples, ...)
    y : ignored

    Returns
    -------
    float
        Relative to one pass of the plain backbone.
    """
    classifier, X = _last_step(estimator, X)
    return classifier.mean_cost(X)


class accuracy_at_budget:
    """Scorer: accuracy at the operating point whose held-out mean cost is at most ``budget``.

    Parameters
    ----------
    budget : float
    """

    def __init__(self, budget):
        self.budget = budget

    def __call__(self, estimator, X, y):
        """Estimator, rows (n_samples, ...), labels (n_samples,) -> float"""
        classifier, X = _last_step(estimator, X)
        return classifier.at(budget=self.budget).score(X, y)


class cost_adjusted_accuracy:
    """Scorer: accuracy less ``cost_weight`` times mean cost.

    Parameters
    ----------
    cost_weight : float
        What one pass of the plain backbone is worth in accuracy.
    """

    def __init__(self, cost_weight):
        self.cost_weight = cost_weight

    def __call__(self, estimator, X, y):
        """Estimator, rows (n_samples, ...), labels (n_samples,) -> float"""
        classifier, X = _last_step(estimator, X)
        return classifier.score(X, y) - self.cost_weight * classifier.mean_cost(X)


class cheapest_within:
    """``refit``: the cheapest candidate whose mean accuracy is at most ``max_accuracy_drop`` below the best.

    The search's ``scoring`` must have ``"accuracy"`` and ``"mean_cost"``.

    Parameters
    ----------
    max_accuracy_drop : float, default=0.01
    """

    def __init__(self, max_accuracy_drop=0.01):
        self.max_accuracy_drop = max_accuracy_drop

    def __call__(self, cv_results):
        """``cv_results_`` -> index of the candidate"""
        accuracy, cost = _columns(cv_results)
        good = accuracy >= np.nanmax(accuracy) - self.max_accuracy_drop
        return int(np.argmin(np.where(good, cost, np.inf)))


class most_accurate_within:
    """``refit``: the most accurate candidate whose mean cost is at most ``budget``, or else the cheapest.

    The search's ``scoring`` must have ``"accuracy"`` and ``"mean_cost"``.

    Parameters
    ----------
    budget : float
    """

    def __init__(self, budget):
        self.budget = budget

    def __call__(self, cv_results):
        """``cv_results_`` -> index of the candidate"""
        accuracy, cost = _columns(cv_results)
        within = cost <= self.budget
        if not within.any():
            return int(np.nanargmin(cost))
        return int(np.argmax(np.where(within, accuracy, -np.inf)))


def _columns(cv_results):
    names = ("mean_test_accuracy", "mean_test_mean_cost")
    missing = [name for name in names if name not in cv_results]
    if missing:
        raise ValueError(
            f"the search has no {missing}; give it scoring={{'accuracy': 'accuracy', 'mean_cost': mean_cost}}."
        )
    return tuple(np.asarray(cv_results[name]) for name in names)


def _last_step(estimator, X):
    """The classifier itself, and rows as it takes them."""
    if isinstance(estimator, Pipeline):
        return estimator[-1], estimator[:-1].transform(X) if len(estimator) > 1 else X
    return estimator, X
