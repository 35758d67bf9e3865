"""Record what a module does, step by step, without a change to the module or to the process.

``torch.fx`` traces a module by patching every module of the process, and calls of other threads fail meanwhile
(PyTorch issue 112775). Here a twin of the module runs, whose parts record what is called.
"""

import copy
import inspect
import random
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import MethodType
from typing import Any

import numpy as np
import torch
from torch import fx, nn
from torch.utils._python_dispatch import TorchDispatchMode

# Attributes that modules have beside those that users give them.
CONTAINERS = ("_parameters", "_buffers", "_modules")
N_ATTEMPTS = 3
# Files whose lines are not the user's.
NOT_THE_USER = (str(Path(torch.__file__).parent), str(Path(__file__).parents[1]), "<")


class RecordingError(Exception):
    """A module does what no graph of steps can repeat; the message says what and where."""


def twin_of(
    module: nn.Module, instead: dict[int, Any] | None = None
) -> tuple[nn.Module, dict[int, Any]]:
    """Copy a module with all submodules, buffers and attributes, but not its parameters.

    Parameters
    ----------
    module : nn.Module
    instead : dict, default=None
        Identity of an object -> what stands for it in the copy.

    Returns
    -------
    twin : nn.Module
    twins : dict
        Identity of each submodule and buffer of the module -> that of the twin.
    """
    kept = [*module.parameters(), *_results(module)]
    memo = {**{id(thing): thing for thing in kept}, **(instead or {})}
    try:
        twins = dict(memo)
        return copy.deepcopy(module, twins), twins
    except Exception:  # whatever a user's attribute raises: locks, generators
        twins = {**memo, **_not_copyable(module, memo)}
        return copy.deepcopy(module, twins), twins


def _results(module: nn.Module) -> Iterator[torch.Tensor]:
    """Tensors that a module keeps as attributes and that torch does not copy, since a graph leads to them."""
    for part in module.modules():
        for value in vars(part).values():
            if isinstance(value, torch.Tensor) and not value.is_leaf:
                yield value


def _not_copyable(module: nn.Module, memo: dict[int, Any]) -> dict[int, Any]:
    stuck = {}
    for part in module.modules():
        for name, value in vars(part).items():
            if name not in CONTAINERS:
                try:
                    copy.deepcopy(value, dict(memo))
                except Exception:
                    stuck[id(value)] = value
    return stuck


