"""Trees among the members of a table: boosted and extremely randomised ones, and what an answer of theirs costs."""

import contextlib
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.compose import make_column_transformer
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    HistGradientBoostingClassifier,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder
from threadpoolctl import ThreadpoolController

from .._tables import MOST_CATEGORIES
from .members import AS_NUMBERS, LEAST, Member

# What a step from one node of a tree to the next takes, in multiply-adds of the ready network, one of which takes
# 0.02 nanoseconds: boosted trees 5 to 9, and large ones, which no cache holds, 10 (AVX-512, one thread, large calls).
BOOSTED_STEP, EXTRA_STEP = 300, 500
# Steps to a leaf of a boosted tree of 31 leaves (7.2 to 7.9 on five tables).
BOOSTED_DEPTH = 8
# Boosted trees are one for each class: with more classes they take longer than all else, to fit and to ask.
MOST_BOOSTED_CLASSES = 10
# Trees that are grown to the last sample take memory in proportion to the samples.
MOST_EXTRA_SAMPLES = 20_000
N_EXTRA = 50
# Most samples that boosted trees learn from, and answer at once, in one thread.
MOST_IN_ONE_THREAD, MOST_ASKED_IN_ONE_THREAD = 20_000, 4096
# Most times as much time as the ready network that trees may take, where the clock says what members cost: for one
# row ten to thirty times, in large calls one to six.
MOST_TREE_TIME = 10
# Classes that no tree votes for are as likely as half a vote.
LEAST_VOTE = 0.5 / N_EXTRA


class QuickBoostedTrees(HistGradientBoostingClassifier):  # type: ignore[misc]  # scikit-learn has no type hints
    """Boosted trees that learn from few samples, and answer few, in one thread.

    Each of their many small steps ends when its last thread does. Beside another job on the machine, two threads took
    three times as long as one to learn from 1,800 samples, in spite of two processors, and once twenty times.
    """

    def fit(self, X: np.ndarray, y: np.ndarray, sample_weight: Any = None) -> "QuickBoostedTrees":
        with _one_thread_for(len(X), MOST_IN_ONE_THREAD):
            super().fit(X, y, sample_weight=sample_weight)
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """(n_samples, n_features) -> probabilities (n_samples, n_classes)"""
        with _one_thread_for(len(X), MOST_ASKED_IN_ONE_THREAD):
            probs: np.ndarray = super().predict_proba(X)
        return probs


@contextlib.contextmanager
def _one_thread_for(n_samples: int, most: int) -> Iterator[None]:
    """Keep OpenMP to one thread if there are few samples."""
    if n_samples > most:
        yield
    else:
        with _openmp().limit(limits=1):
            yield


@cache
def _openmp() -> Any:
    return ThreadpoolController().select(user_api="openmp")


class _AskedInTurn:
    """Trees that are asked one after the other, without a job for each.

    A call of scikit-learn's takes 0.06 milliseconds for each tree, however few its samples are.
    """

    estimators_: list[Any]

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """float32 (n_samples, n_features) -> probabilities (n_samples, n_classes)"""
        votes: Any = sum(tree.tree_.predict(X) for tree in self.estimators_)
        # Those that have learned probabilities answer in one more axis.
        probs: np.ndarray = votes.reshape(len(X), -1) / len(self.estimators_)
        return probs


class QuickExtraTrees(_AskedInTurn, ExtraTreesClassifier):  # type: ignore[misc]  # no type hints there
    """Extremely randomised trees."""


def trees_for(X: np.ndarray, n_classes: int, categorical: np.ndarray, seed: int) -> list[Member]:
    """Return the trees that may stand beside the ready network for tables.

    Parameters
    ----------
    X : ndarray (n_samples, n_features)
        Training samples; NaN where a value is missing.
    n_classes : int
    categorical : ndarray of bool (n_features,)
        Which columns hold positions of categories.
    seed : int
        Of what they draw.
    """
    members = []
    if len(X) <= MOST_EXTRA_SAMPLES:
        members.append(extra_trees(seed))
    if n_classes <= MOST_BOOSTED_CLASSES:
        members.append(Member(boosted_trees(X, categorical, seed), {AS_NUMBERS: True}))
    return members


def extra_trees(seed: int) -> Member:
    """Extremely randomised trees."""
    extra = QuickExtraTrees(N_EXTRA, random_state=seed)
    return Member(extra, {AS_NUMBERS: True, LEAST: LEAST_VOTE})


class DistilledExtraTrees(_AskedInTurn, ClassifierMixin, ExtraTreesRegressor):  # type: ignore[misc]
    """Extra trees that have learned probabilities.

    Boosted trees are worse for it: they take each class of a sample for a sample.
    """

    classes_: np.ndarray


def distilled_extra_trees(
    X: np.ndarray, probabilities: np.ndarray, classes: np.ndarray, weights: np.ndarray, seed: int
) -> Member:
    """Extra trees, fitted on the probabilities (n_samples, n_classes) of samples."""
    trees = DistilledExtraTrees(N_EXTRA, random_state=seed)
    trees.fit(X, probabilities, sample_weight=weights)
    trees.classes_ = classes
    return Member(trees, {AS_NUMBERS: True, LEAST: LEAST_VOTE})


def boosted_trees(X: np.ndarray, categorical: np.ndarray, seed: int, **size: int) -> Any:
    """Boosted trees, which take no columns without any value, and of each column its most frequent categories."""
    empty = np.isnan(X).all(axis=0)
    highest = np.nanmax(X[:, categorical & ~empty], axis=0, initial=0)
    if not empty.any() and (highest < MOST_CATEGORIES).all():
        return _boosted(np.flatnonzero(categorical), seed, **size)
    categories, numbers = (np.flatnonzero(~empty & own) for own in (categorical, ~categorical))
    frequent = OrdinalEncoder(
        handle_unknown="use_encoded_value", unknown_value=np.nan, max_categories=MOST_CATEGORIES - 1
    )
    return make_pipeline(
        make_column_transformer((frequent, categories), ("passthrough", numbers)),
        _boosted(np.arange(len(categories)), seed, **size),
    )


def _boosted(categorical: np.ndarray, seed: int, **size: int) -> QuickBoostedTrees:
    return QuickBoostedTrees(
        **size, categorical_features=categorical, early_stopping=False, random_state=seed
    )


def multiply_adds_of(classifier: Any) -> float | None:
    """Return about how many multiply-adds take as long as an answer of fitted trees; None of anything else."""
    last = classifier[-1] if hasattr(classifier, "steps") else classifier
    if isinstance(last, HistGradientBoostingClassifier):
        return float(BOOSTED_STEP * BOOSTED_DEPTH * last.n_iter_ * last.n_trees_per_iteration_)
    if isinstance(last, ExtraTreesClassifier | DistilledExtraTrees):
        return float(EXTRA_STEP * sum(_steps(tree.tree_) for tree in last.estimators_))
    return None


def _steps(tree: Any) -> float:
    """Nodes that a training sample passes on average."""
    counts = tree.weighted_n_node_samples
    return float(counts.sum() / counts[0])
