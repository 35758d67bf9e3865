"""What is kept across fits is what another fit would have learned, and nothing else is taken for it."""

import sys

import joblib
import numpy as np
import pytest
import torch
from sklearn.model_selection import GridSearchCV
from skorch.callbacks import Callback
from torch import nn

from sklearn_jeidnn._fit.memory import Parcel, as_memory, fingerprint, remembered

from .conftest import TinyConv, quick_classifier


@pytest.fixture
def trainings(monkeypatch):
    """What was trained: 'backbone' or 'heads', once for each time."""
    from sklearn_jeidnn._fit import learning

    done = []
    for name in ("train_exits", "train_heads", "exit_features"):
        original = getattr(learning, name)

        def counted(*args, name=name, original=original, **kwargs):
            done.append(name)
            return original(*args, **kwargs)

        monkeypatch.setattr(learning, name, counted)
    return done


@pytest.mark.filterwarnings("ignore:.*(X_val is not given|of the module itself)")
@pytest.mark.parametrize("freeze", [False, True])
def test_a_remembered_fit_answers_as_one_without_memory(digits, tmp_path, freeze):
    params = {"module": TinyConv().eval(), "freeze_backbone": freeze, "max_epochs": 2}
    params["cost_weight"] = 0.3
    without = quick_classifier(**params).fit(*digits)
    first, second = (quick_classifier(memory=str(tmp_path), **params).fit(*digits) for _ in "ab")
    for clf in (first, second):
        assert np.array_equal(clf.predict_proba(digits[0]), without.predict_proba(digits[0]))
        assert np.array_equal(clf.conformity_scores_, without.conformity_scores_)
    assert second.history_[:, "valid_loss"] == without.history_[:, "valid_loss"]


def test_a_grid_search_over_cost_weights_trains_one_backbone_a_fold(digits, tmp_path, trainings):
    memory = joblib.Memory(tmp_path, verbose=0)
    grid = {"cost_weight": [0, 0.1, 1], "gate_training": ["joint", "bilevel"]}
    clf = quick_classifier(memory=memory, max_epochs=2)
    GridSearchCV(clf, grid, cv=2, refit=False).fit(*digits)
    assert trainings.count("train_exits") == 2


@pytest.mark.filterwarnings("ignore:.*(X_val is not given|of the module itself)")
def test_a_frozen_backbone_runs_once_however_its_heads_are_trained(digits, tmp_path, trainings):
    always = {"freeze_backbone": True, "memory": str(tmp_path), "max_epochs": 2}
    for params in ({}, {"cost_weight": 1}, {"lr": 1e-3}, {"max_epochs": 3}):
        quick_classifier(module=fixed_backbone(), **{**always, **params}).fit(*digits)
    assert trainings.count("exit_features") == 2, "rows that train, rows that set the gates"
    assert trainings.count("train_heads") == 3


def fixed_backbone():
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return TinyConv().eval()


@pytest.mark.parametrize(
    "change",
    [
        {"lr": 1e-3},
        {"module__width": 6},
        {"random_state": 1},
        {"head": "linear"},
        {"exits": ["blocks.0"]},
        {"optimizer__weight_decay": 0.1},
        {"class_weight": "balanced"},
    ],
)
def test_what_affects_the_backbone_trains_it_anew(digits, tmp_path, trainings, change):
    params = {"module": TinyConv, "max_epochs": 1, "memory": str(tmp_path)}
    quick_classifier(**params).fit(*digits)
    quick_classifier(**{**params, **change}).fit(*digits)
    assert trainings.count("train_exits") == 2


@pytest.mark.filterwarnings("ignore:.*(X_val is not given|of the module itself)")
def test_a_setting_that_is_no_parameter_tells_two_frozen_backbones_apart(
    digits, tmp_path, trainings
):
    for slope in (0.1, 0.2):
        module = fixed_backbone()
        module.blocks[0] = Leaky(slope)
        quick_classifier(
            module=module, freeze_backbone=True, max_epochs=1, memory=str(tmp_path)
        ).fit(*digits)
    assert trainings.count("exit_features") == 4


class Leaky(nn.Module):
    def __init__(self, slope):
        super().__init__()
        self.slope = slope

    def forward(self, maps):
        return nn.functional.leaky_relu(maps, self.slope)


def test_other_data_train_it_anew(digits, tmp_path, trainings):
    X, y = digits
    for rows in (X, X + 1e-3):
        quick_classifier(max_epochs=1, memory=str(tmp_path)).fit(rows, y)
    assert trainings.count("train_exits") == 2


@pytest.fixture
def stored(digits, tmp_path):
    """A fit that is stored, and the file of its network."""
    clf = quick_classifier(max_epochs=1, memory=tmp_path).fit(*digits)
    (file,) = tmp_path.rglob("output.pkl")
    return clf, file


