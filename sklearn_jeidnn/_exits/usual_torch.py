"""torch's settings as they are if nobody has changed them, in this thread only.

Answers must not depend on ``torch.set_default_dtype``, ``torch.set_default_device``, ``torch.no_grad`` and
``torch.autocast`` around a call. The default dtype is one of the whole process. It is not set back for the time of a
call, since other threads would compute with it; functions that make tensors are given a dtype instead.
"""

import contextlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

_ATEN = torch.ops.aten
# Functions whose result has the default dtype.
MAKE_FLOATS: set[Callable[..., Any]] = {
    torch.empty,
    torch.empty_strided,
    torch.zeros,
    torch.ones,
    torch.rand,
    torch.randn,
    torch.normal,
    torch.eye,
    torch.linspace,
    torch.logspace,
    torch.hann_window,
    torch.hamming_window,
    torch.fft.fftfreq,
    torch.fft.rfftfreq,
    *(_ATEN.empty.memory_format, _ATEN.zeros.default, _ATEN.ones.default, _ATEN.eye.default),
    *(_ATEN.rand.default, _ATEN.randn.default, _ATEN.linspace.default),
}
# Functions whose result has the default dtype if they are given Python's floats.
MAKE_FLOATS_OF_FLOATS: set[Callable[..., Any]] = {
    torch.tensor,
    torch.as_tensor,
    torch.asarray,
    torch.scalar_tensor,
    torch.full,
    torch.arange,
    *(_ATEN.scalar_tensor.default, _ATEN.full.default, _ATEN.arange.default),
    *(_ATEN.arange.start, _ATEN.arange.start_step),
}
# What has a dtype of its own.
TYPED = (torch.Tensor, np.ndarray, np.generic)
AUTOCAST_DEVICES = ("cpu", "cuda", "mps", "xpu")


class _Float32ByDefault(TorchFunctionMode):
    """Functions that make tensors make them float32, unless they are told otherwise."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if kwargs.get("dtype") is None and _makes_floats(func, args, kwargs):
            kwargs = {**kwargs, "dtype": torch.float32}
        return func(*args, **kwargs)


def _makes_floats(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    if func in MAKE_FLOATS:
        return True
    if func not in MAKE_FLOATS_OF_FLOATS or any(isinstance(value, TYPED) for value in args):
        return False
    made: bool = func(*args, **kwargs).is_floating_point()
    return made


def usual_defaults() -> contextlib.AbstractContextManager[None]:
    """Make tensors as usual, as float32 and on the CPU, unless told otherwise."""
    probe = torch.empty(0)
    if probe.device.type == "cpu" and probe.dtype == torch.float32:
        return contextlib.nullcontext()
    return _other_defaults_undone(probe)


@contextlib.contextmanager
def _other_defaults_undone(probe: torch.Tensor) -> Iterator[None]:
    """Make tensors as usual, where ``probe`` was made as torch's settings are."""
    with contextlib.ExitStack() as stack:
        if probe.device.type != "cpu":
            stack.enter_context(torch.device("cpu"))
        if probe.dtype != torch.float32:
            stack.enter_context(_named_in_errors(probe.dtype))
            stack.enter_context(_Float32ByDefault())
        yield


@contextlib.contextmanager
def usual_torch() -> Iterator[None]:
    """Compute with gradients, without autocast, and make tensors as usual."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for device in AUTOCAST_DEVICES:
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        stack.enter_context(usual_defaults())
        yield


@contextlib.contextmanager
def _named_in_errors(dtype: torch.dtype) -> Iterator[None]:
    """Name torch's default dtype where a module's own arithmetic fails because of it."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        if not re.search("dtype|double|half|bfloat16", str(error), re.IGNORECASE):
            raise
        raise ValueError(
            f"{error} torch's default dtype is {dtype}, in which the module was built or makes tensors; call "
            f"torch.set_default_dtype(torch.float32) first, or build the module with module.float()."
        ) from error
