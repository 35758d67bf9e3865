"""One exit in torch: a stage, its head and its gate."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch

from .exit_heads import ExitOutput, PreviousExit
from .gate_points import is_borderline, rounding_of
from .gates import Gate, Summary, summarise
from .policy import ExitMass, decide
from .routing import ActiveBatch, ExitStep


class PassedOn(NamedTuple):
    """What the next exit needs of an exit, for each sample."""

    head_log_probs: torch.Tensor  # (n, n_classes), see PreviousExit
    previous_member_log_probs: torch.Tensor | None  # (n, n_classes), see PreviousExit
    summary: Summary

    def previous_exit(self) -> PreviousExit:
        """What the head of the next exit is given."""
        return PreviousExit(
            self.head_log_probs, self.summary.log_probs, self.previous_member_log_probs
        )


class Network(Protocol):
    """What an exit needs of an :class:`EarlyExitNetwork`."""

    stages: Any  # of Stage
    exit_mass: ExitMass

    def starts(self, exit_index: int) -> bool: ...

    def run_exit(
        self, exit_index: int, output: torch.Tensor, before: PreviousExit | None
    ) -> ExitOutput: ...


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
    passed_on: PassedOn | None = batch.passed_on
    before = None if passed_on is None else passed_on.previous_exit()
    output = network.run_exit(exit_index, stage.read(carried), before)
    borderline = batch.borderline
    if gate is None:
        if flag_borderline:
            borderline = borderline | has_tie(output.logits)
        # Not batch._replace: what torch.compile returned in torch 2.11 then had fields missing.
        left = ActiveBatch(batch.rows, batch.survival, borderline)
        return ExitStep(output.logits, left)
    summary = summarise(
        output.passed_on.log_probs, None if passed_on is None else passed_on.summary
    )
    score = gate.score(summary.inputs)
    leave, survival = decide(score, batch.survival, network.exit_mass)
    if flag_borderline:
        largest = output.logits.amax(1)
        borderline = borderline | is_borderline(
            score, summary.inputs, largest, gate.rounding_margin
        )
    active = ActiveBatch(
        rows=batch.rows,
        survival=survival,
        borderline=borderline,
        passed_on=PassedOn(
            head_log_probs=output.passed_on.head_log_probs,
            previous_member_log_probs=output.passed_on.previous_member_log_probs,
            summary=summary,
        ),
        carried=None if network.starts(exit_index + 1) else carried,
    )
    return ExitStep(output.logits, active, leave)


def has_tie(logits: torch.Tensor) -> torch.Tensor:
    """Whether rounding might change the label of each sample."""
    first, second = logits.topk(2, dim=1).values.unbind(1)
    near: torch.Tensor = first - second < rounding_of(first)
    return near