class Recorder(fx.Tracer):
    """A tracer that patches nothing.

    Parameters
    ----------
    opened : set of str or None, default=None
        Submodules that are opened; every other one is one step. If None, those are opened that are not torch's own.
    learns : bool, default=False
        Whether gradients will flow through the graph, so that ``torch.no_grad`` matters.
    """

    def __init__(self, opened: set[str] | None = None, *, learns: bool = False) -> None:
        super().__init__()
        self.opened = opened
        self.learns = learns

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if self.opened is None:
            return super().is_leaf_module(m, module_qualified_name)
        return module_qualified_name not in self.opened

    def trace(
        self,
        root: Any,
        concrete_args: dict[str, Any] | None = None,
        answer: Callable[[Any], Any] | None = None,
    ) -> fx.Graph:
        """Return the graph of a module's steps.

        Parameters
        ----------
        root : nn.Module
        concrete_args : None
            For ``torch.fx``.
        answer : callable, default=None
            Takes what the module returns, and returns what the graph shall return.
        """
        twin, twins = twin_of(root, {id(tensor): tensor for tensor, _ in _plain_tensors(root)})
        self._prepare(root, twins)
        first, constants = self._record(root, twin, answer), self._constants
        # Once more, since what a call leaves behind may change the next one.
        second = self._record(root, twin, answer)
        if str(first) != str(second) or not _equal(constants, self._constants):
            raise RecordingError("its forward changes from call to call")
        return second

    def _record(
        self, root: nn.Module, twin: nn.Module, answer: Callable[[Any], Any] | None
    ) -> fx.Graph:
        # Tensors that are made on the way are kept in this module, not in the user's.
        self.root = nn.Module()
        self.root.__dict__.update(vars(root))
        self.root_module_name = type(root).__name__
        self.tensor_attrs = dict(_plain_tensors(root))
        self.graph = fx.Graph(tracer_cls=Recorder)
        self._stored: dict[str, fx.Proxy] = {}
        only_recording: Any = _OnlyRecording
        with torch.enable_grad(), only_recording():
            self._modes = _modes()
            inputs = [self.create_proxy("placeholder", name, (), {}) for name in arguments(root)]
            output = twin(*inputs)
            output = output if answer is None else answer(output)
            self.create_node("output", "output", (self.create_arg(output),), {})
        return self.graph

    @property
    def _constants(self) -> dict[str, torch.Tensor]:
        """Tensors that were made while recording."""
        made = set(self.tensor_attrs.values())
        return {
            name: value
            for name, value in vars(self.root).items()
            if name in made and isinstance(value, torch.Tensor)
        }

    def _prepare(self, root: nn.Module, twins: dict[int, Any]) -> None:
        """Let the parts of a twin record their calls, and what is read from them."""
        self._names: dict[int, str] = {}
        for name, part in root.named_modules():
            twin = twins[id(part)]
            self._names[id(twin)] = name
            prefix = f"{name}." if name else ""
            for kept, proxy in (("_parameters", _Parameter), ("_buffers", _Buffer)):
                read = partial(self._read, prefix, proxy)
                twin.__dict__[kept] = _Reading(vars(part)[kept], read)
            if name and self.is_leaf_module(part, name):
                if not (_is_called_plainly(part) or isinstance(part, fx.GraphModule)):
                    raise RecordingError(f"{type(part).__name__} has a __call__ of its own")
                twin.__dict__["_compiled_call_impl"] = partial(self._called, name)
            elif "forward" in vars(part) and not _is_own_method(twin):
                raise RecordingError(f"the forward of {name or type(part).__name__} was replaced")

    def _called(self, name: str, *args: Any, **kwargs: Any) -> fx.Proxy:
        proxy: fx.Proxy = self.create_proxy("call_module", name, args, kwargs)
        return proxy

    def _read(
        self, prefix: str, kind: "type[_Parameter]", name: str, tensor: torch.Tensor | None
    ) -> fx.Proxy | None:
        if tensor is None:
            return None
        target = prefix + name
        if target not in self._stored:
            node = self.create_node("get_attr", target, (), {})
            self._stored[target] = kind(node, self, tensor)
        return self._stored[target]

    def create_arg(self, a: Any) -> Any:
        if isinstance(a, nn.Module) and id(a) in self._names:
            return self.create_node("get_attr", self._names[id(a)], (), {})
        return super().create_arg(a)

    def create_node(self, kind: str, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
        if kind.startswith("call"):
            for (name, now), before in zip(_modes().items(), self._modes.values(), strict=True):
                if now != before and (self.learns or "autocast" in name):
                    raise RecordingError(f"`{name}` is switched{user_line()}")
        return super().create_node(kind, target, *args, **kwargs)


def _modes() -> dict[str, Any]:
    """What a `with` changes for all operations inside."""
    return {
        "torch.no_grad": torch.is_grad_enabled(),
        "torch.inference_mode": torch.is_inference_mode_enabled(),
        "torch.autocast": tuple(
            torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device)
            for device in ("cpu", "cuda")
        ),
    }


def arguments(module: nn.Module) -> list[str]:
    """Names of the arguments of a module's forward that must be given, at least one."""
    parameters = list(inspect.signature(module.forward).parameters.values())
    needed = [
        parameter.name
        for parameter in parameters
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    return needed or [parameter.name for parameter in parameters[:1]]


def _is_called_plainly(module: nn.Module) -> bool:
    return type(module).__call__ is nn.Module.__call__


def _plain_tensors(module: nn.Module) -> Iterator[tuple[torch.Tensor, str]]:
    """Tensors that are attributes but neither parameters nor buffers, and their names."""
    for name, part in module.named_modules():
        for attribute, value in vars(part).items():
            if isinstance(value, torch.Tensor):
                yield value, f"{name}.{attribute}" if name else attribute


def _equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(value, second[name]) for name, value in first.items()
    )


