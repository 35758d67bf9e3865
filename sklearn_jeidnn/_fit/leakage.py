"""Signs that members have learned from the samples that are to be held out, before any training."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.frozen import FrozenEstimator
from torch import nn

from .._cut import LogitsModule
from .._engines.torch_engine import as_tensors
from .._history import SampleHistory, joined
from .._operate.leakage import WHAT_TO_DO, check_certifiable
from .._operate.temperatures import log_losses
from .._operate.unlike import warn_if_unlike
from .._parts import GIVEN, SEEN, UNSEEN, Parts
from .._schema import InputSchema, Samples
from .._warn import warn_caller
from .classifiers import is_fitted, probabilities
from .logit_order import logit_order
from .members import LEAST_PROBABILITY, Member, instantiate
from .spec import CascadeSpec
from .warm_start import history_of_module

# A member that explains so much of the labels' entropy before it learns was trained before: see the decision "What a
# network has learned from calibrates nothing".
TRAINED_SHARE = 0.5
N_TRIED = 256
# Standard errors by which a member is right more often than the most frequent label.
N_ERRORS = 4.0


class Knowledge(NamedTuple):
    """What a member knows of the labels."""

    share: float  # of the labels' entropy that it explains; 0 or less if nothing
    accuracy: float
    n_samples: int
    beats_chance: bool  # whether it is right more often than the most frequent label


def history_of_members(members: Sequence[Member]) -> SampleHistory | None:
    """What the members that come trained have learned from; None if none comes trained."""
    trained = [member.module for member in members if _comes_trained(member)]
    known = [history for module in trained if (history := _history_of(module)) is not None]
    if not known:
        return None
    history = joined(known)
    return history if len(known) == len(trained) else history.with_gaps()


def _comes_trained(member: Member) -> bool:
    if member.is_classifier:
        return is_fitted(member.module)
    return isinstance(member.module, nn.Module)


def _history_of(module: Any) -> SampleHistory | None:
    if isinstance(module, nn.Module):
        return history_of_module(module)
    if isinstance(module, FrozenEstimator):
        return _history_of(module.estimator)
    predictor = getattr(module, "_predictor", None)
    history: SampleHistory | None = getattr(predictor, "history", None)
    return history


def leakage_of(
    spec: CascadeSpec, schema: InputSchema, parts: Parts, members: Sequence[Member]
) -> str | None:
    """Why networks may have learned from the held-out samples, of which a warning is given; None if nothing says so.

    Raises
    ------
    ValueError
        If they may have, and a limit is to be certified, or samples set the gates out of fold.
    """
    if parts.held_out == GIVEN:
        train, gates, calibration = (
            part.encoded(schema).inputs for part in (parts.train, parts.gates, parts.calibration)
        )
        held_out = tuple(np.concatenate(pair) for pair in zip(gates, calibration, strict=True))
        warn_if_unlike(train, held_out, schema.feature_names)
    leakage = _reason(spec, schema, parts, members)
    if leakage is not None and parts.folds is not None:
        raise ValueError(
            f"cv={parts.n_folds} needs members that have learned from no sample of X, but {leakage}. Give untrained "
            f"members, or cv=None with X_val and y_val."
        )
    check_certifiable(leakage, spec.risk_confidence)
    if leakage is not None:
        warn_caller(f"{leakage}. {WHAT_TO_DO}")
    return leakage


def _reason(
    spec: CascadeSpec, schema: InputSchema, parts: Parts, members: Sequence[Member]
) -> str | None:
    if parts.n_used:
        n_given = len(parts.gates) + len(parts.calibration)
        return f"{parts.n_used} of the {n_given} samples of X_val are among those that networks learn from"
    if parts.held_out == UNSEEN and parts.n_known == 0 and spec.trained is not None:
        return _gain(spec, schema, parts, members[-1])
    if parts.held_out in (GIVEN, UNSEEN):
        return None
    if parts.held_out == SEEN:
        return "X_val is not given, and in an earlier fit networks learned from all of X"
    if spec.takes_trained:
        return (
            "freeze_backbone=True takes networks as they were trained, and X_val is not given: the samples that are "
            "held out of X to calibrate may be among those that they learned from"
        )
    trained = _trained_member(spec, schema, parts, members)
    if trained is None:
        return None
    return (
        f"{trained} before it learns anything), and X_val is not given: the samples that are held out of X to "
        f"calibrate may be among those that it learned from"
    )


def _gain(spec: CascadeSpec, schema: InputSchema, parts: Parts, backbone: Member) -> str | None:
    """Say that a network which goes on is better on held-out samples, all of them new, than it was when it learned."""
    trained: Any = spec.trained
    now = knowledge(backbone, schema, parts, spec)
    n_both = trained.n_held_out + now.n_samples
    mean = (trained.accuracy * trained.n_held_out + now.accuracy * now.n_samples) / n_both
    error = np.sqrt(mean * (1 - mean) * (1 / trained.n_held_out + 1 / now.n_samples))
    if now.accuracy - trained.accuracy <= N_ERRORS * error:
        return None
    return (
        f"warm_start=True: no sample of X was in the last fit as it is, but the network is right on "
        f"{now.accuracy:.0%} of them before it learns anything, and was on {trained.accuracy:.0%} of those held out "
        f"then. They may be the same ones, scaled anew"
    )


def has_known_past(
    spec: CascadeSpec, schema: InputSchema, parts: Parts, members: Sequence[Member]
) -> bool:
    """Whether networks have learned from nothing that ``parts.history`` does not know."""
    strangers = [m for m in members if _comes_trained(m) and _history_of(m.module) is None]
    if spec.takes_trained and strangers:
        return False
    return not any(knowledge(member, schema, parts, spec).beats_chance for member in strangers)


def _trained_member(
    spec: CascadeSpec, schema: InputSchema, parts: Parts, members: Sequence[Member]
) -> str | None:
    """Name of a member that knows the samples before it is trained here, and how well it does."""
    for number, member in enumerate(members):
        share = knowledge(member, schema, parts, spec).share if _comes_trained(member) else 0.0
        if share > TRAINED_SHARE:
            name = "module" if len(members) == 1 else f"module[{number}]"
            return f"{name} came trained (it explains {share:.0%} of the labels' entropy"
    return None


def knowledge(member: Member, schema: InputSchema, parts: Parts, spec: CascadeSpec) -> Knowledge:
    """What a member knows of the labels as it comes."""
    samples = _first_samples(parts).encoded(schema)
    logits = _logits(member, schema, samples, spec)
    frequencies = np.bincount(samples.codes, minlength=schema.n_classes) / len(samples)
    entropy = -np.mean(np.log(frequencies[samples.codes]))
    if logits is None or entropy == 0 or not np.isfinite(logits).all():
        return Knowledge(0.0, 0.0, len(samples), False)
    right, by_chance = np.mean(logits.argmax(1) == samples.codes), frequencies.max()
    chance = N_ERRORS * np.sqrt(by_chance * (1 - by_chance) / len(samples))
    return Knowledge(
        accuracy=float(right),
        n_samples=len(samples),
        share=float(1 - log_losses(logits[:, None], samples.codes).mean() / entropy),
        beats_chance=bool(right > by_chance + chance),
    )


def _first_samples(parts: Parts) -> Samples:
    """Samples that set the gates and, if they are few, some that train: those that calibrate are not looked at."""
    gates, train = (
        part.take(np.arange(min(len(part), N_TRIED))) for part in (parts.gates, parts.train)
    )
    both = (
        np.concatenate([getattr(gates, name), getattr(train, name)])[:N_TRIED]
        for name in ("codes", "weights")
    )
    inputs = tuple(
        np.concatenate(pair)[:N_TRIED] for pair in zip(gates.inputs, train.inputs, strict=True)
    )
    codes, weights = both
    return Samples(inputs=inputs, codes=codes, weights=weights)


def _logits(
    member: Member, schema: InputSchema, samples: Samples, spec: CascadeSpec
) -> np.ndarray | None:
    """What a member answers as it comes; None if it does not run, of which its cutting says more."""
    if member.is_classifier:
        if not is_fitted(member.module):
            return None
        X = schema.as_own_input(samples.inputs)
        columns = np.searchsorted(schema.classes, member.module.classes_)
        probs = np.zeros((len(samples), schema.n_classes))
        own = probabilities(member.module, X, len(samples))
        probs[:, np.minimum(columns, schema.n_classes - 1)] = own
        return np.log(np.maximum(probs, LEAST_PROBABILITY))
    X = schema.as_module_input(samples.inputs)
    module = instantiate(member, X, samples.codes, schema, spec.device)
    inputs = (tensor.to(spec.device) for tensor in as_tensors(samples.inputs))
    try:
        with torch.no_grad():
            found = LogitsModule(module, schema.input_names)(*inputs).float().cpu().numpy()
    except Exception:  # whatever a user's module raises
        return None
    if found.shape != (len(samples), schema.n_classes):
        return None
    order = logit_order(module, spec.classes, schema.classes)
    logits: np.ndarray = found if order is None else found[:, order]
    return logits
