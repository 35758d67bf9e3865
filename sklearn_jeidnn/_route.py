"""Rows stage by stage: those that leave are dropped, those that stay wait until a batch of them is full."""

from typing import NamedTuple

import torch

from ._gates import MARGIN, ROUNDING, Summary, summarised
from ._heads import Heard
from ._policy import decide
from ._rows import take_rows


class RoutedRows(NamedTuple):
    """Where rows left, and with what."""

    logits: torch.Tensor  # (n_samples, n_classes), of the exit taken
    exit_index: torch.Tensor  # (n_samples,)


class Underway(NamedTuple):
    """Rows on their way."""

    rows: torch.Tensor  # (n,), their numbers
    unspent: torch.Tensor  # (n,), mass that no exit has taken
    close: torch.Tensor  # (n,), whether rounding might have decided otherwise
    own: torch.Tensor | None = None  # (n, n_classes), log-probabilities of the head before alone
    ended: torch.Tensor | None = None  # (n, n_classes), see Heard
    summary: Summary | None = None  # of the exit before
    carried: tuple | None = None  # what crosses the cut; None where the next stage takes the inputs

    def heard(self):
        """What the next exit hears of the one before."""
        return self.summary and Heard(self.own, self.summary.log_probs, self.ended)


class Left(NamedTuple):
    """Rows that left at one exit."""

    rows: torch.Tensor  # (n,)
    logits: torch.Tensor  # (n, n_classes)
    exit_index: int
    close: torch.Tensor  # (n,)


class Behind(NamedTuple):
    """Some rows behind an exit, before any has left."""

    answer: torch.Tensor  # (n, n_classes), logits
    passed: Underway
    leave: torch.Tensor | None = None  # (n,); None at the last exit


def pass_exit(network, exit_index, batch, taken, gate, settles):
    """One stage, its head and its gate.

    Parameters
    ----------
    network : EarlyExitNetwork
    exit_index : int
    batch : Underway
    taken : tuple of tensor (n, ...)
        What the stage takes.
    gate : Gate or None
        None at the last exit.
    settles : bool
        Whether rows are noted that rounding might decide.

    Returns
    -------
    Behind
    """
    carried = network.stages[exit_index](*taken)
    said = network.say(exit_index, network.stages[exit_index].read(carried), batch.heard())
    if gate is None:
        close = batch.close | _tied(said.answer) if settles else batch.close
        return Behind(said.answer, batch._replace(close=close))
    summary = summarised(said.heard.answer, batch.summary)
    score = gate.score(summary.inputs)
    leave, unspent = decide(score, batch.unspent, network.exit_mass)
    close = batch.close
    if settles:
        doubted = score.abs() < gate.doubt
        # Probabilities differ by less than logits do: these are at least the rows that are tied.
        even = summary.inputs[:, MARGIN] < _rounded(said.answer.amax(1))
        close = close | doubted | even
    onward = None if network.starts(exit_index + 1) else carried
    own, _, ended = said.heard
    passed = Underway(batch.rows, unspent, close, own, ended, summary, onward)
    return Behind(said.answer, passed, leave)


def route(network, inputs, rows_at_once, exits=None):
    """Run rows stage by stage; a row that leaves is not run further.

    Survivors of several batches run on together, so that later stages see full batches, too; fewer than
    ``rows_at_once`` wait before each stage. A row that came so close to a threshold, or to a tie of two
    labels, that rounding might decide is run again by itself: so its exit and label do not depend on the
    rows beside it. A single row has a path of its own, that of :func:`_route_one`.

    Parameters
    ----------
    network : EarlyExitNetwork
    inputs : tuple of tensor (n_samples, ...)
    rows_at_once : int
        Rows of a batch.
    exits : tensor of int (n_samples,), default=None
        Where rows leave, whatever gates say, which are asked all the same: for timing.

    Returns
    -------
    RoutedRows
    """
    if len(inputs[0]) == 1:
        return _route_one(network, inputs, exits)
    run = _Run(network, inputs, exits)
    batches = zip(*(tensor.split(rows_at_once) for tensor in (run.numbers, *inputs)), strict=True)
    left = [part for rows, *carried in batches for part in run.start(rows, carried, rows_at_once)]
    left += run.advance(1)
    logits, exit_index, close = _in_order(left, len(run.numbers))
    if run.settles and exits is None:
        for row in close.nonzero().flatten().tolist():
            alone = route(network, tuple(tensor[row : row + 1] for tensor in inputs), 1)
            logits[row], exit_index[row] = alone.logits[0], alone.exit_index[0]
    return RoutedRows(logits, exit_index)


