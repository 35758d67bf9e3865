import copy
import pickle

import numpy as np
import pytest
import torch

from sklearn_jeidnn._frontier import GRID, Frontier, Outcomes, descend_gates, oracle
from sklearn_jeidnn._policy import EXIT_MASSES, exits_taken, sequential_mass
from sklearn_jeidnn._thresholds import THRESHOLD_POLICIES, threshold_gates

from .conftest import quick_classifier

COSTS = torch.tensor([0.2, 0.5, 1.0])


@pytest.fixture(scope="module")
def rows():
    """Two gates; the surer an exit, the rarer its errors, the last exit is nearly always right."""
    generator = torch.Generator().manual_seed(0)
    confidence = torch.rand(600, 2, generator=generator)
    inputs = torch.zeros(600, 2, 15)
    inputs[..., 0] = confidence
    chance = torch.cat([1 - confidence, torch.full((600, 1), 0.05)], dim=1)
    errors = (torch.rand(600, 3, generator=generator) < chance).float()
    return Outcomes(inputs, chance, errors, -chance.log1p(), torch.ones(600))


@pytest.mark.parametrize("exit_mass", EXIT_MASSES.values())
def test_gates_of_many_cost_weights_are_those_of_each_alone(rows, exit_mass):
    together = descend_gates(rows, exit_mass, COSTS, [0.0, 0.1, 1.0])
    for point, cost_weight in enumerate([0.0, 0.1, 1.0]):
        alone = descend_gates(rows, exit_mass, COSTS, [cost_weight])
        taken = [
            exits_taken(gates.probabilities(rows.inputs), exit_mass)[:, 0]
            for gates in (together.one(point), alone)
        ]
        assert (taken[0] != taken[1]).float().mean() < 0.01


@pytest.mark.parametrize("policy", ["learned", *THRESHOLD_POLICIES])
def test_costs_fall_along_the_frontier_and_a_budget_is_kept(rows, policy):
    frontier = Frontier(rows, sequential_mass, COSTS, policy)
    costs = frontier.table["mean_cost"]
    if policy != "patience":
        assert costs[0] > 0.5 > 0.25 > costs[-1]
    assert (np.diff(costs) <= 0.02).all()
    gates = frontier.choose(budget=0.6).gates
    taken = exits_taken(gates.probabilities(rows.inputs), sequential_mass)[:, 0]
    assert COSTS[taken].mean() <= 0.6


@pytest.mark.parametrize("policy", ["confidence", "confidence_per_exit"])
def test_thresholds_spend_no_more_than_any_other_thresholds(rows, policy):
    weight, bias, mean, scale = threshold_gates(rows, COSTS, [0.3], policy)
    spent = rows.errors + 0.3 * COSTS

    def mean_of(thresholds):
        leaving = torch.cat([rows.inputs[..., 0] >= thresholds, torch.ones(600, 1).bool()], dim=1)
        return spent.gather(1, leaving.int().argmax(1, keepdim=True)).mean()

    found = mean_of(-bias[0] / weight[0, 0, 0])
    grid = torch.linspace(0, 1.01, 41)
    pairs = [(t, t) for t in grid] if policy == "confidence" else torch.cartesian_prod(grid, grid)
    assert found <= min(mean_of(torch.stack(tuple(pair))) for pair in pairs) + 1e-3


def test_the_table_says_where_one_exit_for_all_rows_would_do(rows):
    table = Frontier(rows, sequential_mass, COSTS).table
    cheap, dear = table[-1], table[np.abs(table["mean_cost"] - 0.75).argmin()]
    # Everyone leaves at the first exit; nobody stays below its cost.
    assert (
        cheap["exit_rates"][0] == 1 and cheap["single_exit_suffices"] and cheap["single_exit"] == 0
    )
    assert cheap["single_accuracy"] == cheap["accuracy"]
    # An early exit, half the rows wrong, is no match for gates between it and the last.
    assert dear["single_exit"] in (0, 1) and not dear["single_exit_suffices"]
    assert dear["single_accuracy"] < dear["accuracy"]
    dearer = Frontier(rows, sequential_mass, COSTS).measured(rows._replace(weight=rows.weight * 2))
    assert np.array_equal(dearer, table)


def test_hindsight_takes_the_cheapest_right_exit():
    errors = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    some = Outcomes(torch.zeros(3, 2, 15), errors, errors, errors, torch.ones(3))
    point = oracle(some, COSTS)[5]
    assert point["exit_rates"].tolist() == pytest.approx([2 / 3, 1 / 3, 0])
    assert point["accuracy"] == pytest.approx(2 / 3)
    assert point["mean_cost"] == pytest.approx((0.2 + 0.5 + 0.2) / 3)


def test_a_drop_of_accuracy_is_kept_and_none_keeps_every_row_where_nothing_else_does(rows):
    frontier = Frontier(rows, sequential_mass, COSTS)
    full = 1 - float(rows.errors[:, -1].mean())
    chosen = frontier.choose(max_accuracy_drop=0.05)
    taken = exits_taken(chosen.gates.probabilities(rows.inputs), sequential_mass)[:, 0]
    accuracy = 1 - rows.errors.gather(1, taken[:, None]).mean()
    assert accuracy >= full - 0.05 and COSTS[taken].mean() < 0.9
    never = Frontier(rows._replace(errors=1 - rows.errors.roll(-1, 1)), sequential_mass, COSTS)
    never.table["accuracy"] = 0
    gates = never.choose(max_accuracy_drop=0).gates
    assert (exits_taken(gates.probabilities(rows.inputs), sequential_mass) == 2).all()


