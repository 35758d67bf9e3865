"""Run the stages of a cascade in torch."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from .._exits.batch_size import as_batch_size
from .._exits.gate_points import GatePoints
from .._exits.gates import all_gate_inputs
from .._exits.network import EarlyExitNetwork
from .._exits.usual_torch import usual_defaults, usual_torch
from .._operate.cascade import AnsweredArrays, RoutedArrays
from .._operate.exit_answers import with_gaps
from .._operate.operating_point import OperatingPoint
from .._schema import Arrays


@dataclass(frozen=True, kw_only=True)
class TorchEngine:
    """Run a network in torch (see :class:`~sklearn_jeidnn._operate.cascade.Engine`).

    Parameters
    ----------
    network : EarlyExitNetwork
    module : nn.Module
        The plain backbone, as the user gave it, trained.
    device : str or torch.device
        Where the network is.
    fixed_batch_size : int or None, default=None
        Batch size. None takes the size that runs fastest, -1 all samples.
    """

    network: EarlyExitNetwork
    module: nn.Module
    device: str | torch.device
    fixed_batch_size: int | None = None

    @property
    def batch_size(self) -> int:
        return as_batch_size(self.fixed_batch_size, self.network.rows_at_once)

    @property
    def precision(self) -> str:
        """What the network computes in."""
        return self.network.precision

    @property
    def gates(self) -> GatePoints:
        return self.network.gates.point()

    def at(self, point: OperatingPoint) -> "TorchEngine":
        """Return an engine for the same network at an operating point."""
        with usual_torch():
            network = self.network.with_gates(point.gates, plain_last_exit=point.plain_last_exit)
            return replace(self, network=network)

    def with_network(self, network: EarlyExitNetwork) -> "TorchEngine":
        return replace(self, network=network)

    def with_batch_size(self, batch_size: int | None) -> "TorchEngine":
        return replace(self, fixed_batch_size=batch_size)

    def route(self, arrays: Arrays, exits: torch.Tensor | None = None) -> RoutedArrays:
        """Run samples stage by stage, without those that left.

        For timing, ``exits`` sets the exit of each sample.
        """
        exits = None if exits is None else exits.to(self.device)
        with usual_defaults():
            tensors = (tensor.to(self.device) for tensor in as_tensors(arrays))
            routed = self.network.route(*tensors, rows_at_once=self.batch_size, exits=exits)
        return RoutedArrays(
            logits=routed.logits.cpu().numpy(), exit_index=routed.exit_index.cpu().numpy()
        )

    def answer(self, arrays: Arrays) -> AnsweredArrays:
        """Return the answers of every exit, and of the plain backbone."""
        with usual_defaults(), self.network.inference():
            batches = [self._answer_batch(batch) for batch in self._batches(arrays)]
            logits, backbone_logits = (torch.cat(parts) for parts in zip(*batches, strict=True))
            gate_inputs = all_gate_inputs(logits)
        return AnsweredArrays(
            logits=with_gaps(logits.cpu().numpy()),
            backbone_logits=with_gaps(backbone_logits.cpu().numpy()),
            gate_inputs=gate_inputs.cpu().numpy(),
        )

    def _answer_batch(self, batch: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.network.exit_features(*batch)
        # What the last exit reads are the logits of the plain backbone.
        return self.network.heads(features), features[-1]

    def backbone_logits(self, arrays: Arrays) -> np.ndarray:
        """Logits of the plain backbone (n_samples, n_classes)."""
        with usual_defaults():
            logits = [self.network.plain(*batch).float() for batch in self._batches(arrays)]
        return torch.cat(logits).cpu().numpy()

    def whole_logits(self, arrays: Arrays) -> np.ndarray:
        """The same; an engine that computes in less names it so."""
        return self.backbone_logits(arrays)

    def _batches(self, arrays: Arrays) -> Iterator[tuple[torch.Tensor, ...]]:
        """Batches of tensors, on the device."""
        columns = [torch.split(tensor, self.batch_size) for tensor in as_tensors(arrays)]
        for batch in zip(*columns, strict=True):
            yield tuple(tensor.to(self.device) for tensor in batch)


def as_tensors(arrays: Arrays) -> tuple[torch.Tensor, ...]:
    """Arrays as tensors on the CPU, which share their memory if torch can."""
    # torch warns of arrays that it may not write to, and takes no negative strides.
    return tuple(torch.as_tensor(np.require(array, requirements=["C", "W"])) for array in arrays)
