"""A fit can go on from the last one's networks, and what was held out then stays held out."""

import copy
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.naive_bayes import GaussianNB
from torch import nn

from sklearn_jeidnn._history import CALIBRATION, GATES, TRAIN

from .conftest import quick_classifier


def quickest(**params):
    """One exit and one threshold: what is tested here does not depend on gates."""
    quick = {"exits": 1, "exit_policy": "confidence", "batch_size": 128}
    return quick_classifier(**{**quick, **params})


class Plain(nn.Sequential):
    def __init__(self):
        layers = [nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10)]
        super().__init__(nn.BatchNorm1d(64), *layers)


def parts_of(clf):
    history = clf._predictor.history
    return [set(history.hashes[history.parts == part].tolist()) for part in range(3)]


@pytest.fixture(scope="module")
def first(digits):
    """Ten epochs of a class, a tenth held out."""
    return quickest(module=Plain).fit(*digits)


@pytest.fixture
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def weights(clf):
    return torch.cat([p.flatten() for p in clf.module_.parameters()]).detach()


READY = {
    "module": None,
    "cv": None,
    "module__width": 32,
    "module__n_blocks": 3,
    "companion": None,
}


@pytest.mark.parametrize("params", [{"module": Plain}, READY, {"module": [GaussianNB(), Plain()]}])
def test_a_warm_start_goes_on_from_the_weights_of_the_last_fit(digits, no_warnings, params):
    if isinstance(params["module"], list):
        params = {**params, "companion_costs": [0.1], "exits": "auto"}
    clf = quickest(**params, warm_start=True, max_epochs=2).fit(*digits)
    before, heads = weights(clf), clf._predictor.cascade.trained.heads
    # A step so small that nothing moves shows where the second fit began.
    clf.set_params(lr=1e-12).fit(*digits)
    torch.testing.assert_close(weights(clf), before, rtol=1e-4, atol=1e-4)
    again = clf._predictor.cascade.trained.heads
    for state, other in zip(heads, again, strict=True):
        for name in state:
            if name.endswith("weight"):
                torch.testing.assert_close(state[name], other[name], rtol=1e-2, atol=1e-2)
    cold = clf.set_params(warm_start=False).fit(*digits)
    assert not torch.allclose(weights(cold), before, atol=1e-2)


def test_companions_that_were_kept_learn_on(digits, no_warnings):
    clf = quickest(**{**READY, "companion": "tabular"}, max_epochs=1)
    clf.set_params(warm_start=True).fit(*digits)
    exits = clf.exits_
    clf.fit(*digits)
    assert clf.exits_ == exits


@pytest.mark.parametrize("way", ["warm_start", "module_", "copied module_", "frozen module_"])
def test_samples_that_were_held_out_stay_held_out(first, digits, way, no_warnings):
    module = first.module_
    if way == "copied module_":
        module = pickle.loads(pickle.dumps(clone(quickest(module=module)))).module
    other = quickest(module=module, max_epochs=1, random_state=5)
    if way == "warm_start":
        other = copy.copy(first).set_params(warm_start=True, max_epochs=1, random_state=5)
    if way == "frozen module_":
        other.set_params(freeze_backbone=True)
    X, y = digits
    order = np.random.default_rng(0).permutation(len(y))
    other.fit(X[order], y[order])
    assert parts_of(other) == parts_of(first)
    assert other.at(max_accuracy_drop=0.9, risk_confidence=0.1).risk_.n_samples == 8


def test_new_samples_are_split_and_none_that_was_learned_is_held_out(
    first, digits, fresh_digits, no_warnings
):
    X, y = (np.concatenate([old, new[:200]]) for old, new in zip(digits, fresh_digits))
    other = quickest(module=first.module_, max_epochs=1).fit(X, y)
    before, after = parts_of(first), parts_of(other)
    assert before[TRAIN] < after[TRAIN]
    assert before[GATES] < after[GATES] and before[CALIBRATION] < after[CALIBRATION]
    assert len(other.conformity_scores_) == 15 + 10
    alone = quickest(module=first.module_, max_epochs=1).fit(*(a[300:] for a in (X, y)))
    assert len(alone.conformity_scores_) == 10
    assert before[TRAIN] < parts_of(alone)[TRAIN]


def test_an_x_val_is_halved_as_before(digits, fresh_digits, no_warnings):
    X, y = fresh_digits
    held_out = {"X_val": X[:100], "y_val": y[:100]}
    clf = quickest(module=Plain, warm_start=True, max_epochs=1).fit(*digits, **held_out)
    before = parts_of(clf)
    clf.set_params(random_state=3).fit(*digits, X_val=X[:140], y_val=y[:140])
    for part in (GATES, CALIBRATION):
        assert before[part] < parts_of(clf)[part]


def test_a_member_that_learned_from_all_samples_is_told(first, digits):
    X, y = digits
    _, gates, calibration = parts_of(first)
    learned = ~np.isin(hashes_of(first, X, y), list(gates | calibration))
    for module in (first.module_, [first, Plain]):
        costs = [0.1] if isinstance(module, list) else None
        clf = quickest(module=module, max_epochs=1, companion_costs=costs)
        with pytest.warns(UserWarning, match="in an earlier fit networks learned from all of X"):
            clf.fit(X[learned], y[learned])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            clf.fit(X, y)


def hashes_of(clf, X, y):
    from sklearn_jeidnn._history import sample_hashes

    return sample_hashes((X,), np.searchsorted(clf.classes_, y), clf.classes_)


