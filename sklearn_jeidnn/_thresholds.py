"""The other ways of exiting, as gates that let a row leave where one number passes a threshold.

Confidence, entropy and margin: Teerapittayanon, McDanel, Kung, "BranchyNet", ICPR 2016. Patience (as many exits in
a row of one mind): Zhou et al., "BERT Loses Patience" (PABEE), NeurIPS 2020.
"""

import torch

from ._gates import CONFIDENCE, ENTROPY, MARGIN, STREAK, GatePoints

# Column of the gate inputs, and its sign: larger means surer.
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
# Gates answer all or nothing beside a threshold.
SLOPE = 1e4


def threshold_gates(rows, exit_costs, cost_weights, exit_policy):
    """Thresholds of least errors plus cost on held-out rows, for each cost weight, as gates.

    Parameters
    ----------
    rows : Outcomes
    exit_costs : tensor (n_exits,)
    cost_weights : list of float (n_points,)
    exit_policy : str
        A name in ``THRESHOLD_POLICIES``.

    Returns
    -------
    GatePoints
    """
    scores = _scores(rows, exit_policy)
    tune = _one_each if exit_policy.endswith(PER_EXIT) else _one_for_all
    return _as_gates(tune(scores, rows, exit_costs, cost_weights), rows, exit_policy)


def gates_within(rows, exit_costs, budget, exit_policy):
    """The one threshold of fewest errors among those that keep the rows' mean cost within a budget, as gates.

    Cost weights would miss it where its point lies inside the others' convex hull.
    """
    scores = _scores(rows, exit_policy)
    candidates, errors, costs = _tried(scores, rows, exit_costs)
    best = torch.where(costs <= budget, errors, torch.inf).argmin()
    return _as_gates(candidates[best].expand(1, scores.shape[1]), rows, exit_policy)


def _scores(rows, exit_policy):
    column, sign = STATISTICS[exit_policy.removesuffix(PER_EXIT)]
    return sign * rows.inputs[..., column]


def _as_gates(thresholds, rows, exit_policy):
    """Thresholds (n_points, n_gates) -> GatePoints"""
    column, sign = STATISTICS[exit_policy.removesuffix(PER_EXIT)]
    n_gates, n_inputs = rows.inputs.shape[1:]
    weight = thresholds.new_zeros(len(thresholds), n_gates, n_inputs)
    weight[..., column] = SLOPE * sign
    mean, scale = thresholds.new_zeros(n_gates, n_inputs), thresholds.new_ones(n_gates, n_inputs)
    return GatePoints(weight, -SLOPE * thresholds, mean, scale)


def _one_for_all(scores, rows, exit_costs, cost_weights):
    """(n_samples, n_gates) -> thresholds (n_points, n_gates), the same at every gate"""
    candidates, errors, costs = _tried(scores, rows, exit_costs)
    prices = scores.new_tensor(cost_weights)[:, None]
    best = (errors + prices * costs).argmin(1)
    return candidates[best][:, None].expand(-1, scores.shape[1])


def _tried(scores, rows, exit_costs):
    """Candidates for the one threshold, and the mean error and cost of each: (n_candidates,)"""
    candidates, errors, costs = _candidates(scores), [], []
    for threshold in candidates:
        taken = _first(scores >= threshold)
        errors.append(rows.weight @ rows.errors.gather(1, taken[:, None])[:, 0])
        costs.append(rows.weight @ exit_costs[taken])
    total = rows.weight.sum()
    return candidates, torch.stack(errors) / total, torch.stack(costs) / total


def _first(leaving):
    """bool (n_samples, n_gates) -> where each row leaves (n_samples,); n_gates where it never does"""
    last = leaving.new_ones(len(leaving), 1)
    return torch.cat([leaving, last], dim=1).int().argmax(1)


def _candidates(scores):
    """Values between which thresholds differ, coarsely; the last one lets nobody leave."""
    values = scores.flatten().unique()
    middles = (values[1:] + values[:-1]) / 2
    ranks = torch.linspace(0, max(0, len(middles) - 1), min(N_CANDIDATES, len(middles))).long()
    return torch.cat([values[:1] - 1, middles[ranks], values[-1:] + 1])


def _one_each(scores, rows, exit_costs, cost_weights):
    """(n_samples, n_gates) -> thresholds (n_points, n_gates), each the best given the others, in a few sweeps"""
    return torch.stack([_swept(scores, rows, rows.errors + w * exit_costs) for w in cost_weights])


def _swept(scores, rows, spent):
    """Thresholds (n_gates,) of least ``spent`` (n_samples, n_exits)."""
    n_gates = scores.shape[1]
    thresholds = scores.max(0).values + 1
    for _ in range(SWEEPS):
        for gate in reversed(range(n_gates)):
            arrived = ~(scores[:, :gate] >= thresholds[:gate]).any(1)
            later = scores[:, gate + 1 :] >= thresholds[gate + 1 :]
            onward = _first(later)
            going_on = spent[:, gate + 1 :].gather(1, onward[:, None])[:, 0]
            gain = rows.weight * arrived * (going_on - spent[:, gate])
            thresholds[gate] = _best_threshold(scores[:, gate], gain)
    return thresholds


def _best_threshold(score, gain):
    """Rows whose score reaches it gain; the threshold of the largest sum, between two scores."""
    ordered, order = score.sort(descending=True)
    sums = gain[order].cumsum(0)
    # A threshold lies between different scores only.
    ends = torch.cat([ordered[1:] < ordered[:-1], ordered.new_ones(1).bool()])
    sums = torch.where(ends, sums, -torch.inf)
    best = int(sums.argmax())
    if sums[best] <= 0:
        return ordered[0] + 1
    below = ordered[best + 1] if best + 1 < len(ordered) else ordered[best] - 1
    return (ordered[best] + below) / 2
