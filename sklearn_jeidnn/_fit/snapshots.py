"""What changes in networks, optimizers, callbacks and random numbers while they are used: taken, and given back."""

import collections
import functools
import logging
import pathlib
import random
import types
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import fx, nn
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import Dataset

from .code import is_library_class, values_of_function

SCALARS = (
    *(type(None), bool, int, float, complex, str, bytes, pathlib.PurePath),
    *(np.generic, np.dtype, torch.dtype, torch.device, torch.Size),
)
ARRAYS = (np.ndarray, torch.Tensor)
SEQUENCES = (list, tuple, set, frozenset, collections.deque)
MAPPINGS = (dict, collections.OrderedDict, collections.defaultdict, collections.Counter)
# What nothing is looked for in: data, code, graphs of networks.
SKIPPED = (
    *(Dataset, type, types.ModuleType, types.BuiltinFunctionType),
    *(fx.Graph, fx.Node, logging.Logger),
)
# Attributes that every module has: parameters, buffers, submodules, hooks.
OF_EVERY_MODULE = set(vars(nn.Module()))
# Packages of whose objects attributes change in a training; those of others are settings.
CHANGING = ("skorch.callbacks",)


class Snapshot(NamedTuple):
    """What some objects, and all objects that they hold, were like."""

    kinds: list[str]  # class of each object that holds something
    states: list[Any]
    random_numbers: dict[str, Any]


class Snapshots:
    """Takes snapshots of the same objects, and gives back what they were like.

    The objects that hold something are found anew each time, in the same order: so a snapshot that was taken in
    another process can be given to objects that were made alike. Of them are changed in place: generators of random
    numbers, torch modules, optimizers, learning-rate schedules, lists, dicts and arrays, and plain attributes of
    callbacks and of objects of the user's.

    Parameters
    ----------
    *roots : objects
    options : objects, default=None
        What a user gives for trainings, of which only generators and objects of the user's are part of it, and nothing
        that they hold in attributes that end with an underscore: that is of one training.
    beside : sequence of objects, default=()
        In which nothing is looked for.
    device : torch.device, default=cpu
        Beside the CPU, whose random numbers are part of it.
    """

    def __init__(
        self,
        *roots: Any,
        options: Any = None,
        beside: Iterable[Any] = (),
        device: str | torch.device = "cpu",
    ) -> None:
        self.roots, self.options = roots, options
        self.beside, self.device = list(beside), torch.device(device)
        self.start = _python_random_numbers()

    def take(self) -> Snapshot:
        """Return what the objects are like; tensors and arrays are not copied."""
        found = self._holders()
        return Snapshot(
            kinds=[_kind(value) for value in found],
            states=[_state(value) for value in found],
            random_numbers=self._random_numbers(),
        )

    def give_back(self, snapshot: Snapshot) -> bool:
        """Make the objects as they were; False, and nothing changes, if these are other objects."""
        found = self._holders()
        if [_kind(value) for value in found] != snapshot.kinds:
            return False
        for value, state in zip(found, snapshot.states, strict=True):
            _restore(value, state)
        _set_random_numbers(snapshot.random_numbers, self.device)
        return True

    def _holders(self) -> list[Any]:
        of_options = _Search(self.beside, of_a_training=False)
        of_options.visit(self.options)
        search = _Search(self.beside)
        search.visit(self.roots)
        kept = (*GENERATORS,)
        return [
            *(v for v in of_options.found if isinstance(v, kept) or _has_own_attributes(v)),
            *search.found,
        ]

    def _random_numbers(self) -> dict[str, Any]:
        """Of torch; those of NumPy and of Python only if they were drawn from, since they are the user's."""
        now = _python_random_numbers()
        drawn = {name: now[name] for name in now if not _equal(now[name], self.start[name])}
        return {**torch_random_numbers(self.device), **drawn}


class _Search:
    """Finds the objects that hold something, each once, always in the same order."""

    def __init__(self, beside: list[Any], of_a_training: bool = True) -> None:
        self.found: list[Any] = []
        self.of_a_training = of_a_training
        # Objects are kept, so that no later one gets the identity of an earlier one.
        self.seen: dict[int, Any] = {id(value): value for value in beside}

    def visit(self, root: Any) -> None:
        waiting = [root]
        while waiting:
            value = waiting.pop()
            if isinstance(value, SCALARS + SKIPPED) or id(value) in self.seen:
                continue
            self.seen[id(value)] = value
            if _holds(value):
                self.found.append(value)
            waiting += reversed(list(_parts(value, self.of_a_training)))


def _holds(value: Any) -> bool:
    if isinstance(value, (*GENERATORS, nn.Module, torch.optim.Optimizer, LRScheduler)):
        return True
    if isinstance(value, np.ndarray):
        return bool(value.flags.writeable) and not value.dtype.hasobject
    if isinstance(value, torch.Tensor):
        return True
    if isinstance(value, list | dict | collections.deque):
        return is_plain(value)
    return _has_own_attributes(value)


def _has_own_attributes(value: Any) -> bool:
    """Whether an object is the user's, or a callback."""
    if not hasattr(value, "__dict__") or isinstance(value, types.FunctionType):
        return False
    kind = type(value)
    return not is_library_class(kind) or kind.__module__.startswith(CHANGING)


