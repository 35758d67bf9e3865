"""Members that are no torch modules: any classifiers, fitted here or before."""

import copy
from typing import Any

import numpy as np
import sklearn
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted, has_fit_parameter

from .._cut import CutInfo, Stage
from .._given import as_numpy
from .._schema import Arrays, InputSchema, Samples
from .._warn import warn_caller
from .checkpoint import NO_CHECKPOINT, Checkpoint
from .members import AS_NUMBERS, LEAST_PROBABILITY, Member
from .trees import multiply_adds_of
from .turns import FIT_TURNS


class ClassifierStage(Stage):
    """A fitted classifier as a stage whose logits are the classifier's log-probabilities.

    Parameters
    ----------
    classifier : classifier with ``predict_proba``
    schema : InputSchema
    batch_size : int or None, default=None
        Most samples that it is given at once; None gives it all of a batch.
    as_numbers : bool, default=False
        Whether it is given the numbers of a table, not what the user gave.
    least_probability : float
        Floor of its probabilities.
    """

    def __init__(
        self,
        classifier: Any,
        schema: InputSchema,
        *,
        batch_size: int | None = None,
        as_numbers: bool = False,
        least_probability: float = LEAST_PROBABILITY,
    ) -> None:
        super().__init__(None, info=CutInfo())
        self.classifier = classifier
        self.schema = schema
        self.batch_size = batch_size
        self.as_numbers = as_numbers
        self.least_probability = least_probability
        # Of a sample; a user's classifiers are timed.
        self.multiply_adds = multiply_adds_of(classifier) if as_numbers else None
        self.columns = np.searchsorted(schema.classes, classifier.classes_)

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # torch has no type hints here
    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Tensors (n_samples, ...) -> logits (n_samples, n_classes)"""
        arrays = tuple(tensor.cpu().numpy() for tensor in inputs)
        n_samples = len(arrays[0])
        step = self.batch_size or max(n_samples, 1)
        probs = np.zeros((n_samples, self.schema.n_classes), dtype=np.float32)
        for start in range(0, n_samples, step):
            some = tuple(array[start : start + step] for array in arrays)
            own = _as_given(self.schema, some, self.as_numbers)
            n_own = len(some[0])
            probs[start : start + step, self.columns] = probabilities(self.classifier, own, n_own)
        logits = np.log(np.maximum(probs, self.least_probability))
        return torch.as_tensor(logits, device=inputs[0].device)

    def counted(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, float]:
        """Logits of the right shape, and the multiply-adds; a slow classifier is not asked to count them."""
        n_samples = len(inputs[0])
        logits = torch.zeros(n_samples, self.schema.n_classes, device=inputs[0].device)
        return logits, n_samples * (self.multiply_adds or 0)


def probabilities(classifier: Any, X: Any, n_samples: int) -> np.ndarray:
    """What a classifier answers: (n_samples, n_own_classes)

    Raises
    ------
    ValueError
        If it answers anything else, which NumPy would stretch to that shape.
    """
    probs = as_numpy(classifier.predict_proba(X))
    expected = (n_samples, len(classifier.classes_))
    if probs.shape != expected:
        raise ValueError(
            f"predict_proba of the member {classifier!r} answers an array of shape {probs.shape} for {n_samples} "
            f"samples; it must be {expected}, one column for each of its classes_."
        )
    return probs


def fitted_stage(
    member: Member,
    schema: InputSchema,
    samples: Samples,
    weights: np.ndarray,
    stored: Checkpoint = NO_CHECKPOINT,
) -> ClassifierStage:
    """Return a member that is a classifier as a stage, fitted on these samples if it is not.

    Parameters
    ----------
    member : Member
    schema : InputSchema
    samples : Samples
        Encoded.
    weights : ndarray (n_samples,)
    stored : Checkpoint
        Where a fitted classifier is stored.
    """
    as_numbers = member.params.get(AS_NUMBERS, False)
    if not as_numbers:
        _warn_of_rounded(member, schema, samples)
    classifier = member.module
    if not is_fitted(classifier):
        classifier = stored.finished(
            lambda: fitted_classifier(
                member.module,
                _as_given(schema, samples.inputs, as_numbers),
                schema.classes[samples.codes],
                weights,
            ),
            lambda: ("classifier", member, samples, weights),
        )
    check_classes(classifier, schema.classes)
    return ClassifierStage(classifier, schema, **member.params)


def _warn_of_rounded(member: Member, schema: InputSchema, samples: Samples) -> None:
    """Tell that a classifier is given identifiers and the like rounded."""
    rounded = [] if schema.columns is None else schema.columns.rounded(samples.inputs[0])
    if rounded:
        warn_caller(
            f"X has whole numbers above 2**24 in columns {rounded}, which become float32, so the member "
            f"{member.module!r} is given them rounded. If they are identifiers, name them in categorical_features, or "
            f"make words of them."
        )


def _as_given(schema: InputSchema, arrays: Arrays, as_numbers: bool) -> Any:
    """What a classifier is given: it may write into it, as a scaler with copy=False does."""
    if not as_numbers:
        return schema.as_own_input(arrays)
    return schema.as_module_input(tuple(array.copy() for array in arrays))


def fitted_classifier(
    classifier: Any,
    X: np.ndarray | dict[str, np.ndarray],
    y: np.ndarray,
    sample_weight: np.ndarray,
) -> Any:
    """Return the classifier itself if it is fitted, else a fitted clone.

    Parameters
    ----------
    classifier : classifier
    X : ndarray (n_samples, ...) or dict of such
        Read by nobody else, since the classifier may write into it.
    y : ndarray (n_samples,)
    sample_weight : ndarray (n_samples,)

    Raises
    ------
    ValueError
        If the weights of the samples differ and the classifier takes no weights.
    """
    if is_fitted(classifier):
        return classifier
    own = _with_seeds(_unfitted_copy(classifier))
    weights = {} if np.ptp(sample_weight) == 0 else _as_fit_parameter(own, sample_weight)
    # Pipelines take weights by the names of their steps only without the routing of metadata.
    routing = None if "sample_weight" in weights or not weights else False
    try:
        with FIT_TURNS.lend(), sklearn.config_context(enable_metadata_routing=routing):
            fitted = own.fit(X, y, **weights)
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"the member {classifier!r} cannot be fitted on X: {error}") from error
    return fitted


def _unfitted_copy(classifier: Any) -> Any:
    """Return a clone, or a copy of what scikit-learn does not clone, as CatBoost's classifier with ``cat_features``."""
    try:
        return clone(classifier)
    except RuntimeError:
        return copy.deepcopy(classifier)


