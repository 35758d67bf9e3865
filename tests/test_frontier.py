import copy
import itertools
import pickle
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from sklearn_jeidnn._exits.gate_points import CONFIDENCE
from sklearn_jeidnn._exits.policy import EXIT_DISTRIBUTIONS, sequential_mass
from sklearn_jeidnn._operate.exit_answers import ExitAnswers
from sklearn_jeidnn._operate.frontier import COST_WEIGHT_GRID, Frontier, oracle_exits, tabulate
from sklearn_jeidnn._operate.gate_descent import descend_gates
from sklearn_jeidnn._operate.thresholds import THRESHOLD_POLICIES, threshold_gates

from .conftest import quick_classifier

pytestmark = pytest.mark.usefixtures("full_descent")

COSTS = np.array([0.2, 0.5, 1.0])


def answers_with(errors, gate_inputs):
    """Answers of two classes, wrong where that is said: the first is right, by a logit."""
    wrong = errors.astype(np.float32)
    return ExitAnswers(
        logits=np.stack([1 - wrong, wrong], axis=-1),
        backbone_logits=np.stack([1 - wrong, wrong], axis=-1)[:, -1],
        gate_inputs=gate_inputs,
        codes=np.zeros(len(errors), dtype=int),
        weights=np.ones(len(errors), dtype=np.float32),
    )


@pytest.fixture(scope="module")
def rows():
    """Two gates; the surer an exit, the rarer its errors, the last exit is nearly always right."""
    rng = np.random.default_rng(0)
    confidence = rng.random((600, 2), dtype=np.float32)
    gate_inputs = np.zeros((600, 2, 15), dtype=np.float32)
    gate_inputs[..., CONFIDENCE] = confidence
    chance = np.append(1 - confidence, np.full((600, 1), 0.05, dtype=np.float32), axis=1)
    errors = rng.random((600, 3)) < chance
    answers = answers_with(errors, gate_inputs)
    vars(answers)["smoothed_errors"] = chance
    np.testing.assert_array_equal(answers.errors, errors)
    return answers


def frontier_of(answers, policy="learned"):
    return Frontier(
        answers=answers, exit_mass=sequential_mass, exit_costs=COSTS, exit_policy=policy
    )


def assert_same_tables(table, other):
    assert table.keys() == other.keys()
    for name in table:
        np.testing.assert_array_equal(table[name], other[name])


@pytest.mark.parametrize("exit_mass", EXIT_DISTRIBUTIONS.values())
def test_gates_of_many_cost_weights_are_those_of_each_alone(rows, exit_mass):
    together = descend_gates(rows, exit_mass, COSTS, [0.0, 0.1, 1.0])
    for i, cost_weight in enumerate([0.0, 0.1, 1.0]):
        alone = descend_gates(rows, exit_mass, COSTS, [cost_weight])
        taken = [rows.exits(gates, exit_mass) for gates in (together.point(i), alone)]
        assert (taken[0] != taken[1]).mean() < 0.01


@pytest.mark.parametrize("policy", ["learned", *THRESHOLD_POLICIES])
def test_costs_fall_along_the_frontier_and_a_budget_is_kept(rows, policy):
    frontier = frontier_of(rows, policy)
    costs = frontier.table["mean_cost"]
    if policy != "patience":
        assert costs[0] > 0.5 > 0.25 > costs[-1]
    assert (np.diff(costs) <= 0.02).all()
    taken = rows.exits(frontier.choose(budget=0.6).gates, sequential_mass)
    assert COSTS[taken].mean() <= 0.6


@pytest.mark.parametrize("policy", ["confidence", "confidence_per_exit"])
def test_thresholds_spend_no_more_than_any_other_thresholds(rows, policy):
    gates = threshold_gates(rows, COSTS, [0.3], policy)
    spent = rows.errors + 0.3 * COSTS

    def mean_of(thresholds):
        reached = rows.gate_inputs[..., CONFIDENCE] >= thresholds
        taken = np.append(reached, np.ones((600, 1), dtype=bool), axis=1).argmax(1)
        return spent[np.arange(600), taken].mean()

    found = mean_of(-gates.bias[0] / gates.weight[0, 0, CONFIDENCE])
    grid = np.linspace(0, 1.01, 41)
    pairs = [(t, t) for t in grid] if policy == "confidence" else itertools.product(grid, grid)
    assert found <= min(mean_of(np.array(pair)) for pair in pairs) + 1e-3


