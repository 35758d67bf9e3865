"""A module as a graph of steps, and the step at which each of its submodules is done.

There are two ways to the graph. Tracing opens only the modules that contain a cut and keeps every
other submodule whole, so whatever happens inside (dropout, batch normalisation) stays as it was.
Where the outer code cannot be traced, ``torch.export`` takes the whole module apart into tensor
operations that know the submodule they come from.
"""

import contextlib
import operator
import traceback
from typing import NamedTuple

import torch
from torch import fx, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


class CutError(ValueError):
    """A module cannot be cut this way; the message says why."""


class ModuleGraph(NamedTuple):
    """What a module does, step by step."""

    nodes: list  # fx.Node, in the order in which they run
    root: nn.Module  # holds the submodules and parameters that nodes name
    answer: fx.Node  # the node that holds the logits
    ends: dict  # name of a submodule -> positions at which its output is computed, one for each run


class Answering(nn.Module):
    """A backbone as a function of some tensors that answers logits.

    Parameters
    ----------
    module : nn.Module
        Answers logits, or an object or dict that holds them as ``logits``.
    input_names : tuple of str or None
        Arguments of the module's forward that the tensors are; None passes them by position.
    """

    def __init__(self, module, input_names):
        super().__init__()
        self.module = module
        self.input_names = input_names

    def forward(self, *inputs):
        if self.input_names is None:
            return _logits_of(self.module(*inputs))
        return _logits_of(self.module(**dict(zip(self.input_names, inputs, strict=True))))


def _logits_of(output):
    if isinstance(output, dict):
        return output.get("logits")
    return getattr(output, "logits", output)


@torch.no_grad()
def embeds(answering, array, device):
    """Whether a module takes this array of whole numbers only as whole numbers."""
    if array.dtype.kind != "i":
        return False
    try:
        answering(torch.as_tensor(array, dtype=torch.float32, device=device))
        return False
    except Exception:  # whatever a user's module raises
        pass
    try:
        answering(torch.as_tensor(array, device=device))
        return True
    except Exception:
        return False


class _OuterTracer(fx.Tracer):
    """Traces the modules that contain a cut; takes every other submodule as one step."""

    def __init__(self, opened):
        super().__init__()
        self.opened = opened

    def is_leaf_module(self, m, module_qualified_name):
        return module_qualified_name not in self.opened


def trace(module, exits):
    """Graph of a module of one tensor in which only the modules around ``exits`` are opened.

    Raises
    ------
    CutError
        Where the outer code cannot be traced.
    """
    opened = {
        ".".join(name.split(".")[:depth]) for name in exits for depth in range(name.count(".") + 1)
    }
    try:
        graph = _OuterTracer(opened).trace(module)
    except Exception as error:
        raise CutError(f"its forward cannot be traced: {_one_line(error)}") from error
    nodes = list(graph.nodes)
    if sum(node.op == "placeholder" for node in nodes) != 1:
        raise CutError("its forward takes more than one tensor")
    ends = {}
    for position, node in enumerate(nodes):
        if node.op == "call_module":
            ends.setdefault(node.target, []).append(position)
    return ModuleGraph(nodes[:-1], module, nodes[-1].args[0], ends)


def export(answering, inputs):
    """Graph of tensor operations of a module, in the mode (training or evaluation) that it is in.

    Parameters
    ----------
    answering : Answering
    inputs : tuple of tensor (n_samples, ...)
        At least two rows; the number of rows is left open.

    Raises
    ------
    CutError
        Where ``torch.export`` cannot follow the module; the message says at which operation.
    """
    rows = [{0: torch.export.Dim("n_samples", min=1)} for _ in inputs]
    try:
        with attention_as_operations(), torch.enable_grad():
            program = torch.export.export(answering, inputs, dynamic_shapes=(tuple(rows),))
    except Exception as error:
        raise CutError(f"torch.export stopped{_user_code(error)}: {_one_line(error)}") from error
    root = program.module(check_guards=False)
    nodes = [node for node in root.graph.nodes if not _is_assertion(node)]
    (answer,) = nodes.pop().args[0]
    return ModuleGraph(nodes, root, answer, _ends_of_submodules(nodes, answer))


