import copy

import pytest
import torch

from sklearn_jeidnn._features import exit_features
from sklearn_jeidnn._frontier import Frontier
from sklearn_jeidnn._heads import Answer, ExitHeads
from sklearn_jeidnn._joint import learn_trust, outcomes_of
from sklearn_jeidnn._losses import expected_zero_one, temperatures
from sklearn_jeidnn._policy import exits_taken
from sklearn_jeidnn._rows import ExitFeatures, RowsDataset


def calibrated_logits(n_samples):
    """Logits whose softmax is the truth, and labels drawn from it."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(n_samples, 4, generator=generator)
    return logits, torch.multinomial(logits.softmax(1), 1, generator=generator).squeeze(1)


def test_temperatures_undo_the_scaling_of_calibrated_logits():
    logits, y = calibrated_logits(5000)
    scaled = torch.stack([logits, 3 * logits, 0.5 * logits], dim=1)
    found = temperatures(scaled, y, torch.ones(len(y)))
    torch.testing.assert_close(found, torch.tensor([1.0, 3.0, 0.5]), rtol=0.1, atol=0)


def test_temperatures_stay_finite_where_every_row_is_right():
    y = torch.tensor([0, 1, 2, 3])
    found = temperatures(10 * torch.eye(4)[:, None], y, torch.ones(4))
    assert torch.isfinite(found).all() and (found > 0).all()


def test_temperatures_stay_finite_where_sure_exits_are_wrong():
    logits = torch.tensor([[[0.0, -1e4]], [[-1e4, 0.0]], [[0.0, -1e30]]])
    found = temperatures(logits, torch.tensor([1, 0, 1]), torch.ones(3))
    assert torch.isfinite(found).all() and (found > 1).all()


def test_expected_errors_of_calibrated_logits_are_the_errors_on_average():
    logits, y = calibrated_logits(5000)
    expected = expected_zero_one(logits[:, None], torch.ones(1)).mean()
    errors = (logits.argmax(1) != y).float().mean()
    assert abs(expected - errors) < 0.02


def two_members(noise_of_the_first):
    """Logits of two members, each the truth's with noise of its own."""
    logits, y = calibrated_logits(3000)
    generator = torch.Generator().manual_seed(1)
    first, second = (
        logits + noise * torch.randn(logits.shape, generator=generator)
        for noise in (noise_of_the_first, 2.0)
    )
    return ExitFeatures([first, second], y, torch.ones(len(y)))


def trust_in_the_first(noise):
    rows = two_members(noise)
    heads = ExitHeads([Answer()], first_exits=(0, 1))
    learn_trust(heads, rows)
    right = (heads(rows.features).argmax(-1) == rows.y[:, None]).float().mean(0)
    alone = (rows.features[1].argmax(-1) == rows.y).float().mean()
    return heads.trust[1], right[1] - alone


def test_the_member_before_is_trusted_behind_a_bad_exit_of_the_own():
    """Good companion, exit that knows nothing and trusts nobody, good backbone."""
    rows = two_members(1.0)
    generator = torch.Generator().manual_seed(2)
    noise = 20 * torch.randn(rows.features[0].shape, generator=generator)
    rows = rows._replace(features=[rows.features[0], noise, rows.features[1]])
    heads = ExitHeads([Answer(), Answer()], first_exits=(0, 1))
    learn_trust(heads, rows)
    assert heads.trust_in_member[:2] == [0.0, 0.0] and heads.trust_in_member[2] > 0.2
    assert heads.hears_member
    right = (heads(rows.features).argmax(-1) == rows.y[:, None]).float().mean(0)
    alone = (rows.features[2].argmax(-1) == rows.y).float().mean()
    assert right[2] > alone + 0.05


def test_a_member_is_trusted_as_far_as_it_helps():
    (much, gain), (little, _), (none, loss) = map(trust_in_the_first, (0.5, 4.0, 1e4))
    assert much > little >= none and gain > 0.05
    assert none < 1e-3 and loss >= 0


@pytest.mark.parametrize("budget", [0.4, 0.6, 0.9])
def test_a_budget_is_kept_on_the_rows_that_it_is_found_on(budget, fitted, fresh_digits):
    X, y = (torch.as_tensor(column) for column in fresh_digits)
    network = copy.deepcopy(fitted.network_).requires_grad_(True)
    rows = exit_features(network, RowsDataset((X,), y, torch.ones(len(y))), 256, "cpu")
    costs = torch.as_tensor(fitted.exit_costs_, dtype=torch.float32)
    costs = costs - costs[0] + 0.2
    rows = outcomes_of(network, rows)
    network.gates.load(*Frontier(rows, network.exit_mass, costs).choose(budget=budget).gates)
    taken = exits_taken(network.gates(rows.inputs), network.exit_mass)
    assert float(costs[taken].mean()) <= budget