def test_the_table_says_what_the_points_do_to_other_rows(fitted, fresh_digits):
    table = fitted.frontier(*fresh_digits)
    assert table.dtype == fitted.frontier_.dtype and len(table) == len(GRID)
    np.testing.assert_allclose(table["exit_rates"].sum(1), 1)
    for point in (0, 12, 20):
        at = fitted.at(cost_weight=GRID[point])
        assert at.score(*fresh_digits) == pytest.approx(table["accuracy"][point])
        assert at.mean_cost(fresh_digits[0]) == pytest.approx(table["mean_cost"][point], rel=1e-5)


@pytest.mark.parametrize("policy", ["margin", "entropy_per_exit"])
def test_another_policy_keeps_the_exits(policy, fitted, fresh_digits):
    X, y = fresh_digits
    at = fitted.at(cost_weight=GRID[18], exit_policy=policy)
    table = fitted.frontier(X, y, exit_policy=policy)
    assert at.exit_policy == policy and fitted.exit_policy == "learned"
    assert at.score(X, y) == pytest.approx(table["accuracy"][18])
    assert np.array_equal(at.frontier_, at.at(budget=0.9).frontier_)


def test_verbose_says_where_single_exit_suffices(digits, capsys):
    quick_classifier(cost_weight=100, verbose=1).fit(*digits)
    assert "One exit for all rows would do: " in capsys.readouterr().out
    with pytest.raises(ValueError, match="marginal"):
        quick_classifier().fit(*digits).frontier(*digits, exit_policy="marginal")


def test_another_operating_point_shares_weights_and_leaves_the_first_as_it_was(
    fitted, fresh_digits
):
    X, y = fresh_digits
    before = copy.deepcopy(fitted)
    cheap = fitted.at(cost_weight=5.0)
    assert cheap.cost_weight_ == 5.0 and cheap.get_params()["cost_weight"] == 5.0
    assert cheap.mean_cost(X) < fitted.mean_cost(X)
    shared = {id(p) for p in fitted.network_.stages.parameters()}
    assert {id(p) for p in cheap.network_.stages.parameters()} == shared
    assert np.array_equal(fitted.predict_proba(X), before.predict_proba(X))
    assert np.array_equal(fitted.conformity_scores_, before.conformity_scores_)
    assert not np.array_equal(cheap.conformity_scores_, fitted.conformity_scores_)
    again = pickle.loads(pickle.dumps(cheap)).at(cost_weight=fitted.cost_weight)
    assert np.array_equal(again.predict_exit(X), fitted.predict_exit(X))


def test_a_fit_at_a_budget_is_a_fit_taken_there(digits, fresh_digits):
    X, _ = fresh_digits
    fit = quick_classifier(companion="auto", budget=0.4, freeze_backbone="after_warmup")
    first = fit.fit(*digits)
    assert np.array_equal(first.at(budget=0.4).predict_exit(X), first.predict_exit(X))
    assert first.at(max_accuracy_drop=0.5).mean_cost(X) <= first.at(max_accuracy_drop=0).mean_cost(
        X
    )


@pytest.mark.parametrize("policy", THRESHOLD_POLICIES)
def test_every_policy_routes_as_its_frontier_says(policy, digits, fresh_digits):
    X, y = fresh_digits
    clf = quick_classifier(exit_policy=policy, cost_weight=GRID[18]).fit(*digits)
    table = clf.frontier(X, y)
    assert clf.score(X, y) == pytest.approx(table["accuracy"][18])
    assert clf.mean_cost(X) == pytest.approx(table["mean_cost"][18], rel=1e-5)


@pytest.mark.parametrize(
    "asked, message",
    [
        ({}, "takes one of"),
        ({"budget": 0.5, "cost_weight": 1.0}, "takes one of"),
        ({"budget": 0.001}, "less than the first exit costs"),
        ({"budget": -1}, "budget"),
        ({"max_accuracy_drop": 2}, "max_accuracy_drop"),
    ],
)
def test_operating_points_that_do_not_exist_are_refused(fitted, asked, message):
    with pytest.raises(ValueError, match=message):
        fitted.at(**asked)


def test_two_operating_points_or_thresholds_with_bilevel_gates_are_refused(digits):
    for params in (
        {"budget": 0.5, "max_accuracy_drop": 0.1},
        {"exit_policy": "margin", "gate_training": "bilevel"},
    ):
        with pytest.raises(ValueError, match="budget|exit_policy"):
            quick_classifier(**params).fit(*digits)


def test_bilevel_gates_have_no_frontier(digits):
    clf = quick_classifier(gate_training="bilevel", max_epochs=2).fit(*digits)
    assert not hasattr(clf, "frontier_")
    with pytest.raises(ValueError, match="bilevel"):
        clf.at(cost_weight=1)


@pytest.mark.parametrize("policy", ["learned", "confidence_per_exit"])
def test_the_path_runs_from_the_dearest_point_to_the_cheapest_of_the_grid(rows, policy):
    frontier = Frontier(rows, sequential_mass, COSTS, policy)
    taken = [
        exits_taken(chosen.gates.probabilities(rows.inputs), sequential_mass)[:, 0]
        for chosen in frontier.path
    ]
    costs = [float(COSTS[exits].mean()) for exits in taken]
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] == pytest.approx(frontier.table["mean_cost"].min())
    assert costs[0] >= frontier.table["mean_cost"].max() - 1e-6
    assert len(set(costs)) > len(set(frontier.table["mean_cost"]))


def test_no_row_leaves_early_by_the_gates_never_and_every_row_by_those_at_once(rows):
    frontier = Frontier(rows, sequential_mass, COSTS)
    for chosen, exit_number in ((frontier.never(), 2), (frontier.at_once(), 0)):
        taken = exits_taken(chosen.gates.probabilities(rows.inputs), sequential_mass)
        assert (taken == exit_number).all()
