"""Run times of exits, relative to the bare module's own call, and budgets in seconds."""

import copy

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB
from torch import nn

from sklearn_jeidnn._engines.onnx_engine import OnnxEngine
from sklearn_jeidnn._fit import engine_choice, engines, exit_times, joint, prices
from sklearn_jeidnn._fit.exit_times import ExitTimes, bare_calls, costs_of_exits, seconds_of_exits

from .conftest import TinyConv, quick_classifier

# What a told clock says that a pass of the plain backbone takes, for a sample.
PLAIN_SECONDS = 0.01


def test_costs_add_up_to_the_times_that_were_measured():
    shares = np.array([[0.8, 0.2], [0.1, 0.9]])
    np.testing.assert_allclose(costs_of_exits(shares, shares @ [0.5, 1.5]), [0.5, 1.5])


def test_a_sample_that_runs_further_costs_no_less_and_none_is_free():
    costs = costs_of_exits(np.array([[0.8, 0.2], [0.1, 0.9]]), np.array([0.2, 1.2]))
    assert 0 < costs[0] < 0.01 and costs[1] > 1
    costs = costs_of_exits(np.array([[0.8, 0.2], [0.1, 0.9]]), np.array([0.3, 0.2]))
    assert costs[0] == costs[1] > 0


class Clock:
    """A clock that timed functions put forward: a stage takes some time for any call, and some for each sample."""

    def __init__(self, of_stage, of_sample):
        self.now = 0.0
        self.of_stage, self.of_sample = of_stage, np.array(of_sample)

    def perf_counter(self):
        return self.now

    def seconds(self, exits):
        """Of one call."""
        n_running = [(exits >= stage).sum().item() for stage in range(len(self.of_sample))]
        return self.of_stage * np.count_nonzero(n_running) + self.of_sample @ n_running

    def run(self, exits):
        self.now += self.seconds(exits)

    def plain(self):
        self.now += 1.0


