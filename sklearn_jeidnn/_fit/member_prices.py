"""What members cost: as a user says, or as the clock says where one of them counts no multiply-adds.

A call of a classifier takes some time however few its samples are, of 300 trees 22 milliseconds. Some of many samples
nearly always go on to the last member, so the time of one such call is spent on every sample, and the rest on those
that go on. Costs are those of a few batches at once; samples that go on from all of them are answered together.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from .._cut import repeat_samples
from .._exits.network import EarlyExitNetwork
from .classifiers import ClassifierStage
from .prices import N_COUNTED_SAMPLES, TIMED_BATCHES, relative_seconds, shared_by_counts

# Most samples that are timed together, and into how many parts they are divided for a second call.
MOST_TOGETHER, N_PARTS = 2048, 8


def is_timed(stage: nn.Module) -> bool:
    """Whether a stage is a classifier that counts no multiply-adds."""
    return isinstance(stage, ClassifierStage) and stage.multiply_adds is None


class MemberTime(NamedTuple):
    """Run time of a call, relative to the last member's of as many samples."""

    fixed: float  # of any call
    of_samples: float  # of all its samples


def member_times(
    members: Sequence[Callable[..., Any]], samples: tuple[torch.Tensor, ...]
) -> list[MemberTime]:
    """Time each member on samples and on a part of them, all in turns.

    Parameters
    ----------
    members : list of callable
        Tensors (n_samples, ...) -> anything; the last is what times are relative to.
    samples : tuple of tensor (n_samples, ...)

    Returns
    -------
    list of MemberTime (n_members,)
    """
    n_samples = len(samples[0])
    part = tuple(tensor[: max(1, n_samples // N_PARTS)] for tensor in samples)
    *companions, last = members
    calls = [*(partial(member, *samples) for member in companions)]
    calls += [partial(member, *part) for member in members]
    times = relative_seconds(calls, partial(last, *samples))
    wholes = [*times[: len(companions)], 1.0]
    n_parts = n_samples / len(part[0])
    return [
        _fixed_and_rest(whole, of_part, n_parts)
        for whole, of_part in zip(wholes, times[len(companions) :], strict=True)
    ]


def _fixed_and_rest(whole: float, of_part: float, n_parts: float) -> MemberTime:
    """Split a run time by that of an n-th part of the samples."""
    if n_parts <= 1:
        return MemberTime(0.0, float(whole))
    fixed = float(np.clip((n_parts * of_part - whole) / (n_parts - 1), 0, whole))
    return MemberTime(fixed, float(whole) - fixed)


class MemberCost(NamedTuple):
    """Cost of a few batches, relative to what the last member alone takes for them."""

    of_all: float  # that are answered one batch after the other
    fixed: float  # of one call for all that go on, however few
    of_samples: float  # of the samples that go on, if all do

    @classmethod
    def of(cls, time: MemberTime, last: MemberTime, size: float) -> "MemberCost":
        """From times of a call; batches have ``size`` times as many samples as it."""
        unit = TIMED_BATCHES * (last.fixed + size * last.of_samples)
        of_samples = TIMED_BATCHES * size * time.of_samples
        return cls(
            of_all=(TIMED_BATCHES * time.fixed + of_samples) / unit,
            fixed=time.fixed / unit,
            of_samples=of_samples / unit,
        )


class MemberPrices:
    """What the stages of members cost, as far as that is told or timed.

    Parameters
    ----------
    last : callable
        The last member: tensors (n_samples, ...) -> logits.
    is_classifier : bool
        Whether that counts no multiply-adds; then every member is timed.
    given : list of (float or None), or None
        The user's costs of the members before it.
    first_samples : callable
        Number of samples -> tensors of so many training samples.
    """

    def __init__(
        self,
        last: Callable[..., Any],
        is_classifier: bool,
        given: Sequence[float | None] | None,
        first_samples: Callable[[int], tuple[torch.Tensor, ...]],
    ) -> None:
        self.last = last
        self.is_classifier = is_classifier
        self.given = given
        self.first_samples = first_samples
        self.cost_of_last = MemberCost(1.0, 0.0, 1.0)
        # With the member itself, so that no other one gets its id.
        self._costs: dict[int, tuple[EarlyExitNetwork, MemberCost]] = {}

    def of_stages(self, members: Sequence[EarlyExitNetwork]) -> list[float | None]:
        """Return the cost of each stage of all members; None if its multiply-adds are counted."""
        *companions, last = members
        given = self._given_for(companions)
        self._time(
            [m for m, cost in zip(companions, given, strict=True) if self._times_it(m, cost)]
        )
        costs: list[float | None] = []
        paid_by_all = 0.0
        for number, (member, cost) in enumerate(zip(companions, given, strict=True)):
            if not self._times_it(member, cost):
                costs += [*[None] * (len(member.stages) - 1), cost]
                continue
            measured = self._costs[id(member)][1]
            own = measured.of_all
            if self.is_classifier and number > 0:
                own = measured.of_samples
                paid_by_all += measured.fixed
            costs += shared_by_counts(member, self.first_samples(N_COUNTED_SAMPLES), own)
        if not self.is_classifier:
            return [*costs, *[None] * len(last.stages)]
        paid_by_all += self.cost_of_last.fixed
        costs = [*costs, self.cost_of_last.of_samples]
        return [(costs[0] or 0.0) + paid_by_all, *costs[1:]]

    def _times_it(self, member: EarlyExitNetwork, cost: float | None) -> bool:
        """Whether the run time of a companion is its cost: nothing is told, and it or the last is a classifier."""
        return cost is None and (self.is_classifier or is_timed(member.stages[-1]))

    def _given_for(self, companions: Sequence[EarlyExitNetwork]) -> list[float | None]:
        """Return the user's costs of companions, None where there is none."""
        unknown: list[float | None] = [None] * len(companions)
        costs = unknown if self.given is None else list(self.given)
        if len(costs) != len(companions):
            raise ValueError(
                f"companion_costs={self.given!r} must have one entry for each of the "
                f"{len(companions)} members in front of the backbone."
            )
        for companion, cost in zip(companions, costs, strict=True):
            if cost is not None and len(companion.stages) > 1:
                raise ValueError(
                    f"companion_costs={self.given!r} must hold None for a companion that has exits inside."
                )
        return costs

    def _time(self, companions: Sequence[EarlyExitNetwork]) -> None:
        """Measure the run times of companions and of the last member, of each companion once."""
        new = [companion for companion in companions if id(companion) not in self._costs]
        if not new:
            return
        batch_size = max(network.rows_at_once for network in new)
        n_samples = min(MOST_TOGETHER, batch_size)
        # Few training samples would not tell what a sample takes.
        samples = repeat_samples(self.first_samples(n_samples), n_samples)
        runs = [companion.for_inference().plain for companion in new]
        *times, last = member_times([*runs, self.last], samples)
        size = batch_size / n_samples
        for companion, time in zip(new, times, strict=True):
            self._costs[id(companion)] = (companion, MemberCost.of(time, last, size))
        self.cost_of_last = MemberCost.of(last, last, size)
