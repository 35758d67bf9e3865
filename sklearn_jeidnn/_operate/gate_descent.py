"""Training of gates by descent of the objective itself (torch)."""

from collections.abc import Sequence

import numpy as np
import torch

from .._exits.gate_points import GatePoints, mean_and_scale
from .._exits.policy import ExitMass, exit_distribution
from .._exits.usual_torch import usual_torch
from .exit_answers import ExitAnswers
from .objective import expected_cost

GATE_STEPS = 300
GATE_LR = 0.1
# A sample stays if leaving gains nothing.
GATE_BIAS = -2.0
GATE_PENALTY = 3e-4
# At larger cost weights squares of gradients would not be float32; errors have long ceased to count.
MOST_COST_WEIGHT = 1e12


@usual_torch()
def descend_gates(
    answers: ExitAnswers,
    exit_mass: ExitMass,
    exit_costs: np.ndarray,
    cost_weights: Sequence[float],
) -> GatePoints:
    """Minimise the objective in smoothed errors for each cost weight, by full-batch descent.

    Parameters
    ----------
    answers : ExitAnswers
        Of samples that the heads were not trained on.
    exit_mass : callable
        A value of ``EXIT_DISTRIBUTIONS``.
    exit_costs : ndarray (n_exits,)
    cost_weights : sequence of float (n_points,)

    Returns
    -------
    GatePoints
        Of NumPy arrays.
    """
    answers = answers.of_complete()
    points = _initial_gates(answers.gate_inputs, len(cost_weights))
    standardised = points.standardised(torch.as_tensor(answers.gate_inputs))
    sample_weights, losses, costs, prices = (
        torch.as_tensor(np.asarray(values, dtype=np.float32))
        for values in (
            answers.weights,
            answers.smoothed_errors,
            exit_costs,
            np.minimum(cost_weights, MOST_COST_WEIGHT),
        )
    )
    losses, prices = losses[:, None], prices[:, None]
    optimizer = torch.optim.Adam([points.weight, points.bias], lr=GATE_LR)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, GATE_STEPS)
    for _ in range(GATE_STEPS):
        distribution = exit_distribution(points.leaving(standardised), exit_mass)
        objective = expected_cost(distribution, losses, costs, prices)
        penalty = GATE_PENALTY * points.weight.square().sum()
        optimizer.zero_grad()
        ((sample_weights @ objective).sum() / len(answers) + penalty).backward()
        optimizer.step()
        schedule.step()
    return _as_arrays(_checked(points, cost_weights))


def _checked(points: GatePoints, cost_weights: Sequence[float]) -> GatePoints:
    """The same gates; refuse those that are not finite."""
    if not all(bool(torch.isfinite(of_gates).all()) for of_gates in (points.weight, points.bias)):
        raise ValueError(
            f"the training of gates ended in weights that are not finite (cost_weight={max(cost_weights):g}); give a "
            f"smaller cost_weight, and smaller exit_costs."
        )
    return points


def _initial_gates(gate_inputs: np.ndarray, n_points: int) -> GatePoints:
    """Gates to start from, which let few samples leave: tensors, whose weight and bias are trained."""
    n_gates, n_inputs = gate_inputs.shape[1:]
    mean, scale = (torch.as_tensor(of_inputs) for of_inputs in mean_and_scale(gate_inputs))
    return GatePoints(
        weight=torch.zeros(n_points, n_gates, n_inputs, requires_grad=True),
        bias=torch.full((n_points, n_gates), GATE_BIAS, requires_grad=True),
        mean=mean,
        scale=scale,
    )


def _as_arrays(points: GatePoints) -> GatePoints:
    """The same gates as NumPy arrays."""
    return GatePoints(
        weight=points.weight.detach().numpy(),
        bias=points.bias.detach().numpy(),
        mean=points.mean.numpy(),
        scale=points.scale.numpy(),
    )