@pytest.mark.parametrize("n_exits", [1, 2, 3, 9])
@pytest.mark.parametrize("n_samples", [1, 3, 256])
def test_costs_are_what_a_sample_takes_where_samples_leave_at_all_exits(
    n_exits, n_samples, monkeypatch
):
    clock = Clock(0.05 * n_samples, np.linspace(0.1, 0.2, n_exits))
    monkeypatch.setattr(prices, "time", clock)
    costs, plain_seconds, alone = seconds_of_exits(clock.run, clock.plain, n_samples, n_exits)
    of_first = clock.seconds(torch.zeros(n_samples, dtype=torch.long)) / 1.0
    assert alone == pytest.approx(of_first)
    assert plain_seconds == pytest.approx(1 / n_samples)
    assert (np.diff(costs) >= 0).all() and (costs > 0).all()
    # Other shares than those that were timed: every other sample leaves at the first exit, a tenth at the last.
    exits = np.random.default_rng(0).choice(n_exits, 2560 // n_samples * n_samples, p=None)
    exits[::2] = 0
    calls = torch.split(torch.as_tensor(exits), n_samples)
    seconds = np.mean([clock.seconds(call) for call in calls])
    # Of few samples in a call, not all exits see one.
    tolerance = 0.15 if n_samples == 3 else 0.01
    assert costs[exits].mean() == pytest.approx(seconds, rel=tolerance)


def test_the_reference_is_the_modules_own_call_on_the_whole_batch(fitted, digits):
    clf = copy.deepcopy(fitted)
    engine, seen = clf._predictor.cascade.engine, []
    clf.module_.train()

    def note(module, inputs, output):
        seen.append((len(inputs[0]), module.training, output.requires_grad))

    handle = clf.module_.register_forward_hook(note)
    X = digits[0][:200]
    with exit_times._evaluating(engine.module):
        (bare,) = bare_calls(clf._predictor.schema, engine, [(X,)])
        bare()
    handle.remove()
    assert seen == [(200, False, False)]
    # It is left in the mode in which it was.
    assert all(part.training for part in clf.module_.modules())


def test_images_are_timed_in_the_memory_format_in_which_they_are_faster(digits, monkeypatch):
    images, y = digits[0].reshape(-1, 1, 8, 8), digits[1]
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
    clf = quick_classifier(module=module, exits=["1"], max_epochs=1).fit(images, y)
    compared = []
    monkeypatch.setattr(exit_times, "_fastest", lambda _, some: compared.extend(some) or some[1])
    engine = clf._predictor.cascade.engine
    calls = bare_calls(clf._predictor.schema, engine, [(images[:2],), (images[2:4],)])
    assert compared == [None, torch.channels_last]
    assert [call.args[-1] for call in calls] == [torch.channels_last] * 2


def test_in_another_engine_the_reference_is_its_whole_graph(digits, monkeypatch):
    pytest.importorskip("onnxruntime")
    clf = quick_classifier(module=TinyConv, max_epochs=1, engine="onnxruntime").fit(*digits)
    asked = []
    monkeypatch.setattr(
        OnnxEngine, "whole_logits", lambda engine, arrays: asked.append(len(arrays[0]))
    )
    engine = clf._predictor.cascade.engine
    bare_calls(clf._predictor.schema, engine, [(digits[0][:7],)])[0]()
    assert asked == [7]


COSTS = np.array([0.4, 0.8, 1.2])


@pytest.fixture
def told(monkeypatch):
    """Times are told: exits cost COSTS, the first 0.25 by itself; the plain backbone takes PLAIN_SECONDS."""
    asked = []

    def time_exits(schema, engine, arrays, n_samples):
        asked.append((type(engine).__name__, n_samples))
        costs = np.linspace(0.4, 1.2, engine.network.n_exits)
        return ExitTimes(costs, PLAIN_SECONDS, first_alone=0.25)

    for module in (engines, exit_times):
        monkeypatch.setattr(module, "time_exits", time_exits)
    monkeypatch.setattr(engines, "plain_seconds_of", lambda *_: PLAIN_SECONDS)
    return asked


def in_seconds(**params):
    return quick_classifier(
        **{"cost": "seconds", "exits": 2, "exit_policy": "confidence", **params}
    )


def test_seconds_are_a_budget_in_passes_of_the_plain_backbone(told, digits, fresh_digits):
    X = fresh_digits[0]
    clf = in_seconds(seconds_per_sample=0.7 * PLAIN_SECONDS).fit(*digits)
    budgeted = in_seconds(budget=0.7).fit(*digits)
    assert clf.plain_seconds_ == PLAIN_SECONDS
    np.testing.assert_array_equal(clf.predict_exit(X), budgeted.predict_exit(X))
    for seconds in (0.5 * PLAIN_SECONDS, 0.9 * PLAIN_SECONDS):
        moved = clf.at(seconds_per_sample=seconds)
        expected = clf.at(budget=seconds / PLAIN_SECONDS).predict_exit(X)
        np.testing.assert_array_equal(moved.predict_exit(X), expected)
        of_predictor = clf.predictor().at(seconds_per_sample=seconds)
        np.testing.assert_array_equal(of_predictor.predict_exit(X), expected)
        assert moved.seconds_per_sample == seconds and moved.budget is None
        again = clone(moved)
        assert again.get_params()["seconds_per_sample"] == seconds and again.cost == "seconds"


def test_seconds_are_measured_in_onnx_runtime_before_and_after_training(digits):
    """The plain backbone, which has no gates, answers there by itself."""
    pytest.importorskip("onnxruntime")
    clf = in_seconds(engine="onnxruntime", module=TinyConv, seconds_per_sample=1.0).fit(*digits)
    assert isinstance(clf._predictor.cascade.engine, OnnxEngine)
    assert 0 < clf.plain_seconds_ < 1


def test_learned_gates_keep_to_seconds_too(told, digits):
    clf = in_seconds(exit_policy="learned", seconds_per_sample=0.8 * PLAIN_SECONDS).fit(*digits)
    at_point = clf._predictor.frontier.summary(clf._predictor.point)
    assert at_point["mean_cost"] <= 0.8


def test_seconds_go_with_a_last_member_that_is_another_classifier(told, digits):
    members = [GaussianNB(), ExtraTreesClassifier(200, random_state=0)]
    clf = in_seconds(module=members, exits=[0, 0], seconds_per_sample=0.9 * PLAIN_SECONDS)
    assert clf.fit(*digits).mean_cost(digits[0]) <= 1.2


def test_a_budget_that_torch_cannot_keep_is_tried_in_another_engine(digits, monkeypatch):
    pytest.importorskip("onnxruntime")

    def time_exits(schema, engine, arrays, n_samples):
        slower = 1 if isinstance(engine, OnnxEngine) else 10
        return ExitTimes(slower * np.linspace(0.4, 1.2, engine.network.n_exits), PLAIN_SECONDS)

    monkeypatch.setattr(engines, "time_exits", time_exits)
    params = {"module": TinyConv, "max_epochs": 1, "budget": 0.6}
    assert in_seconds(**params, engine="onnxruntime").fit(*digits).exit_costs_[0] == 0.4
    with pytest.raises(ValueError, match="budget=0.6 is less .* as timed before training"):
        in_seconds(**params).fit(*digits)


def test_out_of_fold_gates_keep_to_seconds_too(told, digits, fresh_digits):
    clf, budgeted = (
        in_seconds(cv=3, **target).fit(*digits)
        for target in ({"seconds_per_sample": 0.7 * PLAIN_SECONDS}, {"budget": 0.7})
    )
    X = fresh_digits[0]
    np.testing.assert_array_equal(clf.predict_exit(X), budgeted.predict_exit(X))


def test_seconds_are_certified_as_the_budget_that_they_are(told, digits, fresh_digits):
    clf = in_seconds(validation_fraction=0.5).fit(*digits)
    moved = clf.at(seconds_per_sample=0.9 * PLAIN_SECONDS, risk_confidence=0.6)
    assert moved.risk_.risk == "mean_cost" and moved.risk_.limit == pytest.approx(0.9)


def test_grid_search_tries_seconds(told, digits):
    seconds = [0.6 * PLAIN_SECONDS, 0.9 * PLAIN_SECONDS]
    search = GridSearchCV(in_seconds(max_epochs=1), {"seconds_per_sample": seconds}, cv=2)
    assert search.fit(*digits).best_params_["seconds_per_sample"] in seconds


@pytest.mark.parametrize(
    "params, match",
    [
        ({"cost": "multiply_adds"}, r"seconds_per_sample=0.01 needs cost='seconds'.*got cost='mul"),
        ({"cost": [0.4, 0.8, 1.2]}, "seconds_per_sample=0.01 needs cost='seconds'"),
        ({"budget": 0.5}, "'budget': 0.5, 'seconds_per_sample': 0.01} name different"),
        ({"max_accuracy_drop": 0.5}, "name different operating points; give one"),
        ({"gate_training": "bilevel"}, "needs gate_training='joint'"),
        ({"seconds_per_sample": 0}, "seconds_per_sample"),
        ({"seconds_per_sample": -1.0}, "seconds_per_sample"),
        ({"seconds_per_sample": "fast"}, "seconds_per_sample"),
        ({"seconds_per_sample": 1e-9}, "seconds_per_sample=1e-09 is less than .* before training"),
    ],
)
def test_seconds_that_make_no_sense_are_refused(told, digits, params, match):
    with pytest.raises(ValueError, match=match):
        in_seconds(**{"seconds_per_sample": 0.01, **params}).fit(*digits)


def test_seconds_that_the_first_exit_takes_longer_than_are_refused(told, digits):
    clf = in_seconds().fit(*digits)
    least = 0.25 * PLAIN_SECONDS
    match = f"seconds_per_sample=.* is less than a sample takes up to the first exit, {least:.3g}"
    for there in (clf, clf.predictor()):
        with pytest.raises(ValueError, match=match):
            there.at(seconds_per_sample=0.9 * least)
        with pytest.raises(ValueError, match="takes one of .*seconds_per_sample"):
            there.at(seconds_per_sample=1.0, budget=0.5)
        with pytest.raises(ValueError, match="seconds_per_sample"):
            there.at(seconds_per_sample=np.nan)


def test_where_all_samples_leave_at_the_first_exit_nothing_else_is_paid_for(
    told, digits, fresh_digits
):
    X = fresh_digits[0]
    # After one epoch going on helps.
    short = {"max_epochs": 1, "validation_fraction": 0.4}
    clf = in_seconds(**short).fit(*digits)
    alone = [
        in_seconds(**short, budget=0.3).fit(*digits),
        clf.at(budget=0.3),
        clf.at(seconds_per_sample=0.3 * PLAIN_SECONDS),
    ]
    for there in alone:
        assert (there.predict_exit(X) == 0).all()
        np.testing.assert_allclose(there.exit_costs_, [0.25, *COSTS[1:]])
        np.testing.assert_allclose(there.predictor().exit_costs, there.exit_costs_)
        # Where samples go on, calls run all stages again.
        back = there.at(budget=0.9)
        np.testing.assert_allclose(back.exit_costs_, COSTS)
        assert (back.predict_exit(X) > 0).any()
        assert back.plain_seconds_ == PLAIN_SECONDS
    there = clf.predictor().at(budget=0.3)
    assert (there.predict_exit(X) == 0).all() and there.exit_costs[0] == 0.25
    np.testing.assert_allclose(there.at(budget=0.9).exit_costs, COSTS)
    with pytest.raises(ValueError, match=r"budget=0.2 is less than the first exit costs, 0.25"):
        clf.at(budget=0.2)


def test_a_cost_weight_beside_seconds_is_not_read(told, digits):
    with pytest.warns(UserWarning, match=r"cost_weight=0.5 is not read, since seconds_per_sample"):
        in_seconds(seconds_per_sample=0.9 * PLAIN_SECONDS, cost_weight=0.5).fit(*digits)


def test_a_classifier_of_other_costs_is_timed_for_seconds(told, fitted, fresh_digits):
    assert not hasattr(fitted, "plain_seconds_")
    with pytest.raises(ValueError, match="seconds_per_sample=0.5 needs exits that were timed"):
        fitted.predictor().at(seconds_per_sample=0.5)
    moved = fitted.at(seconds_per_sample=PLAIN_SECONDS, cost_batch_size=3)
    assert told == [("TorchEngine", 3)]
    assert (moved.cost, moved.cost_batch_size) == ("seconds", 3)
    assert moved.plain_seconds_ == PLAIN_SECONDS
    # Seconds that are known are not measured again, unless for calls of another size.
    moved.at(seconds_per_sample=PLAIN_SECONDS)
    assert len(told) == 1
    moved.at(seconds_per_sample=PLAIN_SECONDS, cost_batch_size=1)
    assert told[1:] == [("TorchEngine", 1)]
    X = fresh_digits[0]
    same = fitted.at(cost_batch_size=1)
    np.testing.assert_array_equal(same.predict_exit(X), fitted.predict_exit(X))
    assert same.plain_seconds_ == PLAIN_SECONDS
    with pytest.raises(ValueError, match=r"cost_batch_size=1000000000000 .*GB"):
        fitted.at(cost_batch_size=10**12)


def test_other_costs_are_no_times_any_more(told, digits):
    clf = in_seconds().fit(*digits)
    cheaper = clf.exit_costs_ / 2
    moved = clf.at(budget=0.7, exit_costs=cheaper)
    assert not hasattr(moved, "plain_seconds_")
    assert clf.at(budget=0.7).plain_seconds_ == PLAIN_SECONDS
    for beside in ({"seconds_per_sample": 0.01}, {"budget": 0.7, "cost_batch_size": 1}):
        with pytest.raises(ValueError, match="exit_costs=.* are costs that are known"):
            clf.at(exit_costs=cheaper, **beside)


def test_in_another_engine_times_are_those_of_that_engine(told, digits, fresh_digits):
    pytest.importorskip("onnxruntime")
    clf = in_seconds(module=TinyConv, max_epochs=1, cost_batch_size=16).fit(*digits)
    told.clear()
    moved = clf.at(engine="onnxruntime")
    assert told == [("OnnxEngine", 16)]
    np.testing.assert_array_equal(
        moved.predict_exit(fresh_digits[0]), clf.predict_exit(fresh_digits[0])
    )
    moved.at(seconds_per_sample=PLAIN_SECONDS)
    assert len(told) == 1
    # Costs that are no times are those of any engine.
    counted = quick_classifier(module=TinyConv, max_epochs=1).fit(*digits)
    assert not hasattr(counted.at(engine="onnxruntime"), "plain_seconds_") and len(told) == 1


@pytest.mark.parametrize("exit_policy, n_exports", [("confidence", 1), ("learned", 2)])
def test_the_engine_that_is_timed_is_the_one_that_answers_unless_heads_learn_in_between(
    exit_policy, n_exports, digits, fresh_digits, monkeypatch
):
    pytest.importorskip("onnxruntime")
    exported, export = [], engine_choice.export_exits
    monkeypatch.setattr(
        engine_choice, "export_exits", lambda *args: exported.append(1) or export(*args)
    )
    # Where heads and gates take turns, the turn of the heads is kept.
    monkeypatch.setattr(joint.HeadTurns, "take", _learn_a_little)
    clf = in_seconds(
        module=TinyConv, max_epochs=1, engine="onnxruntime", exit_policy=exit_policy
    ).fit(*digits)
    assert len(exported) == n_exports
    X = fresh_digits[0]
    in_torch = clf.at(engine="torch")
    np.testing.assert_array_equal(clf.predict_exit(X), in_torch.predict_exit(X))
    np.testing.assert_allclose(clf.predict_proba(X), in_torch.predict_proba(X), atol=1e-4)


def _learn_a_little(turns, answers, gates):
    with torch.no_grad():
        for parameter in turns.network.heads.parameters():
            parameter += 0.1
    return True
