"""Make companions, which are smaller ready networks, and choose those to keep."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from torch import nn

from .._tables import MOST_CATEGORIES
from ..backbones import BagOfEmbeddings, ImageResNet, TabularResNet
from .members import AS_NUMBERS, Member
from .trees import boosted_trees, extra_trees

TABLE_WIDTHS = (8, 10, 12, 16, 24, 32, 40, 64, 96, 128, 192, 256, 384)
# Processors take eight channels at once: measured on a core with AVX2, width 10 takes as long as width 16.
IMAGE_WIDTHS = tuple(width for width in TABLE_WIDTHS if width % 8 == 0)
# If all candidates take more time than they should, those that take at most this many times the quickest one's.
HARDLY_LONGER = 1.2
# Objectives that differ by less (an error in 100,000 samples) count as equal. Rounding, which differs from processor
# to processor, must not decide: four sets of companions agreed within 1.4e-6 on 15 samples.
EQUAL_OBJECTIVES = 1e-5
# Largest cost of a candidate relative to the backbone's, and its largest number of multiply-adds if costs are times.
MOST_COST, MOST_COUNTED = 0.5, 2.0
# In front of a classifier that is no torch network: shapes of ready networks, and sizes of boosted trees.
TABLES_IN_FRONT: tuple[dict[str, int], ...] = (
    {"width": 32, "n_blocks": 1},
    {"width": 128, "n_blocks": 3},
)
IMAGES_IN_FRONT: tuple[dict[str, int], ...] = (
    {"width": 16, "n_blocks": 2},
    {"width": 64, "n_blocks": 2},
)
TREES_IN_FRONT: tuple[dict[str, int], ...] = ({"max_leaf_nodes": 8, "max_iter": 50}, {})
LINEAR_STEPS = 1000
# Number of training samples from which a candidate is built.
N_SHAPE_SAMPLES = 2000

# Number of blocks and width of a ready network.
Shape: TypeAlias = tuple[int, int]


class Shapes(NamedTuple):
    """Ready networks among which companions are chosen."""

    kind: type[TabularResNet] | type[ImageResNet]
    widths: tuple[int, ...]
    n_blocks: int
    few_blocks: int  # of the shallow networks
    # Shares of the backbone's multiply-adds, and of its time, near which candidates are chosen
    # (method page, section 10; shares of time measured on chess endgames and CIFAR-10).
    shares: tuple[float, ...]
    time_shares: tuple[float, ...]


TABLES = Shapes(TabularResNet, TABLE_WIDTHS, 3, 1, (0.06,), (0.15,))
IMAGES = Shapes(ImageResNet, IMAGE_WIDTHS, 2, 1, (0.1, 0.25), (0.15, 0.35))


def companions_for(
    X: np.ndarray | dict[str, np.ndarray],
    n_classes: int,
    *,
    image_shape: tuple[int, ...] | None,
    embeds: bool,
    categorical: np.ndarray | None = None,
    counted: Callable[[nn.Module], float],
    timed: Callable[[list[nn.Module]], Iterable[float]] | None = None,
) -> list[Member]:
    """Return candidates to stand in front of a backbone, cheapest first: smaller ready networks.

    Parameters
    ----------
    X : ndarray (n_samples, ...) or dict of such
        Training samples.
    n_classes : int
    image_shape : tuple or None
        Shape of the images if ``X`` holds them flattened.
    embeds : bool
        Whether the integers of ``X`` are tokens.
    categorical : ndarray of bool (n_features,), default=None
        Which columns of a table hold positions of categories.
    counted : callable
        Network -> its multiply-adds, relative to the backbone's.
    timed : callable, default=None
        List of networks -> their run times, relative to the backbone's. If None, candidates are
        chosen by multiply-adds.
    """
    if embeds or isinstance(X, dict):
        return [Member(BagOfEmbeddings, {})]
    is_image = X.ndim > 2 or image_shape is not None
    shapes = IMAGES if is_image else TABLES
    params = _params_of_shapes(
        shapes,
        [shapes.n_blocks] if timed is None else [shapes.few_blocks, shapes.n_blocks],
        {"image_shape": image_shape} if is_image else {},
    )
    # The widest image networks take hundreds of megabytes: only those that are timed are kept.
    most_kept = 0.0 if timed is None else MOST_COUNTED
    build = partial(shapes.kind.from_data, X[:N_SHAPE_SAMPLES], n_classes)
    if not is_image:
        build = partial(build, categorical=categorical)
    costs, networks = _counted_networks(build, params, counted, most_kept)
    if timed is None:
        chosen = _nearest(costs, shapes.shares)
    else:
        costs = dict(zip(networks, timed(list(networks.values())), strict=True))
        chosen = _largest(costs, shapes.time_shares)
    cheap = [shape for shape in chosen if costs[shape] < MOST_COST]
    return [Member(shapes.kind, params[shape]) for shape in sorted(cheap, key=costs.__getitem__)]


def companions_of_classifier(
    X: np.ndarray | dict[str, np.ndarray],
    categorical: np.ndarray | None,
    image_shape: tuple[int, ...] | None,
    seed: int,
    distilled: Callable[[np.ndarray], Member] | None = None,
) -> list[Member]:
    """Return candidates to stand in front of a classifier that is no torch network, which nothing is known of.

    On tables a linear model, boosted trees, few and small ones and as many as by default, and two ready networks; on
    images two ready networks.

    Parameters
    ----------
    X : ndarray (n_samples, ...) or dict of such
        Training samples.
    categorical : ndarray of bool (n_features,) or None
        Which columns of a table hold positions of categories; None if it is no table.
    image_shape : tuple or None
    seed : int
        Of what the trees draw.
    distilled : callable, default=None
        Table -> fitted trees that have learned from the classifier's probabilities, which are tried, too.

    Raises
    ------
    ValueError
        If ``X`` is a mapping, of which no ready network is known to take the inputs.
    """
    if isinstance(X, dict):
        raise ValueError(
            "X is a mapping, for which no companions are made in front of a classifier; give a list with a cheaper "
            "member in front, module=[cheaper, classifier]."
        )
    if X.ndim > 2 or image_shape is not None:
        params = {} if image_shape is None else {"image_shape": image_shape}
        return [Member(ImageResNet, {**shape, **params}) for shape in IMAGES_IN_FRONT]
    networks = [Member(TabularResNet, dict(shape)) for shape in TABLES_IN_FRONT]
    if categorical is None:
        return networks
    return [
        Member(_linear(categorical), {AS_NUMBERS: True}),
        *(
            Member(boosted_trees(X, categorical, seed, **size), {AS_NUMBERS: True})
            for size in TREES_IN_FRONT
        ),
        extra_trees(seed),
        *([] if distilled is None else [distilled(X)]),
        *networks,
    ]


def _linear(categorical: np.ndarray) -> Any:
    """A linear model of columns of numbers and of categories, values of which may be missing."""
    columns = make_column_transformer(
        (_one_hot(), np.flatnonzero(categorical)),
        remainder=make_pipeline(
            SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True),
            StandardScaler(),
        ),
    )
    return make_pipeline(columns, LogisticRegression(max_iter=LINEAR_STEPS))


def _one_hot() -> OneHotEncoder:
    return OneHotEncoder(
        handle_unknown="infrequent_if_exist", max_categories=MOST_CATEGORIES, sparse_output=False
    )


def _params_of_shapes(
    shapes: Shapes, depths: Sequence[int], others: dict[str, Any]
) -> dict[Shape, dict[str, Any]]:
    """Return the constructor's parameters for every depth and width."""
    return {
        (n_blocks, width): {"width": width, "n_blocks": n_blocks, **others}
        for n_blocks in depths
        for width in shapes.widths
    }


