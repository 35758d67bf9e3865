"""The heads of all exits, and how their logits are combined with those of earlier exits."""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from numpy.typing import ArrayLike
from torch import nn

from .gates import log_probabilities
from .heads import Head


class PreviousExit(NamedTuple):
    """Log-probabilities (n_samples, n_classes) that an exit is given of the exits before it."""

    head_log_probs: torch.Tensor  # of the previous exit's head alone
    log_probs: torch.Tensor  # of the previous exit
    previous_member_log_probs: torch.Tensor | None = None  # of the previous member's last exit

    def without_gaps(self) -> "PreviousExit":
        """The same, uniform where an exit had no answer (NaN), so that the next exit can have one."""
        uniform = -math.log(self.log_probs.shape[1])
        of_member = self.previous_member_log_probs
        return PreviousExit(
            self.head_log_probs.nan_to_num(uniform),
            self.log_probs.nan_to_num(uniform),
            None if of_member is None else of_member.nan_to_num(uniform),
        )


class ExitOutput(NamedTuple):
    """What an exit returns for some samples."""

    head_logits: torch.Tensor  # (n_samples, n_classes), of its head alone
    logits: torch.Tensor  # (n_samples, n_classes), combined with those of earlier exits
    passed_on: PreviousExit  # what the next exit is given

    @classmethod
    def of_head(cls, head_logits: torch.Tensor) -> "ExitOutput":
        """Output of a head alone, not combined with the previous exit."""
        log_probs = log_probabilities(head_logits)
        return cls(head_logits, head_logits, PreviousExit(log_probs, log_probs))

    def combined(
        self,
        before: PreviousExit,
        mixing_weight: float | torch.Tensor,
        member_mixing_weight: float | torch.Tensor,
    ) -> "ExitOutput":
        """Add the weighted log-probabilities of the previous exit and of the previous member.

        There need be no previous member where its weight is the number 0.
        """
        logits = self.head_logits + mixing_weight * before.log_probs
        if isinstance(member_mixing_weight, torch.Tensor) or member_mixing_weight:
            assert before.previous_member_log_probs is not None
            logits = logits + member_mixing_weight * before.previous_member_log_probs
        passed_on = self.passed_on._replace(log_probs=log_probabilities(logits))
        return ExitOutput(self.head_logits, logits, passed_on)


class PassThroughHead(nn.Module):
    """Head at the end of a member, whose stage returns logits already.

    Parameters
    ----------
    logit_order : list of int (n_classes,), default=None
        For each class, the column of the stage's logits that is its. None: they stand in the same order.
    """

    logit_order: torch.Tensor | None

    def __init__(self, logit_order: list[int] | None = None) -> None:
        super().__init__()
        order = None if logit_order is None else torch.tensor(logit_order)
        self.register_buffer("logit_order", order)

    def pool(self, output: torch.Tensor) -> torch.Tensor:
        return output if self.logit_order is None else output[:, self.logit_order]

    def forward(self, feature: torch.Tensor, previous: torch.Tensor | None) -> torch.Tensor:
        return feature


