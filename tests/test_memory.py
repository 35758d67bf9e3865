"""What is kept across fits is what another fit would have learned, and nothing else is taken for it."""

import joblib
import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV
from skorch.callbacks import Callback
from torch import nn

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
    params = {"module": TinyConv().eval(), "freeze_backbone": freeze, "cost_weight": 0.3}
    without = quick_classifier(**params).fit(*digits)
    first, second = (quick_classifier(memory=str(tmp_path), **params).fit(*digits) for _ in "ab")
    for clf in (first, second):
        assert np.array_equal(clf.predict_proba(digits[0]), without.predict_proba(digits[0]))
        assert np.array_equal(clf.conformity_scores_, without.conformity_scores_)
    assert second.history_[:, "valid_loss"] == without.history_[:, "valid_loss"]


def test_a_grid_search_over_cost_weights_trains_one_backbone_a_fold(digits, tmp_path, trainings):
    memory = joblib.Memory(tmp_path, verbose=0)
    grid = {"cost_weight": [0, 0.1, 1], "gate_training": ["joint", "bilevel"]}
    GridSearchCV(quick_classifier(memory=memory), grid, cv=2, refit=False).fit(*digits)
    assert trainings.count("train_exits") == 2


@pytest.mark.filterwarnings("ignore:.*(X_val is not given|of the module itself)")
def test_a_frozen_backbone_runs_once_however_its_heads_are_trained(digits, tmp_path, trainings):
    for params in ({}, {"cost_weight": 1}, {"lr": 1e-3}, {"max_epochs": 3}):
        quick_classifier(
            module=fixed_backbone(), freeze_backbone=True, memory=str(tmp_path), **params
        ).fit(*digits)
    assert trainings.count("exit_features") == 2, "rows that train, rows that set the gates"
    assert trainings.count("train_heads") == 3


def fixed_backbone():
    import torch

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


def test_a_damaged_entry_is_computed_anew_with_a_warning(digits, tmp_path, trainings, caplog):
    clf = quick_classifier(max_epochs=1, memory=str(tmp_path)).fit(*digits)
    for stored in tmp_path.rglob("output.pkl"):
        stored.write_bytes(stored.read_bytes()[:100])
    again = quick_classifier(max_epochs=1, memory=str(tmp_path)).fit(*digits)
    assert "Exception while loading results" in caplog.text
    assert trainings.count("train_exits") == 2
    assert np.array_equal(again.predict_proba(digits[0]), clf.predict_proba(digits[0]))


def test_a_callback_that_cannot_be_told_from_another_is_not_remembered(digits, tmp_path):
    class Local(Callback):
        pass

    clf = quick_classifier(max_epochs=1, memory=str(tmp_path), callbacks=[Local()])
    with pytest.warns(UserWarning, match="memory: this fit is not remembered"):
        clf.fit(*digits)
    assert clf.score(*digits) > 0
