"""Training that diverges is an error, and weights of any size are as good as each other."""

import numpy as np
import pytest
import torch
from torch import nn

from sklearn_jeidnn._fit.divergence import learns_finite

from .conftest import TinyConv, quick_classifier


class Normed(nn.Module):
    """Divides by each sample's norm, so that it answers a blank sample with NaN."""

    def __init__(self, width=16):
        super().__init__()
        self.stem = nn.Linear(64, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width), nn.ReLU()) for _ in range(2)
        )
        self.classifier = nn.Linear(width, 10)

    def forward(self, X):
        X = self.stem(X / X.norm(dim=1, keepdim=True))
        for block in self.blocks:
            X = block(X)
        return self.classifier(X)


def with_blank(X, row):
    X = X.copy()
    X[row] = 0
    return X


def test_a_fit_that_diverges_is_an_error_and_leaves_the_old_fit(digits, tmp_path):
    clf = quick_classifier(max_epochs=1).fit(*digits)
    before = clf.predict_proba(digits[0][:5])
    clf.set_params(lr=1e30, memory=str(tmp_path), max_epochs=100)
    with pytest.raises(ValueError, match=r"not finite \(epoch 1, lr=1e\+30\); lower lr"):
        clf.fit(*digits)
    assert np.array_equal(clf.predict_proba(digits[0][:5]), before)
    assert not list(tmp_path.rglob("*.pkl"))


@pytest.mark.parametrize(
    "params",
    [
        {"freeze_backbone": "after_warmup"},
        {"freeze_backbone": True, "module": TinyConv()},
        {"companion": "auto"},
        {"gate_training": "bilevel", "optimizer": torch.optim.SGD},
    ],
)
@pytest.mark.filterwarnings("ignore:.*X_val is not given")
def test_every_training_that_diverges_is_an_error(digits, params):
    with pytest.raises(ValueError, match="lower lr"):
        quick_classifier(**params, lr=1e30, max_epochs=3).fit(*digits)


@pytest.mark.parametrize("frozen", [True, False])
def test_training_samples_that_the_module_answers_with_nan_are_named(digits, frozen):
    X, y = digits
    clf = quick_classifier(module=Normed(), freeze_backbone=frozen, max_epochs=2)
    with pytest.raises(ValueError, match=r"module .* answers 1 of 200 training samples in X"):
        clf.fit(with_blank(X[:200], 3), y[:200], X_val=X[200:], y_val=y[200:])


def test_uneven_weights_and_large_numbers_are_named(digits):
    X, y = digits
    weights = np.ones(len(y))
    weights[7] = 1e9
    clf = quick_classifier(module=Normed, lr=1e30, max_epochs=2)
    with pytest.raises(ValueError, match="more even .* scale X, which has numbers as large as"):
        clf.fit(X * 1e6, y, sample_weight=weights, X_val=X * 1.01e6, y_val=y)


@pytest.fixture(scope="module")
def of_equal_weights(digits):
    return quick_classifier(max_epochs=1).fit(*digits).predict_proba(digits[0])


@pytest.mark.parametrize("weight", [1e-300, 1e300])
def test_the_size_of_sample_weights_does_not_matter(digits, of_equal_weights, weight):
    X, y = digits
    clf = quick_classifier(max_epochs=1).fit(X, y, sample_weight=np.full(len(y), weight))
    assert np.array_equal(clf.predict_proba(X), of_equal_weights)


def test_the_size_of_class_weights_does_not_matter(digits, of_equal_weights):
    clf = quick_classifier(max_epochs=1, class_weight=dict.fromkeys(range(10), 1e300))
    assert np.array_equal(clf.fit(*digits).predict_proba(digits[0]), of_equal_weights)


def test_weights_of_all_sizes_together_are_finite(digits):
    X, y = digits
    weights = np.where(np.arange(len(y)) % 2, 1.0, 1e-300)
    clf = quick_classifier(max_epochs=1, class_weight={0: 1e300}).fit(X, y, sample_weight=weights)
    assert np.isfinite(clf.predict_proba(X)).all()


def test_classes_of_weight_0_alone_are_refused(digits):
    with pytest.raises(ValueError, match="class_weight=.* is 0 for all of"):
        quick_classifier(class_weight=dict.fromkeys(range(10), 0.0)).fit(*digits)


def test_gates_that_are_not_finite_are_refused(fitted):
    costs = np.linspace(1e299, 1e300, len(fitted.exit_costs_))
    with np.errstate(over="ignore"), pytest.raises(ValueError, match="cost_weight=.*exit_costs"):
        fitted.at(cost_weight=1.0, exit_costs=costs)


@pytest.mark.usefixtures("full_descent")
def test_with_a_huge_cost_weight_samples_leave_at_the_first_exit(digits, fresh_digits):
    # Gates of a few samples may keep others at any cost weight.
    X_val, y_val = (part[:400] for part in fresh_digits)
    clf = quick_classifier(max_epochs=1, cost_weight=1e300).fit(*digits, X_val=X_val, y_val=y_val)
    assert np.mean(clf.predict_exit(X_val) == 0) > 0.9


def test_a_decay_with_which_training_diverges_is_named(digits):
    clf = quick_classifier(max_epochs=1, optimizer__weight_decay=1e300)
    with pytest.raises(ValueError, match="change optimizer__weight_decay=1e\\+300"):
        clf.fit(*digits)


def test_masks_in_buffers_may_hold_infinity():
    module = nn.BatchNorm1d(3)
    module.register_buffer("mask", torch.tensor([0.0, -torch.inf, torch.nan]))
    assert learns_finite(module)
    module.running_mean[1] = torch.nan
    assert not learns_finite(module)


def test_weights_of_exit_answers_are_checked_and_may_be_tiny(fitted, digits):
    X, y = digits
    plain, tiny = (
        fitted.exit_answers(X, y, weights).exit_errors() for weights in (None, np.full(300, 1e-300))
    )
    np.testing.assert_allclose(tiny, plain)
    for weights, match in ((-np.ones(300), "Negative values"), (np.ones(3), "sample_weight.shape")):
        with pytest.raises(ValueError, match=match):
            fitted.exit_answers(X, y, weights)


@pytest.mark.parametrize("weights", [np.nan, "heavy", np.full(300, np.inf), np.zeros(300)])
def test_weights_that_are_none_are_refused_by_name(weights, digits, fitted):
    X, y = digits
    with pytest.raises(ValueError, match="sample_weight: "):
        fitted.exit_answers(X, y, weights)
    with pytest.raises(ValueError, match="sample_weight_val: "):
        quick_classifier().fit(X, y, X_val=X, y_val=y, sample_weight_val=weights)


def test_a_budget_of_nan_is_refused(fitted, digits):
    with pytest.raises(ValueError, match="budget=nan"):
        fitted.control_risk(digits[0], budget=np.nan)
