"""Cut a module into stages, and say where it can be cut.

Only the modules that contain a cut are traced; every other submodule stays whole, so whatever it
does inside is of no concern. Stages share parameters with the module that they were cut from.
"""

from bisect import bisect_left

import torch
from torch import fx, nn


class _OuterTracer(fx.Tracer):
    """Traces the modules that contain a cut; takes every other submodule as one step."""

    def __init__(self, opened):
        super().__init__()
        self.opened = opened

    def is_leaf_module(self, m, module_qualified_name):
        return module_qualified_name not in self.opened


def auto_exits(module):
    """Names of the submodules after which ``exits="auto"`` cuts: all but the last of a row of blocks.

    Raises
    ------
    ValueError
        Where the module has no row of blocks.
    """
    if isinstance(module, nn.Sequential):
        names = _before_weighted_children(module)
    else:
        names = _blocks_of_longest_list(module)
    if not names:
        raise ValueError(
            f"module={type(module).__name__} has no row of blocks to cut between: exits='auto' needs an "
            f"nn.Sequential with at least three weighted children, or an nn.ModuleList of at least two "
            f"blocks. Name the submodules to exit after: exits=[...] (see module.named_modules())."
        )
    return names


def _before_weighted_children(sequential):
    """An exit stands where the next child multiplies; right before the last such child it saves nothing."""
    names = [name for name, _ in sequential.named_children()]
    multiplies = [any(p.ndim > 1 for p in child.parameters()) for child in sequential]
    weighted = [i for i, does in enumerate(multiplies) if does]
    return [names[i - 1] for i in weighted[1:-1]]


def _blocks_of_longest_list(module):
    lists = [
        [f"{name}.{i}" if name else str(i) for i in range(len(submodule))]
        for name, submodule in module.named_modules()
        if isinstance(submodule, nn.ModuleList)
    ]
    return max(lists, key=len, default=[])[:-1]


def cut(module, exits):
    """Stages that, one after the other, compute what the module computes.

    Parameters
    ----------
    module : nn.Module
        Takes one tensor, answers logits.
    exits : list of str
        Names of the submodules after which to cut.

    Returns
    -------
    stages : list of fx.GraphModule
        Stage 0 takes the module's input, a later one what the one before returned. Each returns the
        tuple of all tensors that cross the cut, the output of the named submodule first; the last
        returns the module's output.
    names : list of str
        ``exits`` in the order in which the module runs them.

    Raises
    ------
    ValueError
        Where a name is not a submodule, is not run exactly once, or the module cannot be traced.
    """
    _check_names(module, exits)
    nodes = list(_trace(module, exits).nodes)
    boundaries = sorted((_position(nodes, name), name) for name in set(exits))
    positions = [position for position, _ in boundaries]
    stage_of = {node: bisect_left(positions, i) for i, node in enumerate(nodes)}
    crossing = [_crossing(nodes, stage_of, i, nodes[p]) for i, p in enumerate(positions)]
    inputs = [[node for node in nodes if node.op == "placeholder"], *crossing]
    stages = [
        _build_stage(module, [n for n in nodes if stage_of[n] == i], taken, returned)
        for i, (taken, returned) in enumerate(zip(inputs, [*crossing, None], strict=True))
    ]
    return stages, [name for _, name in boundaries]


def _check_names(module, exits):
    submodules = dict(module.named_modules())
    unknown = [name for name in exits if not isinstance(name, str) or name not in submodules]
    if unknown or "" in exits or not len(exits):
        known = [name for name in submodules if name]
        raise ValueError(
            f"exits={list(exits)!r} must name submodules of {type(module).__name__}; unknown: {unknown}. "
            f"Choose among {known[:12]}{' ...' if len(known) > 12 else ''} (see module.named_modules())."
        )


def _trace(module, exits):
    opened = {
        ".".join(name.split(".")[:depth]) for name in exits for depth in range(name.count(".") + 1)
    }
    try:
        graph = _OuterTracer(opened).trace(module)
    except Exception as error:
        raise ValueError(
            f"module={type(module).__name__} cannot be cut after {list(exits)}: its forward cannot be "
            f"traced ({type(error).__name__}: {error}). Branches on values and loops over rows belong "
            f"inside a submodule."
        ) from error
    if sum(node.op == "placeholder" for node in graph.nodes) != 1:
        raise ValueError(
            f"module={type(module).__name__} must take one tensor; forward takes more."
        )
    return graph


def _position(nodes, name):
    found = [i for i, node in enumerate(nodes) if node.op == "call_module" and node.target == name]
    if len(found) != 1:
        raise ValueError(
            f"exits: submodule {name!r} is run {len(found)} times by the module's forward; an exit can "
            f"stand only after a submodule that is run once and that does not contain another exit."
        )
    return found[0]


def _crossing(nodes, stage_of, stage, boundary):
    """Values that a later stage reads, the boundary's own first."""
    read_later = [
        node
        for node in nodes
        if node.op != "get_attr"
        and stage_of[node] <= stage
        and any(stage_of[user] > stage for user in node.users)
    ]
    return [boundary, *(node for node in read_later if node is not boundary)]


def _build_stage(module, own_nodes, taken, returned):
    graph = fx.Graph()
    copies = {node: graph.placeholder(node.name) for node in taken}

    def copy_of(node):
        # A parameter that forward reads directly has no rows: each stage reads it anew.
        if node not in copies and node.op == "get_attr":
            copies[node] = graph.node_copy(node)
        return copies[node]

    for node in own_nodes:
        if node.op == "output":
            graph.output(fx.node.map_arg(node.args[0], copy_of))
        elif node not in copies:
            copies[node] = graph.node_copy(node, copy_of)
    if returned is not None:
        graph.output(tuple(copies[node] for node in returned))
    return fx.GraphModule(module, graph)


def keep_rows(carried, rows):
    """What flows between stages, compacted to some rows."""
    return tuple(tensor[rows] for tensor in carried)


@torch.no_grad()
def check_stages(stages, module_name, X, n_classes):
    """Refuse a module that does not answer ``(n_samples, n_classes)``, or carries more than rows across a cut.

    Parameters
    ----------
    X : tensor (n_samples, ...)
        A few rows to try.
    """
    try:
        carried = (X,)
        for stage in stages[:-1]:
            carried = stage(*carried)
            _check_carried(carried, module_name, len(X))
        output = stages[-1](*carried)
    except (RuntimeError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(
            f"module={module_name} does not run on rows of shape {tuple(X.shape[1:])}: {error}"
        ) from error
    shape = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
    if shape != (len(X), n_classes):
        raise ValueError(
            f"module={module_name} answered {shape} for {len(X)} rows; it must answer logits of shape "
            f"(n_samples, n_classes) = {(len(X), n_classes)}, y having {n_classes} classes."
        )


def _check_carried(carried, module_name, n_samples):
    for value in carried:
        if not isinstance(value, torch.Tensor) or value.ndim == 0 or len(value) != n_samples:
            came = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
            raise ValueError(
                f"module={module_name} carries {came} across a cut; only tensors with one entry a row "
                f"({n_samples} here) can be dropped row by row. Move the exit, or compute it after it."
            )
