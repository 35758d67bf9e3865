"""Training of gates by descent of the objective itself (NumPy only)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .._conformal.blocks import blocks
from .._exits.gate_points import GatePoints, mean_and_scale, standardise
from .._exits.policy import ExitMass, exit_distribution_gradient
from .exit_answers import ExitAnswers
from .objective import with_costs

GATE_STEPS = 300
GATE_LR = 0.1
# A sample stays if leaving gains nothing.
GATE_BIAS = -2.0
GATE_PENALTY = 3e-4
# At larger cost weights squares of gradients would not be float32; errors have long ceased to count.
MOST_COST_WEIGHT = 1e12
# Adam's, as Kingma and Ba propose them.
DECAYS, EPSILON = (0.9, 0.999), 1e-8
# Samples of a piece: so few that a product of matrices takes one thread, and rounds alike however many there are.
PIECE = 512
# Scores of one gate that are computed at a time, so that they stay in the processor's cache.
BLOCK = 16384


@np.errstate(over="ignore", invalid="ignore")
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
    """
    answers = answers.of_complete()
    mean, scale = mean_and_scale(answers.gate_inputs)
    standardised = standardise(answers.gate_inputs, mean, scale)
    prices = np.minimum(cost_weights, MOST_COST_WEIGHT)
    samples = _in_blocks(answers, standardised, exit_costs, prices)
    gates = _descended(_initial_gates(len(prices), *mean.shape), samples, exit_mass)
    weight, bias = (np.ascontiguousarray(part) for part in (gates[..., :-1], gates[..., -1]))
    return _checked(GatePoints(weight=weight, bias=bias, mean=mean, scale=scale), cost_weights)


def _initial_gates(n_points: int, n_gates: int, n_inputs: int) -> np.ndarray:
    """Gates to start from, which let few samples leave: (n_points, n_gates, n_inputs + 1), biases last."""
    gates = np.zeros((n_points, n_gates, n_inputs + 1), dtype=np.float32)
    gates[..., -1] = GATE_BIAS
    return gates


def _descended(gates: np.ndarray, samples: list["_Block"], exit_mass: ExitMass) -> np.ndarray:
    """Gates after Adam's steps, which shrink as a cosine.

    Kingma, Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015.
    """
    mean, square = np.zeros_like(gates), np.zeros_like(gates)
    for step in range(GATE_STEPS):
        gradient = np.sum([block.gradient(gates, exit_mass) for block in samples], axis=0)
        gradient[..., :-1] += 2 * GATE_PENALTY * gates[..., :-1]
        mean += (1 - DECAYS[0]) * (gradient - mean)
        square += (1 - DECAYS[1]) * (gradient * gradient - square)
        of_mean, of_square = (1 - decay ** (step + 1) for decay in DECAYS)
        rate = GATE_LR * (1 + math.cos(math.pi * step / GATE_STEPS)) / 2
        scale = np.sqrt(square) / math.sqrt(of_square) + EPSILON
        gates = gates - rate / of_mean * (mean / scale)
    return gates


@dataclass(frozen=True, kw_only=True)
class _Block:
    """Some samples in pieces of equal length, as the descent reads them.

    Parameters
    ----------
    inputs : ndarray (n_gates, n_pieces, n_inputs + 1, n_samples)
        Standardised, and ones for the bias, all with the sign turned.
    spent : ndarray (n_exits, n_pieces, n_points, n_samples)
        What a sample spends at each exit, times its share of the mean.
    """

    inputs: np.ndarray
    spent: np.ndarray

    def gradient(self, gates: np.ndarray, exit_mass: ExitMass) -> np.ndarray:
        """Of the samples' part of the objective: gates (n_points, n_gates, n_inputs + 1) -> the same shape."""
        # The probability of leaving is 1 / (1 + exp(-score)); all is done in place.
        leaving = gates.swapaxes(0, 1)[:, None] @ self.inputs
        np.exp(leaving, out=leaving)
        leaving += 1
        np.reciprocal(leaving, out=leaving)
        of_gates, of_exits = np.moveaxis(leaving, 0, -1), np.moveaxis(self.spent, 0, -1)
        slopes = np.moveaxis(exit_distribution_gradient(of_gates, exit_mass, of_exits), -1, 0)
        # Times the derivative with respect to -score, p (p - 1).
        slopes *= leaving
        leaving -= 1
        slopes *= leaving
        gradient: np.ndarray = (slopes @ self.inputs.swapaxes(-1, -2)).sum(1)
        return gradient.swapaxes(0, 1)


def _in_blocks(
    answers: ExitAnswers,
    standardised: np.ndarray,
    exit_costs: np.ndarray,
    cost_weights: np.ndarray,
) -> list[_Block]:
    """All samples in blocks, where ``standardised`` are their gate inputs (n_samples, n_gates, n_inputs)."""
    ones = np.ones((*standardised.shape[:2], 1))
    inputs = _in_pieces(-np.concatenate([standardised, ones], axis=-1))
    spent = _spent(answers, exit_costs, cost_weights)
    together = blocks(inputs.shape[1], max(1, BLOCK // (len(cost_weights) * inputs.shape[-1])))
    return [_Block(inputs=inputs[:, some], spent=spent[:, some]) for some in together]


def _spent(answers: ExitAnswers, exit_costs: np.ndarray, cost_weights: np.ndarray) -> np.ndarray:
    """What a block reads of the same name, for all samples; those that fill up the last piece spend nothing."""
    costs = exit_costs.astype(np.float32)[:, None, None, None]
    prices = cost_weights.astype(np.float32)[:, None]
    losses = _in_pieces(answers.smoothed_errors[..., None])
    shares = _in_pieces(answers.weights[:, None] / len(answers))
    spent: np.ndarray = with_costs(losses, costs, prices) * shares
    return spent


def _in_pieces(values: np.ndarray) -> np.ndarray:
    """(n_samples, ..., n_columns) -> (..., n_pieces, n_columns, n_samples of a piece), filled up with zeros"""
    n_pieces = math.ceil(len(values) / PIECE)
    length = math.ceil(len(values) / n_pieces)
    filled = np.zeros((n_pieces * length, *values.shape[1:]), dtype=np.float32)
    filled[: len(values)] = values
    pieces = filled.reshape(n_pieces, length, *values.shape[1:])
    return np.ascontiguousarray(np.moveaxis(pieces, (0, 1), (-3, -1)))


def _checked(points: GatePoints, cost_weights: Sequence[float]) -> GatePoints:
    """The same gates; refuse those that are not finite."""
    if not (np.isfinite(points.weight).all() and np.isfinite(points.bias).all()):
        raise ValueError(
            f"the training of gates ended in weights that are not finite (cost_weight={max(cost_weights):g}); give a "
            f"smaller cost_weight, and smaller exit_costs."
        )
    return points
