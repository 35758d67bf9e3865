"""What companions learn from a last member that is a classifier: labels, and what it answers out of fold.

A classifier is surer of samples that it has learned from than of others, and trees answer their labels. So a classifier
that was fitted here answers each training sample as it was fitted without it. Labels are half of what companions learn
(decision 49).
"""

from typing import Any

import numpy as np
import torch

from .._engines.torch_engine import as_tensors
from .._schema import InputSchema, Samples
from .._splits import deal_folds
from .checkpoint import NO_CHECKPOINT, Checkpoint
from .classifiers import ClassifierStage, fitted_stage, is_fitted
from .members import Member

# Share of the label in what a companion learns of a sample.
LABEL_SHARE = 0.5
N_FOLDS = 5
# Where scikit-learn's ensembles keep what those of their members answer that have not learned from a sample.
OUT_OF_BAG = "oob_decision_function_"


def soft_labels(
    member: Member,
    stage: ClassifierStage,
    samples: Samples,
    weights: np.ndarray,
    stored: Checkpoint = NO_CHECKPOINT,
) -> np.ndarray:
    """Return what companions learn of the training samples: (n_samples, n_classes).

    Parameters
    ----------
    member : Member
        The classifier as it came; one that came fitted answers the samples as it is.
    stage : ClassifierStage
        The fitted one.
    samples : Samples
        Encoded training samples.
    weights : ndarray (n_samples,)
    stored : Checkpoint
        Where fitted classifiers are stored.
    """
    labels: np.ndarray = np.eye(stage.schema.n_classes, dtype=np.float32)[samples.codes]
    answers = _honest_answers(member, stage, samples, weights, stored)
    # A sample that every member of a bag has learned from has no such answer.
    known = np.isfinite(answers).all(axis=1, keepdims=True)
    softened = LABEL_SHARE * labels + (1 - LABEL_SHARE) * answers
    soft: np.ndarray = np.where(known, softened, labels)
    return soft


def _honest_answers(
    member: Member,
    stage: ClassifierStage,
    samples: Samples,
    weights: np.ndarray,
    stored: Checkpoint,
) -> np.ndarray:
    """Answers (n_samples, n_classes) of the classifier as it was fitted without each sample, if it was fitted here."""
    if is_fitted(member.module):
        return _answers(stage, samples)
    own = _out_of_bag(stage, len(samples))
    return own if own is not None else _out_of_fold(member, stage.schema, samples, weights, stored)


def _out_of_bag(stage: ClassifierStage, n_samples: int) -> np.ndarray | None:
    """Answers that the classifier itself keeps, if it does."""
    own: Any = getattr(stage.classifier, OUT_OF_BAG, None)
    if np.shape(own) != (n_samples, len(stage.columns)):
        return None
    answers = np.zeros((n_samples, stage.schema.n_classes), dtype=np.float32)
    answers[:, stage.columns] = own
    return answers


def _out_of_fold(
    member: Member,
    schema: InputSchema,
    samples: Samples,
    weights: np.ndarray,
    stored: Checkpoint,
) -> np.ndarray:
    """Answers of classifiers that are fitted without each fold; NaN for samples in none."""
    answers = np.full((len(samples), schema.n_classes), np.nan, dtype=np.float32)
    n_folds = min(N_FOLDS, int((np.bincount(samples.codes)[samples.codes] > 1).sum()))
    if n_folds < 2:
        return answers
    rng = np.random.RandomState(torch.initial_seed() % 2**32)
    folds = deal_folds(samples.codes, n_folds, rng)
    for fold in range(n_folds):
        others, own = (np.flatnonzero(rows) for rows in (folds != fold, folds == fold))
        stage = fitted_stage(member, schema, samples.take(others), weights[others], stored)
        answers[own] = _answers(stage, samples.take(own))
    return answers


@torch.no_grad()
def _answers(stage: ClassifierStage, samples: Samples) -> np.ndarray:
    probs: np.ndarray = stage(*as_tensors(samples.inputs)).softmax(1).numpy()
    return probs