def test_the_table_says_where_one_exit_for_all_rows_would_do(rows):
    table = frontier_of(rows).table
    near = np.abs(table["mean_cost"] - 0.75).argmin()
    cheap, dear = ({name: column[i] for name, column in table.items()} for i in (-1, near))
    # Everyone leaves at the first exit; nobody stays below its cost.
    assert cheap["exit0_rate"] == 1 and cheap["single_exit_suffices"] and cheap["single_exit"] == 0
    assert cheap["single_accuracy"] == cheap["accuracy"]
    # An early exit, half the rows wrong, is no match for gates between it and the last.
    assert dear["single_exit"] in (0, 1) and not dear["single_exit_suffices"]
    assert dear["single_accuracy"] < dear["accuracy"]
    doubled = replace(rows, weights=rows.weights * 2)
    assert_same_tables(frontier_of(rows).measured(doubled), table)


def test_hindsight_takes_the_cheapest_right_exit():
    errors = np.array([[0, 1, 0], [1, 0, 0], [1, 1, 1]])
    answers = answers_with(errors, np.zeros((3, 2, 15), dtype=np.float32))
    table = tabulate(answers, oracle_exits(answers, COSTS), COSTS, COST_WEIGHT_GRID)
    rates = [table[f"exit{i}_rate"][5] for i in range(3)]
    assert rates == pytest.approx([2 / 3, 1 / 3, 0])
    assert table["accuracy"][5] == pytest.approx(2 / 3)
    assert table["mean_cost"][5] == pytest.approx((0.2 + 0.5 + 0.2) / 3)


def test_a_drop_of_accuracy_is_kept_and_none_keeps_every_row_where_nothing_else_does(rows):
    full = 1 - rows.errors[:, -1].mean()
    point = frontier_of(rows).choose(max_accuracy_drop=0.05)
    taken = rows.exits(point.gates, sequential_mass)
    accuracy = 1 - rows.errors[np.arange(600), taken].mean()
    assert accuracy >= full - 0.05 and COSTS[taken].mean() < 0.9
    turned = answers_with(1 - np.roll(rows.errors, -1, axis=1), rows.gate_inputs)
    vars(turned)["smoothed_errors"] = rows.smoothed_errors
    never = frontier_of(turned)
    never.table["accuracy"][:] = 0
    gates = never.choose(max_accuracy_drop=0).gates
    assert (gates.exits(rows.gate_inputs, sequential_mass) == 2).all()


def test_the_table_says_what_the_points_do_to_other_rows(fitted, fresh_digits):
    table = fitted.frontier(*fresh_digits)
    assert list(table) == list(fitted.frontier_)
    for name, column in table.items():
        assert column.shape == (len(COST_WEIGHT_GRID),)
        assert column.dtype == fitted.frontier_[name].dtype
    rates = [table[f"exit{i}_rate"] for i in range(len(fitted.exit_costs_))]
    np.testing.assert_allclose(np.sum(rates, axis=0), 1)
    for point in (0, 12, 20):
        at = fitted.at(cost_weight=COST_WEIGHT_GRID[point])
        assert at.score(*fresh_digits) == pytest.approx(table["accuracy"][point])
        assert at.mean_cost(fresh_digits[0]) == pytest.approx(table["mean_cost"][point], rel=1e-5)


def test_the_table_makes_a_data_frame(fitted):
    frame = pd.DataFrame(fitted.frontier_)
    assert frame.shape == (len(COST_WEIGHT_GRID), len(fitted.frontier_))
    assert frame["cost_weight"].tolist() == list(COST_WEIGHT_GRID)
    assert frame.filter(regex="exit[0-9]+_rate").shape[1] == len(fitted.exit_costs_)
    assert frame["single_exit"].dtype.kind == "i" and frame["single_exit_suffices"].dtype == bool


@pytest.mark.parametrize("policy", ["margin", "entropy_per_exit"])
def test_another_policy_keeps_the_exits(policy, fitted, fresh_digits):
    X, y = fresh_digits
    at = fitted.at(cost_weight=COST_WEIGHT_GRID[18], exit_policy=policy)
    table = fitted.frontier(X, y, exit_policy=policy)
    assert at.exit_policy == policy and fitted.exit_policy == "learned"
    assert at.score(X, y) == pytest.approx(table["accuracy"][18])
    assert_same_tables(at.frontier_, at.at(budget=0.9).frontier_)


