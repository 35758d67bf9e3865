"""The whole accuracy-cost frontier of given exits: gates for many cost weights at once, and the choice among them."""

import math
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch

from ._gates import SURE, GatePoints, all_gate_inputs, mean_and_scale
from ._losses import best_exit, cross_entropy, errors_counted, expected_cost, zero_one
from ._policy import exit_distribution, exits_taken
from ._thresholds import SHARED, THRESHOLD_POLICIES, gates_within, threshold_gates

GATE_STEPS = 300
GATE_LR = 0.1
# Where leaving gains nothing, a row stays.
GATE_BIAS = -2.0
GATE_PENALTY = 3e-4
# From "cost is nothing" to "a tenth of a pass is worth a row's error".
GRID = (0.0, *np.geomspace(1e-3, 10, 23).tolist())
BISECTIONS = 6
# Steps from one point of the grid to the next, on the way from the dearest to the cheapest.
STEPS_BETWEEN = 4
# How much surer than at the dearest point of the grid gates must be, at points dearer still.
CAUTION = (3.0, 2.5, 2.0, 1.5, 1.0, 0.5)
# Standard errors by which accuracy must differ for chance to be ruled out (5 %, one-sided).
ONE_SIDED = 1.645
FIELDS = [
    *((name, float) for name in ("cost_weight", "mean_cost", "accuracy", "log_loss")),
    ("single_exit", int),
    ("single_accuracy", float),
    ("single_exit_suffices", bool),
]


class Outcomes(NamedTuple):
    """What all exits say of some rows, as far as gates and frontiers need it."""

    inputs: torch.Tensor  # (n_samples, n_gates, n_inputs)
    expected_errors: torch.Tensor  # (n_samples, n_exits), half as expected, half as they fell
    errors: torch.Tensor  # (n_samples, n_exits)
    log_losses: torch.Tensor  # (n_samples, n_exits)
    weight: torch.Tensor  # (n_samples,)

    def mean(self, values):
        """Weighted mean over the rows: (n_samples,) -> float"""
        return float((self.weight * values).sum() / self.weight.sum())

    def errors_of_exits(self):
        """Weighted mean errors of each exit, taken by every row: (n_exits,)"""
        return self.weight @ self.errors / self.weight.sum()


@torch.no_grad()
def outcomes(logits, y, weight):
    """Outcomes of held-out rows.

    Parameters
    ----------
    logits : tensor (n_samples, n_exits, n_classes)
    y, weight : tensor (n_samples,)
    """
    errors = zero_one(logits, y)
    counted = errors_counted(logits, y, weight)
    return Outcomes(all_gate_inputs(logits), counted, errors, cross_entropy(logits, y), weight)


def descend_gates(rows, exit_mass, exit_costs, cost_weights):
    """Full-batch descent of the objective in expected errors, from gates that rather stay, one for each cost weight.

    Parameters
    ----------
    rows : Outcomes
        Of rows that the heads were not trained on.
    exit_mass : callable
        One of ``EXIT_MASSES``.
    exit_costs : tensor (n_exits,)
    cost_weights : list of float (n_points,)

    Returns
    -------
    GatePoints
    """
    n_gates, n_inputs = rows.inputs.shape[1:]
    n_points = len(cost_weights)
    weight = rows.inputs.new_zeros(n_points, n_gates, n_inputs, requires_grad=True)
    bias = rows.inputs.new_full((n_points, n_gates), GATE_BIAS, requires_grad=True)
    points = GatePoints(weight, bias, *mean_and_scale(rows.inputs))
    standard = points.standardised(rows.inputs)
    prices = rows.inputs.new_tensor(cost_weights)[:, None]
    losses = rows.expected_errors[:, None]
    with torch.enable_grad():
        optimizer = torch.optim.Adam([weight, bias], lr=GATE_LR)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, GATE_STEPS)
        for _ in range(GATE_STEPS):
            distribution = exit_distribution(points.leaving(standard), exit_mass)
            objective = expected_cost(distribution, losses, exit_costs, prices)
            penalty = GATE_PENALTY * weight.square().sum()
            optimizer.zero_grad()
            ((rows.weight @ objective).sum() / len(rows.weight) + penalty).backward()
            optimizer.step()
            schedule.step()
    return points._replace(weight=weight.detach(), bias=bias.detach())


class Chosen(NamedTuple):
    """An operating point."""

    cost_weight: float
    gates: GatePoints  # one point


