"""A fitted classifier as values: weights, what rebuilds its modules, and all that its predictor holds."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from .._cut import CutInfo
from .._engines.onnx_engine import OnnxEngine
from .._engines.onnx_graphs import CascadeGraph
from .._exits.heads import LINEAR, POOLED, QUARTERS, CustomHead, LinearHead, QuartersHead
from .._exits.network import EarlyExitNetwork
from .._predictor import Predictor
from .._store.predictors import KNOWN, predictor_as_values
from ..backbones import BagOfEmbeddings, ImageResNet, TabularResNet
from .classifiers import ClassifierStage
from .members import Member
from .skops_members import as_bytes
from .warm_start import TrainedMembers

READY = {kind.__name__: kind for kind in (BagOfEmbeddings, ImageResNet, TabularResNet)}
# Instead of a module, class or function that the file does not hold.
GIVEN = "given"
# Kinds of members.
CLASSIFIER, OWN = "classifier", "own"


class BFloat16(NamedTuple):
    """A tensor of a dtype that NumPy has not."""

    bits: np.ndarray


class Given(NamedTuple):
    """Something that whoever loads the file gives."""

    name: str


class Stored(NamedTuple):
    """A classifier as skops stores it."""

    data: bytes


KNOWN_OF_MODELS: dict[str, type] = {
    **KNOWN,
    **{kind.__name__: kind for kind in (BFloat16, CascadeGraph, CutInfo, Given, Stored)},
}


def fitted_as_values(
    params: Mapping[str, Any], defaults: Mapping[str, Any], predictor: Predictor
) -> dict[str, Any]:
    """All of a fitted classifier as values.

    Parameters
    ----------
    params, defaults : mapping of str to object
        Of the estimator, as they are and as they are by default.
    predictor : Predictor

    Raises
    ------
    TypeError
        If something is no value: a function among the parameters of prediction sets, a classifier that skops does not
        store.
    """
    _check_functions(predictor)
    engine: Any = predictor.cascade.engine
    in_torch = engine.in_torch if isinstance(engine, OnnxEngine) else engine
    trained: TrainedMembers = predictor.cascade.trained
    kept, left_out = _kept_params(params, defaults)
    return {
        **predictor_as_values(predictor),
        "history": predictor.history,
        "training": _as_plain(predictor.cascade.history),
        "params": kept,
        "left_out": left_out,
        "engine": {
            "device": str(in_torch.device),
            "fixed_batch_size": in_torch.fixed_batch_size,
            "precision": engine.precision,
            "graph": engine.sessions.graph if isinstance(engine, OnnxEngine) else None,
        },
        "network": _network_as_values(in_torch.network),
        "members": [
            _member_as_values(trained, i, stage)
            for i, stage in enumerate(_first_stages(in_torch.network))
        ],
        "trained": {"accuracy": trained.accuracy, "n_held_out": trained.n_held_out},
    }


def _check_functions(predictor: Predictor) -> None:
    for name in ("conformity_score", "condition_on"):
        value = getattr(predictor.rule, name)
        if callable(value):
            raise TypeError(
                f"{name}={value!r} is a function, and files hold no code: give a name of a score or of groups, or "
                f"groups as an array to conformalize; or pickle the classifier."
            )


def _kept_params(
    params: Mapping[str, Any], defaults: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """Parameters that a file holds, and the names of those that it does not."""
    kept: dict[str, Any] = {}
    left_out = []
    for name, value in params.items():
        if name == "module":
            kept[name] = _module_as_values(value)
        elif name == "head" and not isinstance(value, str):
            kept[name] = Given(value.__name__)
        elif value is defaults.get(name, GIVEN) or _is_default(value, defaults.get(name)):
            continue
        elif _is_value(value):
            kept[name] = value
        elif isinstance(value, torch.device):
            kept[name] = str(value)
        else:
            left_out.append(name)
    return kept, left_out


def _is_default(value: Any, default: Any) -> bool:
    return (
        isinstance(value, str | int | float) and type(value) is type(default) and value == default
    )


def _is_value(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_value, value))
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_value(v) for key, v in value.items())
    is_array = isinstance(value, np.ndarray) and value.dtype.kind in "biufU"
    return value is None or is_array or isinstance(value, bool | int | float | str | np.generic)


def _module_as_values(module: Any) -> Any:
    """The parameter ``module`` with what the file does not hold as its name."""
    if module is None or _is_value(module):
        return module
    if isinstance(module, list | tuple):
        return type(module)(map(_module_as_values, module))
    if isinstance(module, dict):
        return {name: _module_as_values(value) for name, value in module.items()}
    if Member(module, {}).is_classifier:
        return Stored(as_bytes(module))
    return Given(getattr(module, "__name__", type(module).__name__))


def _as_plain(history: Any) -> Any:
    """The history of a training as lists and dicts of numbers; None if there is none."""
    if history is None:
        return None
    return [_plain_entry(dict(epoch)) for epoch in history]


def _plain_entry(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _plain_entry(v) for name, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain_entry(item) for item in value]
    return value.item() if isinstance(value, np.generic | torch.Tensor) else value


def _first_stages(network: EarlyExitNetwork) -> list[Any]:
    """The first stage of each member."""
    return [network.stages[i] for i in network.heads.first_exits]


def _network_as_values(network: EarlyExitNetwork) -> dict[str, Any]:
    heads = network.heads
    return {
        "head": _kind_of_heads(heads.heads),
        "precision": network.precision,
        "converts": network.converts,
        "compiles": network.compiles,
        "told_costs": network.told_costs,
        "mixing_weights": tuple(heads.mixing_weights),
        "member_mixing_weights": tuple(heads.member_mixing_weights),
        "infos": tuple(stage.info for stage in network.stages),
    }


def _kind_of_heads(heads: Any) -> Any:
    for head in heads:
        if isinstance(head, CustomHead):
            return Given(type(head.module).__name__)
        if isinstance(head, LinearHead):
            return LINEAR
        if isinstance(head, QuartersHead):
            return QUARTERS
    return POOLED


def _member_as_values(trained: TrainedMembers, i: int, stage: Any) -> dict[str, Any]:
    member = trained.members[i]
    if isinstance(stage, ClassifierStage):
        return {
            "kind": CLASSIFIER,
            "fitted": Stored(as_bytes(stage.classifier)),
            "before": Stored(as_bytes(member.module)),
            "params": dict(member.params),
            "batch_size": stage.batch_size,
            "as_numbers": stage.as_numbers,
            "least_probability": float(stage.least_probability),
        }
    module = member.module
    is_ready = type(module) is READY.get(type(module).__name__)
    return {
        "kind": type(module).__name__ if is_ready else OWN,
        "name": type(module).__name__,
        "settings": module.settings if is_ready else {},
        "state": state_as_values(module),
        "frozen_parameters": [
            name for name, tensor in module.named_parameters() if not tensor.requires_grad
        ],
        "heads": {name: _tensor_as_value(v, name) for name, v in trained.heads[i].items()},
        "exits": list(trained.exits[i]),
        "is_frozen": trained.are_frozen[i],
    }


def state_as_values(module: nn.Module) -> dict[str, Any]:
    """The state dict of a module as arrays."""
    return {name: _tensor_as_value(value, name) for name, value in module.state_dict().items()}


def _tensor_as_value(tensor: Any, name: str) -> Any:
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(
            f"{name!r} of the module's state is a {type(tensor).__name__}, and files hold tensors alone; pickle the "
            f"classifier."
        )
    tensor = tensor.detach().cpu().contiguous()
    if tensor.dtype == torch.bfloat16:
        return BFloat16(tensor.view(torch.int16).numpy().view(np.uint16))
    if tensor.is_complex() or tensor.layout is not torch.strided or tensor.is_quantized:
        raise TypeError(
            f"{name!r} of the module's state is a tensor of {tensor.dtype} that files do not hold; pickle the "
            f"classifier."
        )
    return tensor.numpy()
