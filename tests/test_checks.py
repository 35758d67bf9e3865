"""Parameters that mean nothing are refused before anything is trained, and those that are not read are named."""

import copy
import inspect
import random
import re

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.naive_bayes import GaussianNB
from skorch.callbacks import Callback, LRScheduler
from torch import nn
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import (
    BatchSampler,
    RandomSampler,
    SequentialSampler,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
)

from sklearn_jeidnn import EarlyExitClassifier
from sklearn_jeidnn._fit import prices
from sklearn_jeidnn._fit.checks import random_numbers_kept
from sklearn_jeidnn._fit.datasets import whole_batch
from sklearn_jeidnn._operate import gate_descent
from sklearn_jeidnn._operate.calibration import CalibrationSamples
from sklearn_jeidnn.runtime import Predictor

rng = np.random.default_rng(0)
X = np.float32(rng.normal(size=(60, 4)))
y = (X[:, 0] > 0).astype(int)
# Of which no network learns.
X_new = np.float32(rng.normal(size=(60, 4)))
y_new = (X_new[:, 0] > 0).astype(int)
HELD_OUT = {"X_val": X_new, "y_val": y_new}


class Tiny(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))


def tiny(**params):
    """An estimator that is fitted in a tenth of a second."""
    return EarlyExitClassifier(
        **{"module": Tiny, "max_epochs": 1, "batch_size": 64, "random_state": 0, **params}
    )