class ExitHeads(nn.Module):
    """The heads of all exits, of one network or of several members one after the other.

    A head reads only the exits of its own member. To its logits an exit adds the log-probabilities
    of the previous exit, times ``mixing_weights``, and those of the previous member's last exit,
    times ``member_mixing_weights``: a log-linear pool of all exits so far. Both weights are part of
    the state dict.

    Parameters
    ----------
    heads : list of nn.Module
        One for each exit but the last: (feature, log-probabilities of the previous exit) -> logits.
    first_exits : tuple of int, default=(0,)
        First exit of each member.
    last : PassThroughHead, default=None
        Of the last exit. None: its logits stand in the order of the classes.
    """

    heads: Any  # nn.ModuleList of heads
    mixing_weights: list[float]
    member_mixing_weights: list[float]

    def __init__(
        self,
        heads: Iterable[nn.Module],
        first_exits: Iterable[int] = (0,),
        last: PassThroughHead | None = None,
    ) -> None:
        super().__init__()
        self.heads = nn.ModuleList(heads)
        self.last = PassThroughHead() if last is None else last
        self.first_exits = tuple(first_exits)
        self.mix(0.0, 0.0)

    def mix(
        self,
        mixing_weights: ArrayLike | torch.Tensor,
        member_mixing_weights: ArrayLike | torch.Tensor,
    ) -> None:
        """Set the mixing weights of all exits: one weight for each exit, or one number for all."""
        n_exits = len(self.heads) + 1
        # Python numbers: a comparison of tensors takes microseconds in every prediction.
        self.mixing_weights = torch.as_tensor(mixing_weights).expand(n_exits).tolist()
        self.member_mixing_weights = torch.as_tensor(member_mixing_weights).expand(n_exits).tolist()

    def get_extra_state(self) -> torch.Tensor:
        return torch.tensor([self.mixing_weights, self.member_mixing_weights], dtype=torch.float64)

    def set_extra_state(self, state: torch.Tensor) -> None:
        self.mix(*state)

    @property
    def reads_member(self) -> bool:
        """Whether any exit adds the log-probabilities of the previous member."""
        return any(self.member_mixing_weights)

    def _head(self, exit_index: int) -> Head | PassThroughHead:
        head: Head | PassThroughHead = self.last
        if exit_index != len(self.heads):
            head = self.heads[exit_index]
        return head

    def pool(self, exit_index: int, output: torch.Tensor) -> torch.Tensor:
        """Stage output -> exit feature, ``(n_samples, d)``."""
        return self._head(exit_index).pool(output)

    def alone(
        self, exit_index: int, feature: torch.Tensor, before: PreviousExit | None
    ) -> ExitOutput:
        """Output of one exit's head, not combined; parameters as in :meth:`one`."""
        previous = None
        if before is not None and exit_index not in self.first_exits:
            previous = before.head_log_probs
        return ExitOutput.of_head(self._head(exit_index)(feature, previous).float())

    def one(
        self, exit_index: int, feature: torch.Tensor, before: PreviousExit | None
    ) -> ExitOutput:
        """Output of one exit.

        Parameters
        ----------
        exit_index : int
        feature : tensor (n_samples, d)
        before : PreviousExit or None
            None at the first exit.
        """
        output = self.alone(exit_index, feature, before)
        weight, of_member = self.mixing_weights[exit_index], self.member_mixing_weights[exit_index]
        if weight or of_member:
            assert before is not None
            output = output.combined(before, weight, of_member)
        if self.reads_member:
            output = output._replace(passed_on=self.passed_on(exit_index, output, before))
        return output

    def passed_on(
        self, exit_index: int, output: ExitOutput, before: PreviousExit | None
    ) -> PreviousExit:
        """What the next exit is given, with that of the previous member's last exit."""
        if exit_index + 1 in self.first_exits:
            of_member: torch.Tensor | None = output.passed_on.log_probs
        else:
            of_member = None if before is None else before.previous_member_log_probs
        return output.passed_on._replace(previous_member_log_probs=of_member)

    def fold(self) -> "ExitHeads":
        """Make the heads as fast as possible, once nothing is learned any more, and return them."""
        for head in self.heads:
            if hasattr(head, "fold"):
                head.fold()
        return self

    def forward(self, features: Iterable[torch.Tensor]) -> torch.Tensor:
        """Exit features (n_samples, d) of each exit -> logits (n_samples, n_exits, n_classes).

        The feature at a member's end is its logits. Where an exit has no answer for a sample (NaN), later
        exits read uniform probabilities instead.
        """
        before, logits = None, []
        for exit_index, feature in enumerate(features):
            output = self.one(exit_index, feature, before)
            before = output.passed_on.without_gaps()
            logits.append(output.logits)
        return torch.stack(logits, dim=1)
