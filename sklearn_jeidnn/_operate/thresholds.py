"""Threshold policies, as gates that let a sample leave if one of their inputs passes a threshold.

Confidence, entropy and margin: Teerapittayanon, McDanel, Kung, "BranchyNet", ICPR 2016. Patience (how many exits in
a row agree): Zhou et al., "BERT Loses Patience" (PABEE), NeurIPS 2020.
"""

from collections.abc import Sequence

import numpy as np

from .._exits.gate_points import CONFIDENCE, ENTROPY, MARGIN, STREAK, GatePoints
from .exit_answers import ExitAnswers
from .ties import tied

# Column of the gate inputs, and its sign: larger means more confident.
STATISTICS = {
    "confidence": (CONFIDENCE, 1.0),
    "entropy": (ENTROPY, -1.0),
    "margin": (MARGIN, 1.0),
    "patience": (STREAK, 1.0),
}
PER_EXIT = "_per_exit"
SHARED = tuple(STATISTICS)
THRESHOLD_POLICIES = (*SHARED, *(name + PER_EXIT for name in STATISTICS if name != "patience"))
N_CANDIDATES = 200
SWEEPS = 3
# So steep that a gate's probability is nearly 0 or 1 on either side of its threshold.
SLOPE = 1e4


def threshold_gates(
    answers: ExitAnswers, exit_costs: np.ndarray, cost_weights: Sequence[float], exit_policy: str
) -> GatePoints:
    """Gates for each cost weight, whose thresholds minimise errors plus cost on held-out samples.

    Parameters
    ----------
    answers : ExitAnswers
    exit_costs : ndarray (n_exits,)
    cost_weights : sequence of float (n_points,)
    exit_policy : str
        A name in ``THRESHOLD_POLICIES``.
    """
    scores = _scores(answers, exit_policy)
    tune = _one_each if exit_policy.endswith(PER_EXIT) else _one_for_all
    return _as_gates(tune(scores, answers, exit_costs, cost_weights), answers, exit_policy)


def gates_within(
    answers: ExitAnswers, exit_costs: np.ndarray, budget: float, exit_policy: str
) -> GatePoints:
    """Gates with one threshold, the one with the fewest errors among those that keep to a budget.

    A search over cost weights would miss its point if that lies inside the convex hull of the others.
    """
    scores = _scores(answers, exit_policy)
    candidates, errors, costs = _tried(scores, answers, exit_costs)
    best = np.where(costs <= budget, errors, np.inf).argmin()
    thresholds = np.full((1, scores.shape[1]), candidates[best])
    return _as_gates(thresholds, answers, exit_policy)


def _scores(answers: ExitAnswers, exit_policy: str) -> np.ndarray:
    """What a policy compares with thresholds, which must not part equal samples: (n_samples, n_gates)."""
    column, sign = STATISTICS[exit_policy.removesuffix(PER_EXIT)]
    scores: np.ndarray = np.float32(sign) * answers.gate_inputs[..., column]
    return np.apply_along_axis(tied, 0, scores)


def _as_gates(thresholds: np.ndarray, answers: ExitAnswers, exit_policy: str) -> GatePoints:
    """Gates that compare a policy's score with thresholds (n_points, n_gates)."""
    column, sign = STATISTICS[exit_policy.removesuffix(PER_EXIT)]
    n_gates, n_inputs = answers.gate_inputs.shape[1:]
    weight = np.zeros((len(thresholds), n_gates, n_inputs), dtype=np.float32)
    weight[..., column] = SLOPE * sign
    return GatePoints(
        weight=weight,
        bias=(-SLOPE * thresholds).astype(np.float32),
        mean=np.zeros((n_gates, n_inputs), dtype=np.float32),
        scale=np.ones((n_gates, n_inputs), dtype=np.float32),
    )


def _one_for_all(
    scores: np.ndarray, answers: ExitAnswers, exit_costs: np.ndarray, cost_weights: Sequence[float]
) -> np.ndarray:
    """The best thresholds (n_points, n_gates) that are the same at every gate."""
    candidates, errors, costs = _tried(scores, answers, exit_costs)
    best = (errors + np.multiply.outer(cost_weights, costs)).argmin(1)
    return np.repeat(candidates[best][:, None], scores.shape[1], axis=1)


def _tried(
    scores: np.ndarray, answers: ExitAnswers, exit_costs: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Candidates for the one threshold, and the mean error and cost of each: (n_candidates,)."""
    candidates, errors, costs = _candidates(scores), [], []
    rows = np.arange(len(answers))
    for threshold in candidates:
        taken = _first(scores >= threshold)
        errors.append(answers.mean(answers.errors[rows, taken]))
        costs.append(answers.mean(exit_costs[taken]))
    return candidates, np.array(errors), np.array(costs)


def _first(leaving: np.ndarray) -> np.ndarray:
    """First gate at which each sample leaves, else n_gates: bool (n_samples, n_gates) -> (n_samples,)."""
    last = np.ones((len(leaving), 1), dtype=bool)
    first: np.ndarray = np.concatenate([leaving, last], axis=1).argmax(1)
    return first


def _candidates(scores: np.ndarray) -> np.ndarray:
    """At most ``N_CANDIDATES`` values between scores, one below all, and one above all, at which no sample leaves."""
    values = np.unique(scores[~np.isnan(scores)])
    middles = (values[1:] + values[:-1]) / 2
    ranks = np.linspace(0, max(0, len(middles) - 1), min(N_CANDIDATES, len(middles))).astype(int)
    return np.concatenate([values[:1] - 1, middles[ranks], values[-1:] + 1])


def _one_each(
    scores: np.ndarray, answers: ExitAnswers, exit_costs: np.ndarray, cost_weights: Sequence[float]
) -> np.ndarray:
    """Thresholds (n_points, n_gates), each the best given the others, found in a few sweeps."""
    return np.stack(
        [_swept(scores, answers, answers.errors + weight * exit_costs) for weight in cost_weights]
    )


def _swept(scores: np.ndarray, answers: ExitAnswers, spent: np.ndarray) -> np.ndarray:
    """Thresholds (n_gates,) that make the sum of ``spent`` (n_samples, n_exits) small."""
    n_samples, n_gates = scores.shape
    thresholds: np.ndarray = np.fmax.reduce(scores) + 1
    for _ in range(SWEEPS):
        for gate in reversed(range(n_gates)):
            arrived = ~(scores[:, :gate] >= thresholds[:gate]).any(1)
            onward = gate + 1 + _first(scores[:, gate + 1 :] >= thresholds[gate + 1 :])
            gain = spent[np.arange(n_samples), onward] - spent[:, gate]
            gain = answers.weights * arrived * gain
            thresholds[gate] = _best_threshold(scores[:, gate], gain)
    return thresholds


def _best_threshold(score: np.ndarray, gain: np.ndarray) -> float:
    """Threshold with the largest total gain of the samples whose score reaches it; it lies between two scores."""
    answered = ~np.isnan(score)
    score, gain = score[answered], gain[answered]
    order = np.argsort(-score, kind="stable")
    ordered, sums = score[order], np.cumsum(gain[order])
    # Samples with equal scores leave together.
    ends = np.append(ordered[1:] < ordered[:-1], True)
    sums = np.where(ends, sums, -np.inf)
    best = int(sums.argmax())
    if sums[best] <= 0:
        above_all: float = ordered[0] + 1
        return above_all
    below: float = ordered[best + 1] if best + 1 < len(ordered) else ordered[best] - 1
    between: float = (ordered[best] + below) / 2
    return between
