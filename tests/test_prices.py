import numpy as np
import pytest
import torch
from torch import nn

from sklearn_jeidnn._engines.torch_engine import as_tensors
from sklearn_jeidnn._fit import engines
from sklearn_jeidnn._fit.assembly import Assembly
from sklearn_jeidnn._fit.choice import Choice
from sklearn_jeidnn._fit.exit_times import ExitTimes
from sklearn_jeidnn._fit.prices import (
    exits_worth,
    relative_exit_costs,
    seconds_in_turns,
)

from .conftest import quick_classifier


def test_functions_are_timed_in_turns():
    turns = []
    seconds = seconds_in_turns([lambda: turns.append("a"), lambda: turns.append("b")])
    assert turns[:4] == ["a", "b", "a", "b"]
    # The first turn warms up.
    assert seconds.shape == (len(turns) // 2 - 1, 2) and len(seconds) >= 7
    assert (seconds > 0).all()


def test_no_more_exits_than_are_worth_their_time(digits):
    """Of a network that takes no time to speak of, an exit takes longer than it could save."""
    assert exits_worth(1.16, 5) == 2
    assert exits_worth(3.0, 5) == 1
    # An exit that takes no time at all.
    assert exits_worth(0.99, 5) > 100
    options = {"module": Quick, "max_epochs": 1, "exits": "auto"}
    counted = quick_classifier(**options).fit(*digits)
    timed = quick_classifier(**options, cost="seconds", cost_batch_size=1).fit(*digits)
    assert len(timed.exits_) < len(counted.exits_)


class Quick(nn.Sequential):
    """Layers that take no time to speak of."""

    def __init__(self):
        layers = [layer for _ in range(6) for layer in (nn.Linear(64, 64), nn.ReLU())]
        super().__init__(*layers, nn.Linear(64, 10))


@pytest.fixture(scope="module")
def timed(digits):
    return quick_classifier(cost="seconds", max_epochs=3).fit(*digits)


def test_costs_in_seconds_are_relative_to_the_plain_backbones_time(timed):
    costs = timed.exit_costs_
    assert costs.shape == (len(timed.exits_) + 1,)
    assert (costs > 0).all() and (np.diff(costs) >= 0).all()
    assert 0 < timed.plain_seconds_ < 5
    assert timed.measure_costs(batch_size=1).shape == costs.shape


def test_an_estimator_tells_its_costs_in_either_unit(timed, fitted):
    counted = fitted.measure_costs("multiply_adds")
    np.testing.assert_allclose(counted, fitted.exit_costs_)
    assert timed.measure_costs("multiply_adds")[-1] > 1
    with pytest.raises(ValueError, match="cost='joules' is not known; give"):
        fitted.measure_costs("joules")


def test_a_stored_price_table_gives_the_same_fit_twice(timed, digits, fresh_digits):
    table = [0.4, 0.9, 0.95, 1.2]
    fitted, again = (quick_classifier(cost=table, max_epochs=3).fit(*digits) for _ in range(2))
    X = fresh_digits[0]
    np.testing.assert_array_equal(fitted.predict_proba(X), again.predict_proba(X))
    np.testing.assert_array_equal(fitted.exit_costs_, table)
    assert fitted.mean_cost(fresh_digits[0]) >= 0.4


@pytest.mark.usefixtures("full_descent")
def test_another_price_table_moves_the_operating_point(fitted, fresh_digits):
    """Where later exits cost next to nothing more, rows stay."""
    first, *_ = table = fitted.exit_costs_
    dear, cheap = (
        fitted.at(cost_weight=0.3, exit_costs=costs).predict_exit(fresh_digits[0]).mean()
        for costs in (first + 10 * (table - first), first + 1e-3 * (table - first))
    )
    assert dear < cheap


@pytest.mark.parametrize("table", [[0.5, 1.0], [0.5, 0.4, 0.9, 1.0], [0, 0.1, 0.2, 1.0], [["a"]]])
def test_a_price_table_that_does_not_fit_is_refused(digits, fitted, table):
    with pytest.raises(ValueError, match="cost=.*for each of the 4 exits|could not convert"):
        quick_classifier(cost=table, max_epochs=1).fit(*digits)
    with pytest.raises(ValueError, match="exit_costs=.*for each of the 4 exits|could not convert"):
        fitted.at(cost_weight=0.1, exit_costs=table)


def test_companions_and_a_budget_go_with_seconds(digits, fresh_digits):
    clf = quick_classifier(
        companion="auto", cost="seconds", cost_batch_size=1, budget=3.0, max_epochs=3
    )
    clf.fit(*digits)
    assert clf.mean_cost(fresh_digits[0]) <= 3.1


@pytest.mark.usefixtures("no_trees")
def test_behind_companions_exits_inside_are_left_out_if_that_is_better(
    digits, fresh_digits, monkeypatch
):
    def timed(schema, engine, arrays, n_samples):
        """As if each exit took half of the plain backbone's time."""
        counted = relative_exit_costs(engine.network, as_tensors(schema.encode(arrays)))
        return ExitTimes(counted + 0.5 * np.arange(1, len(counted) + 1), 1e-6)

    def times(assembly, modules):
        counts = np.array([assembly._count(module) for module in (assembly.module, *modules)])
        return counts[1:] / counts[0]

    def objective(choice, members):
        """As if only exits at the ends of members were worth something, and as many as there can be."""
        return sum(len(member.cut.names) - 0.1 for member in members)

    monkeypatch.setattr(engines, "time_exits", timed)
    monkeypatch.setattr(Assembly, "_times", times)
    monkeypatch.setattr(Choice, "_objective", objective)
    options = {"companion": "auto", "cost": "seconds", "cost_weight": 0.2, "max_epochs": 10}
    clf = quick_classifier(module__width=128, module__n_blocks=4, exits=2, **options).fit(*digits)
    assert len([name for name in clf.exits_ if "." in name]) == 2
    clf = quick_classifier(module__width=128, module__n_blocks=4, **options).fit(*digits)
    assert clf.exits_ and not any("." in name for name in clf.exits_)
    X, y = fresh_digits
    engine = clf._predictor.cascade.engine
    last = len(clf.exits_)
    at_end = engine.route((X,), torch.full((len(X),), last))
    assert (at_end.exit_index == last).all()
    at_end = clf.classes_[at_end.logits.argmax(1)]
    # The exit at the end adds what the companion answers, too.
    assert (at_end == clf.predict_backbone(X)).mean() > 0.9
    assert clf.score(X, y) > 0.8