def _parts(value: Any, of_a_training: bool) -> Iterator[Any]:
    """What an object holds beside what its own state says."""
    if isinstance(value, (*GENERATORS, torch.optim.Optimizer, LRScheduler, *ARRAYS)):
        return
    if isinstance(value, nn.Module):
        for part in value.modules():
            yield from _changing_parts(_settings(part))
    elif isinstance(value, Mapping):
        yield from value.values() if not is_plain(value) else ()
    elif isinstance(value, SEQUENCES):
        yield from value if not is_plain(value) else ()
    elif isinstance(value, functools.partial):
        yield from (value.func, *value.args, *value.keywords.values())
    elif isinstance(value, types.MethodType):
        yield value.__self__
    elif isinstance(value, types.FunctionType):
        yield from _changing_parts(values_of_function(value))
    elif hasattr(value, "__dict__"):
        own = vars(value).items()
        yield from _changing_parts({n: v for n, v in own if of_a_training or not n.endswith("_")})


def _changing_parts(values: Mapping[str, Any]) -> Iterator[Any]:
    return (value for value in values.values() if not is_plain(value))


def _settings(module: nn.Module) -> dict[str, Any]:
    """Attributes of a module of the user's that are no parameters, buffers or submodules."""
    if is_library_class(type(module)):
        return {}
    return {name: value for name, value in vars(module).items() if name not in OF_EVERY_MODULE}


def is_plain(value: Any) -> bool:
    """Whether a value is numbers, words and arrays, or containers of nothing else."""
    if isinstance(value, SCALARS) or type(value) in (np.ndarray, torch.Tensor):
        return not (isinstance(value, np.ndarray) and value.dtype.hasobject)
    if type(value) in MAPPINGS:
        return all(is_plain(key) and is_plain(part) for key, part in value.items()) and is_plain(
            getattr(value, "default_factory", None)
        )
    # A history of skorch's is a list.
    return isinstance(value, SEQUENCES) and all(map(is_plain, value))


def _kind(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _state(value: Any) -> Any:
    if isinstance(value, nn.Module):
        state = value.state_dict()
        others = {name: b for name, b in value.named_buffers() if name not in state}
        settings = {name: _plain(_settings(part)) for name, part in value.named_modules()}
        return state, others, {name: own for name, own in settings.items() if own}
    if isinstance(value, torch.optim.Optimizer):
        return value.state_dict()
    if isinstance(value, LRScheduler):
        return _state_of_schedule(value)
    for kind, (read, _) in GENERATORS.items():
        if isinstance(value, kind):
            return read(value)
    if isinstance(value, (list, dict, collections.deque, *ARRAYS)):
        return list(value) if isinstance(value, list) else value
    return _plain(vars(value))


def _restore(value: Any, state: Any) -> None:
    if isinstance(value, nn.Module):
        _restore_module(value, *state)
    elif isinstance(value, torch.optim.Optimizer | LRScheduler):
        value.load_state_dict(state)
    elif isinstance(value, torch.Tensor):
        with torch.no_grad():
            value.copy_(state)
    elif isinstance(value, np.ndarray):
        value[...] = state
    elif isinstance(value, list):
        value[:] = state
    elif isinstance(value, dict | collections.deque):
        value.clear()
        value.update(state) if isinstance(value, dict) else value.extend(state)
    elif isinstance(value, tuple(GENERATORS)):
        next(give for kind, (_, give) in GENERATORS.items() if isinstance(value, kind))(
            value, state
        )
    else:
        vars(value).update(state)


def _restore_module(
    module: nn.Module,
    state: dict[str, Any],
    others: dict[str, torch.Tensor],
    settings: dict[str, dict[str, Any]],
) -> None:
    module.load_state_dict(state)
    buffers, parts = dict(module.named_buffers()), dict(module.named_modules())
    for name, tensor in others.items():
        buffers[name].copy_(tensor)
    for name, own in settings.items():
        parts[name].__dict__.update(own)


def _plain(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if is_plain(value)}


def _state_of_schedule(schedule: LRScheduler) -> dict[str, Any]:
    """State of a learning-rate schedule, without the functions that it calls."""
    state = schedule.state_dict()
    if "lr_lambdas" in state:
        state["lr_lambdas"] = [None] * len(state["lr_lambdas"])
    return _plain(state)


def torch_random_numbers(device: torch.device) -> dict[str, torch.Tensor]:
    """States of torch's own generators, on the CPU and a device."""
    states = {"torch": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def _python_random_numbers() -> dict[str, Any]:
    return {"numpy": np.random.get_state(), "python": random.getstate()}  # noqa: NPY002


def _set_random_numbers(states: Mapping[str, Any], device: torch.device) -> None:
    torch.set_rng_state(states["torch"])
    if "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
    if "numpy" in states:
        np.random.set_state(states["numpy"])  # noqa: NPY002
    if "python" in states:
        random.setstate(states["python"])


def _equal(first: tuple[Any, ...], second: tuple[Any, ...]) -> bool:
    return all(np.array_equal(*pair) for pair in zip(first, second, strict=True))


def _set_bits(generator: np.random.Generator, state: Any) -> None:
    generator.bit_generator.state = state


# How the state of each kind of generator is read and set.
GENERATORS: dict[type, tuple[Any, Any]] = {
    torch.Generator: (torch.Generator.get_state, torch.Generator.set_state),
    np.random.Generator: (lambda generator: generator.bit_generator.state, _set_bits),
    np.random.RandomState: (
        lambda generator: generator.get_state(legacy=False),
        np.random.RandomState.set_state,
    ),
    random.Random: (random.Random.getstate, random.Random.setstate),
}
