"""Answers of a fitted classifier without the estimator, for a service that answers one sample at a time."""

import copy
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ._numbers import check_number, check_probability
from ._operate.calibration import as_levels, check_allow_empty, of_level, with_uniform_gaps
from ._operate.deferral import DeferredLabels
from ._operate.operating_point import (
    budget_of,
    check_joint,
    check_limit,
    check_one_target,
)
from ._plain_samples import check_plainly
from ._predictor import Predictor as _Predictor
from ._schema import Arrays
from ._store.exported import read_exported
from ._watcher import Watcher

__all__ = ["Answers", "Predictor", "Watcher"]


class Answers(NamedTuple):
    """What a single run answers for samples."""

    labels: np.ndarray  # (n_samples,)
    probabilities: np.ndarray  # (n_samples, n_classes)
    exits: np.ndarray  # (n_samples,)


class Predictor:
    """A fitted classifier at an operating point, without the estimator.

    :meth:`EarlyExitClassifier.predictor` makes it. It answers what the classifier answers, with what a single call
    does not need left out: no parameters, no chunks, no progress. All samples of a call are in memory at once.

    Attributes
    ----------
    classes : ndarray (n_classes,)
    exits : list of str
        Names of all exits but the last.
    exit_costs : ndarray (n_exits,)
        Relative to one pass of the plain backbone.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn_jeidnn import EarlyExitClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> predictor = EarlyExitClassifier(max_epochs=2, cv=None, random_state=0).fit(X, y).predictor()
    >>> predictor.predict(X[:1]).shape, predictor.predict_proba(X[:1]).shape
    ((1,), (1, 3))
    """

    def __init__(self, predictor: _Predictor, gate_training: str) -> None:
        self._predictor = predictor
        self._gate_training = gate_training

    @classmethod
    def load(
        cls, directory: str | os.PathLike[str], *, n_threads: int | None = None
    ) -> "Predictor":
        """Load what :meth:`EarlyExitClassifier.export` wrote.

        This needs ``onnxruntime`` and NumPy only. No code of the folder is run, its graphs by ONNX Runtime alone;
        sizes are checked before anything is allocated, and checksums before anything is used.

        Parameters
        ----------
        directory : str or path
        n_threads : int, default=None
            Threads of ONNX Runtime in a call. None: as many as torch has, where it is loaded, else as there are cores.

        Returns
        -------
        Predictor
            At the operating point that the classifier was at.

        Raises
        ------
        FileNotFoundError
            If there is no such folder, or a file of it is missing.
        ValueError
            If it is damaged, was not exported, or by a newer version; the message says what is wrong. Or if
            ``n_threads`` is not a whole number from 1.
        ImportError
            Without ``onnxruntime``.
        """
        if n_threads is not None:
            check_number(n_threads, "n_threads", least=1, whole=True)
        return cls(*read_exported(directory, n_threads))

    @property
    def classes(self) -> np.ndarray:
        return self._predictor.schema.classes

    @property
    def exits(self) -> list[str]:
        return self._predictor.cascade.exits

    @property
    def exit_costs(self) -> np.ndarray:
        return self._predictor.cascade.exit_costs

    def predict(self, X: Any) -> np.ndarray:
        """Label of each sample.

        Parameters
        ----------
        X : array-like (n_samples, ...)
            As the classifier takes it; arrays of floats of the shape of ``fit`` are fastest.

        Returns
        -------
        y : ndarray (n_samples,)

        Raises
        ------
        ValueError, TypeError
            If these are no samples like those of ``fit``.
        """
        labels: np.ndarray = self._answer(X, _Predictor.labels)
        return labels

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities of the exit that each sample takes: (n_samples, n_classes); see :meth:`predict`."""
        probabilities: np.ndarray = self._answer(X, _Predictor.probabilities)
        return probabilities

    def predict_exit(self, X: Any) -> np.ndarray:
        """Exit that each sample takes, from 0: (n_samples,); see :meth:`predict`."""
        exits: np.ndarray = self._answer(X, _Predictor.exits)
        return exits

    def answers(self, X: Any) -> Answers:
        """Labels, probabilities and exits in one run: a named tuple ``Answers``; see :meth:`predict`."""
        labels, routed = self._answer(X, _Predictor.answers)
        return Answers(labels, with_uniform_gaps(routed.probabilities), routed.exit_index)

    def predict_set(
        self,
        X: Any,
        *,
        confidence_level: float | Sequence[float] = 0.9,
        allow_empty: bool = True,
        groups: Any = None,
    ) -> np.ndarray:
        """Labels that hold the truth with the given confidence, as :meth:`EarlyExitClassifier.predict_set` says.

        Returns
        -------
        sets : ndarray of bool (n_samples, n_classes), or (n_samples, n_classes, n_levels)
        """
        levels = as_levels(confidence_level)
        check_allow_empty(allow_empty)
        self._predictor.rule.check_groups(groups)
        sets = self._answer(
            X, _Predictor.sets, levels=levels, allow_empty=allow_empty, groups=groups
        )
        return of_level(sets, confidence_level)

    def predict_or_defer(self, X: Any, *, risk: float, confidence: float = 0.95) -> DeferredLabels:
        """Labels, and which samples to give to a human, as :meth:`EarlyExitClassifier.predict_or_defer` says.

        Returns
        -------
        DeferredLabels
            A named tuple: ``labels``, ``deferred``, ``certificate``.
        """
        certificate = self._predictor.deferral_certificate(risk, confidence)
        threshold = certificate.threshold
        labels, deferred = self._answer(X, _Predictor.labels_and_deferred, threshold=threshold)
        return DeferredLabels(labels, deferred, certificate)

    def at(
        self,
        *,
        cost_weight: float | None = None,
        budget: float | None = None,
        max_accuracy_drop: float | None = None,
        seconds_per_sample: float | None = None,
    ) -> "Predictor":
        """The same at another operating point, which shares the weights.

        Parameters
        ----------
        cost_weight, budget, max_accuracy_drop, seconds_per_sample : float, default=None
            One of them, as in :class:`EarlyExitClassifier`; seconds only where exits were timed (``cost="seconds"``).

        Raises
        ------
        ValueError
            If not exactly one is given, or the budget is less than the first exit costs, or gates are bilevel.
        """
        asked = {
            "cost_weight": cost_weight,
            "budget": budget,
            "max_accuracy_drop": max_accuracy_drop,
            "seconds_per_sample": seconds_per_sample,
        }
        check_one_target(asked)
        check_joint("at()", self._gate_training)
        for name, value in asked.items():
            if value is not None:
                check_number(value, name, least=0)
        plain_seconds = self._predictor.cascade.plain_seconds
        check_limit(budget, seconds_per_sample, self._predictor.least_cost, plain_seconds)
        moved = self._predictor.at(
            cost_weight=cost_weight,
            budget=budget_of(budget, seconds_per_sample, plain_seconds),
            max_accuracy_drop=max_accuracy_drop,
            exit_policy=self._predictor.frontier.exit_policy,
            exit_costs=self._predictor.frontier.exit_costs,
        )
        other = copy.copy(self)
        other._predictor = moved
        return other

    def watch(
        self, *, alpha: float = 0.01, confidence_level: float = 0.9, random_state: int = 0
    ) -> Watcher:
        """Watch whether samples stay like those that calibrated, as they come.

        Parameters
        ----------
        alpha : float, default=0.01
            Greatest probability of a false alarm over all time.
        confidence_level : float, default=0.9
            Of the prediction sets whose coverage is tracked where labels come late.
        random_state : int, default=0
            Seed of the random numbers that break ties.

        Returns
        -------
        Watcher

        Raises
        ------
        ValueError
            If no sample calibrates.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from sklearn_jeidnn import EarlyExitClassifier
        >>> X, y = load_iris(return_X_y=True)
        >>> predictor = EarlyExitClassifier(max_epochs=2, cv=None, random_state=0).fit(X, y).predictor()
        >>> watcher = predictor.watch(alpha=0.01)
        >>> watcher.update(X[:10]).n_seen
        10
        """
        check_probability(alpha, "alpha")
        check_probability(confidence_level, "confidence_level")
        check_number(random_state, "random_state", least=0, whole=True)
        self._predictor.calibrating("so there is nothing to compare samples with")
        return Watcher(
            self._predictor,
            self._checked,
            alpha=alpha,
            confidence_level=confidence_level,
            random_state=random_state,
        )

    def _answer(self, X: Any, answer: Callable[..., Any], **options: Any) -> Any:
        """What a method of the predictor answers for checked and encoded samples."""
        arrays = self._checked(X)
        with self._predictor.schema.explaining(arrays):
            return answer(self._predictor, arrays, **options)

    def _checked(self, X: Any) -> Arrays:
        schema = self._predictor.schema
        if _is_torch_data(X):
            raise TypeError(
                f"X is a {type(X).__name__}, and a predictor takes no torch Dataset or DataLoader; give arrays, or "
                "give a dataset to the classifier."
            )
        return schema.encode(check_plainly(schema, X))


def _is_torch_data(X: Any) -> bool:
    """Whether samples are a torch Dataset or DataLoader; there is none before torch is imported."""
    data = sys.modules.get("torch.utils.data")
    return data is not None and isinstance(X, data.Dataset | data.DataLoader)
