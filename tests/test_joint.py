import copy

import pytest
import torch

from sklearn_jeidnn._exits.exit_heads import ExitHeads, PassThroughHead
from sklearn_jeidnn._exits.policy import exits_taken
from sklearn_jeidnn._fit.datasets import SamplesDataset
from sklearn_jeidnn._fit.features import ExitFeatures, exit_features
from sklearn_jeidnn._fit.joint import answers_of
from sklearn_jeidnn._fit.mixing import fit_mixing_weights
from sklearn_jeidnn._operate.frontier import Frontier

from .conftest import calibrated_logits

pytestmark = pytest.mark.usefixtures("full_descent")


def two_members(noise_of_the_first):
    """Logits of two members, each the truth's with noise of its own."""
    logits, y = map(torch.as_tensor, calibrated_logits(3000))
    generator = torch.Generator().manual_seed(1)
    first, second = (
        logits + noise * torch.randn(logits.shape, generator=generator)
        for noise in (noise_of_the_first, 2.0)
    )
    return ExitFeatures([first, second], y, torch.ones(len(y)))


def weight_of_the_first(noise):
    rows = two_members(noise)
    heads = ExitHeads([PassThroughHead()], first_exits=(0, 1))
    fit_mixing_weights(heads, rows)
    right = (heads(rows.features).argmax(-1) == rows.y[:, None]).float().mean(0)
    alone = (rows.features[1].argmax(-1) == rows.y).float().mean()
    return heads.mixing_weights[1], right[1] - alone


def test_the_member_before_is_read_behind_a_bad_exit_of_the_own():
    """Good companion, exit that knows nothing and reads nobody, good backbone."""
    rows = two_members(1.0)
    generator = torch.Generator().manual_seed(2)
    noise = 20 * torch.randn(rows.features[0].shape, generator=generator)
    rows = rows._replace(features=[rows.features[0], noise, rows.features[1]])
    heads = ExitHeads([PassThroughHead(), PassThroughHead()], first_exits=(0, 1))
    fit_mixing_weights(heads, rows)
    weights = heads.member_mixing_weights
    assert weights[:2] == [0.0, 0.0] and weights[2] > 0.2
    assert heads.reads_member
    right = (heads(rows.features).argmax(-1) == rows.y[:, None]).float().mean(0)
    alone = (rows.features[2].argmax(-1) == rows.y).float().mean()
    assert right[2] > alone + 0.05


def test_a_member_weighs_as_much_as_it_helps():
    (much, gain), (little, _), (none, loss) = map(weight_of_the_first, (0.5, 4.0, 1e4))
    assert much > little >= none and gain > 0.05
    assert none < 1e-3 and loss >= 0


@pytest.mark.parametrize("budget", [0.4, 0.6, 0.9])
def test_a_budget_is_kept_on_the_rows_that_it_is_found_on(budget, fitted, fresh_digits):
    X, y = (torch.as_tensor(column) for column in fresh_digits)
    network = copy.deepcopy(fitted.network_).requires_grad_(True)
    rows = exit_features(network, SamplesDataset((X,), y, torch.ones(len(y))), 256, "cpu")
    costs = fitted.exit_costs_ - fitted.exit_costs_[0] + 0.2
    answers = answers_of(network.heads, rows)
    frontier = Frontier(answers=answers, exit_mass=network.exit_mass, exit_costs=costs)
    network.gates.load(frontier.choose(budget=budget).gates)
    gate_probs = network.gates(torch.as_tensor(answers.gate_inputs))
    taken = exits_taken(gate_probs, network.exit_mass).numpy()
    assert costs[taken].mean() <= budget