class Frontier:
    """Operating points over a grid of cost weights, and the way to points between them.

    Parameters
    ----------
    rows : Outcomes
        Held-out rows.
    exit_mass : callable
        One of ``EXIT_MASSES``.
    exit_costs : tensor (n_exits,)
    exit_policy : str
        "learned", or a name in ``THRESHOLD_POLICIES``.
    """

    def __init__(self, rows, exit_mass, exit_costs, exit_policy="learned"):
        self.rows, self.exit_mass, self.exit_costs = rows, exit_mass, exit_costs
        self.exit_policy = exit_policy

    def of_policy(self, exit_policy, exit_costs=None):
        """The same rows under another exit policy (None: this one), at other costs (None: these)."""
        exit_costs = self.exit_costs if exit_costs is None else exit_costs
        if exit_policy in (None, self.exit_policy) and torch.equal(exit_costs, self.exit_costs):
            return self
        return Frontier(self.rows, self.exit_mass, exit_costs, exit_policy or self.exit_policy)

    @cached_property
    def points(self):
        """Gates over the grid; one descent, once they are asked for."""
        return self._gates(GRID)

    @cached_property
    def table(self):
        """What each point of the grid does to the held-out rows."""
        return self.measured(self.rows)

    def _gates(self, cost_weights):
        if self.exit_policy in THRESHOLD_POLICIES:
            return threshold_gates(self.rows, self.exit_costs, cost_weights, self.exit_policy)
        return descend_gates(self.rows, self.exit_mass, self.exit_costs, cost_weights)

    @torch.no_grad()
    def measured(self, rows):
        """What each point of the grid does to some rows: structured array (n_points,)."""
        return tabulated(rows, self._taken(self.points, rows), self.exit_costs, GRID)

    def _taken(self, gates, rows):
        """Exit of each row at each point: (n_samples, n_points)"""
        return exits_taken(gates.probabilities(rows.inputs), self.exit_mass)

    def summary(self, chosen):
        """As a row of the table, of one operating point on the held-out rows."""
        taken = self._taken(chosen.gates, self.rows)
        return tabulated(self.rows, taken, self.exit_costs, [chosen.cost_weight])[0]

    def choose(self, *, cost_weight=None, budget=None, max_accuracy_drop=None):
        """The operating point that is asked for.

        Parameters
        ----------
        cost_weight : float or None
        budget : float or None
            Largest mean cost of the held-out rows.
        max_accuracy_drop : float or None
            Largest loss of accuracy against the last exit on the held-out rows.

        Returns
        -------
        Chosen
        """
        if budget is not None:
            return self._within(budget)
        if max_accuracy_drop is not None:
            return self._cheapest(max_accuracy_drop)
        return Chosen(cost_weight, self._gates([cost_weight]))

    def _within(self, budget):
        """Least cost weight whose gates keep the rows' mean cost within a budget, by bisection of its logarithm."""
        if self.exit_policy in SHARED:
            gates = gates_within(self.rows, self.exit_costs, budget, self.exit_policy)
            return Chosen(math.nan, gates)
        fits = self.table["mean_cost"] <= budget
        if not fits.any():
            return Chosen(GRID[-1], self.points.one(len(GRID) - 1))
        first = int(fits.argmax())
        best = Chosen(GRID[first], self.points.one(first))
        if first < 2:
            return best
        low, high = math.log(GRID[first - 1]), math.log(GRID[first])
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            tried = Chosen(math.exp(middle), self._gates([math.exp(middle)]))
            cost = self.rows.mean(self.exit_costs[self._taken(tried.gates, self.rows)[:, 0]])
            low, high = (low, middle) if cost <= budget else (middle, high)
            best = tried if cost <= budget else best
        return best

    def _cheapest(self, max_accuracy_drop):
        full = 1 - self.rows.mean(self.rows.errors[:, -1])
        good = self.table["accuracy"] >= full - max_accuracy_drop - 1e-9
        if not good.any():
            return self.never()
        point = min(np.flatnonzero(good), key=lambda i: self.table["mean_cost"][i])
        return Chosen(GRID[point], self.points.one(int(point)))

    def never(self):
        """Gates that let no row leave early."""
        return self._always(-SURE, 0.0)

    def at_once(self):
        """Gates that let every row leave at the first exit."""
        return self._always(SURE, math.inf)

    def _always(self, bias, cost_weight):
        point = self.points.one(0)
        return Chosen(
            cost_weight, point._replace(weight=0 * point.weight, bias=0 * point.bias + bias)
        )

    @cached_property
    def path(self):
        """Points from nearly the full network to the cheapest of the grid, the dearest on these rows first.

        Denser than the grid (gates are interpolated), in an order that other rows have no part in: what
        tests on other rows need.

        Returns
        -------
        list of Chosen
        """
        shares = np.arange(STEPS_BETWEEN) / STEPS_BETWEEN
        dearest = self.points.one(0)
        chosen = [Chosen(GRID[0], dearest._replace(bias=dearest.bias - c)) for c in CAUTION]
        chosen += [self._between(i, share) for i in range(len(GRID) - 1) for share in shares]
        chosen.append(Chosen(GRID[-1], self.points.one(len(GRID) - 1)))
        costs = [
            self.rows.mean(self.exit_costs[self._taken(c.gates, self.rows)[:, 0]]) for c in chosen
        ]
        return [chosen[i] for i in np.argsort(costs, kind="stable")[::-1]]

    def _between(self, i, share):
        here, there = self.points.one(i), self.points.one(i + 1)
        weight, bias = (
            torch.lerp(own, other, share) for own, other in zip(here[:2], there[:2], strict=True)
        )
        cost_weight = GRID[i] + share * (GRID[i + 1] - GRID[i])
        return Chosen(cost_weight, here._replace(weight=weight, bias=bias))


