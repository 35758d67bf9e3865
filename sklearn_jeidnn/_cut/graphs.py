"""A module as a graph of steps, and the steps at which its submodules end.

A module becomes a graph in one of two ways. Tracing opens only the modules that contain a cut and
keeps every other submodule whole, so its dropout and batch normalisation still work. If the outer
code cannot be traced, ``torch.export`` breaks the whole module down into tensor operations, each of
which knows the submodule that it comes from.
"""

import inspect
import operator
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import fx, nn

from .counting import OrdinaryOperations
from .recording import RecordingError, recorded, user_line
from .threads import patching_one_thread
from .tokens import has_length, token_length


class CutError(ValueError):
    """A module cannot be cut this way; the message says why."""


class ModuleGraph(NamedTuple):
    """What a module does, step by step."""

    nodes: list[fx.Node]  # in the order in which they run
    root: nn.Module  # holds the submodules and parameters that nodes name
    answer: fx.Node  # the node that holds the logits
    ends: dict[str, list[int]]  # submodule name -> positions of its output, one for each run


class LogitsModule(nn.Module):
    """A backbone that takes tensors by position and returns logits.

    Parameters
    ----------
    module : nn.Module
        Returns logits, an object or dict that holds them as ``logits``, or a tuple that begins with them.
    input_names : tuple of str or None
        Arguments of the module's forward to which the tensors are passed. If None, they are passed
        by position.
    """

    def __init__(self, module: nn.Module, input_names: tuple[str, ...] | None) -> None:
        super().__init__()
        self.module = module
        self.input_names = input_names

    def forward(self, *inputs: torch.Tensor) -> Any:
        if self.input_names is None:
            return logits_of(self.module(*inputs))
        return logits_of(self.module(**dict(zip(self.input_names, inputs, strict=True))))


def logits_of(output: Any) -> Any:
    """The logits in a module's output: what is named so, or the first entry of a tuple."""
    if isinstance(output, dict):
        return output.get("logits", output)
    if hasattr(output, "logits"):
        return output.logits
    if isinstance(output, tuple | list) and len(output):
        return output[0]
    return output


@torch.no_grad()
def embeds(logits_module: LogitsModule, array: np.ndarray, device: str | torch.device) -> bool:
    """Whether a module takes numbers of this array's shape only as integers."""
    # Tokens that are too large are said where the module's number of them is known.
    array = np.ones(array.shape, dtype=np.int64)
    try:
        logits_module(torch.as_tensor(array, dtype=torch.float32, device=device))
        return False
    except Exception:  # whatever a user's module raises
        pass
    try:
        logits_module(torch.as_tensor(array, device=device))
        return True
    except Exception:
        return False


def trace(
    module: nn.Module,
    exits: Iterable[str],
    outputs: dict[str, Any],
    *,
    learns: bool,
) -> ModuleGraph:
    """Graph of a module with one input, in its current mode; only the modules around ``exits`` are opened.

    Parameters
    ----------
    module : nn.Module
    exits : iterable of str
    outputs : dict
        Exit -> what the submodule returned for some samples.
    learns : bool
        Whether gradients will flow through the graph.

    Raises
    ------
    CutError
        If the outer code cannot be traced.
    """
    opened = {
        ".".join(name.split(".")[:depth]) for name in exits for depth in range(name.count(".") + 1)
    }
    if len(inspect.signature(module.forward).parameters) != 1:
        raise CutError("its forward takes more than one argument")
    try:
        graph, root = recorded(module, _traced_logits, opened=opened, learns=learns)
    except RecordingError as error:
        raise CutError(f"its forward cannot be traced: {error}") from error
    except Exception as error:
        raise CutError(
            f"its forward cannot be traced{user_line(error)}: {_one_line(error)}"
        ) from error
    *nodes, output = graph.nodes
    if not isinstance(output.args[0], fx.Node):
        raise CutError(f"it returns {output.args[0]!r}")
    nodes, ends = _with_parts_of_outputs(nodes, outputs)
    return ModuleGraph(nodes=nodes, root=root, answer=output.args[0], ends=ends)


def _traced_logits(output: Any) -> Any:
    return output if isinstance(output, fx.Proxy) else logits_of(output)


def _with_parts_of_outputs(
    nodes: list[fx.Node], outputs: dict[str, Any]
) -> tuple[list[fx.Node], dict[str, list[int]]]:
    """Nodes in which tensors are taken out of a submodule's output right behind it, and the ends of submodules.

    Such an output, as a recurrent layer's, ends with its first tensor, which an exit reads.
    """
    ordered: list[fx.Node] = []
    ends: dict[str, list[int]] = {}
    placed = set()
    for node in nodes:
        if node in placed:
            continue
        parts = [node]
        if node.op == "call_module":
            name = str(node.target)
            taken, tensors, _ = _taken_apart(node, outputs.get(name))
            parts += [part for part in taken if part not in tensors[:1]] + tensors[:1]
            ends.setdefault(name, []).append(len(ordered) + len(parts) - 1)
        ordered += parts
        placed.update(parts)
    return ordered, ends