def _counted_networks(
    build: Callable[..., nn.Module],
    params: Mapping[Shape, dict[str, Any]],
    counted: Callable[[nn.Module], float],
    most_kept: float,
) -> tuple[dict[Shape, float], dict[Shape, nn.Module]]:
    """Build and count a network of each shape; return all costs, and the networks that cost less than ``most_kept``."""
    costs: dict[Shape, float] = {}
    networks: dict[Shape, nn.Module] = {}
    with torch.random.fork_rng(devices=[]):
        for shape, network_params in params.items():
            network = build(**network_params).eval()
            costs[shape] = counted(network)
            if costs[shape] < most_kept:
                networks[shape] = network
    return costs, networks


def _nearest(costs: Mapping[Shape, float], shares: Sequence[float]) -> set[Shape]:
    """Return, for each share, the shape whose cost is nearest to it."""
    return {min(costs, key=lambda shape: abs(np.log(costs[shape] / share))) for share in shares}


def _largest(times: Mapping[Shape, float], shares: Sequence[float]) -> set[Shape]:
    """Return, for each share, the shape with most units (blocks times width) that takes at most this share of time.

    A layer takes some time whatever its width. So shallow networks are left for a single sample, deep ones for
    many. The number of units says roughly how good a shape is. On chess endgames one block of width 64, 128, 256
    is right on 82.4, 84.5, 88.9 %, two of width 128 on 88.1, three of width 24, 40, 64, 128 on 77.4, 84.2, 87.8,
    89.5.
    """
    least = HARDLY_LONGER * min(times.values(), default=0)
    affordable = ([s for s, t in times.items() if t <= max(share, least)] for share in shares)
    return {max(some, key=math.prod) for some in affordable if some}


def simplest_of_best(objectives: Sequence[float], sizes: Sequence[tuple[int, int]]) -> int:
    """Return the number of the candidate of least objective; the simplest if several are equal up to rounding.

    Parameters
    ----------
    objectives : sequence of float (n_candidates,)
    sizes : sequence of (n_members, n_exits) (n_candidates,)
        Fewest members are simplest, then fewest exits.
    """
    limit = min(objectives) + EQUAL_OBJECTIVES
    equal = [i for i, objective in enumerate(objectives) if objective <= limit]
    return min(equal, key=lambda i: sizes[i])
