"""Members: the backbone, and the networks or other classifiers in front of it."""

import inspect
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.base import BaseEstimator, is_classifier
from sklearn.utils import get_tags
from torch import nn

from .._numbers import check_number
from .._schema import InputSchema
from .._warn import warn_caller
from ..backbones import ImageResNet, TabularResNet, default_backbone
from .modules import copied, plain_module

LEAST_PROBABILITY = 1e-6
# What a pair of a classifier and a dict may say.
CLASSIFIER_OPTIONS = ("batch_size",)
# Beside it, of classifiers that are made here: whether they take a table as its numbers, and the floor of their
# probabilities.
AS_NUMBERS, LEAST = "as_numbers", "least_probability"


class Member(NamedTuple):
    """A network or another classifier that a sample may go through."""

    module: (
        Any  # torch module (class, function, instance, or None for the ready one), or classifier
    )
    params: dict[str, Any]  # parameters with which a class is built

    @property
    def is_classifier(self) -> bool:
        if isinstance(self.module, nn.Module) or inspect.isclass(self.module):
            return False
        # Stacked classifiers have no predict_proba before they are fitted.
        is_known = isinstance(self.module, BaseEstimator) and is_classifier(self.module)
        return is_known or hasattr(self.module, "predict_proba")


def as_members(module: Any, params: dict[str, Any]) -> list[Member]:
    """Convert what a user gives as ``module`` into members, the backbone last.

    Parameters
    ----------
    module : torch module, None, or list of members
        A member is a torch module (class or instance), None, a pair of one of these with a dict of its
        parameters, a classifier, or a pair of one with ``{"batch_size": n}``; the last is the backbone.
    params : dict
        The ``module__*`` parameters, which are the backbone's.

    Raises
    ------
    ValueError, TypeError
        If the list is empty, an entry is no member, or parameters are given that a classifier does not take.
    """
    if not isinstance(module, list | tuple) or _is_pair(module):
        module = [module]
    if not module:
        raise ValueError("module=[] names no network; give at least one.")
    members = [_as_member(entry) for entry in module]
    backbone = members[-1]
    if backbone.is_classifier and params:
        raise ValueError(
            f"module__* parameters {sorted(params)} build a torch module, but the last member is the classifier "
            f"{backbone.module!r}; set them on it."
        )
    return [*members[:-1], Member(backbone.module, {**backbone.params, **params})]


def is_lone_classifier(module: Any) -> bool:
    """Whether what a user gives as ``module`` is one classifier, alone or in a pair with a dict."""
    return Member(module[0] if _is_pair(module) else module, {}).is_classifier


def _is_pair(entry: Any) -> bool:
    """Whether an entry is a member with a dict that says more of it."""
    return isinstance(entry, tuple) and len(entry) == 2 and isinstance(entry[1], dict)


def takes_missing(member: Member) -> bool:
    """Return whether a member takes missing values, as its tags say if it is a classifier."""
    return not hasattr(member.module, "__sklearn_tags__") or bool(
        get_tags(member.module).input_tags.allow_nan
    )


def takes_named_inputs(member: Member) -> bool:
    """Return whether a member may take several arrays by name: a torch module that is none of the ready ones."""
    is_ready = member.module in (None, TabularResNet, ImageResNet)
    return not (member.is_classifier or is_ready)


def take_tables(members: Sequence[Member]) -> bool:
    """Return whether no member is another torch module than the ready one for tables."""
    return all(
        member.is_classifier
        or (
            (member.module is None or member.module is TabularResNet)
            and "image_shape" not in member.params
        )
        for member in members
    )


def as_backbone(module: Any) -> Any:
    """The backbone among what a user gives as ``module``, before it is checked."""
    while isinstance(module, list | tuple) and module:
        module = module[0] if isinstance(module, tuple) else module[-1]
    return module


def _as_member(entry: Any) -> Member:
    # From an earlier fit.
    if isinstance(entry, Member):
        return entry
    if not isinstance(entry, tuple):
        return Member(entry, {})
    if not _is_pair(entry):
        raise ValueError(
            f"module has the member {entry!r}; a tuple must be a pair of a torch module class (or None) and a "
            f"dict of its parameters, or of a classifier and {{'batch_size': n}}; members have no names."
        )
    member = Member(*entry)
    if member.is_classifier:
        _check_classifier_options(member)
    return member