def _route_one(network, inputs, exits):
    """As :func:`route`, of a single row, which has nothing to wait for."""
    device = inputs[0].device
    number = torch.zeros(1, dtype=torch.long, device=device)
    batch = Underway(number, torch.ones(1, device=device), number.bool())
    for exit_index, gate in enumerate([*network.gates.lanes(), None]):
        taken = inputs if batch.carried is None else batch.carried
        answer, batch, leave = network.passage(exit_index)(batch, taken, gate, False)
        if exits is not None:
            leave = exits <= exit_index
        if gate is None or leave:
            return RoutedRows(answer, number + exit_index)


def _tied(logits):
    """Whether rounding might change the label."""
    first, second = logits.topk(2, dim=1).values.unbind(1)
    return first - second < _rounded(first)


def _rounded(logits):
    """By how much rounding may move logits."""
    return ROUNDING * (1 + logits.abs())


class _Run:
    """One run of some rows through a network; ``waiting[i]`` holds those that wait before stage i."""

    def __init__(self, network, inputs, exits):
        self.network, self.inputs, self.exits = network, inputs, exits
        # A row by itself decides as it does; in less than float32 rounding is no matter of a few rows.
        self.settles = not network.lossy
        self.gates = network.gates.lanes()
        self.numbers = torch.arange(len(inputs[0]), device=inputs[0].device)
        self.waiting = [[] for _ in network.stages]

    def start(self, rows, carried, least):
        """Rows enter the first stage; what leaves because of that."""
        unspent = torch.ones(len(rows), device=rows.device)
        close = torch.zeros_like(rows, dtype=torch.bool)
        self.waiting[0].append(Underway(rows, unspent, close, carried=carried))
        return self.advance(least)

    def advance(self, least):
        """Run each stage, in order, before which at least so many rows wait; what leaves."""
        left = []
        for exit_index, parts in enumerate(self.waiting):
            if sum(len(part.rows) for part in parts) >= least:
                self.waiting[exit_index] = []
                left.append(self._through(exit_index, self._joined(exit_index, parts)))
        return [part for part in left if part is not None]

    def _through(self, exit_index, batch):
        """One stage, its head and its gate: what stays waits before the next stage; what leaves, or None."""
        network = self.network
        taken = self._inputs_of(batch.rows) if batch.carried is None else batch.carried
        gate = self.gates[exit_index] if exit_index < len(self.gates) else None
        behind = network.passage(exit_index)(batch, taken, gate, self.settles)
        if gate is None:
            return Left(batch.rows, behind.answer, exit_index, behind.passed.close)
        leave, passed = behind.leave, behind.passed
        if self.exits is not None:
            leave = self.exits[batch.rows] <= exit_index
        n_leaving = int(leave.sum())
        if n_leaving == len(leave):
            return Left(batch.rows, behind.answer, exit_index, passed.close)
        stay = (~leave).nonzero().flatten() if n_leaving else None
        self.waiting[exit_index + 1].append(self._kept(exit_index, passed, stay))
        if not n_leaving:
            return None
        gone = leave.nonzero().flatten()
        return Left(batch.rows[gone], behind.answer[gone], exit_index, passed.close[gone])

    def _inputs_of(self, rows):
        if len(rows) == len(self.numbers):
            return self.inputs
        return tuple(take_rows(tensor, rows) for tensor in self.inputs)

    def _kept(self, exit_index, passed, rows):
        """Compacted to some rows (None: all)."""
        if rows is None:
            return passed
        carried = passed.carried and self.network.stages[exit_index].keep_rows(passed.carried, rows)
        kept = (_each(lambda tensor: tensor[rows], part) for part in passed[:-1])
        return Underway(*kept, carried)

    def _joined(self, exit_index, parts):
        """Several parts that wait before the same stage, as one."""
        if len(parts) == 1:
            return parts[0]
        *columns, carried = zip(*parts, strict=True)
        joined = (_each(lambda *tensors: torch.cat(tensors), *column) for column in columns)
        if carried[0] is not None:
            carried = self.network.stages[exit_index - 1].join_rows(carried)
        return Underway(*joined, carried if carried[0] is not None else None)


def _each(function, *parts):
    """Of tensors, named tuples of tensors, or None: the same with ``function`` of the tensors at each place."""
    first = parts[0]
    if first is None or isinstance(first, torch.Tensor):
        return first if first is None else function(*parts)
    return type(first)(*(_each(function, *fields) for fields in zip(*parts, strict=True)))


def _in_order(left, n_rows):
    """(logits, exits, close) of all rows, in the order of their numbers."""
    if len(left) == 1:
        (part,) = left
        return part.logits, torch.full_like(part.rows, part.exit_index), part.close
    logits, exits, close = (
        some.new_empty(n_rows, *some.shape[1:])
        for some in (left[0].logits, left[0].rows, left[0].close)
    )
    for part in left:
        logits.index_copy_(0, part.rows, part.logits)
        exits.index_fill_(0, part.rows, part.exit_index)
        close.index_copy_(0, part.rows, part.close)
    return logits, exits, close