@pytest.fixture(autouse=True, scope="module")
def _quick(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        # The matrix asks whether a value makes sense, not how good gates get.
        patch.setattr(gate_descent, "GATE_STEPS", 10)
        patch.setattr(torch, "compile", lambda function, **_: function)
        patch.chdir(tmp_path_factory.mktemp("memory"))
        yield


class TrainedLongEnough(Exception):
    pass


class StopInTheSecondEpoch(Callback):
    def on_epoch_end(self, net, **kwargs):
        if len(net.history) == 2:
            raise TrainedLongEnough


VALUES = {
    "an object": object(),
    "words": "nonsense",
    "bytes": b"nonsense",
    "a dict": {"nonsense": 1},
    "True": True,
    "NaN": np.nan,
    "infinity": np.inf,
    "minus infinity": -np.inf,
    "-1": -1,
    "-0.5": -0.5,
    "huge": 10**12,
    "huge float": 1e300,
    "an empty list": [],
    "a list of NaN": [np.nan],
    "a list of infinity": [np.inf],
    "a list of -1": [-1],
    "a long list": [1.0] * 7,
    "a list of words": ["nonsense", "auto"],
}
# Beside which a parameter is read.
CONTEXT = {
    "companion_costs": {"module": [Tiny, Tiny]},
    "companion_training": {"module": [Tiny, Tiny]},
    "cost_batch_size": {"cost": "seconds"},
    "feature_passes": {"module": Tiny(), "freeze_backbone": True},
    "gate_loss": {"gate_training": "bilevel"},
    "risk_confidence": {"budget": 0.9},
    "seconds_per_sample": {"cost": "seconds"},
    # A huge number of epochs is a long training, not a mistake: two of them are enough here.
    "max_epochs": {"callbacks": [StopInTheSecondEpoch()]},
}
NAMES = [
    name
    for name, parameter in inspect.signature(EarlyExitClassifier).parameters.items()
    if parameter.kind != parameter.VAR_KEYWORD
]


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore")
def test_every_parameter_takes_a_value_or_an_error_names_it(name, value):
    clf = tiny(**{**CONTEXT.get(name, {}), name: value})
    try:
        clf.fit(X, y)
    except (ValueError, TypeError) as error:
        assert re.search(rf"\b{name}\b", str(error)), error
    except TrainedLongEnough:
        assert name == "max_epochs"
    else:
        finite = np.isfinite(clf.predict_proba(X)).all() and np.isfinite(clf.exit_costs_).all()
        assert finite and clf.predict_set(X).any(axis=1).mean() > 0.5


PREFIXED = [
    "iterator_train__batch_size",
    "iterator_train__collate_fn",
    "iterator_train__drop_last",
    "iterator_train__sampler",
    "iterator_train__batch_sampler",
    "iterator_valid__batch_size",
    "iterator_valid__collate_fn",
    "iterator_valid__shuffle",
    "optimizer__weight_decay",
    "callbacks__lr_schedule",
    "callbacks__lr_schedule__step_every",
]


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
@pytest.mark.parametrize("name", PREFIXED)
@pytest.mark.filterwarnings("ignore")
def test_every_prefixed_parameter_takes_a_value_or_an_error_names_it(name, value):
    test_every_parameter_takes_a_value_or_an_error_names_it(name, value)


METHODS = {
    "at": {},
    "benchmark_engines": {"X": X_new, "y": y_new},
    "check_exchangeability": {"X": X_new},
    "conformalize": {"X": X_new, "y": y_new},
    "control_risk": {"X": X_new},
    "exit_answers": {"X": X_new, "y": y_new},
    "frontier": {"X": X_new, "y": y_new},
    "measure_costs": {},
    "predict_or_defer": {"X": X_new},
    "predict_set": {"X": X_new},
    "predict_stream": {"batches": [X_new]},
    "report": {"X": X_new, "y": y_new, "path": "report.html"},
}
BESIDE = {
    ("at", "exit_costs"): {"cost_weight": 0.1},
    ("at", "exit_policy"): {"cost_weight": 0.1},
    ("at", "risk_confidence"): {"budget": 0.9},
    ("control_risk", "max_accuracy_drop"): {"y": y_new},
    ("control_risk", "risk_confidence"): {"max_disagreement": 0.1},
    ("predict_or_defer", "confidence"): {"risk": 0.4},
}
METHOD_PARAMETERS = [
    (method, name)
    for method, data in METHODS.items()
    for name in inspect.signature(getattr(EarlyExitClassifier, method)).parameters
    if name not in {"self", "X", "y", *data}
]


@pytest.fixture(scope="module")
def ready():
    return tiny(max_epochs=3, validation_fraction=0.5).fit(X, y)


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
@pytest.mark.parametrize("method, name", METHOD_PARAMETERS)
@pytest.mark.filterwarnings("ignore")
def test_every_parameter_of_a_method_takes_a_value_or_an_error_names_it(ready, method, name, value):
    clf = copy.copy(ready)
    if method == "predict_set" and name == "groups":
        clf.conformalize(X_new, y_new, groups=y_new)
    call = getattr(clf, method)
    try:
        found = call(**METHODS[method], **BESIDE.get((method, name), {}), **{name: value})
    except (ValueError, TypeError) as error:
        assert re.search(rf"\b{name}\b", str(error)), error
    else:
        if method == "exit_answers":
            assert np.isfinite(found.weights).all()
        if isinstance(found, EarlyExitClassifier):
            assert np.isfinite(found.exit_costs_).all() and found.predict_set(X_new).any()


def test_methods_of_the_matrix_are_all_that_take_parameters():
    others = {
        "fit",
        "get_params",
        "set_params",
        "score",
        "get_metadata_routing",
        "export",
        "save",
        "export_onnx",
    }
    public = {
        name
        for name, function in inspect.getmembers(EarlyExitClassifier, inspect.isfunction)
        if not name.startswith(("_", "set_"))
        and set(inspect.signature(function).parameters) - {"self", "X", "y"}
    }
    assert public - others == set(METHODS)


@pytest.mark.parametrize("value", [None, 3, 2.5, "", b"x", [], "a\0b", object()])
def test_paths_that_are_none_are_named(ready, value):
    calls = {
        "path": [
            ready.save,
            ready.export_onnx,
            EarlyExitClassifier.load,
            lambda path: ready.report(X_new, y_new, path),
        ],
        "directory": [ready.export, Predictor.load],
    }
    for name, functions in calls.items():
        for function in functions:
            with pytest.raises((TypeError, ValueError), match=rf"\b{name}="):
                function(value)


class NoTraining(Callback):
    """Training must not begin."""

    def on_train_begin(self, net, **kwargs):
        raise AssertionError("training began")


def refused(*words, error=(ValueError, TypeError), fit=None, **params):
    """A fit is refused before anything is trained, with these words in the message."""
    with pytest.raises(error) as caught:
        tiny(**{"callbacks": [NoTraining()], **params}).fit(X, y, **(fit or {}))
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize(
    "option, word",
    [
        ({"callbacks__lr_shedule": None}, "lr_schedule"),
        ({"callbacks__best_epok__n_errors": 1}, "best_epoch"),
        ({"callbacks__best_epoch__n_error": 1}, "n_errors"),
        ({"callbacks__print_log__sinks": print}, "sink"),
        ({"callbacks__NoTrainin": None}, "NoTraining"),
        ({"callbacks__lr_schedule": None, "callbacks__lr_schedule__step_every": "epoch"}, "None"),
        ({"callbacks__lr_schedule": "cosine"}, "skorch callback"),
        ({"callbacks__": None}, "callbacks__"),
        ({"callbacks__lr_schedule_": None}, "callbacks__lr_schedule_"),
        ({"optimizer__momentumm": 0.9}, "momentumm"),
        ({"optimizer__weight_decay_": 0.9}, "optimizer__weight_decay_"),
        ({"optimizer__weight_decay": -1}, "weight_decay"),
        ({"iterator_train__schuffle": True}, "shuffle"),
        ({"iterator_train__shuffle_": True}, "iterator_train__shuffle_"),
        ({"iterator_valid__drop_last": True}, "order"),
        ({"iterator_train__num_workers": np.nan}, "whole number"),
        ({"callbacks": [3]}, "skorch callback"),
        ({"callbacks": [("best_epoch", NoTraining())]}, "callbacks"),
    ],
)
@pytest.mark.parametrize("freeze_backbone", [False, True])
def test_an_option_that_names_nothing_is_refused_and_what_there_is_is_told(
    option, word, freeze_backbone
):
    refused(list(option)[-1], word, module=Tiny(), freeze_backbone=freeze_backbone, **option)


@pytest.mark.parametrize(
    "option",
    [
        {"callbacks__lr_schedule": None, "callbacks__best_epoch": None},
        {"callbacks__best_epoch__n_errors": 2.0, "callbacks__valid_acc": None},
        {"callbacks": [("mine", Callback())], "callbacks__mine": None},
        {"callbacks": [Callback], "callbacks__Callback": None},
        {"callbacks": [Callback(), Callback()], "callbacks__Callback_2": None},
    ],
)
def test_an_option_that_names_a_callback_is_taken(option):
    assert len(tiny(**option).fit(X, y).history_) == 1


@pytest.mark.parametrize("name", ["_foo", "exits_", "_predictor", "classes_", "foo"])
def test_a_keyword_with_an_underscore_is_refused_as_any_other_and_hides_nothing(name):
    clf = tiny(**{name: 1})
    assert name not in vars(clf)
    assert clone(clf).get_params() == clf.get_params() and clf.get_params()[name] == 1
    for other in (clf, clone(clf)):
        with pytest.raises(TypeError, match=rf"unexpected parameters \['{name}'\]"):
            other.fit(X, y)


# Of a frozen network that never learned.
@pytest.mark.filterwarnings("ignore:the labels of the module itself are right on")
@pytest.mark.parametrize(
    "params",
    [
        {},
        {"gate_training": "bilevel"},
        {"module": Tiny(), "freeze_backbone": True},
        {"freeze_backbone": "after_warmup"},
        {"module": [Tiny, Tiny], "exits": [0, "auto"]},
    ],
)
def test_a_batch_of_minus_one_takes_all_samples(params):
    everything = tiny(batch_size=-1, iterator_valid__batch_size=-1, **params).fit(X, y, **HELD_OUT)
    as_many = tiny(batch_size=60, iterator_train__batch_size=-1, **params).fit(X, y, **HELD_OUT)
    assert everything.history_[-1, "train_batch_count"] == 1
    np.testing.assert_allclose(everything.predict_proba(X), as_many.predict_proba(X), atol=1e-5)
    data = TensorDataset(torch.as_tensor(X), torch.as_tensor(y))
    assert np.array_equal(everything.predict(data), everything.predict(X))
    as_many.set_params(iterator_valid__batch_size=-1)
    assert np.array_equal(as_many.predict(X), as_many.predict(X[::-1])[::-1])


def test_a_batch_size_that_makes_no_sense_is_refused_after_fit_too(ready):
    for name in ("iterator_valid__batch_size", "iterator_valid__shuffle"):
        with pytest.raises(ValueError, match=name):
            copy.copy(ready).set_params(**{name: -3})


@pytest.mark.parametrize("options", [{"batch_size": 55}, {"iterator_train__batch_size": 99}])
@pytest.mark.parametrize("freeze_backbone", [False, True])
def test_dropping_the_only_batch_is_refused(options, freeze_backbone):
    options = {"module": Tiny(), "freeze_backbone": freeze_backbone, **options}
    refused("iterator_train__drop_last", "no step", iterator_train__drop_last=True, **options)


class CountSteps(Callback):
    def on_train_begin(self, net, **kwargs):
        self.rates_ = []

    def on_batch_end(self, net, training=None, **kwargs):
        if training:
            self.rates_.append(net.optimizer_.param_groups[0]["lr"])


# Of a frozen network that never learned.
@pytest.mark.filterwarnings("ignore:the labels of the module itself are right on")
@pytest.mark.parametrize("freeze_backbone", [False, True])
def test_a_sampler_takes_the_place_of_shuffling(freeze_backbone):
    samples = RandomSampler(range(54), num_samples=30)
    batches = BatchSampler(SequentialSampler(range(54)), 9, drop_last=False)
    options = {"module": Tiny(), "freeze_backbone": freeze_backbone, "batch_size": 10}
    for name, sampler, n_steps in (("sampler", samples, 3), ("batch_sampler", batches, 6)):
        steps = CountSteps()
        clf = tiny(callbacks=[steps], **options, **{f"iterator_train__{name}": sampler})
        clf.fit(X, y, **HELD_OUT)
        # The schedule ends where the training does.
        assert len(steps.rates_) == n_steps and steps.rates_[-1] < max(steps.rates_) / 2
    refused("iterator_train__sampler", "shuffle", iterator_train__sampler=samples,
            iterator_train__shuffle=True)  # fmt: skip


def test_a_sampler_that_weighs_other_samples_than_those_that_train_is_refused():
    sampler = WeightedRandomSampler(np.ones(60), 60)
    refused("iterator_train__sampler", "X_val", iterator_train__sampler=sampler)
    assert tiny(iterator_train__sampler=sampler).fit(X, y, **HELD_OUT).exits_


def test_the_learning_rate_may_be_the_optimizers_own():
    assert tiny(optimizer__lr=0.1, optimizer=torch.optim.SGD).fit(X, y).exits_


@pytest.mark.parametrize(
    "schedule",
    [
        LRScheduler(StepLR, step_size=100),
        ("mine", LRScheduler(StepLR, step_size=100)),
        ("lr_schedule", LRScheduler(StepLR, step_size=100)),
    ],
)
def test_a_learning_rate_schedule_of_the_users_replaces_the_built_in_one(schedule):
    steps = CountSteps()
    tiny(callbacks=[schedule, steps], lr=0.01, max_epochs=4).fit(X, y)
    assert steps.rates_ == [0.01] * 4


def test_without_a_schedule_of_the_users_the_learning_rate_falls():
    steps = CountSteps()
    tiny(callbacks=[steps], lr=0.01, max_epochs=4).fit(X, y)
    assert steps.rates_[-1] < 0.005


@pytest.mark.parametrize(
    "name, value, fit, beside",
    [
        ("companion_training", "distilled", {}, {}),
        ("companion_training", "distilled", {}, {"module": [GaussianNB(), Tiny]}),
        ("cost_batch_size", 4, {}, {}),
        ("gate_loss", "zero_one", {}, {}),
        ("feature_passes", 2, {}, {}),
        ("cost_weight", 0.2, {}, {"budget": 0.9}),
        ("cost_weight", 0.2, {}, {"seconds_per_sample": 10.0, "cost": "seconds"}),
        ("validation_fraction", 0.2, HELD_OUT, {}),
    ],
)
def test_a_parameter_that_is_not_read_is_named_in_a_warning(name, value, fit, beside):
    with pytest.warns(UserWarning, match=rf"{name}={value!r} is not read"):
        tiny(**beside, **{name: value}).fit(X, y, **fit)


@pytest.mark.parametrize(
    "params",
    [
        {"budget": 0.9},
        {"budget": 0.9, "cost_weight": 0.02},
        {"companion_training": "distilled", "module": [Tiny, Tiny]},
        {"gate_loss": "zero_one", "gate_training": "bilevel"},
        {"feature_passes": 2, "freeze_backbone": "after_warmup"},
    ],
)
def test_parameters_that_are_read_or_the_default_give_no_warning(params):
    # Warnings are errors here.
    assert tiny(**params).fit(X, y).exits_
    assert tiny(**params).fit(X, y, **HELD_OUT).exits_


def wrong_length(X, *_):
    return np.zeros(len(X) - 1)


def raises(*_, **__):
    raise KeyError("mistake")


def gives_nan(probabilities, uniform):
    return probabilities * np.nan


@pytest.mark.parametrize(
    "name, function, word",
    [
        ("condition_on", wrong_length, "groups has shape"),
        ("condition_on", raises, "mistake"),
        ("condition_on", lambda X: [None] * len(X), "missing"),
        ("condition_on", lambda X: [np.nan] * len(X), "missing"),
        ("condition_on", lambda X: np.array(["a", 1, 2, 3, 4][: len(X)], object), "several kinds"),
        ("conformity_score", wrong_length, "shape"),
        ("conformity_score", gives_nan, "NaN"),
        ("conformity_score", raises, "mistake"),
        ("conformity_score", lambda probabilities: probabilities, "argument"),
        ("head", raises, "head"),
        ("head", nn.Identity, "logits"),
        ("iterator_train__collate_fn", raises, "mistake"),
        ("iterator_train__collate_fn", list, "sample_weight"),
        ("iterator_valid__collate_fn", lambda batch: whole_batch(batch)[0], "sample_weight"),
        ("optimizer", raises, "mistake"),
    ],
)
def test_functions_are_tried_before_anything_is_trained(name, function, word):
    refused(name, word, **{name: function})


@pytest.mark.parametrize(
    "params", [{"condition_on": wrong_length}, {"conformity_score": gives_nan}]
)
def test_functions_are_tried_before_anything_is_calibrated(ready, params, monkeypatch):
    clf = copy.copy(ready).set_params(**params)
    monkeypatch.setattr(CalibrationSamples, "read", raises)
    with pytest.raises(ValueError, match=next(iter(params))):
        clf.conformalize(X_new, y_new)


def test_a_collate_fn_that_leaves_samples_out_is_refused_where_the_backbone_is_frozen():
    def first_two(batch):
        return default_collate([batch[0], batch[1]])

    frozen = {"module": Tiny(), "freeze_backbone": True, "fit": HELD_OUT}
    refused(
        "iterator_train__collate_fn", "3 samples", iterator_train__collate_fn=first_two, **frozen
    )


def test_random_numbers_that_a_trial_draws_are_put_back():
    def draw():
        return random.random(), np.random.random(), torch.rand(1).item()  # noqa: NPY002

    with random_numbers_kept():
        first = draw()
    assert draw() == first


@pytest.mark.parametrize("cost", ["multiply_adds", "seconds"])
def test_a_budget_that_no_companion_keeps_to_is_refused_before_training(cost, monkeypatch):
    monkeypatch.setattr(prices, "N_TIMED", 2)
    monkeypatch.setattr(prices, "ENOUGH_SECONDS", 0)
    ready_network = {"module": None, "module__width": 64, "module__n_blocks": 2, "exits": 1}
    refused("budget=1e-06", "first exit costs", budget=1e-6, cost=cost, **ready_network)


def test_entries_of_exits_are_checked_one_by_one():
    for entry in ("autoo", -1, 1.5, None, True, np.nan, {"1": 2}):
        refused("exits", "entry", module=[Tiny, Tiny], exits=[entry, 1])
    refused("exits", "nowhere", module=[Tiny, Tiny], exits=[0, ["nowhere"]])
    refused("exits", "one entry", module=[Tiny, Tiny], exits=[0, 1, 1])


@pytest.mark.parametrize("value", [-1, np.nan, np.inf, True])
@pytest.mark.parametrize("name", ["width", "n_blocks", "n_bins", "noise", "dropout", "shift"])
def test_numbers_of_which_no_ready_network_can_be_made_are_refused(name, value):
    refused(f"module__{name}={value!r}", module=None, **{f"module__{name}": value})


@pytest.mark.parametrize("weight", [-1, np.nan, np.inf, "1", None, True])
def test_class_weights_that_make_no_sense_are_refused(weight):
    refused("class_weight[0]", class_weight={0: weight})


def test_class_weights_of_zero_for_all_samples_are_refused():
    refused("class_weight", class_weight={0: 0, 1: 0})


def test_passes_for_which_there_is_no_room_are_refused():
    refused("feature_passes", "GB", module=Tiny(), freeze_backbone=True, feature_passes=10**12)
    refused("cost_batch_size", "GB", cost="seconds", cost_batch_size=10**12)


@pytest.mark.parametrize(
    "known, other",
    [
        (np.array(["a", "b"]), np.array([0, 1])),
        (np.array([0, 1]), np.array(["0", "1"])),
        (np.array([0, 1]), np.array([0.5, None], dtype=object)),
        (np.array(["a", "b"]), np.array([1, 2], dtype="datetime64[D]")),
    ],
)
def test_groups_of_another_kind_than_those_that_calibrated_are_refused(ready, known, other):
    clf = copy.copy(ready).conformalize(X_new, y_new, groups=known[y_new])
    with pytest.raises(ValueError, match="groups"):
        clf.predict_set(X, groups=other[y])
    same = known.astype(object)
    assert np.array_equal(clf.predict_set(X, groups=same[y]), clf.predict_set(X, groups=known[y]))


def test_groups_of_another_number_are_refused_before_anything_is_predicted(ready, monkeypatch):
    clf = copy.copy(ready).conformalize(X_new, y_new, groups=y_new)
    monkeypatch.setattr(EarlyExitClassifier, "_chunks", raises)
    with pytest.raises(ValueError, match=r"groups has shape \(59,\), but there are 60 samples"):
        clf.predict_set(X, groups=y[1:])


def test_a_batch_size_that_is_not_timed_is_named_in_a_warning(ready):
    with pytest.warns(UserWarning, match="batch_size=3 is not read"):
        ready.measure_costs("multiply_adds", batch_size=3)


@pytest.mark.parametrize(
    "weights, wrong, without",
    [({0: 1, 7: 2}, "[7]", "[1]"), ({"0": 1, "1": 2}, "['0', '1']", "[0, 1]")],
)
def test_class_weights_of_labels_that_y_lacks_are_named(weights, wrong, without):
    refused(
        f"class_weight has keys {wrong} that are not among the labels [0, 1]",
        f"none for {without}",
        class_weight=weights,
    )


def test_class_weights_may_leave_labels_out_and_name_those_that_are_not_there():
    for weights in ({1: 2}, {0: 1, 1: 2, 7: 3}, {0.0: 1, True: 2}):
        assert len(tiny(class_weight=weights).fit(X, y).history_) == 1
    logits = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    params = {"module": logits, "classes": [0, 1, 2], "class_weight": {0: 2, 2: 1}}
    assert len(tiny(**params).fit(X, y).history_) == 1


def test_a_device_without_values_is_refused():
    refused("device='meta' holds no values", device="meta")
    refused("device='meta' holds no values", device="meta", module=None)


def test_a_memory_that_is_no_folder_is_refused(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    for memory in (file, str(file), file / "inside"):
        refused(f"memory={memory!r} is no folder", memory=memory)


class Normalised(nn.Sequential):
    def __init__(self):
        super().__init__(
            *(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU()),
            *(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2)),
        )


@pytest.mark.parametrize(
    "params",
    [
        {"batch_size": 1},
        {"iterator_train__batch_size": 1},
        {"batch_size": 1, "freeze_backbone": "after_warmup"},
        {"batch_size": 59, "iterator_train__drop_last": False},
        {"iterator_train__batch_sampler": [[0, 1], [2]]},
    ],
)
def test_batches_of_one_sample_are_refused_where_the_module_normalises_batches(params):
    with pytest.raises(ValueError, match=r"batch_size=\d+, with .* a batch of one sample"):
        tiny(module=Normalised, **params).fit(X, y, **HELD_OUT)


def test_a_lone_last_sample_is_left_out_and_a_module_without_normalisation_takes_it():
    assert len(tiny(module=Normalised, batch_size=59).fit(X, y, **HELD_OUT).history_) == 1
    assert len(tiny(batch_size=1).fit(X, y).history_) == 1


def test_no_exits_are_refused_with_what_to_do():
    for exits in ([], (), np.array([])):
        refused("exits=[] names no place", "'auto'", exits=exits)
    refused("exits=[] names no place", "entry 0", module=[Tiny, Tiny], exits=[[], []])
