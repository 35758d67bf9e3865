"""Scorers and ``refit`` callables for ``GridSearchCV`` over classifiers that exit early.

>>> from sklearn.datasets import load_digits
>>> from sklearn.model_selection import GridSearchCV
>>> from sklearn_jeidnn import EarlyExitClassifier
>>> from sklearn_jeidnn.model_selection import cheapest_within, mean_cost
>>> X, y = load_digits(return_X_y=True)
>>> search = GridSearchCV(
...     EarlyExitClassifier(companion=None, max_epochs=2, random_state=0),
...     {"cost_weight": [0.03, 0.3]},
...     scoring={"accuracy": "accuracy", "mean_cost": mean_cost},
...     refit=cheapest_within(0.01),
...     cv=2,
... )
>>> search.fit(X[:400], y[:400]).best_params_["cost_weight"] in (0.03, 0.3)
True
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ._numbers import check_number
from .pipeline import last_step

__all__ = [
    "accuracy_at_budget",
    "cheapest_within",
    "cost_adjusted_accuracy",
    "mean_cost",
    "most_accurate_within",
]


def mean_cost(estimator: Any, X: Any, y: Any = None) -> float:
    """Scorer: mean cost of a sample.

    Less is better, so use it in a report or with a ``refit`` callable, not as ``refit=`` itself.

    Parameters
    ----------
    estimator : EarlyExitClassifier, Pipeline that ends in one, or search over such
        Fitted.
    X : array-like (n_samples, ...)
    y : ignored

    Returns
    -------
    float
        Relative to one pass of the plain backbone.
    """
    classifier, X = last_step(estimator, X)
    cost: float = classifier.mean_cost(X)
    return cost


class accuracy_at_budget:
    """Scorer: accuracy at the operating point whose held-out mean cost is at most ``budget``.

    Parameters
    ----------
    budget : float
    """

    def __init__(self, budget: float) -> None:
        check_number(budget, "budget", above=0)
        self.budget = budget

    def __call__(self, estimator: Any, X: Any, y: ArrayLike) -> float:
        """Score a fitted estimator on samples (n_samples, ...) and labels (n_samples,)."""
        classifier, X = last_step(estimator, X)
        accuracy: float = classifier.at(budget=self.budget).score(X, y)
        return accuracy


class cost_adjusted_accuracy:
    """Scorer: accuracy minus ``cost_weight`` times mean cost.

    Parameters
    ----------
    cost_weight : float
        What one pass of the plain backbone is worth in accuracy.
    """

    def __init__(self, cost_weight: float) -> None:
        check_number(cost_weight, "cost_weight", least=0)
        self.cost_weight = cost_weight

    def __call__(self, estimator: Any, X: Any, y: ArrayLike) -> float:
        """Score a fitted estimator on samples (n_samples, ...) and labels (n_samples,)."""
        classifier, X = last_step(estimator, X)
        score: float = classifier.score(X, y) - self.cost_weight * classifier.mean_cost(X)
        return score


class cheapest_within:
    """``refit`` callable: the cheapest candidate at most ``max_accuracy_drop`` less accurate than the best.

    The search's ``scoring`` must have ``"accuracy"`` and ``"mean_cost"``.

    Parameters
    ----------
    max_accuracy_drop : float, default=0.01
    """

    def __init__(self, max_accuracy_drop: float = 0.01) -> None:
        check_number(max_accuracy_drop, "max_accuracy_drop", least=0, below=1)
        self.max_accuracy_drop = max_accuracy_drop

    def __call__(self, cv_results: Mapping[str, Any]) -> int:
        """Index of the candidate, from ``cv_results_``."""
        accuracy, cost = _columns(cv_results)
        good = accuracy >= np.nanmax(accuracy) - self.max_accuracy_drop
        return int(np.argmin(np.where(good, cost, np.inf)))


class most_accurate_within:
    """``refit`` callable: the most accurate candidate whose mean cost is at most ``budget``.

    If there is none, the cheapest candidate is chosen. The search's ``scoring`` must have
    ``"accuracy"`` and ``"mean_cost"``.

    Parameters
    ----------
    budget : float
    """

    def __init__(self, budget: float) -> None:
        check_number(budget, "budget", above=0)
        self.budget = budget

    def __call__(self, cv_results: Mapping[str, Any]) -> int:
        """Index of the candidate, from ``cv_results_``."""
        accuracy, cost = _columns(cv_results)
        within = cost <= self.budget
        if not within.any():
            return int(np.nanargmin(cost))
        return int(np.argmax(np.where(within, accuracy, -np.inf)))


def _columns(cv_results: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Mean accuracy and mean cost of each candidate."""
    names = ("mean_test_accuracy", "mean_test_mean_cost")
    missing = [name for name in names if name not in cv_results]
    if missing:
        raise ValueError(
            f"the search has no {missing}; give it scoring={{'accuracy': 'accuracy', 'mean_cost': mean_cost}}."
        )
    accuracy, cost = (np.asarray(cv_results[name]) for name in names)
    return accuracy, cost
