"""Members: the backbone, and what stands in front of it; any classifier as a stage."""

import inspect
import math
from typing import NamedTuple

import numpy as np
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted, has_fit_parameter
from torch import nn

from ._stages import Stage
from .backbones import BagOfEmbeddings, ImageResNet, TabularResNet

LEAST_PROBABILITY = 1e-6
TABLE_WIDTHS = (8, 10, 12, 16, 24, 32, 40, 64, 96, 128, 192, 256, 384)
# Processors take eight channels at once: measured on a core with AVX2, width 10 takes as long as width 16.
IMAGE_WIDTHS = tuple(width for width in TABLE_WIDTHS if width % 8 == 0)
# Where all candidates take longer than they should, those that take hardly longer than the quickest.
HARDLY_LONGER = 1.2
# Objectives that differ by less (an error in 100,000 samples) are equal, so that rounding, which differs from processor
# to processor, decides nothing: four sets of companions agreed within 1.4e-6 on 15 samples.
EQUAL_OBJECTIVES = 1e-5
# Most of the backbone's cost that a candidate may have; most of its multiply-adds where time counts.
MOST_COST, MOST_COUNTED = 0.5, 2.0
N_SHAPE_ROWS = 2000


class Shapes(NamedTuple):
    """Ready networks among which companions are looked for."""

    kind: type
    widths: tuple
    n_blocks: int
    few_blocks: int  # of networks that are shallow
    # Shares of the backbone's multiply-adds, and of its time, that companions come near to
    # (method page, section 10; shares of time measured on chess endgames and CIFAR-10).
    shares: tuple
    time_shares: tuple


TABLES = Shapes(TabularResNet, TABLE_WIDTHS, 3, 1, (0.025, 0.15), (0.1, 0.25))
IMAGES = Shapes(ImageResNet, IMAGE_WIDTHS, 9, 3, (0.1, 0.25), (0.15, 0.35))


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


def companions_for(X, n_classes, *, image_shape, embeds, counted, timed=None):
    """Candidates to stand in front of a backbone, cheapest first: smaller ready networks.

    Parameters
    ----------
    X : ndarray (n_samples, ...) or dict of such
        Rows that train.
    n_classes : int
    image_shape : tuple or None
        Shape of the images that come as flat rows.
    embeds : bool
        Whether the whole numbers of ``X`` are tokens.
    counted : callable
        Network -> its multiply-adds, relative to the backbone's.
    timed : callable, default=None
        List of networks -> their times, relative to the backbone's; None chooses by multiply-adds.

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
    is_image = X.ndim > 2 or image_shape is not None
    shapes, given = (IMAGES, {"image_shape": image_shape}) if is_image else (TABLES, {})
    depths = [shapes.n_blocks] if timed is None else [shapes.few_blocks, shapes.n_blocks]
    params = {
        (n_blocks, width): {"width": width, "n_blocks": n_blocks, **given}
        for n_blocks in depths
        for width in shapes.widths
    }
    some, costs, networks = X[:N_SHAPE_ROWS], {}, {}
    with torch.random.fork_rng(devices=[]):
        for shape, own in params.items():
            network = shapes.kind.from_data(some, n_classes, **own).eval()
            costs[shape] = counted(network)
            # The widest image networks take hundreds of megabytes: they are not kept.
            if timed is not None and costs[shape] < MOST_COUNTED:
                networks[shape] = network
    if timed is None:
        chosen = _nearest(costs, shapes.shares)
    else:
        costs = dict(zip(networks, timed(list(networks.values())), strict=True))
        chosen = _largest(costs, shapes.time_shares)
    cheap = [shape for shape in chosen if costs[shape] < MOST_COST]
    return [Member(shapes.kind, params[shape]) for shape in sorted(cheap, key=costs.get)]


def _nearest(costs, shares):
    """Shapes whose costs come nearest to the shares."""
    return {min(costs, key=lambda shape: abs(np.log(costs[shape] / share))) for share in shares}


def _largest(times, shares):
    """Of the shapes that take at most a share of the time those with most units, blocks times width; for each share.

    A layer takes some time whatever its width: for a single row that leaves shallow networks, for many rows deep
    ones. Units tell how good a shape is, more or less: on chess endgames one block of width 64, 128, 256 is right
    on 82.4, 84.5, 88.9 %, two of width 128 on 88.1, three of width 24, 40, 64, 128 on 77.4, 84.2, 87.8, 89.5.
    """
    least = HARDLY_LONGER * min(times.values(), default=0)
    affordable = ([s for s, t in times.items() if t <= max(share, least)] for share in shares)
    return {max(some, key=math.prod) for some in affordable if some}


def simplest_of_best(objectives, sizes):
    """Which candidate has the least objective; of those that equal it up to rounding, the simplest.

    Parameters
    ----------
    objectives : sequence of float (n_candidates,)
    sizes : sequence of (n_members, n_exits) (n_candidates,)
        Fewest members are simplest, then fewest exits.

    Returns
    -------
    int
    """
    limit = min(objectives) + EQUAL_OBJECTIVES
    equal = [i for i, objective in enumerate(objectives) if objective <= limit]
    return min(equal, key=lambda i: sizes[i])


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
