"""A graph cut after named submodules: one graph module for each stretch between two cuts."""

import operator
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import fx
from torch.fx.graph_module import reduce_graph_module
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from .graphs import CutError, ModuleGraph
from .recording import Recorder
from .threads import LOCK


class GraphStage(fx.GraphModule):
    """A graph module that several threads can load at once."""

    def __reduce__(self) -> Any:
        _, stored = super().__reduce__()
        return _loaded, stored


def _loaded(body: dict[str, Any], imports: str) -> GraphStage:
    # torch puts the code that is loaded into a class that all threads share.
    with LOCK, _SizesRecorded():
        graph_module: Any = reduce_graph_module(body, imports)
    return GraphStage(graph_module, graph_module.graph)


class _SizesRecorded(TorchFunctionMode):
    """Records functions that take what is recorded only in a list, as a size, when code is loaded."""

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if any(isinstance(leaf, fx.Proxy) for leaf in tree_leaves((args, kwargs))):
            return fx.Proxy.__torch_function__(func, types, args, kwargs)
        return func(*args, **kwargs)


def cut_graph(graph: ModuleGraph, exits: Iterable[str]) -> tuple[list[GraphStage], list[str]]:
    """Cut a graph after named submodules; return the pieces, and the names in running order."""
    stage_of, boundaries = stage_of_nodes(graph, exits)
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    crossing = [crossing_nodes(graph, stage_of, i, p) for i, (p, _) in enumerate(boundaries)]
    pieces = [
        _piece(graph, [n for n in graph.nodes if stage_of[n] == i], taken, returned)
        for i, (taken, returned) in enumerate(
            zip([inputs, *crossing], [*crossing, None], strict=True)
        )
    ]
    return pieces, [name for _, name in boundaries]


def stage_of_nodes(
    graph: ModuleGraph, exits: Iterable[str]
) -> tuple[dict[fx.Node, int], list[tuple[int, str]]]:
    """Stage of each node, and the (position, name) of each cut."""
    boundaries = sorted({(_end(graph, name), name) for name in exits})
    positions = [position for position, _ in boundaries]
    return {node: bisect_left(positions, i) for i, node in enumerate(graph.nodes)}, boundaries


def _end(graph: ModuleGraph, name: str) -> int:
    """Position at which a submodule ends, which must be run once."""
    ends = graph.ends.get(name, [])
    if len(ends) != 1:
        raise CutError(
            f"submodule {name!r} is run {len(ends)} times by the module's forward; an exit can stand only after a "
            f"submodule that is run once and that does not contain another exit"
        )
    return ends[0]


def crossing_nodes(
    graph: ModuleGraph, stage_of: dict[fx.Node, int], stage: int, boundary: int
) -> list[fx.Node]:
    """Tensors that a later stage reads, the boundary's own first.

    Parameters, and numbers that stand for the batch size, are not among them: each stage reads its
    own.
    """
    at_boundary = graph.nodes[boundary]
    read_later = [
        node
        for node in graph.nodes
        if node.op != "get_attr"
        and not _is_size(node)
        and stage_of[node] <= stage
        and (node is graph.answer or any(stage_of.get(user, 0) > stage for user in node.users))
    ]
    return [at_boundary, *(node for node in read_later if node is not at_boundary)]


def _is_size(node: fx.Node) -> bool:
    """Whether a node holds a number, not a tensor."""
    return isinstance(node.meta.get("val"), int | torch.SymInt | torch.SymFloat | torch.SymBool)


def _piece(
    graph: ModuleGraph,
    own_nodes: Iterable[fx.Node],
    taken: Sequence[fx.Node],
    returned: Sequence[fx.Node] | None,
) -> GraphStage:
    """Graph module of some nodes; if ``returned`` is None, it returns the logits."""
    piece = fx.Graph(tracer_cls=Recorder)
    copies: dict[fx.Node, Any] = {node: piece.placeholder(node.name) for node in taken}

    def copy_of(node: fx.Node) -> Any:
        if node not in copies and node.op == "get_attr":
            copies[node] = piece.node_copy(node)
        elif node not in copies and _is_size(node):
            copies[node] = _size_anew(piece, node, taken, copies)
        return copies[node]

    for node in own_nodes:
        if node not in copies and node.op != "get_attr":
            copies[node] = piece.node_copy(node, copy_of)
    if returned is None:
        piece.output(copy_of(graph.answer))
    else:
        piece.output(tuple(copy_of(node) for node in returned))
    return GraphStage(graph.root, piece)


def _size_anew(
    piece: fx.Graph, node: fx.Node, taken: Sequence[fx.Node], copies: dict[fx.Node, Any]
) -> fx.Node | int:
    """The number of samples or tokens, or a product or sum, from the shapes of tensors that this stage takes."""
    size = node.meta["val"]
    if isinstance(size, int):
        return size
    axes = [
        (copies[tensor], axis, length.node.expr)
        for tensor in taken
        for axis, length in enumerate(tensor.meta["val"].shape)
        if not isinstance(length, int)
    ]

    def computed(expression: Any) -> Any:
        if expression.is_Integer:
            return int(expression)
        for tensor, axis, length in axes:
            ratio = expression / length
            if ratio.is_Integer:
                n = piece.call_function(torch.ops.aten.sym_size.int, (tensor, axis))
                return n if ratio == 1 else piece.call_function(operator.mul, (n, int(ratio)))
        if not (expression.is_Mul or expression.is_Add):
            raise CutError(f"the number {size} crosses a cut, which no tensor there tells")
        joined = operator.mul if expression.is_Mul else operator.add
        first, *others = map(computed, expression.args)
        for other in others:
            first = piece.call_function(joined, (first, other))
        return first

    found: fx.Node | int = computed(size.node.expr)
    return found


def computes_the_same(first: fx.GraphModule, second: fx.GraphModule) -> bool:
    """Whether two graph modules of the same submodules take the same steps."""
    buffers = dict(second.named_buffers())
    return first.code == second.code and all(
        buffer is buffers[name] or torch.equal(buffer, buffers[name])
        for name, buffer in first.named_buffers()
    )
