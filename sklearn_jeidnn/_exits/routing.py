"""Run samples stage by stage: some leave, the others wait until their batch is full."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import torch

from .._cut import take_rows
from .exit_heads import ExitOutput, PreviousExit
from .gate_points import MARGIN
from .gates import ROUNDING, Gate, Gates, Summary, summarise
from .policy import ExitMass, decide


class RoutedLogits(NamedTuple):
    """Exit and logits of each sample."""

    logits: torch.Tensor  # (n_samples, n_classes), of the exit taken
    exit_index: torch.Tensor  # (n_samples,)


class ActiveBatch(NamedTuple):
    """Samples that have not left yet."""

    rows: torch.Tensor  # (n,), their numbers
    survival: torch.Tensor  # (n,), mass that no exit has taken
    borderline: torch.Tensor  # (n,), whether rounding might change the decision
    head_log_probs: torch.Tensor | None = None  # (n, n_classes), see PreviousExit
    previous_member_log_probs: torch.Tensor | None = None  # (n, n_classes), see PreviousExit
    summary: Summary | None = None  # of the previous exit
    carried: Sequence[torch.Tensor] | None = None  # what crosses the cut; None: take the inputs

    def previous_exit(self) -> PreviousExit | None:
        """What the next exit is given of the previous one."""
        if self.summary is None or self.head_log_probs is None:
            return None
        return PreviousExit(
            self.head_log_probs, self.summary.log_probs, self.previous_member_log_probs
        )


class ExitedBatch(NamedTuple):
    """Samples that left at one exit."""

    rows: torch.Tensor  # (n,)
    logits: torch.Tensor  # (n, n_classes)
    exit_index: int
    borderline: torch.Tensor  # (n,)


class ExitStep(NamedTuple):
    """Samples after an exit, before any has left."""

    logits: torch.Tensor  # (n, n_classes)
    batch: ActiveBatch
    leave: torch.Tensor | None = None  # (n,); None at the last exit


class Network(Protocol):
    """What routing needs of an :class:`EarlyExitNetwork`."""

    stages: Any  # of Stage
    gates: Gates
    exit_mass: ExitMass

    @property
    def lossy(self) -> bool: ...

    def starts(self, exit_index: int) -> bool: ...

    def run_exit(
        self, exit_index: int, output: torch.Tensor, before: PreviousExit | None
    ) -> ExitOutput: ...

    def exit_step(self, exit_index: int) -> Callable[..., ExitStep]: ...


def exit_step(
    network: Network,
    exit_index: int,
    batch: ActiveBatch,
    taken: Sequence[torch.Tensor],
    gate: Gate | None,
    flag_borderline: bool,
) -> ExitStep:
    """Run one stage, its head and its gate.

    Parameters
    ----------
    network : Network
    exit_index : int
    batch : ActiveBatch
    taken : tuple of tensor (n, ...)
        Inputs of the stage.
    gate : Gate or None
        None at the last exit.
    flag_borderline : bool
        If True, flag samples whose decision could change within rounding error.
    """
    stage = network.stages[exit_index]
    carried = stage(*taken)
    output = network.run_exit(exit_index, stage.read(carried), batch.previous_exit())
    borderline = batch.borderline
    if gate is None:
        if flag_borderline:
            borderline = borderline | has_tie(output.logits)
        return ExitStep(output.logits, batch._replace(borderline=borderline))
    summary = summarise(output.passed_on.log_probs, batch.summary)
    score = gate.score(summary.inputs)
    leave, survival = decide(score, batch.survival, network.exit_mass)
    if flag_borderline:
        near_threshold = score.abs() < gate.rounding_margin
        # Probabilities differ by less than logits do, so this flags at least the tied samples.
        tied = summary.inputs[:, MARGIN] < _rounding_of(output.logits.amax(1))
        borderline = borderline | near_threshold | tied
    active = ActiveBatch(
        rows=batch.rows,
        survival=survival,
        borderline=borderline,
        head_log_probs=output.passed_on.head_log_probs,
        previous_member_log_probs=output.passed_on.previous_member_log_probs,
        summary=summary,
        carried=None if network.starts(exit_index + 1) else carried,
    )
    return ExitStep(output.logits, active, leave)


def route(
    network: Network,
    inputs: tuple[torch.Tensor, ...],
    rows_at_once: int,
    exits: torch.Tensor | None = None,
) -> RoutedLogits:
    """Run samples stage by stage; a sample that leaves is not run further.

    Samples of several batches that stay are run on together, so that later stages get full batches;
    fewer than ``rows_at_once`` samples wait before each stage. If rounding could change the exit or
    the label of a sample, it is run again by itself, so that its result does not depend on its
    batch. A single sample is routed by :func:`_route_one`.

    Parameters
    ----------
    network : Network
    inputs : tuple of tensor (n_samples, ...)
    rows_at_once : int
        Batch size.
    exits : tensor of int (n_samples,), default=None
        Exit at which each sample leaves, whatever its gates say. Gates run all the same: for
        timing.
    """
    if len(inputs[0]) == 1:
        return _route_one(network, inputs, exits)
    run = _Run(network, inputs, exits)
    columns = (torch.split(tensor, rows_at_once) for tensor in (run.numbers, *inputs))
    batches = zip(*columns, strict=True)
    exited = [part for rows, *carried in batches for part in run.start(rows, carried, rows_at_once)]
    exited += run.advance(1)
    logits, exit_index, borderline = _in_order(exited, len(run.numbers))
    if run.rerun_borderline and exits is None:
        for row in borderline.nonzero().flatten().tolist():
            alone = route(network, tuple(tensor[row : row + 1] for tensor in inputs), 1)
            logits[row], exit_index[row] = alone.logits[0], alone.exit_index[0]
    return RoutedLogits(logits, exit_index)


def _route_one(
    network: Network, inputs: tuple[torch.Tensor, ...], exits: torch.Tensor | None
) -> RoutedLogits:
    """Run a single sample, which has nothing to wait for, as :func:`route` does."""
    device = inputs[0].device
    number = torch.zeros(1, dtype=torch.long, device=device)
    batch = ActiveBatch(number, torch.ones(1, device=device), number.bool())
    for exit_index, gate in enumerate([*network.gates.per_exit_gates(), None]):
        taken = inputs if batch.carried is None else batch.carried
        logits, batch, leave = network.exit_step(exit_index)(batch, taken, gate, False)
        if exits is not None:
            leave = exits <= exit_index
        if gate is None or leave:
            break
    return RoutedLogits(logits, number + exit_index)


def has_tie(logits: torch.Tensor) -> torch.Tensor:
    """Whether rounding might change the label of each sample."""
    first, second = logits.topk(2, dim=1).values.unbind(1)
    return first - second < _rounding_of(first)


def _rounding_of(logits: torch.Tensor) -> torch.Tensor:
    """Largest rounding error of logits."""
    return ROUNDING * (1 + logits.abs())


class _Run:
    """A run of samples through a network; ``waiting[i]`` holds those that wait before stage i."""

    def __init__(
        self,
        network: Network,
        inputs: tuple[torch.Tensor, ...],
        exits: torch.Tensor | None,
    ) -> None:
        self.network, self.inputs, self.exits = network, inputs, exits
        # In less than float32, rounding changes more than a few samples.
        self.rerun_borderline = not network.lossy
        self.gates = network.gates.per_exit_gates()
        self.numbers = torch.arange(len(inputs[0]), device=inputs[0].device)
        self.waiting: list[list[ActiveBatch]] = [[] for _ in network.stages]

    def start(
        self, rows: torch.Tensor, carried: Sequence[torch.Tensor], least: int
    ) -> list[ExitedBatch]:
        """Put samples before the first stage, and return the samples that leave because of that."""
        survival = torch.ones(len(rows), device=rows.device)
        borderline = torch.zeros_like(rows, dtype=torch.bool)
        self.waiting[0].append(ActiveBatch(rows, survival, borderline, carried=carried))
        return self.advance(least)

    def advance(self, least: int) -> list[ExitedBatch]:
        """Run each stage before which at least ``least`` samples wait; return those that leave."""
        exited = []
        for exit_index, parts in enumerate(self.waiting):
            if sum(len(part.rows) for part in parts) >= least:
                self.waiting[exit_index] = []
                exited.append(self._through(exit_index, self._joined(exit_index, parts)))
        return [part for part in exited if part is not None]

    def _through(self, exit_index: int, batch: ActiveBatch) -> ExitedBatch | None:
        """Run a stage, its head and its gate; return the samples that leave, or None if all stay."""
        taken = self._inputs_of(batch.rows) if batch.carried is None else batch.carried
        gate = self.gates[exit_index] if exit_index < len(self.gates) else None
        run = self.network.exit_step(exit_index)
        logits, active, leave = run(batch, taken, gate, self.rerun_borderline)
        if leave is None:
            return ExitedBatch(batch.rows, logits, exit_index, active.borderline)
        if self.exits is not None:
            leave = self.exits[batch.rows] <= exit_index
        n_leaving = int(leave.sum())
        if n_leaving == len(leave):
            return ExitedBatch(batch.rows, logits, exit_index, active.borderline)
        stay = (~leave).nonzero().flatten() if n_leaving else None
        self.waiting[exit_index + 1].append(self._kept(exit_index, active, stay))
        if not n_leaving:
            return None
        gone = leave.nonzero().flatten()
        return ExitedBatch(batch.rows[gone], logits[gone], exit_index, active.borderline[gone])

    def _inputs_of(self, rows: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Inputs of some samples."""
        if len(rows) == len(self.numbers):
            return self.inputs
        return tuple(take_rows(tensor, rows) for tensor in self.inputs)

    def _kept(self, exit_index: int, active: ActiveBatch, rows: torch.Tensor | None) -> ActiveBatch:
        """Some samples of a batch; all if ``rows`` is None."""
        if rows is None:
            return active
        carried = active.carried
        if carried is not None:
            carried = self.network.stages[exit_index].keep_rows(carried, rows)
        kept: ActiveBatch = _each(lambda tensor: tensor[rows], active._replace(carried=None))
        return kept._replace(carried=carried)

    def _joined(self, exit_index: int, parts: Sequence[ActiveBatch]) -> ActiveBatch:
        """Join batches that wait before the same stage."""
        if len(parts) == 1:
            return parts[0]
        carried = None
        if parts[0].carried is not None:
            stage = self.network.stages[exit_index - 1]
            carried = stage.join_rows([part.carried for part in parts])
        others = (part._replace(carried=None) for part in parts)
        joined: ActiveBatch = _each(lambda *tensors: torch.cat(tensors), *others)
        return joined._replace(carried=carried)


def _each(function: Callable[..., torch.Tensor], *parts: Any) -> Any:
    """Apply a function to tensors, or to each field of named tuples; None stays None."""
    first = parts[0]
    if first is None or isinstance(first, torch.Tensor):
        return first if first is None else function(*parts)
    return type(first)(*(_each(function, *fields) for fields in zip(*parts, strict=True)))


def _in_order(
    left: Sequence[ExitedBatch], n_rows: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(logits, exits, borderline) of all samples, in the order of their numbers."""
    if len(left) == 1:
        (part,) = left
        return part.logits, torch.full_like(part.rows, part.exit_index), part.borderline
    logits, exits, borderline = (
        first.new_empty(n_rows, *first.shape[1:])
        for first in (left[0].logits, left[0].rows, left[0].borderline)
    )
    for part in left:
        logits.index_copy_(0, part.rows, part.logits)
        exits.index_fill_(0, part.rows, part.exit_index)
        borderline.index_copy_(0, part.rows, part.borderline)
    return logits, exits, borderline