def test_what_a_module_learned_elsewhere_since_is_not_known(first, digits):
    module = copy.deepcopy(first.module_)
    with torch.no_grad():
        module[1].weight.mul_(1.001)
    with pytest.warns(UserWarning, match="freeze_backbone=True takes networks as they were"):
        quickest(module=module, freeze_backbone=True, max_epochs=1).fit(*digits)


def test_a_network_with_an_unknown_past_stays_suspect(digits, fresh_digits):
    """What it learned before the first fit is not known, whatever X_val that fit was given."""
    X, y = fresh_digits
    held_out = {"X_val": X[:100], "y_val": y[:100]}
    frozen = quickest(module=Plain(), freeze_backbone=True, max_epochs=1)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the labels of the module itself")
        clf = frozen.fit(*digits, **held_out)
    other = quickest(module=clf.module_, freeze_backbone=True, max_epochs=1)
    with pytest.warns(UserWarning, match="X_val is not given"):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "the labels of the module itself")
            other.fit(X[200:400], y[200:400])


def test_a_fitted_module_comes_out_as_it_went_in(digits, no_warnings):
    module = Plain()
    module[1].requires_grad_(False)
    learns = [p.requires_grad for p in module.parameters()]
    for freeze in (False, "after_warmup"):
        clf = quickest(module=module, freeze_backbone=freeze, max_epochs=1).fit(*digits)
        assert [p.requires_grad for p in clf.module_.parameters()] == learns
        again = quickest(module=clf.module_, max_epochs=1).fit(*digits)
        moved = not torch.equal(again.module_[3].weight, clf.module_[3].weight)
        assert moved and torch.equal(again.module_[1].weight, clf.module_[1].weight)


def test_parameters_none_of_which_learns_are_told(digits):
    module = Plain().requires_grad_(False)
    with pytest.warns(UserWarning, match=r"Plain does not learn.*requires_grad_\(True\)"):
        quickest(module=module, max_epochs=1).fit(*digits)


@pytest.mark.parametrize(
    "params, of_x, of_y, message",
    [
        ({"exits": 2}, slice(None), 0, r"\['exits'\] have changed"),
        ({"module": Plain()}, slice(None), 0, r"\['module'\] have changed"),
        ({}, slice(32), 0, "samples of shape"),
        ({}, slice(None), 5, r"y has the new labels \[10"),
    ],
)
def test_a_warm_start_on_another_network_or_other_samples_is_refused(
    first, digits, params, of_x, of_y, message
):
    X, y = digits
    clf = copy.copy(first).set_params(warm_start=True, **params)
    with pytest.raises(ValueError, match=message):
        clf.fit(X[:, of_x], y + of_y)
    assert clf.module_ is first.module_


def test_y_may_lack_labels_of_the_last_fit(first, digits, no_warnings):
    X, y = digits
    few = y < 3
    clf = copy.copy(first).set_params(warm_start=True, max_epochs=1).fit(X[few], y[few])
    assert np.array_equal(clf.classes_, np.arange(10))


def test_samples_scaled_anew_are_told_by_what_the_network_knows_of_them(digits):
    X, y = digits
    rng = np.random.default_rng(0)
    noisy = np.where(rng.random(len(y)) < 0.5, rng.integers(0, 10, len(y)), y)
    clf = quick_classifier(
        warm_start=True, max_epochs=40, callbacks__best_epoch=None, module__dropout=0.0
    )
    clf.fit(X, noisy)
    clf.set_params(max_epochs=1, lr=1e-6)
    with pytest.warns(UserWarning, match="warm_start=True: no sample of X was in the last fit"):
        clf.fit(X * np.float32(1.0001), noisy)
    with pytest.raises(ValueError, match="risk_confidence"):
        clf.at(max_accuracy_drop=0.3, risk_confidence=0.9)


def test_columns_in_another_order_are_refused(digits):
    X, y = digits
    frame = pd.DataFrame(X).rename(columns=str)
    clf = quick_classifier(warm_start=True, max_epochs=1).fit(frame, y)
    with pytest.raises(ValueError, match="warm_start=True goes on .* columns"):
        clf.fit(frame[frame.columns[::-1]], y)


def test_samples_that_were_all_held_out_before_leave_none_to_train(digits):
    X, y = digits
    clf = quick_classifier(warm_start=True, max_epochs=1)
    clf.fit(X[:200], y[:200], X_val=X[200:], y_val=y[200:])
    with pytest.raises(ValueError, match="all 100 samples of X were held out in an earlier fit"):
        clf.fit(X[200:], y[200:])


def test_named_inputs_may_come_in_another_order():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))
            self.classifier = nn.Linear(4, 2)

        def forward(self, first, second):
            hidden = first - second
            for block in self.blocks:
                hidden = block(hidden)
            return self.classifier(hidden)

    rng = np.random.default_rng(0)
    first, second = rng.random((2, 100, 4)).astype(np.float32)
    y = first[:, 0] > second[:, 0]
    params = {"module": Sum, "warm_start": True, "max_epochs": 2}
    same, other = (
        quick_classifier(**params).fit({"first": first, "second": second}, y) for _ in "ab"
    )
    same.fit({"first": first, "second": second}, y)
    other.fit({"second": second, "first": first}, y)
    X = {"first": first, "second": second}
    np.testing.assert_array_equal(same.predict_proba(X), other.predict_proba(X))
