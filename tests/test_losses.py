import torch
from torch.nn import functional as F

from sklearn_jeidnn import _losses


def test_cross_entropy_is_torchs_at_each_exit():
    logits, y = torch.randn(6, 3, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    losses = _losses.cross_entropy(logits, y)
    torch.testing.assert_close(losses[:, 1], F.cross_entropy(logits[:, 1], y, reduction="none"))


def test_zero_one_counts_errors_and_minus_true_probability_reads_the_right_class():
    logits = torch.tensor([[[5.0, 0.0], [0.0, 5.0]]])
    assert _losses.zero_one(logits, torch.tensor([0])).tolist() == [[0.0, 1.0]]
    probability = _losses.minus_true_probability(logits, torch.tensor([1]))
    torch.testing.assert_close(probability, -logits.softmax(-1)[..., 1])


def test_expected_cost_is_the_objective_of_the_method_page():
    distribution, losses = torch.tensor([[0.25, 0.75]]), torch.tensor([[1.0, 0.0]])
    objective = _losses.expected_cost(distribution, losses, torch.tensor([0.2, 1.0]), 0.5)
    torch.testing.assert_close(objective, torch.tensor([0.25 * 1.1 + 0.75 * 0.5]))


def test_surrogate_targets_are_one_from_the_best_exit_on():
    losses, costs = (
        torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [1.0, 1.0, 0.0]]),
        torch.tensor([0.2, 0.5, 1]),
    )
    best = _losses.best_exit(losses, costs, 0.1)
    assert best.tolist() == [0, 1, 2]
    assert _losses.surrogate_targets(best, 2).tolist() == [[1, 1], [0, 1], [0, 0]]


def test_positive_weights_are_clipped():
    best = torch.tensor([0] * 99 + [1])
    torch.testing.assert_close(_losses.positive_weights(best, 2), torch.tensor([1 / 99, 5.0]))


def test_weighing_by_exit_keeps_a_rows_sum():
    losses, distribution = torch.rand(5, 3), torch.softmax(torch.randn(5, 3), 1)
    torch.testing.assert_close(_losses.weighted_by_exit(distribution, losses), losses.sum(1))


def test_early_exits_ask_nothing_of_the_last_exits_probabilities():
    logits = torch.randn(4, 3, 5, requires_grad=True)
    y = torch.tensor([0, 1, 2, 3])
    _losses.exits_together(logits, y, 0.7).sum().backward()
    alone = logits.detach().clone().requires_grad_()
    F.cross_entropy(alone[:, -1], y, reduction="sum").backward()
    torch.testing.assert_close(logits.grad[:, -1], alone.grad[:, -1])


def test_temperatures_of_leavers_follow_their_rows_and_where_few_leave_those_of_all():
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(3010, 4, generator=generator)
    # Twice as sure as is right.
    y = torch.multinomial((logits / 2).softmax(1), 1, generator=generator)[:, 0]
    exit_index = torch.tensor([0] * 3000 + [1] * 10)
    own = _losses.temperatures_of_leavers(logits, y, exit_index, torch.tensor([1.0, 1.0, 5.0]))
    assert abs(own[0] - 2) < 0.1
    assert 1 < own[1] < 1.5
    assert own[2] == 5
