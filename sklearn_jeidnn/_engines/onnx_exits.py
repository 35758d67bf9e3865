"""The exits of a cascade in ONNX Runtime (NumPy only)."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from .._exits.gate_points import GatePoints, is_borderline, rounding_of
from .._exits.policy import ExitMass, decide
from .._exits.routing import ActiveBatch, ExitStep
from .._schema import Arrays
from .onnx_graphs import (
    ANSWER,
    ANSWERS,
    BIAS,
    LOGITS,
    MEMBER_MIXING,
    MIXING,
    NUMBERS,
    PLAIN,
    WEIGHT,
    CascadeGraph,
    ExitGraphs,
    numbered,
)
from .onnx_sessions import ExitSession

# Of what an exit's graph returns, after its logits.
SCORE_AT, GATE_INPUTS_AT = 1, 2
NOTHING: tuple[np.ndarray, ...] = ()
ClassifierLogits = Callable[[int, Sequence[np.ndarray]], np.ndarray]


class MixingWeights(NamedTuple):
    """Weights of the log-linear pool, for each exit."""

    of_exits: Sequence[float]
    of_members: Sequence[float]


class OfPoint(NamedTuple):
    """What graphs of exits are given beside samples, and what routing reads, at an operating point."""

    # Of each exit the weights of its gate and its mixing weights, by name.
    constants: list[dict[str, np.ndarray]]
    rounding_margins: list[float]  # largest rounding error of each gate's score
    exit_mass: ExitMass
    plain_last_exit: bool

    @classmethod
    def of(
        cls,
        graphs: CascadeGraph | ExitGraphs,
        gates: GatePoints,
        mixing: MixingWeights,
        exit_mass: ExitMass,
        plain_last_exit: bool,
    ) -> "OfPoint":
        """What graphs are given with the gates of one point."""
        per_exit, constants = gates.per_exit(), []
        for i in range(graphs.n_exits):
            weights: dict[str, Any] = {}
            if i < len(per_exit):
                weights = {WEIGHT: per_exit[i].weight, BIAS: per_exit[i].bias}
            if i:
                weights[MIXING] = mixing.of_exits[i]
            if any(graphs.starts[1 : i + 1]):
                weights[MEMBER_MIXING] = mixing.of_members[i]
            constants.append(
                {numbered(name, i): np.array(w, dtype=np.float32) for name, w in weights.items()}
            )
        return cls(
            constants=constants,
            rounding_margins=[float(gate.rounding_margin) for gate in per_exit],
            exit_mass=exit_mass,
            plain_last_exit=plain_last_exit,
        )


class OnnxNetwork:
    """The exits of a network in ONNX Runtime, as :func:`_exits.routing.route` runs them.

    Parameters
    ----------
    graph : CascadeGraph or ExitGraphs
    sessions : list of ExitSession
    point : OfPoint
    classifier_logits : callable or None
        Number of an exit and what its stage takes -> logits (n_samples, n_classes), for stages without a graph.
    """

    lossy = False

    def __init__(
        self,
        graph: CascadeGraph | ExitGraphs,
        sessions: Sequence[ExitSession],
        point: OfPoint,
        classifier_logits: ClassifierLogits | None = None,
    ) -> None:
        self.graph, self.sessions, self.point = graph, sessions, point
        self._classifier_logits = classifier_logits

    def per_exit_gates(self) -> list[float]:
        """Rounding margins; the graphs are given the gates."""
        return self.point.rounding_margins

    def for_few_samples(self) -> "OnnxNetwork":
        return self

    def numbers(self, n_samples: int) -> np.ndarray:
        return np.arange(n_samples)

    def exit_step(self, exit_index: int) -> Callable[..., ExitStep]:
        return partial(self._step, exit_index)

    def take_inputs(self, inputs: Sequence[np.ndarray], rows: np.ndarray) -> tuple[np.ndarray, ...]:
        return tuple(array.take(rows, 0) for array in inputs)

    def keep_rows(
        self, exit_index: int, carried: Sequence[np.ndarray], rows: np.ndarray
    ) -> tuple[np.ndarray, ...]:
        axes = self.sessions[exit_index].carried_axes
        return tuple(
            array if axis is None else array.take(rows, axis)
            for array, axis in zip(carried, axes, strict=True)
        )

    def join_rows(
        self, exit_index: int, parts: Sequence[Sequence[np.ndarray]]
    ) -> tuple[np.ndarray, ...]:
        axes = self.sessions[exit_index].carried_axes
        return tuple(
            arrays[0] if axis is None else np.concatenate(arrays, axis)
            for *arrays, axis in zip(*parts, axes, strict=True)
        )

    def route_one(
        self, inputs: Sequence[np.ndarray], exit_index: int | None = None
    ) -> tuple[np.ndarray, int]:
        """Logits (1, n_classes) and exit of a single sample that leaves where a gate says so, or at a given exit."""
        taken, passed_on = inputs, NOTHING
        for i in range(self.graph.n_exits - 1):
            outputs = self._run(i, passed_on, taken)
            leaves = outputs[SCORE_AT][0] >= 0
            if leaves if exit_index is None else i == exit_index:
                return outputs[0], i
            passed_on, carried = self._onward(i, outputs, passed_on, taken)
            taken = inputs if carried is None else carried
        return self._last_logits(passed_on, taken), self.graph.n_exits - 1

    def _last_logits(
        self, passed_on: Sequence[np.ndarray], taken: Sequence[np.ndarray]
    ) -> np.ndarray:
        last = self.graph.n_exits - 1
        name = PLAIN if self.point.plain_last_exit else numbered(LOGITS, last)
        return self.sessions[last].run([name], self._feeds(last, passed_on, taken))[0]

    def _step(
        self,
        exit_index: int,
        batch: ActiveBatch,
        taken: Sequence[np.ndarray],
        rounding_margin: float | None,
        flag_borderline: bool,
    ) -> ExitStep:
        """See :meth:`_exits.routing.Network.exit_step`."""
        passed_on = batch.passed_on or NOTHING
        if rounding_margin is None:
            logits = self._last_logits(passed_on, taken)
            if flag_borderline:
                batch = batch._replace(borderline=batch.borderline | has_tie(logits))
            return ExitStep(logits, batch)
        outputs = self._run(exit_index, passed_on, taken)
        logits, score, gate_inputs = outputs[:3]
        leave, survival = decide(score, batch.survival, self.point.exit_mass)
        borderline = batch.borderline
        if flag_borderline:
            borderline = borderline | is_borderline(
                score, gate_inputs, logits.max(1), rounding_margin
            )
        passed_on, carried = self._onward(exit_index, outputs, passed_on, taken)
        active = ActiveBatch(batch.rows, survival, borderline, passed_on, carried)
        return ExitStep(logits, active, leave)

    def _run(
        self, exit_index: int, passed_on: Sequence[np.ndarray], taken: Sequence[np.ndarray]
    ) -> list[np.ndarray]:
        """Run an exit that is not the last; return what :class:`ExitSession` names as its outputs."""
        session = self.sessions[exit_index]
        return session.run(session.outputs, self._feeds(exit_index, passed_on, taken))

    def _onward(
        self,
        exit_index: int,
        outputs: Sequence[np.ndarray],
        passed_on: Sequence[np.ndarray],
        taken: Sequence[np.ndarray],
    ) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...] | None]:
        """What the next exit is given of earlier ones, and what crosses the cut; None if it takes the inputs."""
        session = self.sessions[exit_index]
        starts_anew = self.graph.starts[exit_index + 1]
        return (
            _chosen(session.next_passed_on, outputs, passed_on),
            None if starts_anew else _chosen(session.next_carried, outputs, taken),
        )

    def _feeds(
        self, exit_index: int, passed_on: Sequence[np.ndarray], taken: Sequence[np.ndarray]
    ) -> dict[str, np.ndarray]:
        """Inputs of an exit's graph."""
        session = self.sessions[exit_index]
        feeds = dict(self.point.constants[exit_index])
        if self.graph.is_given[exit_index]:
            feeds[numbered(ANSWER, exit_index)] = self.answers(exit_index, taken)
        for k, name in session.taken:
            feeds[name] = taken[k]
        for k, name in session.passed_on:
            feeds[name] = passed_on[k]
        return feeds

    def answers(self, exit_index: int, taken: Sequence[np.ndarray]) -> np.ndarray:
        """Logits (n_samples, n_classes) of a stage that is a classifier."""
        answer = self.sessions[exit_index].answer
        if answer is not None:
            return answer([ANSWERS], {NUMBERS: taken[0]})[0]
        assert self._classifier_logits is not None
        return self._classifier_logits(exit_index, taken)

    def every_exit(
        self, inputs: Sequence[np.ndarray]
    ) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray]:
        """Logits of every exit, which no sample leaves, gate inputs of all but the last, and the last member's logits.

        Where an exit has no answer for a sample (NaN), later exits read uniform probabilities instead.
        """
        taken, passed_on, logits, gate_inputs = inputs, NOTHING, [], []
        for i in range(self.graph.n_exits - 1):
            outputs = self._run(i, passed_on, taken)
            logits.append(outputs[0])
            gate_inputs.append(outputs[GATE_INPUTS_AT])
            passed_on, carried = self._onward(i, outputs, passed_on, taken)
            passed_on = self._without_gaps(i, passed_on)
            taken = inputs if carried is None else carried
        last = self.graph.n_exits - 1
        feeds = self._feeds(last, passed_on, taken)
        of_last, plain = self.sessions[last].run([numbered(LOGITS, last), PLAIN], feeds)
        return [*logits, of_last], gate_inputs, plain

    def _without_gaps(
        self, exit_index: int, passed_on: tuple[np.ndarray, ...]
    ) -> tuple[np.ndarray, ...]:
        session = self.sessions[exit_index]
        return tuple(
            np.nan_to_num(array, nan=-math.log(array.shape[1])) if is_log_probs else array
            for array, is_log_probs in zip(passed_on, session.is_log_probs, strict=True)
        )


def has_tie(logits: np.ndarray) -> np.ndarray:
    """Whether rounding might change the label of each sample."""
    second, first = np.partition(logits, -2, axis=1)[:, -2:].T
    near: np.ndarray = first - second < rounding_of(first)
    return near


def has_negative(arrays: Arrays) -> bool:
    """Whether there are whole numbers below 0: ONNX counts such an index from the end, where torch refuses it."""
    return any(array.dtype.kind == "i" and array.size and array.min() < 0 for array in arrays)


def _chosen(
    sources: Sequence[tuple[bool, int]],
    outputs: Sequence[np.ndarray],
    before: Sequence[np.ndarray],
) -> tuple[np.ndarray, ...]:
    return tuple(outputs[k] if is_new else before[k] for is_new, k in sources)
