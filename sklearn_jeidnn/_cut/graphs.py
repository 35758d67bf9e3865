"""A module as a graph of steps, and the steps at which its submodules end.

A module becomes a graph in one of two ways. Tracing opens only the modules that contain a cut and
keeps every other submodule whole, so its dropout and batch normalisation still work. If the outer
code cannot be traced, ``torch.export`` breaks the whole module down into tensor operations, each of
which knows the submodule that it comes from.
"""

import contextlib
import traceback
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import fx, nn

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
        Returns logits, or an object or dict that holds them as ``logits``.
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
            return _logits_of(self.module(*inputs))
        return _logits_of(self.module(**dict(zip(self.input_names, inputs, strict=True))))


def _logits_of(output: Any) -> Any:
    """The logits in a module's output."""
    if isinstance(output, dict):
        return output.get("logits")
    return getattr(output, "logits", output)


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


class _OuterTracer(fx.Tracer):
    """Traces the modules that contain a cut, and takes every other submodule as one step."""

    def __init__(self, opened: set[str]) -> None:
        super().__init__()
        self.opened = opened

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return module_qualified_name not in self.opened


def trace(module: nn.Module, exits: Iterable[str]) -> ModuleGraph:
    """Graph of a module with one input, in which only the modules around ``exits`` are opened.

    Raises
    ------
    CutError
        If the outer code cannot be traced.
    """
    opened = {
        ".".join(name.split(".")[:depth]) for name in exits for depth in range(name.count(".") + 1)
    }
    try:
        graph = _OuterTracer(opened).trace(module)
    except Exception as error:
        raise CutError(f"its forward cannot be traced: {_one_line(error)}") from error
    *nodes, output = graph.nodes
    if sum(node.op == "placeholder" for node in nodes) != 1:
        raise CutError("its forward takes more than one tensor")
    ends: dict[str, list[int]] = {}
    for position, node in enumerate(nodes):
        if node.op == "call_module":
            ends.setdefault(str(node.target), []).append(position)
    return ModuleGraph(nodes=nodes, root=module, answer=output.args[0], ends=ends)


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
        with attention_as_operations(), torch.enable_grad():
            program = torch.export.export(logits_module, inputs, dynamic_shapes=(tuple(axes),))
    except Exception as error:
        raise CutError(f"torch.export stopped{_user_code(error)}: {_one_line(error)}") from error
    root: Any = program.module(check_guards=False)
    *nodes, output = (node for node in root.graph.nodes if not _is_assertion(node))
    (answer,) = output.args[0]
    return ModuleGraph(
        nodes=nodes, root=root, answer=answer, ends=_ends_of_submodules(nodes, answer)
    )


@contextlib.contextmanager
def attention_as_operations() -> Iterator[None]:
    """Disable torch's fused encoder layer, which has no gradients and cannot be counted."""
    was_enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(was_enabled)


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


def _user_code(error: Exception) -> str:
    """' at FILE:LINE (CODE)', the innermost line outside of torch and this file."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "/torch/" not in frame.filename and frame.filename != __file__
    ]
    if not frames:
        return ""
    frame = frames[-1]
    return f" at {frame.filename}:{frame.lineno} ({frame.line})"
