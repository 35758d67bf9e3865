"""The accuracy-cost frontier of given exits: gates for many cost weights, and the choice among them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from .._exits.gate_points import SATURATED_LOGIT, GatePoints
from .._exits.policy import ExitMass
from .exit_answers import ExitAnswers
from .gate_descent import descend_gates
from .objective import best_exit
from .operating_point import OperatingPoint
from .thresholds import SHARED, THRESHOLD_POLICIES, gates_within, threshold_gates

# From "cost is nothing" to "a tenth of a pass is worth a sample's error".
COST_WEIGHT_GRID = (0.0, *np.geomspace(1e-3, 10, 23).tolist())
BISECTIONS = 6
# Points from one point of the grid up to the next.
STEPS_BETWEEN = 4
# Logits by which gates are less inclined to let a sample leave than at the most expensive point of the grid: these give
# points that are more expensive still.
EXTRA_CONSERVATIVE_LOGITS = (3.0, 2.5, 2.0, 1.5, 1.0, 0.5)
# Standard errors by which accuracies must differ for the difference to be significant (5 %, one-sided).
ONE_SIDED = 1.645
LEARNED = "learned"
EXIT_POLICIES = (LEARNED, *THRESHOLD_POLICIES)


@dataclass(frozen=True, kw_only=True)
class Frontier:
    """Operating points over a grid of cost weights, and the search for points between them.

    Parameters
    ----------
    answers : ExitAnswers
        Of held-out samples.
    exit_mass : callable
        A value of ``EXIT_DISTRIBUTIONS``.
    exit_costs : ndarray (n_exits,)
    exit_policy : str, default="learned"
        "learned", or a name in ``THRESHOLD_POLICIES``.
    plain_last_exit : bool, default=False
        Of its points (see :class:`OperatingPoint`).
    """

    answers: ExitAnswers
    exit_mass: ExitMass
    exit_costs: np.ndarray
    exit_policy: str = LEARNED
    plain_last_exit: bool = False

    def with_policy(self, exit_policy: str, exit_costs: np.ndarray | None = None) -> "Frontier":
        """The frontier of the same answers under another exit policy; None keeps the costs."""
        exit_costs = self.exit_costs if exit_costs is None else exit_costs
        if exit_policy == self.exit_policy and np.array_equal(exit_costs, self.exit_costs):
            return self
        return replace(self, exit_policy=exit_policy, exit_costs=exit_costs)

    def of_agreement(self) -> "Frontier":
        """The frontier that counts as errors the labels that differ from the plain backbone's.

        Samples that reach the last exit get the plain backbone's answer, which so is never an error.
        """
        return replace(self, answers=self.answers.agreement(), plain_last_exit=True)

    @cached_property
    def points(self) -> GatePoints:
        """Gates over the grid, trained together when they are first needed."""
        return self._gates(COST_WEIGHT_GRID)

    @cached_property
    def table(self) -> dict[str, np.ndarray]:
        """What each point of the grid does to the held-out samples (see :func:`tabulate`)."""
        return self.measured(self.answers)

    def measured(self, answers: ExitAnswers) -> dict[str, np.ndarray]:
        """What each point of the grid does to some samples (see :func:`tabulate`)."""
        return tabulate(answers, self.exits(answers), self.exit_costs, COST_WEIGHT_GRID)

    def exits(self, answers: ExitAnswers) -> np.ndarray:
        """Exit that each sample takes at each point of the grid: (n_samples, n_points)."""
        return self._taken(self.points, answers)

    def summary(self, point: OperatingPoint) -> dict[str, Any]:
        """What an operating point does to the held-out samples: one number for each column of the table."""
        answers = self.answers.of_point(point)
        taken = self._taken(point.gates, answers)
        table = tabulate(answers, taken, self.exit_costs, [point.cost_weight])
        return {name: column[0] for name, column in table.items()}

    def choose(
        self,
        *,
        cost_weight: float | None = None,
        budget: float | None = None,
        max_accuracy_drop: float | None = None,
    ) -> OperatingPoint:
        """Find the operating point for one of these requests.

        Parameters
        ----------
        cost_weight : float or None
            Needed if the others are None, else not read.
        budget : float or None
            Largest mean cost of the held-out samples.
        max_accuracy_drop : float or None
            Largest loss of accuracy against the plain backbone on the held-out samples.
        """
        if budget is not None:
            return self._within(budget)
        if max_accuracy_drop is not None:
            return self._cheapest(max_accuracy_drop)
        if cost_weight is None:
            raise ValueError("give one of cost_weight, budget and max_accuracy_drop.")
        return self._point(cost_weight, self._gates([cost_weight]))

    def always_last_exit(self) -> OperatingPoint:
        """The point at which every sample gets the plain backbone's answer, at the last exit."""
        point = self._point(0.0, self.points.always(-SATURATED_LOGIT))
        return replace(point, plain_last_exit=True)

    def always_first_exit(self) -> OperatingPoint:
        """The point at which every sample leaves at the first exit."""
        return self._point(math.inf, self.points.always(SATURATED_LOGIT))

    @cached_property
    def candidates_by_cost(self) -> list[OperatingPoint]:
        """Points from nearly the full network to the cheapest of the grid, the most expensive first.

        They are denser than the grid (gates are interpolated). Their order is that of the mean cost of
        the held-out samples; tests on other samples need an order in which those have no part.
        """
        expensive = self.points.point(0)
        shares = np.arange(STEPS_BETWEEN) / STEPS_BETWEEN
        points = [
            self._point(COST_WEIGHT_GRID[0], expensive.shifted(logits))
            for logits in EXTRA_CONSERVATIVE_LOGITS
        ]
        points += [self._between(i, share) for i in range(len(self.points) - 1) for share in shares]
        points.append(self.grid_point(len(self.points) - 1))
        costs = [self._mean_cost(point) for point in points]
        if min(costs) > self.exit_costs[0]:
            # Learned gates can keep some samples at any cost weight.
            points.append(self.always_first_exit())
            costs.append(float(self.exit_costs[0]))
        return [points[i] for i in np.argsort(costs, kind="stable")[::-1]]

    def _point(self, cost_weight: float, gates: GatePoints) -> OperatingPoint:
        return OperatingPoint(
            cost_weight=cost_weight,
            gates=gates,
            exit_policy=self.exit_policy,
            plain_last_exit=self.plain_last_exit,
        )

    def grid_point(self, i: int) -> OperatingPoint:
        """Point ``i`` of ``points``."""
        return self._point(COST_WEIGHT_GRID[i], self.points.point(i))

    def _between(self, i: int, share: float) -> OperatingPoint:
        """The point between point ``i`` of the grid and the next, ``share`` of the way."""
        low, high = COST_WEIGHT_GRID[i : i + 2]
        return self._point(low + share * (high - low), self.points.between(i, share))

    def _gates(self, cost_weights: Sequence[float]) -> GatePoints:
        """Gates of one point for each cost weight."""
        if self.exit_policy in THRESHOLD_POLICIES:
            return threshold_gates(self.answers, self.exit_costs, cost_weights, self.exit_policy)
        return descend_gates(self.answers, self.exit_mass, self.exit_costs, cost_weights)

    def _taken(self, gates: GatePoints, answers: ExitAnswers) -> np.ndarray:
        """Exit of each sample at each point: (n_samples, n_points)."""
        taken: np.ndarray = gates.exits(answers.gate_inputs, self.exit_mass)
        return taken

    def _mean_cost(self, point: OperatingPoint) -> float:
        """Mean cost of the held-out samples at a point."""
        return self.answers.mean(self.exit_costs[self._taken(point.gates, self.answers)[:, 0]])

    def _within(self, budget: float) -> OperatingPoint:
        """The point with the smallest cost weight that keeps the mean cost within a budget.

        If none does, the cheapest point of the grid.
        """
        if self.exit_policy in SHARED:
            gates = gates_within(self.answers, self.exit_costs, budget, self.exit_policy)
            return self._point(math.nan, gates)
        fits = self.table["mean_cost"] <= budget
        if not fits.any():
            # Learned gates can keep some samples at any cost weight; an exit for all keeps to the budget.
            return self.always_first_exit()
        first = int(fits.argmax())
        # Before the second point comes a cost weight of 0, which has no logarithm.
        return self.grid_point(first) if first < 2 else self._bisected(first, budget)

    def _bisected(self, first: int, budget: float) -> OperatingPoint:
        """Bisect the logarithm of the cost weight below point ``first``, the first of the grid within a budget."""
        best = self.grid_point(first)
        low, high = np.log(COST_WEIGHT_GRID[first - 1 : first + 1])
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            tried = self._point(math.exp(middle), self._gates([math.exp(middle)]))
            keeps = self._mean_cost(tried) <= budget
            low, high = (low, middle) if keeps else (middle, high)
            best = tried if keeps else best
        return best

    def _cheapest(self, max_accuracy_drop: float) -> OperatingPoint:
        """The cheapest point of the grid whose accuracy is close enough to the plain backbone's.

        If none is, the backbone for all samples.
        """
        least = self.answers.backbone_accuracy - max_accuracy_drop
        good = self.table["accuracy"] >= least - 1e-9
        if not good.any():
            return self.always_last_exit()
        return self.grid_point(int(np.where(good, self.table["mean_cost"], np.inf).argmin()))