def tabulated(rows, taken, exit_costs, cost_weights):
    """What operating points do to some rows.

    Parameters
    ----------
    rows : Outcomes
    taken : tensor of int (n_samples, n_points)
        Exit of each row.
    exit_costs : tensor (n_exits,)
    cost_weights : sequence of float (n_points,)

    Returns
    -------
    structured ndarray (n_points,)
    """
    columns = [_summary(rows, exits, exit_costs) for exits in taken.unbind(1)]
    n_exits = len(exit_costs)
    table = np.zeros(len(columns), dtype=[*FIELDS, ("exit_rates", float, n_exits)])
    table["cost_weight"] = cost_weights
    for name in columns[0]:
        table[name] = [column[name] for column in columns]
    return table


def _summary(rows, exits, exit_costs):
    def at_exit(values):
        return values.gather(1, exits[:, None]).squeeze(1)

    errors, mean_cost = at_exit(rows.errors), rows.mean(exit_costs[exits])
    return {
        "mean_cost": mean_cost,
        "accuracy": 1 - rows.mean(errors),
        "log_loss": rows.mean(at_exit(rows.log_losses)),
        "exit_rates": [rows.mean(exits == i) for i in range(len(exit_costs))],
        **_beside_one_exit(rows, errors, mean_cost, exit_costs),
    }


def _beside_one_exit(rows, errors, mean_cost, exit_costs):
    """The most accurate exit that costs no more, taken by every row, and whether it does as well."""
    of_exits = rows.errors_of_exits()
    affordable = exit_costs <= mean_cost + 1e-6
    if not affordable.any():
        return {"single_exit": -1, "single_accuracy": math.nan, "single_exit_suffices": False}
    best = int(torch.where(affordable, of_exits, torch.inf).argmin())
    gain = rows.weight / rows.weight.mean() * (rows.errors[:, best] - errors)
    chance = float(gain.std(unbiased=False)) / math.sqrt(len(gain))
    return {
        "single_exit": best,
        "single_accuracy": 1 - float(of_exits[best]),
        "single_exit_suffices": float(gain.mean()) <= ONE_SIDED * chance,
    }


@torch.no_grad()
def oracle(rows, exit_costs):
    """Exits taken in hindsight, for each cost weight of the grid: as :func:`tabulated`.

    Nobody knows beforehand which exits will be right: a bound, for plots.
    """
    taken = [best_exit(rows.errors, exit_costs, cost_weight) for cost_weight in GRID]
    return tabulated(rows, torch.stack(taken, 1), exit_costs, GRID)


def objective_at(rows, exit_mass, exit_costs, *, cost_weight, budget):
    """Expected errors plus cost of held-out rows where the gates of an operating point send them.

    Parameters
    ----------
    rows : Outcomes
    exit_mass : callable
    exit_costs : tensor (n_exits,)
    cost_weight : float
    budget : float or None
        Not None: errors alone, at the cost weight that keeps to it; infinity where none does.

    Returns
    -------
    float
    """
    if budget is not None and budget < exit_costs[0]:
        return math.inf
    if budget is None:
        gates = descend_gates(rows, exit_mass, exit_costs, [cost_weight])
    else:
        gates = Frontier(rows, exit_mass, exit_costs).choose(budget=budget).gates
        cost_weight = 0.0
    taken = exits_taken(gates.probabilities(rows.inputs), exit_mass)[:, 0]
    spent = rows.expected_errors.gather(1, taken[:, None]).squeeze(1)
    return float((rows.weight * (spent + cost_weight * exit_costs[taken])).mean())
