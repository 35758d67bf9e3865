"""Run a cascade in ONNX Runtime, without torch (NumPy only)."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np

from .._exits.batch_size import as_batch_size, rows_in_cache
from .._exits.gate_points import GatePoints
from .._exits.policy import ExitMass, sequential_mass
from .._exits.routing import route
from .._operate.cascade import AnsweredArrays, RoutedArrays
from .._operate.exit_answers import with_gaps
from .._operate.operating_point import OperatingPoint
from .._schema import Arrays
from .onnx_exits import ClassifierLogits, MixingWeights, OfPoint, OnnxNetwork, has_negative
from .onnx_graphs import INPUT, PLAIN, numbered
from .onnx_sessions import Sessions

FLOAT32 = "float32"


@dataclass(frozen=True, kw_only=True)
class OnnxRunner:
    """Run a cascade in ONNX Runtime (see :class:`~sklearn_jeidnn._operate.cascade.Engine`).

    Parameters
    ----------
    sessions : Sessions
    gates : GatePoints
        Of one point.
    mixing : MixingWeights
    exit_mass : callable
        A value of ``EXIT_DISTRIBUTIONS``.
    plain_last_exit : bool
        Whether samples that reach the last exit get the plain backbone's answer.
    widest : int
        Most numbers of a sample that enter a stage, or are its logits.
    precision : {"float32", "int8"}
        What the graphs compute in. The plain backbone is in float32, since limits are against it.
    fixed_batch_size : int or None, default=None
        Batch size. None takes the size that runs fastest, -1 all samples.
    classifier_logits : callable or None, default=None
        See :class:`OnnxNetwork`.
    backbone : callable or None, default=None
        Samples -> logits of the plain backbone, where they are no output of the last exit's graph.
    """

    sessions: Sessions
    gates: GatePoints
    mixing: MixingWeights
    exit_mass: ExitMass
    plain_last_exit: bool
    widest: int
    precision: str = FLOAT32
    fixed_batch_size: int | None = None
    classifier_logits: ClassifierLogits | None = None
    backbone: Callable[[Arrays], np.ndarray] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @property
    def network(self) -> None:
        """There is no torch network."""

    @property
    def module(self) -> None:
        """Nor the plain backbone as a torch module."""

    @property
    def device(self) -> str:
        return "cpu"

    @property
    def batch_size(self) -> int:
        return as_batch_size(
            self.fixed_batch_size,
            rows_in_cache(self.widest, self.sessions.n_threads or os.cpu_count() or 1),
        )

    def at(self, point: OperatingPoint) -> "OnnxRunner":
        """The same network at an operating point."""
        return replace(self, gates=point.gates, plain_last_exit=point.plain_last_exit)

    def with_network(self, network: Any) -> "OnnxRunner":
        raise NotImplementedError

    def with_batch_size(self, batch_size: int | None) -> "OnnxRunner":
        return replace(self, fixed_batch_size=batch_size)

    @property
    def exits(self) -> OnnxNetwork:
        """The exits at the operating point."""
        return OnnxNetwork(
            self.sessions.graph, self.sessions.of_exits(), self.of_point, self.classifier_logits
        )

    @cached_property
    def of_point(self) -> OfPoint:
        """What graphs are given, and what routing reads, at the operating point."""
        return OfPoint.of(
            self.sessions.graph,
            self.gates,
            self.mixing,
            self.exit_mass,
            self.plain_last_exit,
        )

    def route(self, arrays: Arrays, exits: Any = None) -> RoutedArrays:
        """Run samples stage by stage, without those that left.

        For timing, ``exits`` (n_samples,) sets the exit of each sample.
        """
        _refuse_negative(arrays)
        in_onnx = self.exits
        if len(arrays[0]) == 1 and self.exit_mass is sequential_mass:
            logits, exit_index = in_onnx.route_one(arrays, None if exits is None else int(exits[0]))
            routed = RoutedArrays(logits=logits, exit_index=np.array([exit_index]))
        else:
            routed = RoutedArrays(*route(in_onnx, arrays, self.batch_size, exits))
        return self._with_plain_last_exit(routed, arrays)

    def _with_plain_last_exit(self, routed: RoutedArrays, arrays: Arrays) -> RoutedArrays:
        """The same, with the plain backbone's own answers at the last exit where the point asks for them."""
        if self.precision == FLOAT32 or not self.plain_last_exit:
            return routed
        rows = np.flatnonzero(routed.exit_index == self.sessions.graph.n_exits - 1)
        if len(rows):
            logits = self.backbone_logits(tuple(array[rows] for array in arrays))
            routed.logits[rows] = logits
        return routed

    def answer(self, arrays: Arrays) -> AnsweredArrays:
        """Answers of every exit, and of the plain backbone."""
        _refuse_negative(arrays)
        logits, gate_inputs, plain = self.answers_of_exits(arrays)
        if self.precision != FLOAT32:
            plain = self.backbone_logits(arrays)
        return AnsweredArrays(
            logits=with_gaps(logits), backbone_logits=with_gaps(plain), gate_inputs=gate_inputs
        )

    def answers_of_exits(self, arrays: Arrays) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Logits of every exit (n_samples, n_exits, n_classes), gate inputs, and logits of the last member alone."""
        exits = self.exits
        batches = [exits.every_exit(batch) for batch in self.batches(arrays)]
        of_exits, inputs, plain = zip(*batches, strict=True)
        logits = np.stack([np.concatenate(parts) for parts in zip(*of_exits, strict=True)], 1)
        columns = [np.concatenate(parts) for parts in zip(*inputs, strict=True)]
        gate_inputs = np.stack(columns, 1) if columns else np.empty((len(logits), 0, 0), np.float32)
        return logits, gate_inputs, np.concatenate(plain)

    def backbone_logits(self, arrays: Arrays) -> np.ndarray:
        """Logits of the plain backbone, in float32 (n_samples, n_classes)."""
        if self.backbone is not None:
            return self.backbone(arrays)
        return self.whole_logits(arrays)

    def whole_logits(self, arrays: Arrays) -> np.ndarray:
        """Logits of the last member alone (n_samples, n_classes)."""
        _refuse_negative(arrays)
        if self.sessions.graph.is_given[-1]:
            exits, last = self.exits, self.sessions.graph.n_exits - 1
            return np.concatenate([exits.answers(last, batch) for batch in self.batches(arrays)])
        if not self.sessions.has_plain:
            return self.answers_of_exits(arrays)[2]
        run, names = self.sessions.of_plain()
        parts = []
        for batch in self.batches(arrays):
            feeds = {numbered(INPUT, k): array for k, array in enumerate(batch)}
            own = {name: array for name, array in feeds.items() if name in names}
            parts += run([PLAIN], own)
        return np.concatenate(parts)

    def batches(self, arrays: Arrays) -> Iterator[tuple[np.ndarray, ...]]:
        """Samples, as many at once as are run at once."""
        n_samples = len(arrays[0])
        for start in range(0, max(1, n_samples), self.batch_size):
            yield tuple(array[start : start + self.batch_size] for array in arrays)


def _refuse_negative(arrays: Arrays) -> None:
    """Refuse what torch refuses: ONNX counts an index below 0 from the end."""
    if has_negative(arrays):
        raise IndexError("index out of range: it is below 0")
