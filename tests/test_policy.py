import numpy as np
import pytest
import torch

from sklearn_jeidnn._exits.policy import (
    EXIT_DISTRIBUTIONS,
    direct_mass,
    exit_distribution,
    exits_taken,
    leaves,
    sequential_mass,
)


@pytest.fixture
def gate_probs():
    return torch.rand(200, 5, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("exit_mass", EXIT_DISTRIBUTIONS.values())
def test_exit_distribution_sums_to_one_and_is_not_negative(gate_probs, exit_mass):
    distribution = exit_distribution(gate_probs, exit_mass)
    torch.testing.assert_close(distribution.sum(1), torch.ones(len(gate_probs)))
    assert (distribution >= 0).all()


def test_sequential_distribution_is_the_product_formula(gate_probs):
    distribution = exit_distribution(gate_probs, sequential_mass)
    stayed = torch.cumprod(1 - gate_probs, dim=1)
    torch.testing.assert_close(distribution[:, 3], gate_probs[:, 3] * stayed[:, 2])
    torch.testing.assert_close(distribution[:, -1], stayed[:, -1])


def test_direct_distribution_is_the_papers_clipped_formula(gate_probs):
    distribution = exit_distribution(gate_probs, direct_mass)
    for exit_index in range(gate_probs.shape[1]):
        left = 1 - gate_probs[:, :exit_index].sum(1)
        expected = torch.minimum(gate_probs[:, exit_index], left).clamp(min=0)
        torch.testing.assert_close(distribution[:, exit_index], expected)


def test_a_row_leaves_where_at_least_half_of_the_remaining_mass_is_taken():
    mass, unspent = torch.tensor([0.2, 0.19]), torch.tensor([0.4, 0.4])
    assert leaves(mass, unspent).tolist() == [True, False]


@pytest.mark.parametrize("exit_mass", EXIT_DISTRIBUTIONS.values())
def test_arrays_are_taken_as_tensors_are(gate_probs, exit_mass):
    arrays = gate_probs.numpy()
    distribution = exit_distribution(arrays, exit_mass)
    np.testing.assert_allclose(distribution, exit_distribution(gate_probs, exit_mass), atol=1e-6)
    taken = exits_taken(arrays, exit_mass)
    assert isinstance(taken, np.ndarray)
    assert np.array_equal(taken, exits_taken(gate_probs, exit_mass).numpy())


@pytest.mark.parametrize("exit_mass", EXIT_DISTRIBUTIONS.values())
def test_exits_taken_are_the_first_at_which_the_rule_lets_go(gate_probs, exit_mass):
    def first_exit(row):
        unspent = torch.tensor(1.0)
        for exit_index, gate_prob in enumerate(row):
            mass = exit_mass(gate_prob, unspent)
            if leaves(mass, unspent):
                return exit_index
            unspent = unspent - mass
        return len(row)

    assert exits_taken(gate_probs, exit_mass).tolist() == [first_exit(row) for row in gate_probs]
