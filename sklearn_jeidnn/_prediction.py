"""What a fitted classifier answers for samples: the prediction methods of the estimator."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from numbers import Real
from typing import Any, TypeVar

import numpy as np
from sklearn.utils.validation import check_is_fitted

from . import metrics
from ._engines.torch_engine import dataset_batches, is_dataset
from ._operate.cascade import AnsweredArrays
from ._operate.drift import Exchangeability, warn_if_different
from ._operate.exit_answers import ExitAnswers
from ._predictor import Predictor
from ._samples import checked_chunks, count_samples, iter_user_chunks, unpack_batch
from ._schema import Arrays

T = TypeVar("T")
VALID = "iterator_valid__"
STREAMED = ("predict", "predict_proba", "predict_exit", "predict_set")
BAR_AFTER_SECONDS = 1


class PredictionMixin:
    """The methods of :class:`EarlyExitClassifier` that predict; each is a method of :class:`Predictor` over chunks."""

    verbose: int
    exit_costs_: np.ndarray
    _predictor: Predictor

    def predict(self, X: Any) -> np.ndarray:
        """Label of each sample, as the exit it takes gives it.

        Parameters
        ----------
        X : array-like (n_samples, ...) or torch Dataset
            A memory map is read a chunk at a time; so is a dataset, of samples or of (sample, label).

        Returns
        -------
        y : ndarray (n_samples,)
        """
        return np.concatenate(self._over_chunks(X, Predictor.labels))

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities of the exit that each sample takes.

        Parameters
        ----------
        X : array-like (n_samples, ...) or torch Dataset

        Returns
        -------
        probabilities : ndarray (n_samples, n_classes)
            Columns as ``classes_``.
        """
        return np.concatenate(self._over_chunks(X, Predictor.probabilities))

    def predict_exit(self, X: Any) -> np.ndarray:
        """Exit that each sample takes.

        Parameters
        ----------
        X : array-like (n_samples, ...) or torch Dataset

        Returns
        -------
        exit_index : ndarray of int (n_samples,)
            From 0; ``len(exits_)`` is the last.
        """
        return np.concatenate(self._over_chunks(X, Predictor.exits))

    def predict_backbone(self, X: Any) -> np.ndarray:
        """Label that the plain backbone gives each sample, for comparison and timing.

        Parameters
        ----------
        X : array-like (n_samples, ...) or torch Dataset

        Returns
        -------
        y : ndarray (n_samples,)
        """
        return np.concatenate(self._over_chunks(X, Predictor.backbone_labels))

    def predict_stream(
        self, batches: Iterable[Any], *, method: str = "predict"
    ) -> Iterator[np.ndarray]:
        """Answers for one batch after the other, as they come; no more than a batch is held.

        Parameters
        ----------
        batches : iterable
            Of arrays (n_samples, ...), or of pairs of such and labels, which are left out; a torch
            ``DataLoader`` is one.
        method : {"predict", "predict_proba", "predict_exit", "predict_set"}, default="predict"

        Yields
        ------
        ndarray
            What the method answers for each batch.

        Raises
        ------
        ValueError
            If there is no such method.
        """
        check_is_fitted(self)
        if method not in STREAMED:
            raise ValueError(f"method={method!r} is not known; give one of {STREAMED}.")
        answer = getattr(self, method)
        return (answer(unpack_batch(batch)) for batch in batches)

    def mean_cost(self, X: Any) -> float:
        """Mean cost of these samples, relative to one pass of the plain backbone.

        Parameters
        ----------
        X : array-like (n_samples, ...) or torch Dataset

        Returns
        -------
        float
        """
        exit_index = self.predict_exit(X)
        return metrics.mean_cost(exit_index, self.exit_costs_)

    def predict_set(
        self,
        X: Any,
        *,
        confidence_level: float | Sequence[float] = 0.9,
        allow_empty: bool = True,
        groups: Any = None,
    ) -> np.ndarray:
        """Labels that hold the truth with the given confidence.

        On samples exchangeable with the calibration samples a set holds the right label with
        probability at least ``confidence_level``, on average over the samples of each group
        (``condition_on``). Groups whose calibration samples are too few for the level get sets of all
        labels.

        Parameters
        ----------
        X : array-like (n_samples, ...)
        confidence_level : float or sequence of float (n_levels,), default=0.9
            In (0, 1).
        allow_empty : bool, default=True
            An empty set says that no label fits well. False puts the best label into it.
        groups : array-like (n_samples,), default=None
            Groups of these samples, where :meth:`conformalize` was given those of its samples; one that
            it did not see gets sets of all labels.

        Returns
        -------
        sets : ndarray of bool (n_samples, n_classes), or (n_samples, n_classes, n_levels)
            Columns as ``classes_``; a last axis if levels are a sequence.

        Raises
        ------
        ValueError
            If a confidence level is not in (0, 1), or groups are missing.
        """
        levels = _as_levels(confidence_level)
        check_is_fitted(self)
        self._predictor.rule.check_groups(groups)
        found, n_samples = [], 0
        for arrays in self._chunks(X):
            own = None if groups is None else groups[n_samples : n_samples + len(arrays[0])]
            found.append(self._predictor.sets(arrays, levels, allow_empty=allow_empty, groups=own))
            n_samples += len(arrays[0])
        if groups is not None and len(groups) != n_samples:
            raise ValueError(
                f"groups has {len(groups)} entries, but there are {n_samples} samples."
            )
        sets = np.concatenate(found)
        return sets[..., 0] if isinstance(confidence_level, Real) else sets

    def check_exchangeability(self, X: Any, *, significance: float = 0.01) -> Exchangeability:
        """Whether new samples differ from the calibration samples more than chance allows, as far as exits can tell.

        Compares which exits samples take, and how probable the labels are that they get. Where that
        differs, no statement about the calibration samples, prediction sets included, need hold for
        the new ones. Needs no labels, and so misses samples whose labels alone have changed.

        Parameters
        ----------
        X : array-like (n_samples, ...)
            New samples, not picked by what the classifier says of them.
        significance : float, default=0.01
            A warning is given where the p-value is less.

        Returns
        -------
        Exchangeability
            p-values ``exit_rates``, ``scores``, and ``p_value`` of both together.
        """
        check_is_fitted(self)
        found = self._over_chunks(X, Predictor.exits_and_confidence)
        exit_index, confidence = _concatenated(found)
        calibration = self._predictor.calibration
        known = (calibration.exit_index, calibration.confidence)
        return warn_if_different(known, (exit_index, confidence), significance)

    def calibration_report(self, X: Any, y: Any) -> np.ndarray:
        """How good probabilities are, for the samples that leave at each exit and for all samples.

        Parameters
        ----------
        X : array-like (n_samples, ...)
        y : array-like (n_samples,)

        Returns
        -------
        structured ndarray (n_exits + 1,)
            As :func:`metrics.calibration_report` gives it.
        """
        check_is_fitted(self)
        codes = self._predictor.schema.codes(y, count_samples(X), "y")
        found = self._over_chunks(X, Predictor.probabilities_and_exits)
        probabilities, exit_index = _concatenated(found)
        return metrics.calibration_report(probabilities, codes, exit_index, len(self.exit_costs_))

    def _answers(self, X: Any, y: Any) -> ExitAnswers:
        """Answers of every exit for labelled samples."""
        codes = self._predictor.schema.codes(y, count_samples(X), "y")
        found = AnsweredArrays(*_concatenated(self._over_chunks(X, Predictor.every_exit)))
        weights = np.ones(len(codes), dtype=np.float32)
        return ExitAnswers(**found._asdict(), codes=codes, weights=weights)

    def _over_chunks(self, X: Any, answer: Callable[[Predictor, Arrays], T]) -> list[T]:
        """What a method of the predictor answers for each chunk: the one road of every prediction."""
        check_is_fitted(self)
        return [answer(self._predictor, arrays) for arrays in self._chunks(X)]

    def _chunks(self, X: Any) -> Iterator[Arrays]:
        """Checked and encoded samples, a chunk at a time: all of them are never held at once."""
        schema, least = self._predictor.schema, self._predictor.cascade.engine.batch_size
        given: Iterable[Any] = iter_user_chunks(X, least)
        if is_dataset(X):
            of_loader = {n: v for n, v in vars(self).items() if n.startswith(VALID)}
            options = {n.removeprefix(VALID): v for n, v in of_loader.items()}
            given = map(unpack_batch, dataset_batches(X, least, options))
        for arrays in checked_chunks(schema, _with_progress(given, self.verbose), least):
            yield schema.encode(arrays)


def _concatenated(found: Sequence[tuple[np.ndarray, ...]]) -> tuple[np.ndarray, ...]:
    return tuple(map(np.concatenate, zip(*found, strict=True)))


def _as_levels(confidence_level: float | Sequence[float]) -> list[float]:
    levels = np.atleast_1d(confidence_level)
    numbers = levels.ndim == 1 and levels.size and levels.dtype.kind == "f"
    if not numbers or not np.all((levels > 0) & (levels < 1)):
        raise ValueError(
            f"confidence_level={confidence_level!r} is not allowed; give a number above 0 and below 1, or several."
        )
    return [float(level) for level in levels]


def _with_progress(chunks: Iterable[Any], verbose: int) -> Iterable[Any]:
    """The same with a progress bar, if that is asked for and there is more than one chunk."""
    if not verbose:
        return chunks
    from tqdm import tqdm

    bar: Iterable[Any] = tqdm(chunks, desc="Samples", unit=" chunks", delay=BAR_AFTER_SECONDS)
    return bar
