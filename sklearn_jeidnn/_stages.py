"""Cut a module into stages, and say where it can be cut.

Stages share parameters with the module that they were cut from.
"""

import contextlib
import copy
import operator
from bisect import bisect_left
from collections import Counter
from itertools import accumulate, pairwise, repeat

import torch
from torch import fx, nn

from ._costs import multiply_adds
from ._graphs import Answering, CutError, export, fold_normalisation, trace
from ._rows import join_rows, take_rows

AUTO_EXITS = 8
TOLERANCE = 1e-3
# A stage runs fastest on so many numbers at a time as half a core's own cache holds, but never on fewer rows
# (measured on tables: blocks of width 256 take a quarter longer on 4096 rows at a time than on 512).
PART_NUMBERS = 2**17
PART_ROWS = 512


class Stage(nn.Module):
    """What runs between two exits: what crosses the cut before it -> what crosses the cut after it.

    Parameters
    ----------
    evaluating : nn.Module
        Takes and returns tensors; the last stage's returns logits.
    learning : nn.Module or None
        The same in training mode, where that takes other operations.

    Attributes
    ----------
    row_axes : tuple of int
        For each tensor that crosses the cut after the stage, the axis that has the rows.
    taken_axes : tuple of int or None
        The same of the cut before it; None at a first stage, which takes the rows themselves.
    widest : int
        Most numbers that a row takes between two of its submodules.
    relative_cost : float or None
        What it costs relative to the plain backbone, where that is told and not counted.
    writes_into_inputs : bool
        Whether it works on a copy of what it takes, which are the rows themselves.
    """

    def __init__(self, evaluating, learning):
        super().__init__()
        self.evaluating = evaluating
        self.learning = learning
        self.row_axes = None
        self.taken_axes = None
        self.widest = 1
        self.relative_cost = None
        self.writes_into_inputs = False

    def forward(self, *carried):
        if self.writes_into_inputs:
            carried = tuple(tensor.clone() for tensor in carried)
        if self.training and self.learning is not None:
            return self.learning(*carried)
        if self.training or not carried[0].is_cpu or torch.compiler.is_compiling():
            return self.evaluating(*carried)
        return self._in_parts(carried)

    def _in_parts(self, carried):
        """Of as many rows at a time as a core's cache holds."""
        axes = self.taken_axes or (0,) * len(carried)
        n_rows = carried[0].shape[axes[0]]
        most = max(PART_ROWS, PART_NUMBERS * torch.get_num_threads() // self.widest)
        if n_rows <= most:
            return self.evaluating(*carried)
        columns = (
            repeat(tensor) if axis is None else tensor.chunk(-(-n_rows // most), axis)
            for tensor, axis in zip(carried, axes, strict=True)
        )
        parts = [self.evaluating(*part) for part in zip(*columns, strict=False)]
        return torch.cat(parts) if self.row_axes is None else self.join_rows(parts)

    def read(self, carried):
        """What the exit after this stage reads: ``carried``'s first tensor, rows first; or its logits."""
        if isinstance(carried, torch.Tensor):
            return carried
        return carried[0].movedim(self.row_axes[0], 0)

    def keep_rows(self, carried, rows):
        """What crosses the cut after this stage, compacted to some rows."""
        return tuple(
            tensor if axis is None else take_rows(tensor, rows, axis)
            for tensor, axis in zip(carried, self.row_axes, strict=True)
        )

    def folded(self):
        """The same for prediction, faster where that folds away normalisation; shares the rest."""
        if self.evaluating is None:
            return self
        other = copy.copy(self)
        other._modules = {**self._modules, "evaluating": fold_normalisation(self.evaluating)}
        return other

    def join_rows(self, parts):
        """What crosses the cut after this stage, of the rows of several parts one after the other."""
        return tuple(
            tensors[0] if axis is None else join_rows(tensors, axis)
            for *tensors, axis in zip(*parts, self.row_axes, strict=True)
        )


def cut(module, exits, inputs, input_names, n_classes, *, head_cost, frozen):
    """Stages that, one after the other, compute what the module computes.

    Parameters
    ----------
    module : nn.Module
        In evaluation mode.
    exits : list of str, int or "auto"
        Names of the submodules after which to cut; or how many, spread evenly by cost over the
        places where the module can be cut. 0 leaves it whole.
    inputs : tuple of tensor (n_samples, ...)
        Three rows to try, at least two of them unlike.
    input_names : tuple of str or None
        See :class:`Answering`.
    n_classes : int
    head_cost : callable
        Multiply-adds of the head that would read such an output, rows first.
    frozen : bool
        Whether the stages will never be trained.

    Returns
    -------
    stages : list of Stage
        Stage 0 takes the module's input, a later one what the one before returned. Each returns the
        tuple of all tensors that cross the cut, the output of the named submodule first; the last
        returns the module's output.
    names : list of str
        Submodules after which it is cut, in the order in which the module runs them.

    Raises
    ------
    ValueError
        Where a name is not a submodule, the module does not answer ``(n_samples, n_classes)``, a
        row's answer depends on the rows beside it, or the module cannot be cut there.
    """
    answering = Answering(module, input_names).eval()
    expected = check_backbone(answering, inputs, n_classes)
    if exits == 0:
        whole = Stage(fold_normalisation(answering) if frozen else answering, None)
        with _noting_width(whole, len(inputs[0])):
            _spare_rows(whole.eval(), inputs)
        return [whole], []
    if not isinstance(exits, str | int):
        _check_names(module, exits)
    reasons = []
    for way in (_cut_traced, _cut_exported):
        try:
            stages, names = way(answering, exits, inputs, head_cost, frozen)
            _spare_rows(stages[0].eval(), inputs)
            _try_stages(nn.ModuleList(stages).eval(), inputs, expected)
            return stages, names
        except CutError as error:
            reasons.append(error)
    raise ValueError(
        f"module={type(module).__name__} cannot be cut after exits={exits!r}: {reasons[-1]}. Name other "
        f"submodules to exit after (see module.named_modules()), each run once; branches on values and loops over "
        f"rows belong inside one submodule."
    ) from reasons[-1]


@torch.no_grad()
def _spare_rows(stage, inputs):
    """Have the first stage work on a copy, where it would write into the rows."""
    own = tuple(tensor.clone() for tensor in inputs)
    stage(*own)
    stage.writes_into_inputs = any(tensor._version for tensor in own)


def _cut_traced(answering, exits, inputs, head_cost, frozen):
    module = answering.module
    if answering.input_names is not None:
        raise CutError("it takes named inputs")
    chosen = exits if not isinstance(exits, str | int) else _outer_blocks(module)
    if not len(chosen):
        raise CutError("it has no row of blocks")
    graph = trace(module, chosen)
    if chosen is not exits:
        chosen = _spread(graph, chosen, exits, inputs, head_cost)
    pieces, names = _pieces(graph, chosen)
    if frozen:
        pieces = [fold_normalisation(piece) for piece in pieces]
    return [Stage(piece, None) for piece in pieces], names


def _cut_exported(answering, exits, inputs, head_cost, frozen):
    graph = export(answering, inputs)
    chosen = exits
    if isinstance(exits, str | int):
        chosen = _spread(graph, _blocks(answering.module, graph), exits, inputs, head_cost)
    pieces, names = _pieces(graph, chosen)
    learning = [None] * len(pieces)
    if not frozen:
        learning, _ = _pieces(export(answering.train(), inputs), chosen)
        answering.eval()
    return [Stage(*forms) for forms in zip(pieces, learning, strict=True)], names


def _outer_blocks(module):
    """Children of an ``nn.Sequential``, or the longest ``nn.ModuleList``'s."""
    if isinstance(module, nn.Sequential):
        return [name for name, _ in module.named_children()]
    lists = [
        [f"{name}.{i}" if name else str(i) for i in range(len(submodule))]
        for name, submodule in module.named_modules()
        if isinstance(submodule, nn.ModuleList)
    ]
    return max(lists, key=len, default=[])


def _blocks(module, graph):
    """Members of lists and sequences, at any depth, after which least crosses.

    Between two blocks that is one tensor, inside a residual block two. What crosses most cuts, such as
    an attention mask, does not count.
    """
    members = [
        f"{name}.{child}" if name else child
        for name, submodule in module.named_modules()
        if isinstance(submodule, nn.ModuleList | nn.Sequential)
        for child, _ in submodule.named_children()
    ]
    crossing = {}
    for name in members:
        if len(graph.ends.get(name, ())) == 1:
            stage_of, boundaries = _stage_of(graph, [name])
            crossing[name] = _crossing(graph, stage_of, 0, boundaries[0][0])
    n_cuts = Counter(node for nodes in crossing.values() for node in nodes)
    passing = {node for node, n in n_cuts.items() if n > len(crossing) / 2}
    n_own = {name: len(set(nodes) - passing) for name, nodes in crossing.items()}
    least = min(n_own.values(), default=0)
    return [name for name, n in n_own.items() if n == least]


def _spread(graph, candidates, how_many, inputs, head_cost):
    """Those candidates that lie most evenly by cost and save more than a head costs.

    Of candidates that cost the same the last one counts: a nonlinearity belongs to the layer before.
    """
    pieces, names = _pieces(graph, candidates)
    counts, head_costs, carried = [], [], inputs
    for piece in pieces[:-1]:
        carried, count = multiply_adds(piece, *carried)
        counts.append(count)
        head_costs.append(head_cost(_rows_first(carried[0], len(inputs[0]))))
    counts.append(multiply_adds(pieces[-1], *carried)[1])
    spent = list(accumulate(counts))
    worth = {
        spent[i]: name
        for i, name in enumerate(names)
        if spent[i] > 0 and spent[-1] - spent[i] > head_costs[i]
    }
    n_exits = AUTO_EXITS if isinstance(how_many, str) else how_many
    if not worth or (n_exits > len(worth) and n_exits is how_many):
        raise CutError(
            f"exits={how_many!r} asks for more places to leave at than there are blocks that save anything "
            f"({list(worth.values())})"
        )
    return [worth[cost] for cost in _evenly(sorted(worth), min(n_exits, len(worth)), spent[-1])]


def _rows_first(tensor, n_samples):
    axis = next((axis for axis, length in enumerate(tensor.shape) if length == n_samples), 0)
    return tensor.movedim(axis, 0)


def _evenly(costs, n_chosen, total):
    """The ``n_chosen`` costs nearest to even steps up to ``total``, none taken twice."""
    chosen, left = [], list(costs)
    for step in range(1, n_chosen + 1):
        last = len(left) - (n_chosen - step)
        target = total * step / (n_chosen + 1)
        nearest = min(range(last), key=lambda i: abs(left[i] - target))
        chosen.append(left[nearest])
        left = left[nearest + 1 :]
    return chosen


def _check_names(module, exits):
    submodules = dict(module.named_modules())
    unknown = [name for name in exits if not isinstance(name, str) or name not in submodules]
    if unknown or "" in exits or not len(exits):
        known = [name for name in submodules if name]
        raise ValueError(
            f"exits={list(exits)!r} must name submodules of {type(module).__name__}; unknown: {unknown}. "
            f"Choose among {known[:12]}{' ...' if len(known) > 12 else ''} (see module.named_modules())."
        )


def _pieces(graph, exits):
    """fx.GraphModules between the ends of the named submodules, and the names in running order."""
    stage_of, boundaries = _stage_of(graph, exits)
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    crossing = [_crossing(graph, stage_of, i, p) for i, (p, _) in enumerate(boundaries)]
    pieces = [
        _piece(graph, [n for n in graph.nodes if stage_of[n] == i], taken, returned)
        for i, (taken, returned) in enumerate(
            zip([inputs, *crossing], [*crossing, None], strict=True)
        )
    ]
    return pieces, [name for _, name in boundaries]


def _stage_of(graph, exits):
    """(stage of each node, [(position, name) of each cut])"""
    boundaries = sorted({(_end(graph, name), name) for name in exits})
    positions = [position for position, _ in boundaries]
    return {node: bisect_left(positions, i) for i, node in enumerate(graph.nodes)}, boundaries


def _end(graph, name):
    ends = graph.ends.get(name, [])
    if len(ends) != 1:
        raise CutError(
            f"submodule {name!r} is run {len(ends)} times by the module's forward; an exit can stand only after a "
            f"submodule that is run once and that does not contain another exit"
        )
    return ends[0]


def _crossing(graph, stage_of, stage, boundary):
    """Tensors that a later stage reads, the boundary's own first.

    Parameters are read anew, and numbers that stand for the batch size are taken anew, by each stage.
    """
    own = graph.nodes[boundary]
    read_later = [
        node
        for node in graph.nodes
        if node.op != "get_attr"
        and not _is_size(node)
        and stage_of[node] <= stage
        and (node is graph.answer or any(stage_of.get(user, 0) > stage for user in node.users))
    ]
    return [own, *(node for node in read_later if node is not own)]


def _is_size(node):
    return isinstance(node.meta.get("val"), int | torch.SymInt | torch.SymFloat | torch.SymBool)


def _piece(graph, own_nodes, taken, returned):
    piece = fx.Graph()
    copies = {node: piece.placeholder(node.name) for node in taken}

    def copy_of(node):
        if node not in copies and node.op == "get_attr":
            copies[node] = piece.node_copy(node)
        elif node not in copies and _is_size(node):
            copies[node] = _size_anew(piece, node, taken[0], copies)
        return copies[node]

    for node in own_nodes:
        if node not in copies and node.op != "get_attr":
            copies[node] = piece.node_copy(node, copy_of)
    if returned is None:
        piece.output(copy_of(graph.answer))
    else:
        piece.output(tuple(copy_of(node) for node in returned))
    return fx.GraphModule(graph.root, piece)


def _size_anew(piece, node, tensor, copies):
    """A multiple of the batch size, read off a tensor that this stage takes."""
    size = node.meta["val"]
    if isinstance(size, int):
        return size
    for axis, length in enumerate(tensor.meta["val"].shape):
        ratio = None if isinstance(length, int) else size.node.expr / length.node.expr
        if ratio is not None and ratio.is_Integer:
            n_rows = piece.call_function(torch.ops.aten.sym_size.int, (copies[tensor], axis))
            return n_rows if ratio == 1 else piece.call_function(operator.mul, (n_rows, int(ratio)))
    raise CutError(f"the number {size} crosses a cut, which the tensor {tensor.name} does not tell")


@torch.no_grad()
def check_backbone(answering, inputs, n_classes):
    """The module's answer to some rows, if it is one row's logits whatever stands beside it.

    Raises
    ------
    ValueError
        Where it does not run, answers another shape, or mixes rows.
    """
    module_name = type(answering.module).__name__
    shapes = [tuple(tensor.shape[1:]) for tensor in inputs]
    try:
        output = answering(*inputs)
        fewer = answering(*(tensor[:2] for tensor in inputs))
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise ValueError(
            f"module={module_name} does not run on rows of shape {shapes[0] if len(shapes) == 1 else shapes}: {error}"
        ) from error
    shape = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
    expected = (len(inputs[0]), n_classes)
    if shape != expected:
        raise ValueError(
            f"module={module_name} answered {shape} for {expected[0]} rows; it must answer logits of shape "
            f"(n_samples, n_classes) = {expected}, y having {n_classes} classes."
        )
    if not _same(output[:2], fewer):
        raise ValueError(
            f"module={module_name} answers a row differently when other rows stand beside it"
            f"{_mixing_submodule(answering, inputs)}, so rows cannot leave one by one. Normalise with running "
            f"statistics (BatchNorm with track_running_stats=True) or within the row, and use no operation across "
            f"rows and no randomness in evaluation mode."
        )
    return output


def _same(first, second):
    if first.shape != second.shape:
        return False
    scale = first.nan_to_num().abs().amax().clamp(min=1.0)
    close = torch.isclose(first, second, rtol=0, atol=float(TOLERANCE * scale), equal_nan=True)
    return bool(close.all())


def _mixing_submodule(answering, inputs):
    """', first in NAME (TYPE)': the first submodule without children whose answer depends on the batch."""
    answers = []

    def note(name, module):
        def hook(_, __, output):
            if isinstance(output, torch.Tensor):
                answers[-1].append((name, type(module).__name__, output))

        return hook

    leaves = [(n, m) for n, m in answering.module.named_modules() if not list(m.children())]
    hooks = [module.register_forward_hook(note(name, module)) for name, module in leaves]
    for rows in (slice(None), slice(2)):
        answers.append([])
        answering(*(tensor[rows] for tensor in inputs))
    for hook in hooks:
        hook.remove()
    for (name, kind, all_rows), (_, _, fewer) in zip(*answers, strict=False):
        if len(all_rows) == len(inputs[0]) and not _same(all_rows[:2], fewer):
            return f" (first in {name!r}, {kind})"
    return ""


@torch.no_grad()
def _try_stages(stages, inputs, expected):
    """Find the axis of the rows in all that crosses, and compare with the module's own answer."""
    carried, fewer = inputs, tuple(tensor[:2] for tensor in inputs)
    for before, stage in pairwise([None, *stages]):
        stage.taken_axes = before and before.row_axes
        with _noting_width(stage, len(expected)):
            carried = stage(*carried)
        if stage is stages[-1]:
            break
        fewer = stage(*fewer)
        stage.row_axes = tuple(
            _row_axis(*both, len(expected)) for both in zip(carried, fewer, strict=True)
        )
        if stage.row_axes[0] is None:
            raise CutError("what an exit would read has no row for each row of the data")
    if not _same(carried, expected):
        raise CutError("its stages do not answer what it answers as a whole")


@contextlib.contextmanager
def _noting_width(stage, n_rows):
    """Tell the stage the most numbers of a row that one of its submodules answers, while it runs on so many rows."""

    def note(_, __, output):
        if isinstance(output, torch.Tensor):
            stage.widest = max(stage.widest, output.numel() // n_rows)

    hooks = [module.register_forward_hook(note) for module in stage.evaluating.modules()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _row_axis(tensor, fewer, n_samples):
    """Axis along which ``tensor`` has a row for each of ``n_samples``; None where it has none at all."""
    if not isinstance(tensor, torch.Tensor):
        raise CutError(f"{type(tensor).__name__} crosses a cut; only tensors can")
    differing = [
        axis
        for axis, lengths in enumerate(zip(tensor.shape, fewer.shape))
        if lengths[0] != lengths[1]
    ]
    if not differing and torch.equal(tensor, fewer):
        return None
    if len(differing) != 1 or tensor.shape[differing[0]] != n_samples:
        raise CutError(
            f"a tensor of shape {tuple(tensor.shape)} crosses a cut; for {n_samples} rows one of its axes must have "
            f"length {n_samples}, so that rows can be dropped"
        )
    return differing[0]
