import numpy as np
import pytest
import torch
from torch.nn import functional as F

from sklearn_jeidnn._fit.losses import (
    cross_entropy,
    exits_together,
    minus_true_probability,
    positive_weights,
    surrogate_targets,
    weighted_by_exit,
    zero_one,
)
from sklearn_jeidnn._operate.objective import best_exit, expected_cost


def test_cross_entropy_is_torchs_at_each_exit():
    logits, y = torch.randn(6, 3, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    losses = cross_entropy(logits, y)
    torch.testing.assert_close(losses[:, 1], F.cross_entropy(logits[:, 1], y, reduction="none"))


def test_zero_one_counts_errors_and_minus_true_probability_reads_the_right_class():
    logits = torch.tensor([[[5.0, 0.0], [0.0, 5.0]]])
    assert zero_one(logits, torch.tensor([0])).tolist() == [[0.0, 1.0]]
    probability = minus_true_probability(logits, torch.tensor([1]))
    torch.testing.assert_close(probability, -logits.softmax(-1)[..., 1])


@pytest.mark.parametrize("made", [torch.tensor, np.array])
def test_expected_cost_is_the_objective_of_the_method_page(made):
    distribution, losses = made([[0.25, 0.75]]), made([[1.0, 0.0]])
    objective = expected_cost(distribution, losses, made([0.2, 1.0]), 0.5)
    assert objective.tolist() == pytest.approx([0.25 * 1.1 + 0.75 * 0.5])


def test_surrogate_targets_are_one_from_the_best_exit_on():
    losses, costs = (
        torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [1.0, 1.0, 0.0]]),
        torch.tensor([0.2, 0.5, 1]),
    )
    best = best_exit(losses, costs, 0.1)
    assert best.tolist() == [0, 1, 2]
    assert surrogate_targets(best, 2).tolist() == [[1, 1], [0, 1], [0, 0]]


def test_positive_weights_are_clipped():
    best = torch.tensor([0] * 99 + [1])
    torch.testing.assert_close(
        positive_weights(best, 2, torch.ones(100)), torch.tensor([1 / 99, 5])
    )


def test_positive_weights_count_samples_by_their_weights():
    best, weights = torch.tensor([0, 0, 1, 1]), torch.tensor([1.5, 0.5, 1.0, 1.0])
    torch.testing.assert_close(positive_weights(best, 2, weights), torch.tensor([1.0, 1.0]))
    rare = torch.tensor([0.5, 0.5, 1.0, 2.0])
    torch.testing.assert_close(positive_weights(best, 2, rare), torch.tensor([3.0, 1 / 3]))


def test_weighing_by_exit_keeps_a_rows_sum():
    losses, distribution = torch.rand(5, 3), torch.softmax(torch.randn(5, 3), 1)
    torch.testing.assert_close(weighted_by_exit(distribution, losses), losses.sum(1))


def test_early_exits_ask_nothing_of_the_last_exits_probabilities():
    logits = torch.randn(4, 3, 5, requires_grad=True)
    y = torch.tensor([0, 1, 2, 3])
    exits_together(logits, y, 0.7).sum().backward()
    alone = logits.detach().clone().requires_grad_()
    F.cross_entropy(alone[:, -1], y, reduction="sum").backward()
    torch.testing.assert_close(logits.grad[:, -1], alone.grad[:, -1])