def _is_own_method(twin: nn.Module) -> bool:
    """Whether a method that was put into an instance has come along to its twin."""
    forward = vars(twin)["forward"]
    return isinstance(forward, MethodType) and forward.__self__ is twin


class _Reading(dict[str, Any]):
    """Parameters or buffers of a twin; reading one is recorded."""

    def __init__(self, tensors: dict[str, Any], read: Callable[[str, Any], Any]) -> None:
        super().__init__(tensors)
        self.read = read

    def __getitem__(self, name: str) -> Any:
        return self.read(name, super().__getitem__(name))

    def items(self) -> Any:
        return [(name, self[name]) for name in self]

    def values(self) -> Any:
        return [self[name] for name in self]


class _Parameter(fx.Proxy):
    """A parameter, whose shape does not change."""

    def __init__(self, node: fx.Node, tracer: Recorder, tensor: torch.Tensor) -> None:
        super().__init__(node, tracer)
        self.tensor = tensor

    @property
    def shape(self) -> torch.Size:
        return self.tensor.shape

    @property
    def ndim(self) -> int:
        return self.tensor.ndim

    def size(self, *axis: int) -> Any:
        return self.tensor.size(*axis)

    def dim(self) -> int:
        return self.tensor.ndim

    def numel(self) -> int:
        return self.tensor.numel()

    def __len__(self) -> int:
        return len(self.tensor)


class _Buffer(_Parameter):
    """A buffer; a number that is read out of it to decide something is taken as fixed."""

    def __bool__(self) -> bool:
        return bool(self.tensor)

    def __int__(self) -> int:
        return int(self.tensor)

    def __float__(self) -> float:
        return float(self.tensor)

    def __index__(self) -> int:
        return self.tensor.__index__()

    def item(self) -> Any:
        return self.tensor.item()

    def tolist(self) -> Any:
        return self.tensor.tolist()


class _OnlyRecording(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch has no type hints here
    """Refuses random tensors that are drawn while a module is recorded: they would be the same ever after."""

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if torch.Tag.nondeterministic_seeded in getattr(func, "tags", ()):
            raise RecordingError(f"it draws random numbers ({func._overloadpacket}){user_line()}")
        return func(*args, **(kwargs or {}))


def recorded(
    module: nn.Module, answer: Callable[[Any], Any] | None = None, **options: Any
) -> tuple[fx.Graph, nn.Module]:
    """Graph of a module's steps, and a module that holds what its nodes name; options are those of `Recorder`.

    Raises
    ------
    Exception
        Whatever the module raises, or :class:`RecordingError`.
    """
    for _ in range(N_ATTEMPTS):  # other threads draw, too
        before = python_random_states()
        recorder = Recorder(**options)
        try:
            graph = recorder.trace(module, answer=answer)
        except RecordingError:
            if before == python_random_states():
                raise
        else:
            if before == python_random_states():
                return graph, recorder.root
    raise RecordingError("it draws random numbers of `random` or `numpy.random`")


def python_random_states() -> tuple[Any, ...]:
    """States of the generators that a user's code may draw from, beside torch's."""
    state: Any = np.random.get_state()  # noqa: NPY002
    return random.getstate(), state[1].tobytes(), state[2:]


def user_line(error: BaseException | None = None) -> str:
    """' at FILE:LINE (CODE)': the innermost line of a user's, now or where an error was raised."""
    stack = (
        traceback.extract_stack() if error is None else traceback.extract_tb(error.__traceback__)
    )
    frames = [frame for frame in stack if not frame.filename.startswith(NOT_THE_USER)]
    if not frames:
        return ""
    return f" at {frames[-1].filename}:{frames[-1].lineno} ({frames[-1].line})"