@contextlib.contextmanager
def attention_as_operations():
    """Without torch's fused encoder layer, which neither knows gradients nor can be counted."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def _is_assertion(node):
    return node.op == "call_function" and not node.users and "assert" in str(node.target)


def _ends_of_submodules(nodes, answer):
    """A run of a submodule ends at its last tensor that is read outside of it."""
    last = {}
    for position, node in enumerate(nodes):
        if isinstance(node.meta.get("val"), torch.Tensor):
            for run in _runs(node):
                if node is answer or any(run not in _runs(user) for user in node.users):
                    last[run] = position
    ends = {}
    for run, position in last.items():
        ends.setdefault(run.split("@")[0], []).append(position)
    return ends


def _runs(node):
    """Submodules that a node is part of, below ``Answering``'s ``module``; '@1' marks a second run."""
    stack = node.meta.get("nn_module_stack") or {}
    return {
        path.removeprefix("module.") + "".join(key.partition("@")[1:])
        for key, (path, _) in stack.items()
        if "." in path
    }


def _one_line(error):
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300] if lines else ''}"


def _user_code(error):
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


def fold_normalisation(piece):
    """The same with batch normalisation folded into the convolution before it, for stages that never learn.

    What follows writes into the convolution's output where nothing else reads that. Nothing of ``piece`` is
    changed; one that cannot be traced to its layers comes back as it is.
    """
    if not any(isinstance(m, _BatchNorm) for m in piece.modules()):
        return piece
    if isinstance(piece, Answering):
        return Answering(fold_normalisation(piece.module), piece.input_names).eval()
    try:
        folded = fx.symbolic_trace(piece.eval())
    except Exception:  # whatever tracing a user's module raises
        return piece
    for node in list(folded.graph.nodes):
        if _is_folded(folded, node):
            layer = node.args[0]
            pair = (folded.get_submodule(n.target) for n in (layer, node))
            folded.set_submodule(layer.target, fuse_conv_bn_eval(*pair))
            node.replace_all_uses_with(layer)
            folded.graph.erase_node(node)
    _write_into_outputs(folded)
    folded.delete_all_unused_submodules()
    folded.recompile()
    return folded


def _write_into_outputs(graph_module):
    """Rectifiers and sums that write into a convolution's output, in the place of those that allocate."""
    own = set()  # steps whose output was made here, by a convolution, and that may be written into
    for node in list(graph_module.graph.nodes):
        step = node.target
        if node.op == "call_module":
            step = type(graph_module.get_submodule(node.target))
            if step in CONVOLUTIONS:
                own.add(node)
        if step not in IN_PLACE or node.kwargs.keys() - {"inplace"}:
            continue
        if node.args[0] in own and len(node.args[0].users) == 1:
            node.op, node.target, node.kwargs = "call_function", IN_PLACE[step], {}
            own.add(node)


def _add_into(ours, other):
    if isinstance(other, torch.Tensor) and ours.shape == other.shape and ours.dtype == other.dtype:
        return ours.add_(other)
    return ours + other


IN_PLACE = {
    nn.ReLU: torch.relu_,
    torch.relu: torch.relu_,
    functional.relu: torch.relu_,
    operator.add: _add_into,
    operator.iadd: _add_into,
}


def _is_folded(graph_module, node):
    """Whether a step is batch normalisation of a convolution whose output nothing else reads."""
    if node.op != "call_module" or not node.args or not isinstance(node.args[0], fx.Node):
        return False
    norm, layer = graph_module.get_submodule(node.target), node.args[0]
    return (
        isinstance(norm, _BatchNorm)
        and norm.track_running_stats
        and layer.op == "call_module"
        and type(graph_module.get_submodule(layer.target)) in CONVOLUTIONS
        and len(layer.users) == 1
        and [n.target for n in graph_module.graph.nodes].count(layer.target) == 1
    )
