"""Class weights are weights of samples, in every part of a fit that learns from labels, and in none that calibrates."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.ensemble import ExtraTreesClassifier

from sklearn_jeidnn._fit.callbacks import KeepBestEpoch

from .conftest import TinyConv, quick_classifier

WEIGHTS = {label: 1.0 + 9 * (label % 2) for label in range(10)}


def of_samples(y):
    return np.array([WEIGHTS[label] for label in y])


CONFIGURATIONS = {
    "a network with exits": {"module": TinyConv},
    "epochs as they help": {"module": TinyConv, "max_epochs": "auto", "batch_size": 256},
    "trees beside the ready network": {"companion": "tabular"},
    "a companion that learns from the last member": {
        "module": [TinyConv, ExtraTreesClassifier(10, random_state=0)],
        "companion_costs": [0.1],
        "companion_training": "distilled",
    },
    "heads alone": {"module": TinyConv, "freeze_backbone": "after_warmup"},
    "the paper's gates": {"module": TinyConv, "gate_training": "bilevel"},
    "one threshold": {"module": TinyConv, "exit_policy": "confidence", "budget": 0.9},
}


@pytest.mark.parametrize("params", CONFIGURATIONS.values(), ids=CONFIGURATIONS)
def test_class_weights_are_weights_of_the_samples_of_each_class(params, digits, fresh_digits):
    X, y = digits
    X_val, y_val = (values[:400] for values in fresh_digits)
    params, held_out = {"max_epochs": 3, **params}, {"X_val": X_val, "y_val": y_val}
    plain = quick_classifier(**params).fit(X, y, **held_out)
    by_class = quick_classifier(**params, class_weight=WEIGHTS).fit(X, y, **held_out)
    by_sample = quick_classifier(**params).fit(
        X, y, of_samples(y), **held_out, sample_weight_val=of_samples(y_val)
    )
    rest = fresh_digits[0][400:]
    for name in ("predict_proba", "predict_exit", "predict_set"):
        expected = getattr(by_sample, name)(rest)
        assert np.array_equal(getattr(by_class, name)(rest), expected), name
    assert not np.array_equal(by_class.predict_proba(rest), plain.predict_proba(rest))
    weights = by_class._predictor.frontier.answers.weights
    codes = by_class._predictor.frontier.answers.codes
    expected = of_samples(codes) / of_samples(codes).mean()
    np.testing.assert_allclose(weights, expected, rtol=1e-6)


def test_folds_weigh_classes_too(digits, fresh_digits):
    X, y = digits
    params = {"max_epochs": 2, "cv": 2}
    by_class = quick_classifier(**params, class_weight=WEIGHTS).fit(X, y)
    by_sample = quick_classifier(**params).fit(X, y, of_samples(y))
    probabilities = by_class.predict_proba(fresh_digits[0])
    assert np.array_equal(probabilities, by_sample.predict_proba(fresh_digits[0]))
    plain = quick_classifier(**params).fit(X, y)
    assert not np.array_equal(probabilities, plain.predict_proba(fresh_digits[0]))


def test_the_epoch_that_is_kept_is_the_best_for_the_samples_that_count(monkeypatch):
    y = torch.tensor([0] * 90 + [1] * 10)
    weights = torch.where(y == 1, 9.0, 1.0)
    weights /= weights.mean()
    sure, unsure = torch.tensor([4.0, 0.0]), torch.tensor([0.0, 0.0])
    # All are answered with the frequent class; then with neither.
    epochs = [sure.expand(100, 2), unsure.expand(100, 2)]
    found = []
    for sample_weight in (torch.ones(100), weights):
        callback, recorded = KeepBestEpoch(), []
        net = SimpleNamespace(
            history=SimpleNamespace(record=lambda name, value, to=recorded: to.append(value))
        )
        monkeypatch.setattr(callback, "_keep_if_best", lambda net, mean: None)
        for logits in epochs:
            callback.on_epoch_begin(net)
            batch = ({"X": None, "sample_weight": sample_weight}, y)
            callback.on_batch_end(net, batch, training=False, y_pred=logits)
            callback.on_epoch_end(net)
        found.append(recorded)
    (first, second), (first_weighted, second_weighted) = found
    assert first < second == pytest.approx(0.5)
    assert first_weighted > second_weighted == pytest.approx(0.5)


def test_calibration_takes_all_samples_alike(digits, fresh_digits):
    X_val, y_val = fresh_digits
    held_out = {"X_val": X_val, "y_val": y_val}
    clf = quick_classifier(module=TinyConv, max_epochs=3, class_weight=WEIGHTS)
    clf.fit(*digits, **held_out)
    samples, calibration = clf._predictor.samples, clf._predictor.calibration
    assert len(clf.conformity_scores_) == len(samples.answers)
    sure = calibration.probabilities(
        samples.answers.at(calibration.exit_index), calibration.exit_index
    )
    expected = 1 - sure[np.arange(len(sure)), samples.answers.codes]
    np.testing.assert_allclose(clf.conformity_scores_, expected, atol=1e-9)
