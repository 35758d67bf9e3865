"""Run samples stage by stage: some leave, the others wait until their batch is full.

Every function takes NumPy arrays or torch tensors, and imports no torch.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from .arrays import empty_like, is_on_gpu, join, places_of, take, write_rows
from .policy import Array


class RoutedLogits(NamedTuple):
    """Exit and logits of each sample."""

    logits: Array  # (n_samples, n_classes), of the exit taken
    exit_index: Array  # (n_samples,)


class ActiveBatch(NamedTuple):
    """Samples that have not left yet."""

    rows: Array  # (n,), their numbers
    survival: Array  # (n,), mass that no exit has taken
    borderline: Array  # (n,), whether rounding might change the decision
    # What the next exits need of the exits before: arrays (n, ...) and tuples of such; None at the first exit.
    passed_on: Any = None
    carried: Sequence[Array] | None = None  # what crosses the cut; None: take the inputs


class ExitedBatch(NamedTuple):
    """Samples that left at one exit."""

    rows: Array  # (n,)
    logits: Array  # (n, n_classes)
    exit_index: int
    borderline: Array  # (n,)


class ExitStep(NamedTuple):
    """Samples after an exit, before any has left."""

    logits: Array  # (n, n_classes)
    batch: ActiveBatch
    leave: Array | None = None  # (n,); None at the last exit


class Network(Protocol):
    """Stages with their exits, as something runs them."""

    @property
    def lossy(self) -> bool:
        """Whether it computes in less than float32."""

    def per_exit_gates(self) -> Sequence[Any]:
        """The gate of each exit but the last."""

    def for_few_samples(self) -> "Network":
        """The network as it answers few samples fastest."""

    def numbers(self, n_samples: int) -> Array:
        """Numbers of samples, 0, 1, ..., where exits decide: (n_samples,)"""

    def exit_step(self, exit_index: int) -> Callable[..., ExitStep]:
        """Function that runs one stage, its head and its gate.

        It takes an :class:`ActiveBatch`, the inputs of the stage, the gate (None at the last exit), and whether to
        flag samples whose decision could change within rounding error.
        """

    def take_inputs(self, inputs: Sequence[Array], rows: Array) -> tuple[Array, ...]:
        """Inputs of some samples."""

    def keep_rows(
        self, exit_index: int, carried: Sequence[Array], rows: Array
    ) -> tuple[Array, ...]:
        """Some samples of what crosses the cut after an exit."""

    def join_rows(self, exit_index: int, parts: Sequence[Sequence[Array]]) -> tuple[Array, ...]:
        """Join the samples of several parts of what crosses the cut after an exit."""


def route(
    network: Network,
    inputs: tuple[Array, ...],
    rows_at_once: int,
    exits: Array | None = None,
) -> RoutedLogits:
    """Run samples stage by stage; a sample that leaves is not run further.

    Samples of several batches that stay are run on together, so that later stages get full batches;
    fewer than ``rows_at_once`` samples wait before each stage. If rounding could change the exit or
    the label of a sample, it is run again by itself, so that its result does not depend on its
    batch. A single sample is routed by :func:`_route_one`.

    Parameters
    ----------
    network : Network
    inputs : tuple of array (n_samples, ...)
    rows_at_once : int
        Batch size.
    exits : array of int (n_samples,), default=None
        Exit at which each sample leaves, whatever its gates say. Gates run all the same: for
        timing.
    """
    n_samples = len(inputs[0])
    if n_samples == 1:
        return _route_one(network, inputs, exits)
    run = _Run(network, inputs, exits)
    exited = []
    for start in range(0, max(1, n_samples), rows_at_once):
        rows, *carried = (array[start : start + rows_at_once] for array in (run.numbers, *inputs))
        exited += run.start(rows, carried, rows_at_once)
    exited += run.advance(1)
    logits, exit_index, borderline = _in_order(exited, n_samples)
    if run.rerun_borderline and exits is None:
        for row in places_of(borderline).tolist():
            alone = route(network, tuple(array[row : row + 1] for array in inputs), 1)
            logits[row], exit_index[row] = alone.logits[0], alone.exit_index[0]
    return RoutedLogits(logits, exit_index)


def _first_batch(rows: Array, carried: Sequence[Array] | None = None) -> ActiveBatch:
    """Samples before the first exit."""
    return ActiveBatch(rows, 1.0 + 0 * rows, rows < 0, carried=carried)


def _route_one(network: Network, inputs: tuple[Array, ...], exits: Array | None) -> RoutedLogits:
    """Run a single sample, which has nothing to wait for, as :func:`route` does."""
    network = network.for_few_samples()
    number = network.numbers(1)
    batch = _first_batch(number)
    for exit_index, gate in enumerate([*network.per_exit_gates(), None]):
        taken = inputs if batch.carried is None else batch.carried
        logits, batch, leave = network.exit_step(exit_index)(batch, taken, gate, False)
        if exits is not None:
            leave = exits <= exit_index
        if gate is None or leave:
            break
    return RoutedLogits(logits, number + exit_index)


class _Run:
    """A run of samples through a network; ``waiting[i]`` holds those that wait before stage i."""

    def __init__(
        self,
        network: Network,
        inputs: tuple[Array, ...],
        exits: Array | None,
    ) -> None:
        self.network, self.inputs, self.exits = network, inputs, exits
        # In less than float32, rounding changes more than a few samples.
        self.rerun_borderline = not network.lossy
        self.gates = [*network.per_exit_gates(), None]
        self.numbers = network.numbers(len(inputs[0]))
        self.waiting: list[list[ActiveBatch]] = [[] for _ in self.gates]

    def start(self, rows: Array, carried: Sequence[Array], least: int) -> list[ExitedBatch]:
        """Put samples before the first stage, and return the samples that leave because of that."""
        self.waiting[0].append(_first_batch(rows, carried))
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
        run = self.network.exit_step(exit_index)
        logits, active, leave = run(batch, taken, self.gates[exit_index], self.rerun_borderline)
        if leave is None:
            return ExitedBatch(batch.rows, logits, exit_index, active.borderline)
        if self.exits is not None:
            leave = self.exits[batch.rows] <= exit_index
        if is_on_gpu(leave):
            return self._divided_on_gpu(exit_index, leave, batch.rows, logits, active)
        n_leaving = int(leave.sum())
        if n_leaving == len(leave):
            return ExitedBatch(batch.rows, logits, exit_index, active.borderline)
        stay = places_of(~leave) if n_leaving else None
        self.waiting[exit_index + 1].append(self._kept(exit_index, active, stay))
        if not n_leaving:
            return None
        gone = places_of(leave)
        return ExitedBatch(batch.rows[gone], logits[gone], exit_index, active.borderline[gone])

    def _divided_on_gpu(
        self, exit_index: int, leave: Array, rows: Array, logits: Array, active: ActiveBatch
    ) -> ExitedBatch | None:
        """Divide samples as :meth:`_through` does, where the host must wait to know how many leave.

        They are sorted before it waits, and the number cuts them in two: the GPU is not idle for
        longer than it takes to launch the next stage.
        """
        order = leave.argsort(stable=True)
        kept: ActiveBatch
        kept, gone = _each(
            lambda array: take(array, order),
            (active._replace(carried=None), (rows, logits, active.borderline)),
        )
        n_stay = len(leave) - int(leave.sum())
        if n_stay:
            carried = active.carried
            if carried is not None and n_stay < len(leave):
                carried = self.network.keep_rows(exit_index, carried, order[:n_stay])
            kept = _each(lambda array: array[:n_stay], kept)
            self.waiting[exit_index + 1].append(kept._replace(carried=carried))
        if n_stay == len(leave) > 0:
            return None
        rows, logits, borderline = (array[n_stay:] for array in gone)
        return ExitedBatch(rows, logits, exit_index, borderline)

    def _inputs_of(self, rows: Array) -> tuple[Array, ...]:
        """Inputs of some samples."""
        if len(rows) == len(self.numbers):
            return self.inputs
        return self.network.take_inputs(self.inputs, rows)

    def _kept(self, exit_index: int, active: ActiveBatch, rows: Array | None) -> ActiveBatch:
        """Some samples of a batch; all if ``rows`` is None."""
        if rows is None:
            return active
        carried = active.carried
        if carried is not None:
            carried = self.network.keep_rows(exit_index, carried, rows)
        kept: ActiveBatch = _each(lambda array: array[rows], active._replace(carried=None))
        return kept._replace(carried=carried)

    def _joined(self, exit_index: int, parts: Sequence[ActiveBatch]) -> ActiveBatch:
        """Join batches that wait before the same stage."""
        if len(parts) == 1:
            return parts[0]
        carried = None
        if parts[0].carried is not None:
            carried = self.network.join_rows(exit_index - 1, [part.carried or () for part in parts])
        others = (part._replace(carried=None) for part in parts)
        joined: ActiveBatch = _each(lambda *arrays: join(arrays), *others)
        return joined._replace(carried=carried)


def _each(function: Callable[..., Array], *parts: Any) -> Any:
    """Apply a function to arrays, or to each field of tuples; None stays None."""
    first = parts[0]
    if not isinstance(first, tuple):
        return None if first is None else function(*parts)
    fields = [_each(function, *of_parts) for of_parts in zip(*parts, strict=True)]
    return type(first)(*fields) if hasattr(first, "_fields") else tuple(fields)


def _in_order(left: Sequence[ExitedBatch], n_rows: int) -> tuple[Array, Array, Array]:
    """(logits, exits, borderline) of all samples, in the order of their numbers."""
    if len(left) == 1:
        (part,) = left
        return part.logits, 0 * part.rows + part.exit_index, part.borderline
    logits, exits, borderline = (
        empty_like(first, n_rows) for first in (left[0].logits, left[0].rows, left[0].borderline)
    )
    for part in left:
        write_rows(logits, part.rows, part.logits)
        write_rows(exits, part.rows, 0 * part.rows + part.exit_index)
        write_rows(borderline, part.rows, part.borderline)
    return logits, exits, borderline
