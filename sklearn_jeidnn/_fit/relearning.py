"""Learn anew, on what another engine answers, how exits are combined and where samples leave."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from .._exits.exit_heads import ExitHeads, PassThroughHead
from .._operate.frontier import Frontier
from .._operate.operating_point import OperatingPoint
from .features import ExitFeatures
from .joint import answers_of
from .mixing import fit_mixing_weights
from .spec import CascadeSpec


def heads_on_logits(heads: ExitHeads) -> ExitHeads:
    """Return heads that take the logits of these heads for features, and combine them as these do."""
    passing = ExitHeads([PassThroughHead() for _ in heads.heads], heads.first_exits)
    passing.mix(heads.mixing_weights, heads.member_mixing_weights)
    return passing


def relearned(
    spec: CascadeSpec,
    engine: Any,
    samples: tuple[tuple[np.ndarray, ...], torch.Tensor, torch.Tensor],
    exit_costs: np.ndarray,
    plain_seconds: float | None,
) -> tuple[Any, Frontier, OperatingPoint]:
    """Fit mixing weights and gates to what an engine answers for samples that no network learned from.

    Limits on the loss of accuracy are against what the engine names as logits of the plain backbone.

    Parameters
    ----------
    spec : CascadeSpec
    engine : Engine
    samples : tuple
        Encoded arrays (n_samples, ...), codes and weights (n_samples,).
    exit_costs : ndarray (n_exits,)
    plain_seconds : float or None
        Time of one pass of the plain backbone, if costs are run times.

    Returns
    -------
    engine : Engine
        With these weights, at the point.
    frontier : Frontier
    point : OperatingPoint
    """
    arrays, codes, weights = samples
    network = engine.network
    alone = engine.with_network(network.with_mixing(0.0, 0.0))
    answered = alone.answer(arrays)
    features = [torch.from_numpy(logits) for logits in np.moveaxis(answered.logits, 1, 0).copy()]
    held_out = ExitFeatures(features, codes, weights)
    heads = heads_on_logits(network.heads)
    fit_mixing_weights(heads, held_out, plain_last=spec.imitates)
    network = network.with_mixing(heads.mixing_weights, heads.member_mixing_weights)
    answers = replace(
        answers_of(heads, held_out, spec.observed_share), backbone_logits=answered.backbone_logits
    )
    frontier = Frontier(
        answers=answers,
        exit_mass=network.exit_mass,
        exit_costs=exit_costs,
        exit_policy=spec.exit_policy,
    )
    point = frontier.choose(**spec.operating_target(plain_seconds))
    return engine.with_network(network).at(point), frontier, point
