"""All exits of a network as one ONNX graph."""

import contextlib
import io
import logging
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from .._cut import Stage, has_length
from .._exits.exit_heads import PreviousExit
from .._exits.gates import Summary
from .._exits.network import EarlyExitNetwork
from .onnx_gates import summarise_briefly
from .onnx_graphs import (
    ANSWER,
    BIAS,
    CARRIED,
    GATE_INPUTS,
    HEAD,
    INPUT,
    LABEL,
    LOG_PROBS,
    LOGITS,
    MEMBER_MIXING,
    MIXING,
    OPSET,
    PLAIN,
    SCORE,
    WEIGHT,
    CascadeGraph,
    numbered,
)


class _AllExits(nn.Module):
    """Every exit of a network, with everything that :class:`CascadeGraph` names."""

    def __init__(self, network: EarlyExitNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: Any, answers: Any, gates: Any, mixing: Any) -> list[torch.Tensor]:
        return list(self.outputs(inputs, answers, gates, mixing).values())

    def outputs(
        self,
        inputs: Sequence[torch.Tensor],
        answers: Sequence[torch.Tensor],
        gates: Sequence[Sequence[torch.Tensor]],
        mixing: Sequence[Sequence[torch.Tensor]],
    ) -> dict[str, torch.Tensor]:
        network, heads = self.network, self.network.heads
        outputs: dict[str, torch.Tensor] = {}
        given = iter(answers)
        carried: Any = inputs
        before: PreviousExit | None = None
        summary: Summary | None = None
        for i, stage in enumerate(network.stages):
            taken = inputs if network.starts(i) else carried
            carried = stage(*taken) if _is_graph(stage) else next(given)
            feature = heads.pool(i, stage.read(carried))
            output = heads.alone(i, feature, before)
            if before is not None:
                weight, of_member = mixing[i]
                has_member = before.previous_member_log_probs is not None
                output = output.combined(before, weight, of_member if has_member else 0.0)
            before = heads.passed_on(i, output, before)
            outputs[numbered(LOGITS, i)] = output.logits
            if i == network.n_exits - 1:
                outputs[PLAIN] = feature.float()
                break
            summary = summarise_briefly(before.log_probs, summary)
            weight, bias = gates[i]
            outputs |= _of_exit(i, before, summary)
            outputs[numbered(SCORE, i)] = torch.addmv(bias, summary.inputs, weight)
            if not network.starts(i + 1):
                outputs |= {numbered(CARRIED, i, k): tensor for k, tensor in enumerate(carried)}
        return outputs


def _of_exit(i: int, before: PreviousExit, summary: Summary) -> dict[str, torch.Tensor]:
    """What later exits may need of an exit, by name."""
    return {
        numbered(HEAD, i): before.head_log_probs,
        numbered(LOG_PROBS, i): summary.log_probs,
        numbered(LABEL, i): summary.label,
        numbered(GATE_INPUTS, i): summary.inputs,
    }


def _is_graph(stage: Stage) -> bool:
    """Whether a stage is a torch graph, not a classifier that answers in Python."""
    return stage.evaluating is not None


def export_exits(
    network: EarlyExitNetwork,
    samples: Sequence[torch.Tensor],
    n_classes: int,
    length: int | None = None,
    classifiers: Sequence[bytes | None] = (),
) -> CascadeGraph:
    """Write all exits of a network into one ONNX graph.

    Parameters
    ----------
    network : EarlyExitNetwork
        For inference, on the CPU.
    samples : sequence of tensor (n_samples, ...)
        A few samples, at least two; their values do not matter.
    n_classes : int
    length : int, default=None
        Length of the sentences among the samples, where the graph shall take other lengths, too.
    classifiers : sequence of (bytes or None), default=()
        As in :class:`CascadeGraph`; by default there are none.

    Raises
    ------
    Exception
        Whatever torch raises if it cannot export an operation.
    """
    n_samples, n_exits = len(samples[0]), network.n_exits
    is_given = tuple(not _is_graph(stage) for stage in network.stages)
    n_inputs = network.gates.weight.shape[1]
    arguments: dict[str, Any] = {
        INPUT: tuple(samples),
        ANSWER: tuple(torch.zeros(n_samples, n_classes) for given in is_given if given),
        WEIGHT: tuple((torch.zeros(n_inputs), torch.zeros(())) for _ in range(n_exits - 1)),
        MIXING: tuple((torch.zeros(()), torch.zeros(())) for _ in range(n_exits)),
    }
    varies = torch.export.Dim.DYNAMIC
    dynamic = (
        tuple({0: varies, 1: varies} if has_length(t, length) else {0: varies} for t in samples),
        tuple({0: varies} for _ in arguments[ANSWER]),
        tuple((None, None) for _ in arguments[WEIGHT]),
        tuple((None, None) for _ in arguments[MIXING]),
    )
    given = [i for i in range(n_exits) if is_given[i]]
    input_names = [
        *(numbered(INPUT, k) for k in range(len(samples))),
        *(numbered(ANSWER, i) for i in given),
        *(numbered(name, i) for i in range(n_exits - 1) for name in (WEIGHT, BIAS)),
        *(numbered(name, i) for i in range(n_exits) for name in (MIXING, MEMBER_MIXING)),
    ]
    module = _AllExits(network).eval()
    with torch.no_grad():
        output_names = list(module.outputs(*arguments.values()))
    with _quietly(), torch.no_grad():
        program: Any = torch.onnx.export(
            module,
            tuple(arguments.values()),
            dynamo=True,
            dynamic_shapes=dynamic,
            input_names=input_names,
            output_names=output_names,
            opset_version=OPSET,
            verbose=False,
        )
    model = program.model_proto
    if length is not None:
        _forget_sizes(model)
    row_axes = tuple(stage.info.row_axes or () for stage in network.stages)
    return CascadeGraph(
        model=model.SerializeToString(),
        n_inputs=len(samples),
        n_exits=n_exits,
        starts=tuple(network.starts(i) for i in range(n_exits)),
        is_given=is_given,
        classifiers=tuple(classifiers) or (None,) * n_exits,
        row_axes=row_axes,
        carried_names=tuple(
            tuple(numbered(CARRIED, i, k) for k in range(len(axes)))
            for i, axes in enumerate(row_axes)
        ),
    )


def _forget_sizes(model: Any) -> None:
    """Leave open how large the tensors are that cross cuts: of recurrent layers torch writes the length as a number."""
    for value in model.graph.output:
        if value.name.startswith(CARRIED):
            for size in value.type.tensor_type.shape.dim:
                size.Clear()


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keep torch from telling how it exports, and which packages it does without; what fails is raised."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(_OfOtherThreads(sys.stdout)),
            contextlib.redirect_stderr(_OfOtherThreads(sys.stderr)),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


class _OfOtherThreads(io.TextIOBase):
    """A stream that loses what this thread prints."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.thread = threading.get_ident()

    def write(self, text: str) -> int:
        if threading.get_ident() != self.thread:
            self.stream.write(text)
        return len(text)