@pytest.mark.parametrize(
    "damage", ["truncated", "one bit of a weight", "one bit of the rest", "empty"]
)
def test_a_damaged_entry_is_computed_anew_with_a_warning(
    digits, tmp_path, stored, trainings, damage
):
    clf, file = stored
    content = bytearray(file.read_bytes())
    places = {"one bit of a weight": len(content) // 2, "one bit of the rest": 60}
    if damage in places:
        content[places[damage]] ^= 1
    file.write_bytes(content[: {"truncated": 100, "empty": 0}.get(damage)])
    with pytest.warns(UserWarning, match="memory: what was stored is damaged"):
        again = quick_classifier(max_epochs=1, memory=tmp_path).fit(*digits)
    assert np.array_equal(again.predict_proba(digits[0]), clf.predict_proba(digits[0]))
    quick_classifier(max_epochs=1, memory=tmp_path).fit(*digits)
    assert trainings.count("train_exits") == 1, "the damaged entry was replaced"


def test_tensors_of_any_kind_come_back_from_storage_as_they_were():
    tensors = [
        torch.arange(6.0).reshape(2, 3).T,
        torch.tensor(1.5, dtype=torch.bfloat16),
        torch.tensor([True, False]),
        torch.empty(0, 3),
        torch.tensor([1 + 2j]),
    ]
    opened = Parcel.of({"tensors": tensors, "others": (1, "a")}).opened()
    assert opened["others"] == (1, "a")
    for own, kept in zip(tensors, opened["tensors"], strict=True):
        assert own.dtype == kept.dtype and torch.equal(own, kept)


class OtherCache:
    """What has joblib's ``cache`` and nothing else of it."""

    def __init__(self):
        self.kept = {}

    def cache(self, function, ignore):
        def cached(key, parcel):
            if key not in self.kept:
                self.kept[key] = function(key, parcel)
            return self.kept[key]

        return cached


def test_any_object_with_a_cache_keeps_fits(digits, trainings):
    memory = OtherCache()
    first, second = (
        # The object itself: a copy would keep nothing for others.
        quick_classifier(max_epochs=1, memory=memory).fit(*digits)
        for _ in "ab"
    )
    assert trainings.count("train_exits") == 1
    assert np.array_equal(first.predict_proba(digits[0]), second.predict_proba(digits[0]))


def slope():
    return 0.1


class Helped(nn.Module):
    def forward(self, maps):
        return nn.functional.leaky_relu(maps, slope())


def with_helped():
    module = fixed_backbone()
    module.blocks[0] = Helped()
    return module


@pytest.mark.filterwarnings("ignore:.*X_val is not given")
@pytest.mark.filterwarnings("ignore:the labels of the module itself")
def test_a_function_that_a_module_calls_trains_it_anew(digits, tmp_path, trainings, monkeypatch):
    params = {"freeze_backbone": True, "max_epochs": 1, "memory": tmp_path}
    quick_classifier(module=with_helped(), **params).fit(*digits)
    quick_classifier(module=with_helped(), **params).fit(*digits)
    assert trainings.count("exit_features") == 2, "the second is remembered"
    monkeypatch.setattr(sys.modules[__name__], "slope", lambda: 0.2)
    quick_classifier(module=with_helped(), **params).fit(*digits)
    assert trainings.count("exit_features") == 4


def plain_sgd(parameters, lr):
    return torch.optim.SGD(parameters, lr=lr)


def other_sgd(parameters, lr):
    return torch.optim.SGD(parameters, lr=lr / 2)


class Shrink(Callback):
    factor = 0.9

    def on_epoch_begin(self, net, **kwargs):
        with torch.no_grad():
            for parameter in net.module_.parameters():
                parameter *= self.factor


def test_changed_code_of_an_optimizer_or_a_callback_trains_anew(
    digits, tmp_path, trainings, monkeypatch
):
    def fit():
        callbacks = [Shrink()]
        quick_classifier(
            max_epochs=1, memory=tmp_path, optimizer=plain_sgd, callbacks=callbacks
        ).fit(*digits)
        return trainings.count("train_exits")

    assert fit() == fit() == 1
    monkeypatch.setattr(plain_sgd, "__code__", other_sgd.__code__)
    assert fit() == 2
    monkeypatch.setattr(Shrink, "factor", 0.8)
    assert fit() == 3


def test_a_private_attribute_and_a_hook_tell_two_modules_apart():
    modules = [Leaky(0.1) for _ in range(4)]
    modules[1]._slope = 0.2
    modules[2].register_forward_hook(lambda module, args, output: 2 * output)
    modules[3].register_buffer("kept", torch.ones(1), persistent=False)
    assert len({fingerprint(module) for module in modules}) == 4
    assert fingerprint(modules[0]) == fingerprint(Leaky(0.1))


def test_a_result_that_cannot_be_pickled_is_returned_with_a_warning(tmp_path):
    with pytest.warns(UserWarning, match="memory: .*cannot be pickled"):
        assert remembered(as_memory(tmp_path), lambda: lambda: 3)() == 3


def test_a_callback_that_cannot_be_told_from_another_is_not_remembered(digits, tmp_path):
    class Local(Callback):
        pass

    clf = quick_classifier(max_epochs=1, memory=str(tmp_path), callbacks=[Local()])
    with pytest.warns(UserWarning, match="memory: this fit is not remembered"):
        clf.fit(*digits)
    assert clf.score(*digits) > 0