def tabulate(
    answers: ExitAnswers,
    taken: np.ndarray,
    exit_costs: np.ndarray,
    cost_weights: Sequence[float],
) -> dict[str, np.ndarray]:
    """Tabulate what operating points do to some samples.

    Parameters
    ----------
    answers : ExitAnswers
    taken : ndarray of int (n_samples, n_points)
        Exit of each sample.
    exit_costs : ndarray (n_exits,)
    cost_weights : sequence of float (n_points,)

    Returns
    -------
    dict of str to ndarray (n_points,)
        ``cost_weight``, ``mean_cost``, ``accuracy``, ``backbone_accuracy`` (of the plain backbone, the same
        at every point), ``log_loss``, ``exit0_rate`` and so on for each exit, ``single_exit``,
        ``single_accuracy``, ``single_exit_suffices``.
    """
    columns = [_point_summary(answers, exits, exit_costs) for exits in taken.T]
    table = {name: np.array([column[name] for column in columns]) for name in columns[0]}
    return {"cost_weight": np.array(cost_weights, dtype=float), **table}


def _point_summary(
    answers: ExitAnswers, exits: np.ndarray, exit_costs: np.ndarray
) -> dict[str, Any]:
    """What happens to samples that take these exits (n_samples,): one row of :func:`tabulate`."""
    rows = np.arange(len(answers))
    errors, mean_cost = answers.errors[rows, exits], answers.mean(exit_costs[exits])
    rates = {f"exit{i}_rate": answers.mean(exits == i) for i in range(len(exit_costs))}
    return {
        "mean_cost": mean_cost,
        "accuracy": 1 - answers.mean(errors),
        "backbone_accuracy": answers.backbone_accuracy,
        "log_loss": answers.mean(answers.log_losses[rows, exits]),
        **rates,
        **_beside_one_exit(answers, errors, mean_cost, exit_costs),
    }


