"""Where a module can be cut, and which of those places to take."""

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import nn

from .counting import multiply_adds
from .graphs import CutError, ModuleGraph
from .pieces import crossing_nodes, cut_graph, stage_of_nodes

AUTO_EXITS = 8


def outer_blocks(module: nn.Module) -> list[str]:
    """Names of the children of an ``nn.Sequential``, or of the longest ``nn.ModuleList``."""
    if isinstance(module, nn.Sequential):
        return [name for name, _ in module.named_children()]
    lists = [
        [f"{name}.{i}" if name else str(i) for i in range(len(submodule))]
        for name, submodule in module.named_modules()
        if isinstance(submodule, nn.ModuleList)
    ]
    return max(lists, key=len, default=[])


def repeated_blocks(module: nn.Module, graph: ModuleGraph) -> list[str]:
    """Members of lists and sequences, at any depth, after which the fewest tensors cross a cut.

    Between two blocks that is one tensor, inside a residual block two. Tensors that cross most
    cuts, such as an attention mask, do not count.
    """
    crossing = {}
    for name in _members_of_lists(module):
        if len(graph.ends.get(name, ())) == 1:
            stage_of, boundaries = stage_of_nodes(graph, [name])
            crossing[name] = crossing_nodes(graph, stage_of, 0, boundaries[0][0])
    n_cuts = Counter(node for nodes in crossing.values() for node in nodes)
    passing = {node for node, n in n_cuts.items() if n > len(crossing) / 2}
    n_crossing = {name: len(set(nodes) - passing) for name, nodes in crossing.items()}
    least = min(n_crossing.values(), default=0)
    return [name for name, n in n_crossing.items() if n == least]


def _members_of_lists(module: nn.Module) -> list[str]:
    """Names of the members of all lists and sequences, at any depth."""
    return [
        f"{name}.{child}" if name else child
        for name, submodule in module.named_modules()
        if isinstance(submodule, nn.ModuleList | nn.Sequential)
        for child, _ in submodule.named_children()
    ]


def spread_by_cost(
    graph: ModuleGraph,
    candidates: Sequence[str],
    how_many: int | str,
    inputs: tuple[torch.Tensor, ...],
    head_cost: Callable[[torch.Tensor], float],
) -> list[str]:
    """Choose evenly by cost among the candidates that save more than a head costs.

    Of candidates that cost the same the last one counts: a nonlinearity belongs to the layer
    before. "auto" takes as many as have heads that together cost less than the module, but at least
    the one that saves most, even if that is nothing.
    """
    pieces, names = cut_graph(graph, candidates)
    counts, head_costs = _costs_of_pieces(pieces, inputs, head_cost)
    spent = list(accumulate(counts))
    places = [i for i in range(len(names)) if spent[i] > 0]
    saved = {i: spent[-1] - spent[i] - head_costs[i] for i in places}
    worth = {spent[i]: names[i] for i in places if saved[i] > 0}
    if how_many == "auto" and places and not worth:
        return [names[max(saved, key=saved.__getitem__)]]
    if isinstance(how_many, str):
        affordable = int(spent[-1] / max([1, *head_costs])) or 1
        n_exits = min(AUTO_EXITS, len(worth), affordable)
    else:
        n_exits = how_many
    if not worth or n_exits > len(worth):
        raise CutError(
            f"exits={how_many!r} asks for more places to leave at than there are blocks that save anything "
            f"({list(worth.values())})"
        )
    return [worth[cost] for cost in _evenly(sorted(worth), n_exits, spent[-1])]


def _costs_of_pieces(
    pieces: Sequence[nn.Module],
    inputs: tuple[torch.Tensor, ...],
    head_cost: Callable[[torch.Tensor], float],
) -> tuple[list[float], list[float]]:
    """Multiply-adds of each piece, and of the head that would read each piece but the last."""
    counts, head_costs = [], []
    carried: Any = tuple(tensor.clone() for tensor in inputs)
    for piece in pieces[:-1]:
        carried, count = multiply_adds(piece, *carried)
        counts.append(count)
        head_costs.append(head_cost(_rows_first(carried[0], len(inputs[0]))))
    counts.append(multiply_adds(pieces[-1], *carried)[1])
    return counts, head_costs


def _rows_first(tensor: Any, n_samples: int) -> torch.Tensor:
    """A tensor with the samples along its first axis."""
    if not isinstance(tensor, torch.Tensor):
        raise CutError(f"{type(tensor).__name__} crosses a cut; only tensors can")
    axis = next((axis for axis, length in enumerate(tensor.shape) if length == n_samples), 0)
    first: torch.Tensor = tensor.movedim(axis, 0)
    return first


def _evenly(costs: Sequence[float], n_chosen: int, total: float) -> list[float]:
    """The ``n_chosen`` costs nearest to even steps up to ``total``, none taken twice."""
    chosen: list[float] = []
    remaining = list(costs)
    for step in range(1, n_chosen + 1):
        last = len(remaining) - (n_chosen - step)
        target = total * step / (n_chosen + 1)
        nearest = min(range(last), key=lambda i: abs(remaining[i] - target))
        chosen.append(remaining[nearest])
        remaining = remaining[nearest + 1 :]
    return chosen


def check_names(module: nn.Module, exits: Sequence[str]) -> None:
    """Refuse exits that are not names of submodules."""
    submodules = dict(module.named_modules())
    if not len(exits):
        raise ValueError(
            "exits=[] names no place to leave at; give 'auto', a number of early exits, or names of submodules (see "
            "module.named_modules()). A member without exits inside has the entry 0."
        )
    unknown = [name for name in exits if not isinstance(name, str) or name not in submodules]
    if unknown or "" in exits:
        known = [name for name in submodules if name]
        raise ValueError(
            f"exits={list(exits)!r} must name submodules of {type(module).__name__}; unknown: {unknown}. "
            f"Choose among {known[:12]}{' ...' if len(known) > 12 else ''} (see module.named_modules())."
        )
