"""Rounding alone parts no equal samples."""

import numpy as np
import pytest

from sklearn_jeidnn._exits.policy import EXIT_DISTRIBUTIONS
from sklearn_jeidnn._operate.drift import compare_samples
from sklearn_jeidnn._operate.exit_answers import ExitAnswers
from sklearn_jeidnn._operate.frontier import Frontier
from sklearn_jeidnn._operate.thresholds import THRESHOLD_POLICIES
from sklearn_jeidnn._operate.ties import tied


def noisy_atoms(n_values, seed, n_atoms=3):
    """Few values, and others in the last digits."""
    rng = np.random.default_rng(seed)
    atoms = np.linspace(0.3, 0.9, n_atoms)[rng.integers(n_atoms, size=n_values)]
    return atoms + 2e-7 * rng.uniform(-1, 1, size=n_values)


def test_values_that_rounding_tells_apart_are_made_equal_in_their_places():
    values = noisy_atoms(200, seed=0)
    equal = tied(values)
    assert len(np.unique(values)) > 100 and len(np.unique(equal)) == 3
    np.testing.assert_allclose(equal, values, atol=4e-7)


def test_dense_values_stay_and_so_does_nan():
    dense = np.linspace(0, 1, 2**21)[:100]
    assert np.array_equal(tied(dense), dense)
    assert np.array_equal(
        tied(np.array([np.nan, 0.1, np.nan])), [np.nan, 0.1, np.nan], equal_nan=True
    )


def test_new_samples_that_equal_known_ones_up_to_rounding_are_not_told_apart():
    known, new = noisy_atoms(500, seed=0), noisy_atoms(500, seed=1)
    exits = np.zeros(500, dtype=int)
    assert compare_samples((exits, known - 3e-7), (exits, new + 3e-7)).scores > 0.01
    assert compare_samples((exits, known), (exits, new * 0.9)).scores < 1e-6


@pytest.mark.parametrize("exit_policy", THRESHOLD_POLICIES)
@pytest.mark.parametrize("budget", [0.5, 0.65, 0.8])
def test_no_threshold_parts_samples_that_rounding_alone_tells_apart(exit_policy, budget):
    rng = np.random.default_rng(0)
    numbers = rng.integers(3, size=300)
    inputs = np.repeat(np.array([0.3, 0.6, 0.9])[numbers][:, None, None], 2, axis=1)
    gate_inputs = np.repeat(inputs, 15, axis=2) + 2e-7 * rng.uniform(-1, 1, size=(300, 2, 15))
    gate_inputs[..., -1] = numbers[:, None]
    logits = rng.standard_normal((300, 3, 4), dtype=np.float32)
    answers = ExitAnswers(
        logits=logits,
        backbone_logits=logits[:, -1],
        gate_inputs=np.float32(gate_inputs),
        codes=rng.integers(4, size=300),
        weights=np.ones(300, dtype=np.float32),
    )
    frontier = Frontier(
        answers=answers,
        exit_mass=EXIT_DISTRIBUTIONS["sequential"],
        exit_costs=np.array([0.4, 0.7, 1.0]),
        exit_policy=exit_policy,
    )
    taken = answers.exits(frontier.choose(budget=budget).gates, frontier.exit_mass)
    assert all(np.ptp(taken[numbers == number]) == 0 for number in range(3))
