"""What a fitted classifier answers for samples: the prediction methods of the estimator."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
from sklearn.metrics import accuracy_score
from sklearn.utils.validation import check_is_fitted

from . import metrics
from ._datasets import DatasetBatches, is_dataset, no_samples
from ._labels import read_labels
from ._numbers import check_number
from ._operate.calibration import as_levels, check_allow_empty, of_level
from ._operate.cascade import AnsweredArrays
from ._operate.drift import Exchangeability, warn_if_different
from ._operate.exit_answers import ExitAnswers
from ._operate.user_functions import as_group_labels
from ._predictor import Predictor
from ._samples import check_weights, checked_chunks, codes_of, count_samples, iter_user_chunks
from ._schema import Arrays
from ._streams import check_batches, unpack_batch

T = TypeVar("T")
VALID = "iterator_valid__"
STREAMED = ("predict", "predict_proba", "predict_log_proba", "predict_exit", "predict_set")
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
            A memory map is read a chunk at a time; so is a dataset, of samples, of 1-tuples of them or of
            (sample, label).

        Returns
        -------
        y : ndarray (n_samples,)
            A sample that an exit answers with NaN or infinity has the label of the last exit before that
            answers it, and is warned of.
        """
        return np.concatenate(self._over_chunks(X, Predictor.labels))

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Share of samples whose label is right.

        Parameters
        ----------
        X : array-like (n_samples, ...) or torch Dataset
        y : array-like (n_samples,)
            None if ``X`` is a dataset of pairs (sample, label).
        sample_weight : array-like (n_samples,), default=None

        Returns
        -------
        float
        """
        check_is_fitted(self)
        X = self._dataset_batches(X) if is_dataset(X) else X
        labels = self.predict(X)
        y = X.all_labels() if y is None and isinstance(X, DatasetBatches) else y
        y = read_labels(y, "y")
        if sample_weight is not None:
            sample_weight = check_weights(sample_weight, labels)
        return float(accuracy_score(y, labels, sample_weight=sample_weight))

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Logarithms of :meth:`predict_proba`; all are finite.

        Parameters
        ----------
        X : array-like (n_samples, ...) or torch Dataset

        Returns
        -------
        log_probabilities : ndarray (n_samples, n_classes)
            Columns as ``classes_``.
        """
        probabilities = self.predict_proba(X)
        logs: np.ndarray = np.log(np.maximum(probabilities, np.finfo(np.float64).tiny))
        return logs

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities of the exit that each sample takes.

        Parameters
        ----------
        X : array-like (n_samples, ...) or torch Dataset

        Returns
        -------
        probabilities : ndarray (n_samples, n_classes)
            Columns as ``classes_``; uniform for samples without an answer.
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
        method : str, default="predict"
            "predict", "predict_proba", "predict_log_proba", "predict_exit" or "predict_set".

        Yields
        ------
        ndarray
            What the method answers for each batch.

        Raises
        ------
        ValueError, TypeError
            If there is no such method, or ``batches`` are one batch.
        """
        check_is_fitted(self)
        if not isinstance(method, str) or method not in STREAMED:
            raise ValueError(f"method={method!r} is not known; give one of {STREAMED}.")
        answer = getattr(self, method)
        return (answer(unpack_batch(batch)) for batch in check_batches(batches))

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
        labels; so do samples that the network answers with NaN or infinity.

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
        levels = as_levels(confidence_level)
        check_allow_empty(allow_empty)
        check_is_fitted(self)
        self._predictor.rule.check_groups(groups)
        groups = None if groups is None else as_group_labels(groups, "groups")
        # A dataset need not say how many samples it has.
        if groups is not None and not (is_dataset(X) and not hasattr(X, "__len__")):
            _check_groups(groups, count_samples(X))
        n_samples = 0

        def sets_of(predictor: Predictor, arrays: Arrays) -> np.ndarray:
            nonlocal n_samples
            first, n_samples = n_samples, n_samples + len(arrays[0])
            own = None if groups is None else groups[first:n_samples]
            return predictor.sets(arrays, levels, allow_empty=allow_empty, groups=own)

        found = self._over_chunks(X, sets_of)
        if groups is not None:
            _check_groups(groups, n_samples)
        sets = np.concatenate(found)
        return of_level(sets, confidence_level)

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
        check_number(significance, "significance", least=0, most=1)
        self._predictor.calibrating("so there is nothing to compare X with")
        found = self._over_chunks(X, Predictor.exits_and_confidence)
        exit_index, confidence = concatenated(found)
        calibration = self._predictor.calibration
        known = (calibration.exit_index, calibration.confidence)
        return warn_if_different(known, (exit_index, confidence), significance)

    def calibration_report(self, X: Any, y: Any = None) -> np.ndarray:
        """How good probabilities are, for the samples that leave at each exit and for all samples.

        Parameters
        ----------
        X : array-like (n_samples, ...) or torch Dataset
        y : array-like (n_samples,)
            None if ``X`` is a dataset of pairs (sample, label).

        Returns
        -------
        structured ndarray (n_exits + 1,)
            As :func:`metrics.calibration_report` gives it.
        """
        codes, found = self._labelled(X, y, Predictor.probabilities_and_exits)
        probabilities, exit_index = concatenated(found)
        return metrics.calibration_report(probabilities, codes, exit_index, len(self.exit_costs_))

    def _answers(self, X: Any, y: Any) -> ExitAnswers:
        """Answers of every exit for samples."""
        codes, found = self._labelled(X, y, Predictor.every_exit)
        return _labelled_answers(found, codes)

    def _answers_and_leakage(
        self, X: Any, y: Any, *, needs_labels: bool
    ) -> tuple[ExitAnswers, str | None]:
        """Answers of every exit, and why these samples show nothing; without labels all have the first class."""
        if needs_labels:
            codes, found = self._labelled(X, y, Predictor.every_exit_and_hashes)
        else:
            codes, found = None, self._over_chunks(X, Predictor.every_exit_and_hashes)
        answered, of_chunks = zip(*found, strict=True)
        hashes = np.concatenate(of_chunks)
        leakage = self._predictor.leakage_of(hashes, codes)
        codes = np.zeros(len(hashes), dtype=int) if codes is None else codes
        return _labelled_answers(answered, codes), leakage

    def _labelled(
        self, X: Any, y: Any, answer: Callable[[Predictor, Arrays], T]
    ) -> tuple[np.ndarray, list[T]]:
        """Codes of the labels, given or a dataset's own, and what a method answers for each chunk."""
        check_is_fitted(self)
        schema = self._predictor.schema
        if not is_dataset(X):
            codes = codes_of(schema, y, count_samples(X))
            return codes, self._over_chunks(X, answer)
        batches = self._dataset_batches(X)
        found = self._over_chunks(batches, answer)
        labels = batches.all_labels() if y is None else y
        return codes_of(schema, labels, batches.n_samples), found

    def _dataset_batches(self, X: Any) -> DatasetBatches:
        batch_size = self._predictor.cascade.engine.batch_size
        return DatasetBatches(X, batch_size, self._loader_options())

    def _loader_options(self) -> dict[str, Any]:
        """Options with which datasets are loaded."""
        given = vars(self).items()
        return {n.removeprefix(VALID): value for n, value in given if n.startswith(VALID)}

    def _over_chunks(self, X: Any, answer: Callable[[Predictor, Arrays], T]) -> list[T]:
        """What a method of the predictor answers for each chunk: the one road of every prediction."""
        # scikit-learn's check takes longer than an answer.
        if "_predictor" not in vars(self):
            check_is_fitted(self)
        found = []
        for arrays in self._chunks(X):
            with self._predictor.schema.explaining(arrays):
                found.append(answer(self._predictor, arrays))
        return found

    def _chunks(self, X: Any) -> Iterator[Arrays]:
        """Checked and encoded samples, a chunk at a time: all of them are never held at once."""
        schema, least = self._predictor.schema, self._predictor.cascade.engine.batch_size
        is_small = isinstance(X, np.ndarray) and X.ndim > 0 and len(X) <= least
        plain = schema.plain_inputs(X) if is_small else None
        if plain is not None:
            yield schema.encode(plain)
            return
        X = self._dataset_batches(X) if is_dataset(X) else X
        given = X if isinstance(X, DatasetBatches) else iter_user_chunks(X, least)
        n_chunks = 0
        for arrays in checked_chunks(schema, _with_progress(given, self.verbose), least):
            n_chunks += 1
            yield schema.encode(arrays)
        if not n_chunks:
            raise no_samples()


def _labelled_answers(found: Sequence[AnsweredArrays], codes: np.ndarray) -> ExitAnswers:
    answered = AnsweredArrays(*concatenated(found))
    weights = np.ones(len(codes), dtype=np.float32)
    return ExitAnswers(**answered._asdict(), codes=codes, weights=weights)


def concatenated(found: Sequence[tuple[np.ndarray, ...]]) -> tuple[np.ndarray, ...]:
    """Answers of chunks, each several arrays, as arrays of all samples."""
    return tuple(map(np.concatenate, zip(*found, strict=True)))


def _check_groups(groups: np.ndarray, n_samples: int) -> None:
    """Refuse group labels that are not one for each sample."""
    if groups.shape != (n_samples,):
        raise ValueError(f"groups has shape {groups.shape}, but there are {n_samples} samples.")


def _with_progress(chunks: Iterable[Any], verbose: int) -> Iterable[Any]:
    """The same with a progress bar, if that is asked for and there is more than one chunk."""
    if not verbose:
        return chunks
    from tqdm import tqdm

    bar: Iterable[Any] = tqdm(chunks, desc="Samples", unit=" chunks", delay=BAR_AFTER_SECONDS)
    return bar