def test_verbose_says_where_single_exit_suffices(digits, capsys):
    clf = quick_classifier(cost_weight=100, verbose=1, max_epochs=3).fit(*digits)
    assert "this would do as well: one exit for all samples ('blocks.0')" in capsys.readouterr().out
    with pytest.raises(ValueError, match="marginal"):
        clf.frontier(*digits, exit_policy="marginal")


def test_another_operating_point_shares_weights_and_leaves_the_first_as_it_was(
    fitted, fresh_digits
):
    X, y = fresh_digits
    before = copy.deepcopy(fitted)
    dear, cheap = fitted.at(cost_weight=0.0), fitted.at(cost_weight=5.0)
    assert cheap.cost_weight_ == 5.0 and cheap.get_params()["cost_weight"] == 5.0
    assert cheap.mean_cost(X) < dear.mean_cost(X)
    shared = {id(p) for p in fitted.network_.stages.parameters()}
    assert {id(p) for p in cheap.network_.stages.parameters()} == shared
    assert np.array_equal(fitted.predict_proba(X), before.predict_proba(X))
    assert np.array_equal(fitted.conformity_scores_, before.conformity_scores_)
    assert not np.array_equal(cheap.conformity_scores_, dear.conformity_scores_)
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
    clf = quick_classifier(exit_policy=policy, cost_weight=COST_WEIGHT_GRID[18]).fit(*digits)
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
    frontier = frontier_of(rows, policy)
    taken = [rows.exits(point.gates, sequential_mass) for point in frontier.candidates_by_cost]
    costs = [float(COSTS[exits].mean()) for exits in taken]
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] == pytest.approx(frontier.table["mean_cost"].min())
    assert costs[0] >= frontier.table["mean_cost"].max() - 1e-6
    assert len(set(costs)) > len(set(frontier.table["mean_cost"]))


def test_no_row_leaves_early_by_the_gates_never_and_every_row_by_those_at_once(rows):
    frontier = frontier_of(rows)
    for point, exit_number in (
        (frontier.always_last_exit(), 2),
        (frontier.always_first_exit(), 0),
    ):
        assert (point.gates.exits(rows.gate_inputs, sequential_mass) == exit_number).all()


def test_an_accuracy_drop_is_measured_against_the_plain_backbone(rows):
    """Whatever the last exit, which listens to earlier ones, gains or loses on it."""
    right, wrong = np.float32([1, 0]), np.float32([0, 1])
    for share_right, allowed in ((1.0, 0.02), (0.6, 0.02)):
        is_right = np.arange(600) < 600 * share_right
        plain = np.where(is_right[:, None], right, wrong)
        frontier = frontier_of(replace(rows, backbone_logits=plain))
        assert frontier.table["backbone_accuracy"] == pytest.approx(share_right)
        point = frontier.choose(max_accuracy_drop=allowed)
        accuracy = frontier.summary(point)["accuracy"]
        assert accuracy >= share_right - allowed - 1e-9
        # The last exit is right on 95 %: no point keeps to 98 % but the plain backbone itself.
        assert point.plain_last_exit == (share_right == 1)
    cheap, strict = frontier.choose(max_accuracy_drop=0.0), frontier_of(rows)
    assert frontier._mean_cost(cheap) < frontier._mean_cost(strict.choose(max_accuracy_drop=0.0))


@pytest.fixture
def reluctant(rows):
    """A frontier whose gates keep every sample, whatever cost weighs."""
    frontier = frontier_of(rows)
    n_points, bias = len(COST_WEIGHT_GRID), frontier.points.bias
    stays = frontier.points.always(-9.0)
    vars(frontier)["points"] = replace(
        stays, weight=np.repeat(stays.weight, n_points, 0), bias=np.full_like(bias, -9.0)
    )
    return frontier


def test_a_budget_is_kept_even_if_no_gates_of_the_grid_keep_to_it(reluctant, rows):
    assert reluctant.table["mean_cost"].min() == 1
    taken = rows.exits(reluctant.choose(budget=0.3).gates, sequential_mass)
    assert (taken == 0).all()


def test_the_first_exit_for_all_is_a_candidate_if_gates_keep_samples_at_any_cost(reluctant, rows):
    cheapest = reluctant.candidates_by_cost[-1]
    assert (rows.exits(cheapest.gates, sequential_mass) == 0).all()
