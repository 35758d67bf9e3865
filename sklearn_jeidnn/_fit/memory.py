"""Keep what was learned across fits that differ only in what comes after."""

import inspect
import pickle
from collections.abc import Callable
from typing import Any, TypeVar

import joblib
import numpy as np
import torch
from torch import fx, nn

from .. import __version__
from .._operate.warn import warn_caller

Result = TypeVar("Result")


def remembered(memory: joblib.Memory, compute: Callable[[], Result], **affects: Any) -> Result:
    """``compute()``, or what it returned in an earlier call in which everything that affects it was the same.

    torch's random numbers go on from where they went on then.

    Parameters
    ----------
    memory : joblib.Memory
    compute : callable
        Returns what joblib can store.
    **affects
        All that the result depends on, beside the state of torch's random numbers.
    """
    versions = {"sklearn_jeidnn": __version__, "torch": torch.__version__}
    affects = {**versions, "random": torch.get_rng_state().numpy(), **affects}
    try:
        key = joblib.hash(affects)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        warn_caller(
            f"memory: this fit is not remembered, since one of its parameters cannot be told from another: {error}",
        )
        return compute()
    result: Result
    result, random_state = memory.cache(_compute, ignore=["compute"])(key, compute)
    torch.set_rng_state(torch.as_tensor(random_state))
    return result


def _compute(key: str, compute: Callable[[], Result]) -> tuple[Result, np.ndarray]:
    return compute(), torch.get_rng_state().numpy()


def fingerprint(module: nn.Module) -> tuple[Any, ...]:
    """What a module computes: its weights, its structure, its settings, the source of its classes."""
    weights = {name: value.cpu().numpy() for name, value in module.state_dict().items()}
    classes = {type(part) for part in module.modules()}
    code = sorted(part.code for part in module.modules() if isinstance(part, fx.GraphModule))
    settings = [_settings(part) for part in module.modules()]
    return weights, repr(module), settings, sorted(_source(kind) for kind in classes), code


def _settings(module: nn.Module) -> dict[str, Any]:
    """Its plain attributes, which forward may read though they are no parameters."""
    plain = (int, float, str, tuple)
    return {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, plain) and not name.startswith("_")
    }


def _source(kind: type) -> str:
    if kind.__module__.startswith("torch."):
        return kind.__qualname__
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):
        return f"{kind.__module__}.{kind.__qualname__}"
