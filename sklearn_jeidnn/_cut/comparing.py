"""Compare stages with the module that they were cut from, in training mode."""

import contextlib
import random
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from .graphs import CutError
from .recording import twin_of
from .tensors import same


class Step(NamedTuple):
    """What a training step of a module comes to."""

    logits: torch.Tensor
    gradients: dict[str, torch.Tensor]  # parameter name -> gradient, of those that get one
    buffers: dict[str, torch.Tensor]  # buffer name -> its value afterwards


def check_learning(
    module: nn.Module, stages: Sequence[nn.Module], inputs: tuple[torch.Tensor, ...]
) -> None:
    """Refuse stages that would not learn what the module as a whole would learn.

    Logits, gradients and buffers are compared after a step on a few samples, with the same random numbers.
    Neither the module nor the stages nor the state of random numbers is changed.

    Parameters
    ----------
    module : nn.Module
        In training mode; returns logits.
    stages : list of nn.Module
        What the stages run in training mode.
    inputs : tuple of tensor (n_samples, ...)

    Raises
    ------
    CutError
    """
    try:
        whole, again = _step(module, [module], inputs), _step(module, [module], inputs)
    except Exception:  # whatever a user's module raises on so few samples
        return
    try:
        staged = _step(module, stages, inputs)
    except Exception as error:
        raise CutError(f"its stages fail in training mode: {error}") from error
    replays = _difference(whole, again) is None
    difference = _difference(whole, staged) if replays else _difference_of_flow(whole, staged)
    if difference is not None:
        raise CutError(f"in training mode its stages do not compute what it computes: {difference}")


def _step(module: nn.Module, stages: Sequence[nn.Module], inputs: tuple[torch.Tensor, ...]) -> Step:
    """Run copies of some stages, which share the parameters of ``module``, and differentiate."""
    twin, twins = twin_of(nn.ModuleList(stages).train())
    parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
    with _random_numbers_restored(inputs[0].device), torch.enable_grad(), _kept(_shared_buffers(twin, twins)):
        carried: Any = tuple(tensor.clone() for tensor in inputs)
        for stage in twin:
            carried = stage(*carried)
        gradients: Any = [None] * len(parameters)
        if carried.requires_grad and parameters:
            weights = torch.linspace(-1, 1, carried.numel(), device=carried.device)
            loss = (carried * weights.view_as(carried)).sum()
            gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
        buffers = {
            name: twins.get(id(buffer), buffer).clone() for name, buffer in module.named_buffers()
        }
    flowing = {
        name: gradient
        for name, gradient in zip(parameters, gradients, strict=True)
        if gradient is not None and gradient.any()
    }
    return Step(carried.detach(), flowing, buffers)


def _difference(first: Step, second: Step) -> str | None:
    """Say what differs between two steps; None if nothing does."""
    if not same(first.logits, second.logits):
        return "other logits"
    flow = _difference_of_flow(first, second)
    if flow is not None:
        return flow
    largest = max((float(g.abs().max()) for g in first.gradients.values()), default=0.0)
    for name, gradient in first.gradients.items():
        if not same(gradient, second.gradients[name], least_scale=largest):
            return f"another gradient of {name!r}"
    for name, buffer in first.buffers.items():
        if not same(buffer, second.buffers[name]):
            return f"another buffer {name!r} afterwards"
    return None


def _difference_of_flow(first: Step, second: Step) -> str | None:
    """Say which parameters get gradients in one step only."""
    names = sorted(first.gradients.keys() ^ second.gradients.keys())
    return f"gradients of {names[:3]} flow in one of them only" if names else None


@contextlib.contextmanager
def _random_numbers_restored(device: torch.device) -> Iterator[None]:
    """Let code draw random numbers, always the same ones, as if it had not."""
    numpy_state, python_state = np.random.get_state(), random.getstate()
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            np.random.set_state(numpy_state)
            random.setstate(python_state)


def _shared_buffers(twin: nn.Module, twins: dict[int, Any]) -> list[torch.Tensor]:
    """Buffers that a copy shares with what it was copied from: those of scripted submodules."""
    return [buffer for buffer in twin.buffers() if twins.get(id(buffer)) is buffer]


@contextlib.contextmanager
def _kept(tensors: list[torch.Tensor]) -> Iterator[None]:
    """Restore tensors afterwards."""
    before = [tensor.clone() for tensor in tensors]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, value in zip(tensors, before, strict=True):
                tensor.copy_(value)
