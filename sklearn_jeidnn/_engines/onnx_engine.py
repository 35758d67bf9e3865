"""Run the exits of a cascade in ONNX Runtime."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from .._exits.gate_points import GatePoints, is_borderline, rounding_of
from .._exits.gates import all_gate_inputs
from .._exits.network import EarlyExitNetwork
from .._exits.policy import ExitMass, decide, sequential_mass
from .._exits.routing import ActiveBatch, ExitStep, route
from .._exits.usual_torch import usual_defaults
from .._operate.cascade import AnsweredArrays, RoutedArrays
from .._operate.exit_answers import with_gaps
from .._operate.operating_point import OperatingPoint
from .._schema import Arrays
from .onnx_export import (
    ANSWER,
    ANSWERS,
    BIAS,
    INPUT,
    LOGITS,
    MEMBER_MIXING,
    MIXING,
    NUMBERS,
    PLAIN,
    WEIGHT,
    CascadeGraph,
    numbered,
)
from .onnx_sessions import ExitSession, Sessions
from .torch_engine import TorchEngine, as_tensors

FLOAT32 = "float32"
# Of what an exit's graph returns, after its logits.
SCORE_AT = 1
NOTHING: tuple[np.ndarray, ...] = ()


class OfPoint(NamedTuple):
    """What graphs of exits are given beside samples, and what routing reads, at an operating point."""

    # Of each exit the weights of its gate and its mixing weights, by name.
    constants: list[dict[str, np.ndarray]]
    rounding_margins: list[float]  # largest rounding error of each gate's score
    exit_mass: ExitMass
    plain_last_exit: bool
    stages: Sequence[Any]  # of which some are no part of a graph

    @classmethod
    def of(cls, network: EarlyExitNetwork, graph: CascadeGraph) -> "OfPoint":
        gates, heads, constants = network.gates.per_exit_gates(), network.heads, []
        for i in range(graph.n_exits):
            weights: dict[str, Any] = {}
            if i < len(gates):
                weights = {WEIGHT: gates[i].weight.numpy(), BIAS: gates[i].bias.numpy()}
            if i:
                weights[MIXING] = heads.mixing_weights[i]
            if any(graph.starts[1 : i + 1]):
                weights[MEMBER_MIXING] = heads.member_mixing_weights[i]
            constants.append(
                {numbered(name, i): np.array(w, dtype=np.float32) for name, w in weights.items()}
            )
        return cls(
            constants=constants,
            rounding_margins=[float(gate.rounding_margin) for gate in gates],
            exit_mass=network.exit_mass,
            plain_last_exit=network.plain_last_exit,
            stages=network.stages,
        )


class OnnxNetwork:
    """The exits of a network in ONNX Runtime, as :func:`_exits.routing.route` runs them.

    Parameters
    ----------
    graph : CascadeGraph
    sessions : list of ExitSession
    point : OfPoint
    """

    lossy = False

    def __init__(
        self, graph: CascadeGraph, sessions: Sequence[ExitSession], point: OfPoint
    ) -> None:
        self.graph, self.sessions, self.point = graph, sessions, point

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
        with usual_defaults():
            logits: np.ndarray = self.point.stages[exit_index](*as_tensors(tuple(taken))).numpy()
        return logits

    def every_exit(self, inputs: Sequence[np.ndarray]) -> tuple[list[np.ndarray], np.ndarray]:
        """Logits of every exit, which no sample leaves, and of the plain backbone.

        Where an exit has no answer for a sample (NaN), later exits read uniform probabilities instead.
        """
        taken, passed_on, logits = inputs, NOTHING, []
        for i in range(self.graph.n_exits - 1):
            outputs = self._run(i, passed_on, taken)
            logits.append(outputs[0])
            passed_on, carried = self._onward(i, outputs, passed_on, taken)
            passed_on = self._without_gaps(i, passed_on)
            taken = inputs if carried is None else carried
        last = self.graph.n_exits - 1
        feeds = self._feeds(last, passed_on, taken)
        of_last, plain = self.sessions[last].run([numbered(LOGITS, last), PLAIN], feeds)
        return [*logits, of_last], plain

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


def _has_negative(arrays: Arrays) -> bool:
    """Whether there are whole numbers below 0: ONNX counts such an index from the end, where torch refuses it."""
    return any(array.dtype.kind == "i" and array.size and array.min() < 0 for array in arrays)


def _chosen(
    sources: Sequence[tuple[bool, int]],
    outputs: Sequence[np.ndarray],
    before: Sequence[np.ndarray],
) -> tuple[np.ndarray, ...]:
    return tuple(outputs[k] if is_new else before[k] for is_new, k in sources)


@dataclass(frozen=True, kw_only=True)
class OnnxEngine:
    """Run a network in ONNX Runtime (see :class:`~sklearn_jeidnn._operate.cascade.Engine`).

    Parameters
    ----------
    in_torch : TorchEngine
        The same network in torch, whose gates and mixing weights are taken.
    sessions : Sessions
        Of its graph.
    precision : {"float32", "int8"}
        What the graph computes in. The plain backbone is that of torch where it is less than float32, since limits
        are against it.
    """

    in_torch: TorchEngine
    sessions: Sessions
    precision: str = FLOAT32

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @property
    def network(self) -> EarlyExitNetwork:
        return self.in_torch.network

    @property
    def module(self) -> nn.Module:
        return self.in_torch.module

    @property
    def device(self) -> str | torch.device:
        return self.in_torch.device

    @property
    def batch_size(self) -> int:
        return self.in_torch.batch_size

    @property
    def gates(self) -> GatePoints:
        return self.in_torch.gates

    def at(self, point: OperatingPoint) -> "OnnxEngine":
        """Return an engine for the same network at an operating point."""
        return replace(self, in_torch=self.in_torch.at(point))

    def with_network(self, network: EarlyExitNetwork) -> "OnnxEngine":
        return replace(self, in_torch=self.in_torch.with_network(network))

    def with_batch_size(self, batch_size: int | None) -> "OnnxEngine":
        return replace(self, in_torch=self.in_torch.with_batch_size(batch_size))

    @property
    def exits(self) -> OnnxNetwork:
        """The exits at the operating point."""
        return OnnxNetwork(self.sessions.graph, self.sessions.of_exits(), self._of_point)

    @cached_property
    def _of_point(self) -> OfPoint:
        return OfPoint.of(self.network, self.sessions.graph)

    def route(self, arrays: Arrays, exits: torch.Tensor | None = None) -> RoutedArrays:
        """Run samples stage by stage, without those that left.

        For timing, ``exits`` sets the exit of each sample.
        """
        if _has_negative(arrays):
            return self.in_torch.route(arrays, exits)
        in_onnx = self.exits
        if len(arrays[0]) == 1 and self._of_point.exit_mass is sequential_mass:
            logits, exit_index = in_onnx.route_one(arrays, None if exits is None else int(exits[0]))
            routed = RoutedArrays(logits=logits, exit_index=np.array([exit_index]))
        else:
            forced = None if exits is None else exits.numpy()
            routed = RoutedArrays(*route(in_onnx, arrays, self.batch_size, forced))
        return self._with_plain_last_exit(routed, arrays)

    def _with_plain_last_exit(self, routed: RoutedArrays, arrays: Arrays) -> RoutedArrays:
        """The same, with the plain backbone's own answers at the last exit where the point asks for them."""
        if self.precision == FLOAT32 or not self._of_point.plain_last_exit:
            return routed
        rows = np.flatnonzero(routed.exit_index == self.sessions.graph.n_exits - 1)
        if len(rows):
            logits = self.backbone_logits(tuple(array[rows] for array in arrays))
            routed.logits[rows] = logits
        return routed

    def answer(self, arrays: Arrays) -> AnsweredArrays:
        """Return the answers of every exit, and of the plain backbone."""
        if _has_negative(arrays):
            return self.in_torch.answer(arrays)
        exits = self.exits
        batches = [exits.every_exit(batch) for batch in self._batches(arrays)]
        of_exits, plain = zip(*batches, strict=True)
        if self.precision != FLOAT32:
            plain = (self.in_torch.backbone_logits(arrays),)
        logits = np.stack([np.concatenate(parts) for parts in zip(*of_exits, strict=True)], 1)
        with usual_defaults(), torch.no_grad():
            gate_inputs = all_gate_inputs(torch.from_numpy(logits)).numpy()
        return AnsweredArrays(
            logits=with_gaps(logits),
            backbone_logits=with_gaps(np.concatenate(plain)),
            gate_inputs=gate_inputs,
        )

    def backbone_logits(self, arrays: Arrays) -> np.ndarray:
        """Logits of the plain backbone, in float32 (n_samples, n_classes)."""
        if self.precision != FLOAT32:
            return self.in_torch.backbone_logits(arrays)
        return self.whole_logits(arrays)

    def whole_logits(self, arrays: Arrays) -> np.ndarray:
        """Logits of the plain backbone in the engine's precision (n_samples, n_classes)."""
        if _has_negative(arrays):
            return self.in_torch.backbone_logits(arrays)
        if self.sessions.graph.is_given[-1]:
            exits, last = self.exits, self.sessions.graph.n_exits - 1
            return np.concatenate([exits.answers(last, batch) for batch in self._batches(arrays)])
        run, names = self.sessions.of_plain()
        parts = []
        for batch in self._batches(arrays):
            feeds = {numbered(INPUT, k): array for k, array in enumerate(batch)}
            own = {name: array for name, array in feeds.items() if name in names}
            parts += run([PLAIN], own)
        return np.concatenate(parts)

    def _batches(self, arrays: Arrays) -> Iterator[tuple[np.ndarray, ...]]:
        n_samples = len(arrays[0])
        for start in range(0, max(1, n_samples), self.batch_size):
            yield tuple(array[start : start + self.batch_size] for array in arrays)
