"""The slow classifier of the benchmarks: a stack of bags, as it wins competitions and as AutoGluon makes it."""

import time

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

N_FOLDS = 8
LEAST = 1e-6


class Bag(ClassifierMixin, BaseEstimator):
    """A classifier fitted eight times, each time on seven eighths of the rows; they answer the mean.

    ``oob_decision_function_`` (n_samples, n_classes) are the answers of those that did not see a training row, under
    the name that scikit-learn's bags give to them.
    """

    def __init__(self, estimator, random_state=None):
        self.estimator = estimator
        self.random_state = random_state

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        self.estimators_ = []
        self.oob_decision_function_ = np.zeros((len(y), len(self.classes_)))
        folds = StratifiedKFold(N_FOLDS, shuffle=True, random_state=self.random_state)
        for train, held_out in folds.split(X, y):
            own = clone(self.estimator).fit(X[train], y[train])
            columns = np.searchsorted(self.classes_, own.classes_)
            self.oob_decision_function_[np.ix_(held_out, columns)] = own.predict_proba(X[held_out])
            self.estimators_.append(own)
        return self

    def predict_proba(self, X):
        probs = np.zeros((len(X), len(self.classes_)))
        for own in self.estimators_:
            columns = np.searchsorted(self.classes_, own.classes_)
            probs[:, columns] += own.predict_proba(X) / N_FOLDS
        return probs

    def predict(self, X):
        return self.classes_[self.predict_proba(X).argmax(axis=1)]


class BaggedStack(ClassifierMixin, BaseEstimator):
    """Bags of several classifiers, and a linear model that learns from their answers out of fold.

    Its own ``oob_decision_function_`` are that model's on these answers: it has a handful of parameters.
    """

    def __init__(self, estimators, random_state=None):
        self.estimators = estimators
        self.random_state = random_state

    def fit(self, X, y):
        start = time.process_time()
        self.bags_ = [Bag(own, self.random_state).fit(X, y) for own in self.estimators]
        answers = [bag.oob_decision_function_ for bag in self.bags_]
        self.final_ = LogisticRegression(max_iter=1000).fit(_as_columns(answers), y)
        self.classes_ = self.final_.classes_
        self.oob_decision_function_ = self.final_.predict_proba(_as_columns(answers))
        self.fit_cpu_seconds_ = time.process_time() - start
        return self

    def predict_proba(self, X):
        return self.final_.predict_proba(_as_columns([bag.predict_proba(X) for bag in self.bags_]))

    def predict(self, X):
        return self.classes_[self.predict_proba(X).argmax(axis=1)]


def _as_columns(answers):
    return np.log(np.maximum(np.hstack(answers), LEAST))
