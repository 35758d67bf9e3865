"""An estimator is pickled with its weights on the CPU, and loaded to its device where there is one."""

import contextlib
import copy
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import is_dataclass, replace
from typing import Any

import torch
from torch import fx, nn
from torch.nn.utils.parametrize import is_parametrized

from ._predictor import Predictor
from ._warn import warn_caller


class PortableMixin:
    """How :class:`EarlyExitClassifier` is pickled; copies within a process share or keep the device."""

    def __getstate__(self) -> dict[str, Any]:
        _refuse_parametrized(vars(self))
        tensors = _tensors(vars(self))
        is_elsewhere = any(tensor.device.type not in ("cpu", "meta") for tensor in tensors)
        return _on_cpu(vars(self)) if is_elsewhere else dict(vars(self))

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        predictor = state.get("_predictor")
        if predictor is not None and torch.device(predictor.cascade.engine.device).type != "cpu":
            vars(self)["_predictor"] = on_its_device(predictor)

    def __copy__(self) -> Any:
        other = type(self).__new__(type(self))
        vars(other).update(vars(self))
        return other

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        other = type(self).__new__(type(self))
        memo[id(self)] = other
        with _explaining_results():
            vars(other).update(copy.deepcopy(vars(self), memo))
        return other

    def __sklearn_clone__(self) -> Any:
        with _explaining_results():
            return super().__sklearn_clone__()  # type: ignore[misc]  # of scikit-learn's BaseEstimator


@contextlib.contextmanager
def _explaining_results() -> Iterator[None]:
    """Say what to do where torch does not copy a result of the user's module's last call."""
    try:
        yield
    except RuntimeError as error:
        if "support the deepcopy protocol" not in str(error):
            raise
        raise ValueError(
            "module keeps a result of its last call with the graph behind it, as torch.nn.utils.weight_norm does, so "
            "torch does not copy it; call the module once under torch.no_grad() before, or give its class."
        ) from error


def _modules(state: dict[str, Any]) -> Iterator[nn.Module]:
    """Modules in an estimator's attributes: those that the user gave, and those that learned."""
    members = state["module"]
    for member in members if isinstance(members, list | tuple) else [members]:
        module = member[0] if isinstance(member, tuple) and member else member
        if isinstance(module, nn.Module):
            yield module
    if "_predictor" in state:
        engine = state["_predictor"].cascade.engine
        yield from _torch_modules(engine)


def _torch_modules(engine: Any) -> list[nn.Module]:
    """The network, and the plain backbone unless that is another classifier."""
    return [m for m in (engine.network, engine.module) if isinstance(m, nn.Module)]


def _refuse_parametrized(state: dict[str, Any]) -> None:
    """Refuse to pickle modules that torch does not pickle, and name the submodule."""
    # The module's own names come before those of its stages.
    for module in reversed([*_modules(state)]):
        for name, part in module.named_modules():
            if is_parametrized(part):
                raise TypeError(
                    f"cannot pickle {name!r} of {type(module).__name__}: torch pickles no module of "
                    f"torch.nn.utils.parametrizations, but takes its state_dict() only. It does pickle those of the "
                    f"older torch.nn.utils.weight_norm and spectral_norm; copy.deepcopy takes both."
                )


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    """Tensors in an estimator's attributes: of modules, and of what a later fit goes on from."""
    if isinstance(value, torch.Tensor):
        yield value
        return
    parts: Iterable[Any] = ()
    if isinstance(value, nn.Module):
        parts = itertools.chain(value.parameters(), value.buffers())
    elif isinstance(value, dict):
        parts = value.values()
    elif isinstance(value, list | tuple):
        parts = value
    elif is_dataclass(value) and not isinstance(value, type):
        parts = vars(value).values()
    for part in parts:
        yield from _tensors(part)


def _on_cpu(state: dict[str, Any]) -> dict[str, Any]:
    """Copy an estimator's attributes, with tensors on the CPU."""
    memo: dict[int, Any] = {id(tensor): _tensor_on_cpu(tensor) for tensor in _tensors(state)}
    return copy.deepcopy(state, memo)


def _tensor_on_cpu(tensor: torch.Tensor) -> torch.Tensor:
    copied = tensor.detach().cpu()
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(copied, tensor.requires_grad)
    return copied


def on_its_device(predictor: Predictor) -> Predictor:
    """Move a predictor that was loaded to its device; if there is none, it stays on the CPU, with a warning."""
    engine: Any = predictor.cascade.engine
    device = engine.device
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        warn_caller(
            f"device={str(device)!r} cannot be used on this machine, so the loaded classifier predicts on the CPU; "
            f"call set_params(device='cpu') before you fit it here."
        )
        device = "cpu"
    for module in _torch_modules(engine):
        _move(module, torch.device(device))
    engine = replace(engine, device=device)
    return replace(predictor, cascade=replace(predictor.cascade, engine=engine))


def in_device(predictor: Predictor, device: Any) -> Predictor:
    """The same predictor, said to be on a device, to which it is then to be moved."""
    engine: Any = replace(predictor.cascade.engine, device=device)  # type: ignore[type-var]  # a dataclass
    return replace(predictor, cascade=replace(predictor.cascade, engine=engine))


def _move(module: nn.Module, device: torch.device) -> None:
    """Move a module in place, with the devices that its graphs name."""
    module.to(device)
    for part in module.modules():
        if isinstance(part, fx.GraphModule) and _names_a_device(part):
            for node in part.graph.nodes:
                node.args, node.kwargs = (
                    _with_device(arguments, device) for arguments in (node.args, node.kwargs)
                )
            part.recompile()


def _names_a_device(part: fx.GraphModule) -> bool:
    return "device(" in part.code


def _with_device(arguments: Any, device: torch.device) -> Any:
    """Replace devices among a node's arguments."""
    if isinstance(arguments, torch.device):
        return device
    if isinstance(arguments, tuple | list):
        return type(arguments)(_with_device(argument, device) for argument in arguments)
    if isinstance(arguments, dict):
        return {name: _with_device(argument, device) for name, argument in arguments.items()}
    return arguments