def _check_classifier_options(member: Member) -> None:
    unknown = sorted(set(member.params) - set(CLASSIFIER_OPTIONS))
    if unknown:
        raise ValueError(
            f"module has the classifier {member.module!r} with {unknown}; beside a classifier only "
            f"{list(CLASSIFIER_OPTIONS)} may be told, its own parameters are set on it."
        )
    if "batch_size" in member.params:
        name = f"batch_size of the member {member.module!r}"
        check_number(member.params["batch_size"], name, least=1, whole=True)


def instantiate(
    member: Member,
    X: np.ndarray | dict[str, np.ndarray],
    codes: np.ndarray,
    schema: InputSchema,
    device: str | torch.device,
) -> nn.Module:
    """Return a member's torch module, on the device, in evaluation mode.

    Parameters
    ----------
    member : Member
    X : ndarray (n_samples, ...) or dict of such
        Training samples.
    codes : ndarray of int (n_samples,)
        Their classes.
    schema : InputSchema
    device : str or torch.device
    """
    module, params = member
    if isinstance(module, nn.Module):
        return plain_module(_copied(module, params)).to(device).eval()
    kind = _ready_backbone(X, params) if module is None else module
    if not callable(kind) or (inspect.isclass(kind) and not issubclass(kind, nn.Module)):
        raise _no_module(module)
    built = _constructed(kind, params, X, codes, schema)
    if not isinstance(built, nn.Module):
        raise _no_module(module, built)
    return plain_module(built).to(device).eval()


def _no_module(module: Any, built: Any = None) -> TypeError:
    returned = "" if built is None else f", and returned {type(built).__name__}"
    is_class = inspect.isclass(module) and hasattr(module, "predict")
    instance = f", or an instance of the classifier, {module.__name__}()" if is_class else ""
    return TypeError(
        f"module={module!r} is not a torch module{returned}; give a class or instance of torch.nn.Module, a function "
        f"that builds one, or None for the ready backbone{instance}."
    )


def _ready_backbone(
    X: np.ndarray | dict[str, np.ndarray], params: dict[str, Any]
) -> type[nn.Module]:
    if isinstance(X, dict):
        raise ValueError("module=None takes an array X, not a mapping; give a module for X's keys.")
    return default_backbone(X.ndim, params)


def check_is_trained(member: Member) -> None:
    """Refuse a backbone that is to stay as it is, but is a class whose weights would be random."""
    module = member.module
    is_built_here = module is None or callable(module) and not isinstance(module, nn.Module)
    if is_built_here:
        raise ValueError(
            "freeze_backbone=True needs module to be a trained instance of a torch module; got "
            f"module={module!r}, whose weights would be random."
        )


def _copied(module: nn.Module, params: dict[str, Any]) -> nn.Module:
    if params:
        raise ValueError(
            f"module__* parameters {sorted(params)} build a class, but module is an instance of "
            f"{type(module).__name__}; give the class, or set them on the instance."
        )
    return copied(module)


def _constructed(
    module: Any,
    params: dict[str, Any],
    X: np.ndarray | dict[str, np.ndarray],
    codes: np.ndarray,
    schema: InputSchema,
) -> nn.Module:
    try:
        if hasattr(module, "from_data"):
            taken = inspect.signature(module.from_data).parameters
            known = {"y": codes, "categorical": schema.categorical}
            given = {name: value for name, value in known.items() if name in taken}
            built: nn.Module = module.from_data(X, schema.n_classes, **given, **params)
        else:
            built = module(**params)
        return built
    except (TypeError, ValueError, RuntimeError, ArithmeticError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(
            f"module={getattr(module, '__name__', module)} cannot be built with module__* parameters {params}: {error}"
        ) from error


def learns(module: nn.Module) -> dict[str, bool]:
    """Whether each parameter learns."""
    return {name: parameter.requires_grad for name, parameter in module.named_parameters()}


def restore_learning(module: nn.Module, flags: dict[str, bool]) -> None:
    """Let the parameters learn that did before."""
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(flags[name])


def warn_if_nothing_learns(module: nn.Module) -> None:
    """Warn if a module that is to learn has parameters none of which does."""
    flags = learns(module)
    if flags and not any(flags.values()):
        warn_caller(
            f"module={type(module).__name__} does not learn: all its parameters have requires_grad=False. Call "
            f"module.requires_grad_(True) if it should, or give freeze_backbone=True if it should not.",
        )
