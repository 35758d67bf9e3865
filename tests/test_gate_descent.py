"""Gates descend the objective as automatic differentiation and torch's Adam do."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sklearn_jeidnn._exits.gate_points import mean_and_scale
from sklearn_jeidnn._exits.gates import all_gate_inputs
from sklearn_jeidnn._exits.policy import EXIT_DISTRIBUTIONS, exit_distribution, sequential_mass
from sklearn_jeidnn._operate import gate_descent
from sklearn_jeidnn._operate.exit_answers import ExitAnswers
from sklearn_jeidnn._operate.gate_descent import descend_gates
from sklearn_jeidnn._operate.objective import expected_cost

COSTS = np.array([0.2, 0.5, 1.0])
COST_WEIGHTS = [0.0, 0.05, 0.3, 3.0]


def answers_of(n_samples):
    """Three exits, each more often right than the one before."""
    rng = np.random.default_rng(0)
    codes = rng.integers(4, size=n_samples)
    logits = rng.standard_normal((n_samples, 3, 4), dtype=np.float32)
    shares = np.array([1.0, 1.5, 2.5], dtype=np.float32)
    logits[np.arange(n_samples), :, codes] += shares * rng.gamma(2, size=(n_samples, 1))
    return ExitAnswers(
        logits=logits,
        backbone_logits=logits[:, -1],
        gate_inputs=all_gate_inputs(torch.as_tensor(logits)).numpy(),
        codes=codes,
        weights=rng.uniform(0.5, 1.5, n_samples).astype(np.float32),
    )


def descended_by_torch(answers, exit_mass):
    """Weights and biases that torch finds, as the description of the method has it."""
    mean, scale = map(torch.as_tensor, mean_and_scale(answers.gate_inputs))
    inputs = (torch.as_tensor(answers.gate_inputs) - mean) / scale
    weight = torch.zeros(len(COST_WEIGHTS), *mean.shape, requires_grad=True)
    bias = torch.full((len(COST_WEIGHTS), len(mean)), -2.0, requires_grad=True)
    optimizer = torch.optim.Adam([weight, bias], lr=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, gate_descent.GATE_STEPS)
    losses, costs = torch.as_tensor(answers.smoothed_errors)[:, None], torch.as_tensor(COSTS)
    for _ in range(gate_descent.GATE_STEPS):
        leaving = (torch.einsum("ngi,pgi->npg", inputs, weight) + bias).sigmoid()
        distribution = exit_distribution(leaving, exit_mass)
        prices = torch.tensor(COST_WEIGHTS)[:, None]
        objective = expected_cost(distribution, losses, costs, prices).sum(1)
        mean_objective = (torch.as_tensor(answers.weights) * objective).mean()
        optimizer.zero_grad()
        (mean_objective + 3e-4 * weight.square().sum()).backward()
        optimizer.step()
        schedule.step()
    return weight.detach().numpy(), bias.detach().numpy()


# Fewer than a piece; a block whose last piece is filled up; several blocks.
@pytest.mark.parametrize("n_samples", [97, 1031, 6007])
@pytest.mark.parametrize("exit_mass", EXIT_DISTRIBUTIONS.values())
def test_gates_are_those_that_torch_finds(exit_mass, n_samples):
    answers = answers_of(n_samples)
    found = descend_gates(answers, exit_mass, COSTS, COST_WEIGHTS)
    weight, bias = descended_by_torch(answers, exit_mass)
    assert np.abs(weight).max() > 1
    np.testing.assert_allclose(found.weight, weight, atol=3e-3)
    np.testing.assert_allclose(found.bias, bias, atol=3e-3)


@pytest.mark.usefixtures("full_descent")
@pytest.mark.parametrize("exit_mass", EXIT_DISTRIBUTIONS.values())
def test_samples_take_the_exits_that_torch_gives_them(exit_mass):
    answers = answers_of(1031)
    found = descend_gates(answers, exit_mass, COSTS, COST_WEIGHTS)
    weight, bias = descended_by_torch(answers, exit_mass)
    taken = found.exits(answers.gate_inputs, exit_mass)
    expected = replace(found, weight=weight, bias=bias).exits(answers.gate_inputs, exit_mass)
    assert (taken != expected).mean() < 2e-3


def test_gates_are_float32_and_contiguous_so_that_copies_round_alike():
    found = descend_gates(answers_of(50), sequential_mass, COSTS, COST_WEIGHTS)
    for part in vars(found).values():
        assert part.dtype == np.float32 and part.flags.c_contiguous


def test_a_lone_exit_has_no_gates():
    answers = answers_of(20)
    lone = replace(answers, logits=answers.logits[:, -1:], gate_inputs=np.empty((20, 0, 0)))
    found = descend_gates(lone, sequential_mass, COSTS[-1:], COST_WEIGHTS)
    assert (found.exits(lone.gate_inputs, sequential_mass) == 0).all()


def test_costs_beyond_float32_are_refused_and_cost_weights_are_not():
    answers = answers_of(50)
    with pytest.raises(
        ValueError, match=r"not finite \(cost_weight=3\); give a smaller cost_weight"
    ):
        descend_gates(answers, sequential_mass, COSTS * 1e300, COST_WEIGHTS)
    most, larger = (descend_gates(answers, sequential_mass, COSTS, [w]) for w in (1e12, 1e300))
    assert np.array_equal(most.weight, larger.weight) and np.array_equal(most.bias, larger.bias)
