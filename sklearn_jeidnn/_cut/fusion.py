"""Fold batch normalisation into the convolution before it, for stages that no longer learn."""

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from .graphs import LogitsModule
from .pieces import GraphStage
from .recording import recorded

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def fold_normalisation(piece: nn.Module) -> nn.Module:
    """Fold batch normalisation into the convolutions before it, for stages that never learn.

    A step after a convolution writes into the convolution's output if nothing else reads it.
    ``piece`` is not changed, and is returned as it is if it cannot be traced to its layers.
    """
    if not any(isinstance(m, _BatchNorm) for m in piece.modules()):
        return piece
    if isinstance(piece, LogitsModule):
        return LogitsModule(fold_normalisation(piece.module), piece.input_names).eval()
    try:
        graph, root = recorded(piece.eval())
    except Exception:  # whatever tracing a user's module raises
        return piece
    graph_module = GraphStage(root, graph)
    for node in list(graph_module.graph.nodes):
        if _is_folded(graph_module, node):
            _fold(graph_module, node)
    _write_into_outputs(graph_module)
    graph_module.delete_all_unused_submodules()
    graph_module.recompile()
    return graph_module


def _fold(graph_module: fx.GraphModule, node: fx.Node) -> None:
    """Fold one batch normalisation into the convolution before it."""
    layer: Any = node.args[0]
    convolution: Any = graph_module.get_submodule(layer.target)
    normalisation: Any = graph_module.get_submodule(str(node.target))
    graph_module.set_submodule(layer.target, fuse_conv_bn_eval(convolution, normalisation))
    node.replace_all_uses_with(layer)
    graph_module.graph.erase_node(node)


def _write_into_outputs(graph_module: fx.GraphModule) -> None:
    """Let rectifiers and sums write into a convolution's output instead of allocating their own."""
    writable = set()  # nodes whose output comes from a convolution and may be overwritten
    for node in list(graph_module.graph.nodes):
        step = node.target
        if node.op == "call_module":
            step = type(graph_module.get_submodule(node.target))
            if step in CONVOLUTIONS:
                writable.add(node)
        if step not in IN_PLACE or node.kwargs.keys() - {"inplace"}:
            continue
        if node.args[0] in writable and len(node.args[0].users) == 1:
            node.op, node.target, node.kwargs = "call_function", IN_PLACE[step], {}
            writable.add(node)


def _add_into(ours: torch.Tensor, other: torch.Tensor | float) -> torch.Tensor:
    """Add to a tensor, in place if the sum has its shape and dtype."""
    if isinstance(other, torch.Tensor) and ours.shape == other.shape and ours.dtype == other.dtype:
        return ours.add_(other)
    return ours + other


IN_PLACE: dict[Any, Callable[..., torch.Tensor]] = {
    nn.ReLU: torch.relu_,
    torch.relu: torch.relu_,
    functional.relu: torch.relu_,
    operator.add: _add_into,
    operator.iadd: _add_into,
}


def _is_folded(graph_module: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a step is batch normalisation of a convolution whose output nothing else reads."""
    if node.op != "call_module" or not node.args or not isinstance(node.args[0], fx.Node):
        return False
    layer = node.args[0]
    norm = graph_module.get_submodule(str(node.target))
    return (
        isinstance(norm, _BatchNorm)
        and norm.track_running_stats
        and layer.op == "call_module"
        and type(graph_module.get_submodule(str(layer.target))) in CONVOLUTIONS
        and len(layer.users) == 1
        and [n.target for n in graph_module.graph.nodes].count(layer.target) == 1
    )
