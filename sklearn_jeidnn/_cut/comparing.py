"""Compare stages with the module that they were cut from, in training mode."""

import contextlib
import random
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from .graphs import CutError, LogitsModule
from .recording import python_random_states, twin_of
from .tensors import same

# A module may change from call to call.
N_CALLS = 2
# Another thread that draws random numbers in between makes a comparison fail.
N_COMPARISONS = 3
CPU = torch.device("cpu")


class Steps(NamedTuple):
    """What a few training steps of a module come to."""

    logits: torch.Tensor  # of all calls, one after the other
    gradients: dict[str, torch.Tensor]  # parameter name -> gradient, of those that get one
    buffers: dict[str, torch.Tensor]  # buffer name -> its value afterwards
    random_states: tuple[Any, ...]  # afterwards


def check_learning(
    logits_module: LogitsModule, stages: Sequence[nn.Module], inputs: tuple[torch.Tensor, ...]
) -> None:
    """Refuse stages that would not learn what the module as a whole would learn.

    Logits, gradients and buffers are compared after a step on a few samples, with the same random numbers.
    Neither the module nor the stages nor the state of random numbers is changed.

    Parameters
    ----------
    logits_module : LogitsModule
        In training mode.
    stages : list of nn.Module
        What the stages run in training mode.
    inputs : tuple of tensor (n_samples, ...)

    Raises
    ------
    CutError
    """
    for _ in range(N_COMPARISONS):
        difference = _compared(logits_module, stages, inputs)
        if difference is None:
            return
    raise CutError(f"in training mode its stages do not compute what it computes: {difference}")


def _compared(
    logits_module: LogitsModule, stages: Sequence[nn.Module], inputs: tuple[torch.Tensor, ...]
) -> str | None:
    """Say what differs between a step of the module and one of its stages; None if nothing does."""
    module = logits_module.module
    try:
        whole, again = (_steps(module, [logits_module], inputs) for _ in range(2))
    except Exception:  # whatever a user's module raises on so few samples
        return None
    try:
        staged = _steps(module, stages, inputs)
    except Exception as error:
        raise CutError(f"its stages fail in training mode: {error}") from error
    replays = _difference(whole, again) is None
    return _difference(whole, staged) if replays else _difference_of_flow(whole, staged)


def _steps(
    module: nn.Module, stages: Sequence[nn.Module], inputs: tuple[torch.Tensor, ...]
) -> Steps:
    """Run copies of some stages, which share the parameters of ``module``, and differentiate."""
    twin, twins = twin_of(nn.ModuleList(stages).train())
    parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
    with random_numbers_kept(inputs[0].device), torch.enable_grad():
        logits = torch.cat([_run(twin, inputs) for _ in range(N_CALLS)])
        random_states = (torch.get_rng_state().tolist(), *python_random_states())
        gradients = _gradients(logits, list(parameters.values()))
    flowing = {
        name: gradient
        for name, gradient in zip(parameters, gradients, strict=True)
        if gradient is not None and gradient.any()
    }
    buffers = {
        name: twins[id(buffer)] for name, buffer in module.named_buffers() if id(buffer) in twins
    }
    return Steps(logits.detach(), flowing, buffers, random_states)


def _run(stages: Any, inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
    carried: Any = tuple(tensor.clone() for tensor in inputs)
    for stage in stages:
        carried = stage(*carried)
    logits: torch.Tensor = carried
    return logits


def _gradients(
    logits: torch.Tensor, parameters: list[nn.Parameter]
) -> Sequence[torch.Tensor | None]:
    """Gradients of a sum of the logits in which each has a weight of its own."""
    if not (logits.requires_grad and parameters):
        return [None] * len(parameters)
    weights = torch.linspace(-1, 1, logits.numel(), device=logits.device)
    return torch.autograd.grad(
        (logits * weights.view_as(logits)).sum(), parameters, allow_unused=True
    )


def _difference(first: Steps, second: Steps) -> str | None:
    """Say what differs between two steps; None if nothing does."""
    if not same(first.logits, second.logits):
        return "other logits"
    if first.random_states != second.random_states:
        return "other random numbers are drawn"
    flow = _difference_of_flow(first, second)
    if flow is not None:
        return flow
    largest = max(
        (float(g.nan_to_num().abs().max()) for g in first.gradients.values()), default=0.0
    )
    for name, gradient in first.gradients.items():
        if not same(gradient, second.gradients[name], least_scale=largest):
            return f"another gradient of {name!r}"
    for name, buffer in first.buffers.items():
        if name in second.buffers and not same(buffer, second.buffers[name]):
            return f"another buffer {name!r} afterwards"
    return None


def _difference_of_flow(first: Steps, second: Steps) -> str | None:
    """Say which parameters get gradients in one step only."""
    names = sorted(first.gradients.keys() ^ second.gradients.keys())
    return f"gradients of {names[:3]} flow in one of them only" if names else None


@contextlib.contextmanager
def random_numbers_kept(device: torch.device = CPU) -> Iterator[None]:
    """Let code draw random numbers, on the CPU and a device, always the same ones, as if it had not."""
    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            np.random.set_state(numpy_state)  # noqa: NPY002
            random.setstate(python_state)