def _taken_apart(node: fx.Node, output: Any) -> tuple[list[fx.Node], list[fx.Node], Any]:
    """Nodes that take an output apart, those of them that hold tensors, and the output made of these.

    Whoever takes the output whole takes its parts instead, since only tensors can cross a cut.
    """
    if output is None or isinstance(output, torch.Tensor):
        return [], [], node
    nodes: list[fx.Node] = []
    tensors: list[fx.Node] = []
    entries: dict[Any, Any] = {}
    for part, value in _parts(node, output):
        inside, tensors_inside, entry = _taken_apart(part, value)
        nodes += [part, *inside]
        tensors += [part] if isinstance(value, torch.Tensor) else tensors_inside
        entries.setdefault(part.args[1], entry)
    if not isinstance(output, tuple | list):
        return nodes, tensors, node
    whole = tuple(entries[index] for index in range(len(output)))
    for user in set(node.users) - set(nodes):
        user.args, user.kwargs = fx.map_arg(
            (user.args, user.kwargs), lambda n: whole if n is node else n
        )
    return nodes, tensors, whole


def _parts(node: fx.Node, output: Any) -> list[tuple[fx.Node, Any]]:
    """Nodes that read a part of an output, and the part; all entries of a tuple, in order."""
    reading = [
        user
        for user in node.users
        if user.target in (operator.getitem, getattr) and user.args[0] is node
    ]
    if isinstance(output, tuple | list):
        read = {user.args[1] for user in reading}
        missing = [index for index in range(len(output)) if index not in read]
        reading += [node.graph.call_function(operator.getitem, (node, index)) for index in missing]
        reading.sort(key=lambda user: user.args[1] if isinstance(user.args[1], int) else -1)
    functions: list[Any] = [user.target for user in reading]
    return [
        (user, function(output, user.args[1]))
        for user, function in zip(reading, functions, strict=True)
    ]


def export(
    logits_module: LogitsModule, inputs: tuple[torch.Tensor, ...], *, any_length: bool = False
) -> ModuleGraph:
    """Graph of a module's tensor operations, in its current mode (training or evaluation).

    Parameters
    ----------
    logits_module : LogitsModule
    inputs : tuple of tensor (n_samples, ...)
        At least two samples; the graph takes any number.
    any_length : bool, default=False
        Whether the graph takes sentences of any length, as far as the module does.

    Raises
    ------
    CutError
        If ``torch.export`` cannot follow the module; the message names the operation.
    """
    length = token_length(inputs) if any_length else None
    n_samples: Any = {0: torch.export.Dim("n_samples", min=1)}
    any_size = {1: torch.export.Dim.AUTO}
    axes = [n_samples | (any_size if has_length(t, length) else {}) for t in inputs]
    try:
        with patching_one_thread(), OrdinaryOperations(), torch.enable_grad():
            program = torch.export.export(logits_module, inputs, dynamic_shapes=(tuple(axes),))
    except Exception as error:
        raise CutError(f"torch.export stopped{user_line(error)}: {_one_line(error)}") from error
    root: Any = program.module(check_guards=False)
    *nodes, output = (node for node in root.graph.nodes if not _is_assertion(node))
    (answer,) = output.args[0]
    return ModuleGraph(
        nodes=nodes, root=root, answer=answer, ends=_ends_of_submodules(nodes, answer)
    )


def _is_assertion(node: fx.Node) -> bool:
    """Whether a node only checks something."""
    return node.op == "call_function" and not node.users and "assert" in str(node.target)


def _ends_of_submodules(nodes: list[fx.Node], answer: fx.Node) -> dict[str, list[int]]:
    """Positions at which submodules end: at the last tensor of a run that is read outside of it."""
    last = {}
    for position, node in enumerate(nodes):
        if isinstance(node.meta.get("val"), torch.Tensor):
            for run in _runs(node):
                if node is answer or any(run not in _runs(user) for user in node.users):
                    last[run] = position
    ends: dict[str, list[int]] = {}
    for run, position in last.items():
        ends.setdefault(run.split("@")[0], []).append(position)
    return ends


def _runs(node: fx.Node) -> set[str]:
    """Submodules of ``LogitsModule.module`` that a node is part of; '@1' marks a second run."""
    stack = node.meta.get("nn_module_stack") or {}
    return {
        path.removeprefix("module.") + "".join(key.partition("@")[1:])
        for key, (path, _) in stack.items()
        if "." in path
    }


def _one_line(error: Exception) -> str:
    """Type of an error, and the first line of its message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300] if lines else ''}"
