"""Operating points of a fitted classifier on some samples, under several exit policies."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import metrics
from .._operate.exit_answers import ExitAnswers
from .._operate.frontier import COST_WEIGHT_GRID, EXIT_POLICIES, oracle_exits, tabulate
from .._predictor import Predictor
from .._schema import Arrays
from .intervals import CostCurve

ORACLE = "best exit in hindsight (knows the labels)"


def check_policies(policies: Sequence[Any]) -> list[str]:
    """Exit policies, each once.

    Raises
    ------
    ValueError
        If one is not known.
    """
    for policy in policies:
        if not isinstance(policy, str) or policy not in EXIT_POLICIES:
            raise ValueError(
                f"policies has {policy!r}, which is not known; give some of {EXIT_POLICIES}."
            )
    return list(dict.fromkeys(policies))


def policy_curve(
    classifier: Any, answers: ExitAnswers, policy: str
) -> tuple[CostCurve, np.ndarray]:
    """Operating points of a policy, and at which of them one exit for all samples does as well: (n_points,)."""
    frontier = classifier._predictor.frontier.with_policy(policy)
    taken = frontier.exits(answers)
    table = tabulate(answers, taken, frontier.exit_costs, COST_WEIGHT_GRID)
    curve = _curve(answers, taken, frontier.exit_costs)
    return curve, table["single_exit_suffices"]


def oracle_curve(classifier: Any, answers: ExitAnswers) -> CostCurve:
    """The best exits in hindsight for each cost weight of the grid."""
    return _curve(answers, oracle_exits(answers, classifier.exit_costs_), classifier.exit_costs_)


def point_curve(classifier: Any, X: Any, answers: ExitAnswers) -> tuple[CostCurve, np.ndarray]:
    """The operating point as a curve of one point, and which samples it gets right: bool (n_samples,)."""
    found = classifier._over_chunks(X, _labels_and_exits)
    labels, exit_index = (np.concatenate(part) for part in zip(*found, strict=True))
    right: np.ndarray = labels == classifier.classes_[answers.codes]
    mean_cost = np.array([metrics.mean_cost(exit_index, classifier.exit_costs_)])
    return CostCurve.of(mean_cost, right[None], _plain_right(answers)), right


def _labels_and_exits(predictor: Predictor, arrays: Arrays) -> tuple[np.ndarray, np.ndarray]:
    labels, routed = predictor.answers(arrays)
    return labels, routed.exit_index


def _curve(answers: ExitAnswers, taken: np.ndarray, exit_costs: np.ndarray) -> CostCurve:
    """Points at which samples take these exits: (n_samples, n_points)."""
    right = answers.errors[np.arange(len(answers))[:, None], taken] == 0
    return CostCurve.of(exit_costs[taken].mean(axis=0), right.T, _plain_right(answers))


def _plain_right(answers: ExitAnswers) -> np.ndarray:
    right: np.ndarray = answers.backbone_codes == answers.codes
    return right
