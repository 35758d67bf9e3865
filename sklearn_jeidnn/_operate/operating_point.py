"""An operating point: the gates that let samples leave, and what was certified about them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .._exits.gate_points import GatePoints


class RiskControl(NamedTuple):
    """What was certified about the risk of samples like those that were tested."""

    risk: str  # "accuracy_drop", "disagreement" or "mean_cost"
    limit: float  # largest mean of the risk
    confidence: float  # probability with which the limit holds
    n_samples: int  # tested
    estimate: float  # mean of the risk on those samples
    p_value: float  # of the point taken; NaN if no point passed
    certified: bool  # False: no point passed, and the point taken needs no test


@dataclass(frozen=True, kw_only=True)
class OperatingPoint:
    """A point of a frontier.

    Parameters
    ----------
    cost_weight : float
        NaN if a budget chose the one threshold of a policy.
    gates : GatePoints
        Of one point.
    exit_policy : str
        What the gates are: "learned", or a name in ``THRESHOLD_POLICIES``.
    plain_last_exit : bool, default=False
        Whether samples that reach the last exit get the plain backbone's answer, which is not combined with
        those of earlier exits.
    risk : RiskControl or None, default=None
        What was certified, if anything.
    """

    cost_weight: float
    gates: GatePoints
    exit_policy: str
    plain_last_exit: bool = False
    risk: RiskControl | None = None


def check_one_target(asked: Mapping[str, float | None]) -> None:
    """Refuse to move to none, or to several, of the operating points that are asked for by name."""
    if sum(value is not None for value in asked.values()) != 1:
        raise ValueError(f"at() takes one of {', '.join(asked)}; got {asked}.")


def check_joint(what: Any, gate_training: str) -> None:
    """Refuse what bilevel gates, which are of one operating point, do not do."""
    if gate_training != "joint":
        raise ValueError(f"{what} needs gate_training='joint'; got {gate_training!r}.")


def budget_of(
    budget: float | None, seconds_per_sample: float | None, plain_seconds: float | None
) -> float | None:
    """The budget, or what seconds are in passes of the plain backbone, each of which takes ``plain_seconds``."""
    if seconds_per_sample is None or plain_seconds is None:
        return budget
    return seconds_per_sample / plain_seconds


def check_limit(
    budget: float | None,
    seconds_per_sample: float | None,
    least_cost: float,
    plain_seconds: float | None,
    why: str = "",
) -> None:
    """Refuse a budget, or seconds if they are given, below what the first exit takes.

    ``why`` says how that was found.
    """
    if seconds_per_sample is None:
        check_budget(budget, [least_cost], why)
        return
    if plain_seconds is None:
        raise ValueError(
            f"seconds_per_sample={seconds_per_sample!r} needs exits that were timed; fit with cost='seconds', or give "
            f"it to the classifier's at(), which times them."
        )
    least = least_cost * plain_seconds
    if not seconds_per_sample >= least:
        raise ValueError(
            f"seconds_per_sample={seconds_per_sample!r} is less than a sample takes up to the first exit, {least:.3g} "
            f"seconds{why}; give more, an earlier exit, a cheaper companion in front, or a faster engine."
        )


def check_budget(
    budget: float | None, exit_costs: Sequence[float] | np.ndarray, why: str = ""
) -> None:
    """Refuse a budget below the cost of the first exit; ``why`` says how that cost was found."""
    if budget is not None and not budget >= exit_costs[0]:
        raise ValueError(
            f"budget={budget!r} is less than the first exit costs, {exit_costs[0]:.3g}{why}; give more, "
            f"an earlier exit, or a cheaper companion in front."
        )