def _beside_one_exit(
    answers: ExitAnswers, errors: np.ndarray, mean_cost: float, exit_costs: np.ndarray
) -> dict[str, Any]:
    """The most accurate exit that costs no more if every sample takes it, and whether it does as well."""
    affordable = exit_costs <= mean_cost + 1e-6
    if not affordable.any():
        return {"single_exit": -1, "single_accuracy": math.nan, "single_exit_suffices": False}
    of_exits = answers.exit_errors()
    best = int(np.where(affordable, of_exits, np.inf).argmin())
    return {
        "single_exit": best,
        "single_accuracy": 1 - float(of_exits[best]),
        "single_exit_suffices": not is_better(answers, errors, answers.errors[:, best]),
    }


def is_better(answers: ExitAnswers, errors: np.ndarray, others: np.ndarray) -> bool:
    """Whether samples show (5 %, one-sided) that errors (n_samples,) are fewer than other ones of the same samples."""
    relative_weights = answers.weights / answers.weights.mean()
    gain = relative_weights * (others - errors)
    chance = gain.std() / math.sqrt(len(gain))
    return bool(gain.mean() > ONE_SIDED * chance)


def oracle_exits(answers: ExitAnswers, exit_costs: np.ndarray) -> np.ndarray:
    """The best exits in hindsight for each cost weight of the grid: (n_samples, n_points).

    This is a bound, for plots: no classifier knows beforehand which exits will be right.
    """
    taken = [best_exit(answers.errors, exit_costs, weight) for weight in COST_WEIGHT_GRID]
    return np.stack(taken, axis=1)


def objective_at(
    answers: ExitAnswers,
    exit_mass: ExitMass,
    exit_costs: np.ndarray,
    *,
    cost_weight: float,
    budget: float | None,
    least_cost: float,
) -> float:
    """Mean smoothed error plus cost of held-out samples at the exits that an operating point gives them.

    Parameters
    ----------
    answers : ExitAnswers
    exit_mass : callable
    exit_costs : ndarray (n_exits,)
    cost_weight : float
    budget : float or None
        If given, errors alone count, at the cost weight that keeps to it. A budget below ``least_cost`` gives
        infinity.
    least_cost : float
        Mean cost if all samples leave at the first exit.
    """
    if budget is not None and budget < least_cost:
        return math.inf
    frontier = Frontier(answers=answers, exit_mass=exit_mass, exit_costs=exit_costs)
    asked = {"cost_weight": cost_weight} if budget is None else {"budget": budget}
    taken = answers.exits(frontier.choose(**asked).gates, exit_mass)
    spent = answers.smoothed_errors[np.arange(len(answers)), taken]
    price = cost_weight if budget is None else 0.0
    return float((answers.weights * (spent + price * exit_costs[taken])).mean())
