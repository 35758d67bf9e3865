"""Run the exits of a cascade in ONNX Runtime, beside the same network in torch."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import nn

from .._exits.gate_points import GatePoints
from .._exits.gates import all_gate_inputs
from .._exits.network import EarlyExitNetwork
from .._exits.usual_torch import usual_defaults
from .._operate.cascade import AnsweredArrays, RoutedArrays
from .._operate.exit_answers import with_gaps
from .._operate.operating_point import OperatingPoint
from .._schema import Arrays
from .onnx_exits import MixingWeights, OnnxNetwork, has_negative
from .onnx_runner import FLOAT32, OnnxRunner
from .onnx_sessions import Sessions
from .torch_engine import TorchEngine, as_tensors


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

    @cached_property
    def runner(self) -> OnnxRunner:
        """What runs the graph at the operating point."""
        network = self.network
        return OnnxRunner(
            sessions=self.sessions,
            gates=self.gates,
            mixing=MixingWeights(network.heads.mixing_weights, network.heads.member_mixing_weights),
            exit_mass=network.exit_mass,
            plain_last_exit=network.plain_last_exit,
            widest=network.widest,
            precision=self.precision,
            fixed_batch_size=self.in_torch.fixed_batch_size,
            classifier_logits=self._classifier_logits,
            backbone=None if self.precision == FLOAT32 else self.in_torch.backbone_logits,
        )

    @property
    def exits(self) -> OnnxNetwork:
        """The exits at the operating point."""
        return self.runner.exits

    def _classifier_logits(self, exit_index: int, taken: Sequence[np.ndarray]) -> np.ndarray:
        """Logits of a stage that is a classifier without a graph (n_samples, n_classes)."""
        with usual_defaults():
            tensors = as_tensors(tuple(taken))
            logits: np.ndarray = self.network.stages[exit_index](*tensors).numpy()
        return logits

    def route(self, arrays: Arrays, exits: torch.Tensor | None = None) -> RoutedArrays:
        """Run samples stage by stage, without those that left.

        For timing, ``exits`` sets the exit of each sample.
        """
        if has_negative(arrays):
            return self.in_torch.route(arrays, exits)
        return self.runner.route(arrays, None if exits is None else exits.numpy())

    def answer(self, arrays: Arrays) -> AnsweredArrays:
        """Return the answers of every exit, and of the plain backbone."""
        if has_negative(arrays):
            return self.in_torch.answer(arrays)
        logits, _, plain = self.runner.answers_of_exits(arrays)
        if self.precision != FLOAT32:
            plain = self.in_torch.backbone_logits(arrays)
        with usual_defaults(), torch.no_grad():
            gate_inputs = all_gate_inputs(torch.from_numpy(logits)).numpy()
        return AnsweredArrays(
            logits=with_gaps(logits), backbone_logits=with_gaps(plain), gate_inputs=gate_inputs
        )

    def backbone_logits(self, arrays: Arrays) -> np.ndarray:
        """Logits of the plain backbone, in float32 (n_samples, n_classes)."""
        if self.precision != FLOAT32 or has_negative(arrays):
            return self.in_torch.backbone_logits(arrays)
        return self.runner.whole_logits(arrays)

    def whole_logits(self, arrays: Arrays) -> np.ndarray:
        """Logits of the plain backbone in the engine's precision (n_samples, n_classes)."""
        if has_negative(arrays):
            return self.in_torch.backbone_logits(arrays)
        return self.runner.whole_logits(arrays)
