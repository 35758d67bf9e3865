"""Members: the backbone, and what stands in front of it; any classifier as a stage."""

import inspect
from typing import NamedTuple

import numpy as np
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted, has_fit_parameter
from torch import nn

from ._costs import multiply_adds
from ._stages import Stage
from .backbones import BagOfEmbeddings, ImageResNet, TabularResNet

LEAST_PROBABILITY = 1e-6
TABLE_WIDTHS = (8, 10, 12, 16, 24, 32, 40, 64, 96, 128, 192, 256, 384)
# Processors take eight channels at once: measured on a core with AVX2, width 10 takes as long as width 16.
IMAGE_WIDTHS = tuple(width for width in TABLE_WIDTHS if width % 8 == 0)
# Shares of the backbone's cost that candidates come near to (method page, section 10).
TABLE_SHARES, IMAGE_SHARES = (0.025, 0.15), (0.1, 0.25)
N_SHAPE_ROWS = 2000


class Member(NamedTuple):
    """One of the networks, or other classifiers, that a row may go through."""

    module: object  # torch module (class, instance, or None for the ready backbone), or classifier
    params: dict  # what a class is built with

    @property
    def is_classifier(self):
        is_torch = isinstance(self.module, nn.Module) or inspect.isclass(self.module)
        return not is_torch and hasattr(self.module, "predict_proba")


def as_members(module, params):
    """What a user gives as ``module`` -> members, the backbone last.

    Parameters
    ----------
    module : torch module, None, or list of members
        A member is a torch module (class or instance), None, a pair of one of these with a dict of its
        parameters, or a classifier; the last is the backbone.
    params : dict
        The ``module__*`` parameters, which are the backbone's.

    Raises
    ------
    ValueError, TypeError
        Where the list is empty, or the last one is no torch module.
    """
    if not isinstance(module, list | tuple):
        return [Member(module, params)]
    if not module:
        raise ValueError("module=[] names no network; give at least one.")
    members = [_as_member(entry) for entry in module]
    backbone = members[-1]
    if backbone.is_classifier:
        raise TypeError(
            f"module[-1]={backbone.module!r} is no torch module; the last member, which costs are relative "
            f"to, must be one (or None for the ready backbone)."
        )
    return [*members[:-1], Member(backbone.module, {**backbone.params, **params})]


def _as_member(entry):
    if not isinstance(entry, tuple):
        return Member(entry, {})
    if len(entry) != 2 or not isinstance(entry[1], dict):
        raise ValueError(
            f"module has the member {entry!r}; a tuple must be a pair of a torch module class (or None) and a "
            f"dict of its parameters."
        )
    return Member(*entry)


def companions_for(X, n_classes, cost, *, image_shape, embeds):
    """Candidates to stand in front of a backbone, cheapest first: narrower ready networks.

    Parameters
    ----------
    X : ndarray (n_samples, ...) or dict of such
        Rows that train.
    n_classes : int
    cost : float
        Multiply-adds of the backbone for one row.
    image_shape : tuple or None
        Shape of the images that come as flat rows.
    embeds : bool
        Whether the whole numbers of ``X`` are tokens.

    Returns
    -------
    list of Member

    Raises
    ------
    ValueError
        Where ``X`` is a dict without tokens.
    """
    if embeds or isinstance(X, dict):
        return [Member(BagOfEmbeddings, {})]
    if X.ndim > 2 or image_shape is not None:
        kind, shares, widths = ImageResNet, IMAGE_SHARES, IMAGE_WIDTHS
        params = {"n_blocks": 9, "image_shape": image_shape}
    else:
        kind, shares, widths = TabularResNet, TABLE_SHARES, TABLE_WIDTHS
        params = {"n_blocks": 3}
    some = X[:N_SHAPE_ROWS]
    of_width = {}
    with torch.random.fork_rng(devices=[]):
        for width in widths:
            network = kind.from_data(some, n_classes, width=width, **params).eval()
            rows = torch.as_tensor(np.float32(some[:1]))
            of_width[width] = multiply_adds(network, rows)[1] / cost
    nearest = {min(widths, key=lambda w: abs(np.log(of_width[w] / share))) for share in shares}
    return [Member(kind, {"width": w, **params}) for w in sorted(nearest) if of_width[w] < 0.5]


def as_given(arrays, input_names):
    """One array, or a dict of them where the inputs have names: as a user gives ``X``."""
    return arrays[0] if input_names is None else dict(zip(input_names, arrays, strict=True))


class ClassifierStage(Stage):
    """A fitted classifier as a stage that answers logits: the log-probabilities that it gives.

    Parameters
    ----------
    classifier : classifier with ``predict_proba``
    classes : ndarray (n_classes,)
        Labels in the order of the logits.
    input_names : tuple of str or None
        Names under which the classifier finds the inputs in a dict; None gives it an array.
    """

    def __init__(self, classifier, classes, input_names):
        super().__init__(None, None)
        self.classifier = classifier
        self.input_names = input_names
        self.columns = np.searchsorted(classes, classifier.classes_)
        self.n_classes = len(classes)

    @torch.compiler.disable
    def forward(self, *inputs):
        """Tensors (n_samples, ...) -> logits (n_samples, n_classes)"""
        arrays = [tensor.cpu().numpy() for tensor in inputs]
        X = as_given(arrays, self.input_names)
        probs = np.zeros((len(arrays[0]), self.n_classes), dtype=np.float32)
        probs[:, self.columns] = self.classifier.predict_proba(X)
        logits = np.log(np.maximum(probs, LEAST_PROBABILITY))
        return torch.as_tensor(logits, device=inputs[0].device)


def fitted_classifier(classifier, X, y, sample_weight):
    """The classifier itself where it is fitted, else a fitted clone.

    Parameters
    ----------
    classifier : classifier
    X : ndarray (n_samples, ...) or dict of such
    y : ndarray (n_samples,)
    sample_weight : ndarray (n_samples,)

    Raises
    ------
    ValueError
        Where rows weigh differently and it takes no weights.
    """
    if _is_fitted(classifier):
        return classifier
    if np.ptp(sample_weight) == 0:
        return clone(classifier).fit(X, y)
    if not has_fit_parameter(classifier, "sample_weight"):
        raise ValueError(
            f"sample_weight or class_weight is given, but the member {classifier!r} takes no sample_weight; fit it "
            f"beforehand, or leave the weights out."
        )
    return clone(classifier).fit(X, y, sample_weight=sample_weight)


def _is_fitted(classifier):
    try:
        check_is_fitted(classifier)
    except NotFittedError:
        return False
    return True


def check_classes(classifier, classes):
    """Refuse a fitted classifier that knows other labels."""
    unknown = sorted(set(np.asarray(classifier.classes_).tolist()) - set(classes.tolist()), key=str)
    if unknown:
        raise ValueError(
            f"the member {classifier!r} was fitted on labels {unknown[:5]} that y does not have."
        )
