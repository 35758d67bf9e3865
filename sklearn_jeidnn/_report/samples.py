"""Labelled samples as every exit answers them, and whether the classifier has seen them before."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._history import GATES, TRAIN, SampleHistory, input_hashes, labelled_hashes
from .._operate.cascade import AnsweredArrays
from .._operate.exit_answers import ExitAnswers
from .._operate.user_functions import as_group_labels
from .._predictor import Predictor
from .._schema import Arrays


@dataclass(frozen=True, kw_only=True)
class LabelledAnswers:
    """What a report needs to know of labelled samples.

    Parameters
    ----------
    answers : ExitAnswers
    hashes : ndarray of uint64 (n_samples,)
        Of the samples with their labels.
    uniform : ndarray (n_samples,)
        Random numbers of conformity scores.
    groups : ndarray of int (n_samples,)
        As calibration numbers them.
    """

    answers: ExitAnswers
    hashes: np.ndarray
    uniform: np.ndarray
    groups: np.ndarray

    @property
    def codes(self) -> np.ndarray:
        """Column of each sample's label in ``classes_``: (n_samples,)."""
        return self.answers.codes

    def __len__(self) -> int:
        return len(self.answers)


def answer_samples(classifier: Any, X: Any, y: Any, groups: Any) -> LabelledAnswers:
    """Run labelled samples once through every exit of a fitted classifier; ``groups`` as ``predict_set`` takes them."""
    predictor: Predictor = classifier._predictor
    predictor.rule.check_groups(groups)
    codes, found = classifier._labelled(X, y, _answer)
    *answered, hashes, uniform, numbers = map(np.concatenate, zip(*found, strict=True))
    weights = np.ones(len(codes), dtype=np.float32)
    answers = AnsweredArrays(*answered)._asdict()
    return LabelledAnswers(
        answers=ExitAnswers(**answers, codes=codes, weights=weights),
        hashes=labelled_hashes(hashes, codes, predictor.schema.classes),
        uniform=uniform,
        groups=numbers if groups is None else _group_numbers(predictor, groups, len(codes)),
    )


def _answer(predictor: Predictor, arrays: Arrays) -> tuple[np.ndarray, ...]:
    """Answers of every exit, hashes, random numbers and groups of a chunk; groups that the user gives come later."""
    groups = np.zeros(len(arrays[0]), dtype=int)
    if predictor.samples is not None and not predictor.rule.takes_groups:
        groups = predictor.group_numbers(arrays, None)
    answered = predictor.every_exit(arrays)
    return (*answered, input_hashes(arrays), predictor.rule.uniform(arrays), groups)


def _group_numbers(predictor: Predictor, groups: Any, n_samples: int) -> np.ndarray:
    """Numbers of the groups that the user gives: (n_samples,)."""
    labels = as_group_labels(groups, "groups")
    if labels.shape != (n_samples,):
        raise ValueError(f"groups has shape {labels.shape}, but there are {n_samples} samples.")
    return predictor.calibrating("so no prediction set holds").group_numbers(labels)


@dataclass(frozen=True, kw_only=True)
class Known:
    """How many samples the classifier has seen before, with their labels.

    Parameters
    ----------
    n_learned : int
        Trained its networks or set its gates.
    n_calibrated : int
        Calibrated its prediction sets.
    n_samples : int
    """

    n_learned: int
    n_calibrated: int
    n_samples: int

    @property
    def any(self) -> bool:
        return bool(self.n_learned or self.n_calibrated)


def known_samples(predictor: Predictor, samples: LabelledAnswers) -> Known:
    """Count the samples that the classifier has seen; those that are equal by chance do not count."""
    return Known(
        n_learned=predictor.history.count_used(samples.hashes, (TRAIN, GATES)),
        n_calibrated=_count_calibrating(predictor, samples.answers),
        n_samples=len(samples),
    )


def _count_calibrating(predictor: Predictor, answers: ExitAnswers) -> int:
    """How many samples are among those that calibrate, of which answers and labels are kept, but no hashes."""
    if predictor.samples is None:
        return 0
    known, new = map(_hashes_of_answers, (predictor.samples.answers, answers))
    # All of these samples may be a few of those, and the other way round.
    return max(_count_equal(known, new), _count_equal(new, known))


def _count_equal(known: np.ndarray, new: np.ndarray) -> int:
    """How many of the new hashes are known, if more than chance explains."""
    return SampleHistory.of([known, known[:0], known[:0]], complete=True).count_used(new)


def _hashes_of_answers(answers: ExitAnswers) -> np.ndarray:
    """64 bits that tell labelled samples apart by the first and the last answer, but for rounding: (n_samples,)."""
    parts: Sequence[np.ndarray] = (answers.logits[:, 0], answers.backbone_logits)
    rounded = [np.round(np.nan_to_num(part.astype(np.float64)), 1) for part in parts]
    return input_hashes((np.concatenate([*rounded, answers.codes[:, None]], axis=1),))
