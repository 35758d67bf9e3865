"""Turn a torch module, as users have it, into one that can be cut and trained."""

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

# What `torch.compile` calls the module that it wraps.
COMPILED = "_orig_mod"
PARALLEL = (nn.DataParallel, nn.parallel.DistributedDataParallel)


def plain_module(module: nn.Module) -> nn.Module:
    """Return a module without the wrappers of ``torch.compile`` and ``nn.DataParallel``, in float32.

    Raises
    ------
    ValueError
        If the module cannot learn: its parameters are not dense real numbers in memory, or it is a scripted program.
    """
    module = _unwrapped(module)
    _refuse_odd(module)
    floating = {t.dtype for t in _tensors(module) if t.is_floating_point()}
    return module if floating <= {torch.float32} else module.float()


def copied(module: nn.Module) -> nn.Module:
    """Copy a user's instance, with the hooks of its parameters, which torch does not copy."""
    module = _unwrapped(module)
    _refuse_odd(module)
    # Results that a module keeps from its last call cannot be copied while a graph leads to them.
    memo: dict[int, Any] = {
        id(value): value.detach().clone()
        for part in module.modules()
        for value in _tensors_inside(vars(part))
        if not value.is_leaf
    }
    try:
        copy_of_module = copy.deepcopy(module, memo)
    except TypeError as error:
        raise TypeError(
            f"module={type(module).__name__} cannot be copied ({error}); give its class, or a function that builds it."
        ) from error
    for parameter, its_copy in zip(module.parameters(), copy_of_module.parameters(), strict=True):
        for hook in (parameter._backward_hooks or {}).values():
            its_copy.register_hook(hook)  # type: ignore[no-untyped-call]  # torch has no type hints here
    return copy_of_module


def forget_results(module: nn.Module) -> None:
    """Cut what a module keeps of its last training step from the graph behind it, in place.

    Such a module could not be copied.
    """
    for part in module.modules():
        for name, value in vars(part).items():
            if any(not tensor.is_leaf for tensor in _tensors_inside(value)):
                vars(part)[name] = _detached(value)


def _detached(value: Any) -> Any:
    """Tensors in nested lists, tuples and dicts, without the graph behind them."""
    if isinstance(value, torch.Tensor):
        return value.detach()
    if isinstance(value, dict):
        return {name: _detached(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        entries = [_detached(entry) for entry in value]
        return entries if isinstance(value, list) else tuple(entries)
    return value


def _unwrapped(module: nn.Module) -> nn.Module:
    if isinstance(module, PARALLEL):
        return _unwrapped(module.module)
    if COMPILED in module._modules:
        return _unwrapped(module.get_submodule(COMPILED))
    for name, child in list(module.named_children()):
        inside = _unwrapped(child)
        if inside is not child:
            module = copy.copy(module)
            module._modules = {**module._modules, name: inside}
    return module


def _tensors(module: nn.Module) -> Iterator[torch.Tensor]:
    yield from module.parameters()
    yield from module.buffers()


def _tensors_inside(value: Any) -> Iterator[torch.Tensor]:
    """Tensors in nested lists, tuples and dicts."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for entry in value.values():
            yield from _tensors_inside(entry)
    elif isinstance(value, list | tuple):
        for entry in value:
            yield from _tensors_inside(entry)


def _refuse_odd(module: nn.Module) -> None:
    """Refuse modules that cannot learn or be stored."""
    for name, part in module.named_modules():
        if isinstance(part, torch.jit.ScriptModule):
            raise ValueError(
                f"module={type(module).__name__} is a TorchScript program{name and f' at {name!r}'}, which can be "
                f"neither cut nor stored; give the torch module from which torch.jit.script or torch.jit.trace made it."
            )
    for name, parameter in module.named_parameters():
        kind = _odd_kind(parameter)
        if kind is not None:
            raise ValueError(
                f"module={type(module).__name__} has the {kind} parameter {name!r}; parameters must be dense real "
                f"numbers in memory, such as float32."
            )


def _odd_kind(parameter: torch.Tensor) -> str | None:
    if parameter.is_meta:
        return "meta (without values)"
    if parameter.layout != torch.strided:
        return f"sparse ({parameter.layout})"
    if parameter.is_complex():
        return f"complex ({parameter.dtype})"
    return None
