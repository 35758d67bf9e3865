"""Certification of operating points: which keep to a limit, as samples that chose nothing show."""

from dataclasses import replace

import numpy as np

from .._numbers import check_number, check_probability
from .._warn import warn_caller
from . import risk as p_values
from .exit_answers import ExitAnswers
from .frontier import Frontier
from .operating_point import OperatingPoint, RiskControl

ACCURACY_DROP, DISAGREEMENT, MEAN_COST = "accuracy_drop", "disagreement", "mean_cost"


def certify(
    frontier: Frontier, answers: ExitAnswers, *, risk: str, limit: float, confidence: float
) -> OperatingPoint:
    """Find the last of a frontier's candidates that samples in random order show to keep to a limit.

    Parameters
    ----------
    frontier : Frontier
    answers : ExitAnswers
        Of samples in random order that trained and chose nothing.
    risk : {"accuracy_drop", "disagreement", "mean_cost"}
    limit, confidence : float

    Returns
    -------
    OperatingPoint
        Its ``risk`` holds what was certified. If no point passes, a warning says so, and the point
        gives every sample the plain backbone's answer (for "mean_cost", the first exit's).
    """
    cheap_first = risk == MEAN_COST
    path = frontier.candidates_by_cost[::-1] if cheap_first else frontier.candidates_by_cost
    losses = (risk_losses(frontier, answers, risk, point) for point in path)
    p_value_of = _p_value_of(risk, frontier.exit_costs)
    passed, p_value = p_values.last_certified(losses, p_value_of, limit, confidence)
    safe = frontier.always_first_exit if cheap_first else frontier.always_last_exit
    point = safe() if passed < 0 else path[passed]
    shown = RiskControl(
        risk=risk,
        limit=limit,
        confidence=confidence,
        n_samples=len(answers),
        estimate=float(risk_losses(frontier, answers, risk, point).mean()),
        p_value=p_value,
        certified=passed >= 0,
    )
    if passed < 0:
        _warn_of_too_few(shown)
    return replace(point, risk=shown)


def _p_value_of(risk: str, exit_costs: np.ndarray) -> p_values.PValue:
    """The test for a risk."""
    if risk == MEAN_COST:
        return p_values.cost_p_value(exit_costs)
    return p_values.drop_p_value if risk == ACCURACY_DROP else p_values.binomial_p_value


def risk_losses(
    frontier: Frontier, answers: ExitAnswers, risk: str, point: OperatingPoint
) -> np.ndarray:
    """Loss of each sample at the exit that a point gives it, against the plain backbone: (n_samples,)."""
    taken = answers.exits(point.gates, frontier.exit_mass)
    if risk == MEAN_COST:
        costs: np.ndarray = frontier.exit_costs[taken]
        return costs
    labels = answers.of_point(point).labels
    plain, here = answers.backbone_codes, labels[np.arange(len(answers)), taken]
    disagreements: np.ndarray = here != plain
    drops: np.ndarray = (plain == answers.codes).astype(int) - (here == answers.codes).astype(int)
    return disagreements if risk == DISAGREEMENT else drops


def random_halves(answers: ExitAnswers, seed: int) -> tuple[ExitAnswers, np.ndarray]:
    """Split samples at random into two halves: answers of the first in random order, numbers of the second."""
    order = np.random.default_rng(seed).permutation(len(answers))
    tested, kept = np.array_split(order, 2)
    return answers.take(tested), kept


def shuffled(answers: ExitAnswers, seed: int) -> ExitAnswers:
    """Answers in random order, as tests by betting need them."""
    return answers.take(np.random.default_rng(seed).permutation(len(answers)))


def _warn_of_too_few(shown: RiskControl) -> None:
    """Warn that no point passed."""
    where = "run to the last exit, which answers as the plain backbone"
    if shown.risk == MEAN_COST:
        where = "leave at the first exit"
    warn_caller(
        f"{shown.n_samples} samples do not show any operating point to keep {shown.risk} to {shown.limit} with "
        f"confidence {shown.confidence}: all samples {where}. Give more samples, or a larger limit.",
    )


def one_limit(
    limits: dict[str, float | None], has_labels: bool, risk_confidence: float
) -> tuple[str, float]:
    """Name and limit of the risk that is asked for."""
    asked = {name: limit for name, limit in limits.items() if limit is not None}
    if len(asked) != 1:
        raise ValueError(
            f"control_risk() takes one of max_disagreement, max_accuracy_drop, budget; {len(asked)} are given."
        )
    ((risk, limit),) = asked.items()
    if risk == MEAN_COST:
        check_number(limit, "budget", above=0)
    else:
        check_number(limit, f"max_{risk}", least=0, below=1)
    check_probability(risk_confidence, "risk_confidence")
    if (risk == ACCURACY_DROP) != has_labels:
        raise ValueError(
            f"y is {'given' if has_labels else 'missing'}; max_accuracy_drop alone needs it."
        )
    return risk, limit