def _with_seeds(classifier: Any) -> Any:
    """The classifier with seeds of this fit in the place of each random_state=None, as scikit-learn's ensembles do."""
    random = np.random.RandomState(torch.initial_seed() % 2**32)
    seeds = {
        name: random.randint(2**31 - 1)
        for name, value in sorted(classifier.get_params(deep=True).items())
        if value is None and (name == "random_state" or name.endswith("__random_state"))
    }
    return classifier.set_params(**seeds)


def _as_fit_parameter(classifier: Any, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Weights under the name by which ``fit`` takes them, of a pipeline its last step."""
    if has_fit_parameter(classifier, "sample_weight"):
        return {"sample_weight": weights}
    if isinstance(classifier, Pipeline):
        name, last = classifier.steps[-1]
        own = {} if isinstance(last, str) or last is None else _as_fit_parameter(last, weights)
        return {f"{name}__{parameter}": value for parameter, value in own.items()}
    raise ValueError(
        f"sample_weight or class_weight is given, but the member {classifier!r} takes no sample_weight; fit it "
        f"beforehand, or leave the weights out."
    )


def is_fitted(classifier: Any) -> bool:
    try:
        check_is_fitted(classifier)
    except NotFittedError:
        return False
    return True


def check_classes(classifier: Any, classes: np.ndarray) -> None:
    """Refuse a fitted classifier without probabilities, or with labels which ``y`` does not have."""
    if not hasattr(classifier, "predict_proba"):
        raise TypeError(
            f"the member {classifier!r} has no predict_proba; wrap it in a CalibratedClassifierCV."
        )
    if not hasattr(classifier, "classes_"):
        raise TypeError(
            f"the member {classifier!r} has no classes_, the labels of the columns of its predict_proba, after fit."
        )
    unknown = sorted(set(np.asarray(classifier.classes_).tolist()) - set(classes.tolist()), key=str)
    if unknown:
        raise ValueError(
            f"the member {classifier!r} was fitted on labels {unknown[:5]} that y does not have."
        )
