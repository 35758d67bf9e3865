import numpy as np
import pytest
import torch

from sklearn_jeidnn._exits.policy import (
    EXIT_DISTRIBUTIONS,
    decide,
    direct_mass,
    exit_distribution,
    exit_distribution_gradient,
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


@pytest.mark.parametrize("exit_mass", EXIT_DISTRIBUTIONS.values())
def test_the_last_axis_is_the_exits(gate_probs, exit_mass):
    several = gate_probs.reshape(20, 10, 5)
    distribution = exit_distribution(several, exit_mass)
    assert torch.equal(distribution.flatten(0, 1), exit_distribution(gate_probs, exit_mass))
    taken = exits_taken(several, exit_mass)
    assert torch.equal(taken.flatten(), exits_taken(gate_probs, exit_mass))


def test_one_gate_leaves_the_rest_to_the_last_exit():
    assert exit_distribution(torch.tensor([[0.25]]), direct_mass).tolist() == [[0.25, 0.75]]


@pytest.mark.parametrize("exit_mass", EXIT_DISTRIBUTIONS.values())
def test_a_row_whose_gates_answer_no_number_runs_to_the_last_exit(exit_mass):
    assert exits_taken(torch.full((1, 3), torch.nan), exit_mass).tolist() == [3]


def test_a_sequential_gate_decides_by_its_own_probability():
    unspent = torch.tensor([0.5, 0.1, 1.0, 1.0])
    leave, left = decide(torch.tensor([-0.1, 0.0, 0.5, 2.0]), unspent, sequential_mass)
    assert leave.tolist() == [False, True, True, True]
    assert torch.equal(left, unspent)


def test_a_direct_gate_decides_by_the_mass_that_is_left():
    score, unspent = torch.tensor([0.3, 0.2, 0.3]).logit(), torch.tensor([0.5, 0.5, 0.1])
    leave, left = decide(score, unspent, direct_mass)
    assert leave.tolist() == [True, False, True]
    torch.testing.assert_close(left, torch.tensor([0.2, 0.3, 0.0]))


@pytest.mark.parametrize("exit_mass", EXIT_DISTRIBUTIONS.values())
def test_many_gates_that_stay_are_not_undone_by_rounding(exit_mass):
    gates = np.full((1, 60), 0.499, dtype=np.float32)
    if exit_mass is direct_mass:
        gates = np.float32(0.49) * np.float32(0.51) ** np.arange(60, dtype=np.float32)[None]
    assert exits_taken(gates, exit_mass).tolist() == [60]


@pytest.mark.parametrize("exit_mass", EXIT_DISTRIBUTIONS.values())
@pytest.mark.parametrize("n_gates", [1, 5])
def test_the_gradient_is_that_of_the_distribution(gate_probs, exit_mass, n_gates):
    gates = (gate_probs[:, :n_gates] / 2).requires_grad_()
    losses = torch.rand(200, n_gates + 1)
    (exit_distribution(gates, exit_mass) * losses).sum().backward()
    found = exit_distribution_gradient(gates.detach().numpy(), exit_mass, losses.numpy())
    np.testing.assert_allclose(found, gates.grad, atol=1e-6)
    assert np.abs(found).max() > 0.1


def test_a_direct_gate_that_asks_for_more_than_is_left_does_not_count():
    gates, losses = np.array([[0.7, 0.8, 0.1]]), np.array([[0.0, 3.0, 5.0, 9.0]])
    assert exit_distribution_gradient(gates, direct_mass, losses).tolist() == [[-3.0, 0.0, 0.0]]


@pytest.mark.parametrize("exit_mass", EXIT_DISTRIBUTIONS.values())
def test_without_gates_all_mass_is_the_last_exits(exit_mass):
    assert exit_distribution(np.empty((3, 0)), exit_mass).tolist() == [[1.0]] * 3
