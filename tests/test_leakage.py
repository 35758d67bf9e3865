"""Where networks may have learned from the samples that calibrate, a warning says so and nothing is certified."""

import copy
import pickle
import warnings

import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.naive_bayes import GaussianNB
from torch import nn

from sklearn_jeidnn import metrics

from .conftest import quick_classifier


def quickest(**params):
    """One exit and one threshold: what is tested here does not depend on gates."""
    quick = {"exits": 1, "exit_policy": "confidence", "batch_size": 128}
    return quick_classifier(**{**quick, **params})


class Plain(nn.Sequential):
    def __init__(self):
        layers = [nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)]
        super().__init__(nn.BatchNorm1d(64), *layers)


@pytest.fixture(scope="module")
def memorised(digits):
    """A network that knows labels by heart, two fifths of which are random: (network, samples, these labels)"""
    X, y = digits
    rng = np.random.default_rng(0)
    y = np.where(rng.random(len(y)) < 0.4, rng.integers(0, 10, len(y)), y)
    torch.manual_seed(0)
    module = Plain()
    optimizer = torch.optim.Adam(module.parameters(), 5e-3)
    for _ in range(150):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(module(torch.as_tensor(X)), torch.as_tensor(y))
        loss.backward()
        optimizer.step()
    return module.eval(), X, y


@pytest.fixture(scope="module")
def fresh_noise(fresh_digits):
    """New samples with labels of the same kind."""
    X, y = fresh_digits
    rng = np.random.default_rng(1)
    return X, np.where(rng.random(len(y)) < 0.4, rng.integers(0, 10, len(y)), y)


def frozen(module, **params):
    return quickest(module=module, freeze_backbone=True, max_epochs=1, **params)


@pytest.fixture(scope="module")
def leaky(memorised):
    module, X, y = memorised
    with pytest.warns(UserWarning, match="X_val") as caught:
        clf = frozen(module).fit(X, y)
    assert [warning.filename for warning in caught] == [__file__]
    (message,) = (str(warning.message) for warning in caught)
    for words in ("freeze_backbone=True", "no guarantee holds", "as X_val and y_val"):
        assert words in message
    return clf


LIMIT = {"max_accuracy_drop": 0.5, "risk_confidence": 0.6}


def test_a_frozen_network_without_x_val_covers_too_little_and_is_warned_of(leaky, fresh_noise):
    X, y = fresh_noise
    assert metrics.coverage(leaky.predict_set(X), y) < 0.8


def test_nothing_is_certified_on_what_a_network_knows(leaky, memorised):
    module, X, y = memorised
    with pytest.raises(ValueError, match="risk_confidence=0.6 cannot be given.*X_val"):
        frozen(module, callbacks=[no_training()], **LIMIT).fit(X, y)
    for clf in (leaky, pickle.loads(pickle.dumps(leaky)), leaky.at(cost_weight=0.5)):
        with pytest.raises(ValueError, match="risk_confidence=0.6 cannot be given"):
            clf.at(**LIMIT)
    with pytest.raises(ValueError, match="trained networks or set their gates"):
        leaky.control_risk(X, y, max_accuracy_drop=0.5)
    with pytest.raises(ValueError, match="trained networks or set their gates"):
        leaky.control_risk(X, max_disagreement=0.5)


def no_training():
    from skorch.callbacks import Callback

    class Fails(Callback):
        def on_train_begin(self, net, **kwargs):
            raise AssertionError("the refusal came after the training had begun")

    return Fails()


def test_fresh_samples_set_it_right(leaky, fresh_noise):
    X, y = fresh_noise
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clf = copy.copy(leaky).conformalize(X[:500], y[:500])
        low, high = metrics.coverage_band(500, len(X) - 500, 0.9, probability=0.999)
        assert low <= metrics.coverage(clf.predict_set(X[500:]), y[500:]) <= high
        assert clf.at(**LIMIT).risk_.certified
        assert leaky.control_risk(X, y, max_accuracy_drop=0.5).risk_.certified
        assert leaky.control_risk(X, max_disagreement=0.5).risk_ is not None


def test_conformalize_tells_samples_that_trained(memorised, leaky, fresh_noise):
    _, X, y = memorised
    with pytest.warns(UserWarning, match="of 100 samples trained networks or set their gates"):
        clf = copy.copy(leaky).conformalize(X[:100], y[:100])
    with pytest.raises(ValueError, match="cannot be given"):
        clf.at(**LIMIT)


def test_x_val_of_fresh_samples_is_not_warned_of_and_one_of_samples_that_train_is(
    memorised, fresh_noise
):
    module, X, y = memorised
    fresh, labels = fresh_noise
    own = {"X_val": fresh[:400], "y_val": labels[:400]}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "the labels of the module itself")
        assert frozen(module, **LIMIT).fit(X, y, **own).risk_.certified
    mixed = {
        "X_val": np.concatenate([fresh[:300], X[:100]]),
        "y_val": np.concatenate([labels[:300], y[:100]]),
    }
    for given in (module, Plain):
        with pytest.warns(UserWarning, match="100 of the 400 samples of X_val are among those"):
            quickest(module=given, max_epochs=1).fit(X, y, **mixed)
    with pytest.raises(ValueError, match="cannot be given"):
        quickest(module=Plain, **LIMIT).fit(X, y, **mixed)


@pytest.mark.parametrize("in_front", [False, True])
def test_a_trained_instance_that_learns_on_is_told_by_what_it_knows_before(memorised, in_front):
    module, X, y = memorised
    given = [module, Plain] if in_front else module
    name = r"module\[0\]" if in_front else "module"
    with pytest.warns(UserWarning, match=f"{name} came trained .*X_val is not given"):
        clf = quickest(module=given, max_epochs=1).fit(X, y)
    with pytest.raises(ValueError, match="cannot be given"):
        clf.at(**LIMIT)
    with pytest.raises(ValueError, match="cannot be given"):
        quickest(module=given, callbacks=[no_training()], **LIMIT).fit(X, y)


def test_what_a_network_learned_before_its_first_fit_stays_unknown(memorised, fresh_noise):
    """Though that fit was given fresh samples, its module_ knows others."""
    module, X, y = memorised
    fresh, labels = fresh_noise
    held_out = {"X_val": fresh[:100], "y_val": labels[:100]}
    first = quickest(module=module, max_epochs=1, lr=1e-5)
    first.fit(fresh[200:300], labels[200:300], **held_out)
    with pytest.warns(UserWarning, match="module came trained"):
        quickest(module=first.module_, max_epochs=1).fit(X, y)


@pytest.mark.parametrize("wrapped", [lambda c: c, FrozenEstimator])
def test_a_fitted_classifier_is_told_by_what_it_knows(digits, fresh_digits, wrapped):
    X, y = fresh_digits
    forest = wrapped(RandomForestClassifier(30, random_state=0).fit(*digits))
    clf = quickest(module=[forest, Plain], companion_costs=[0.1], max_epochs=1)
    with pytest.warns(UserWarning, match=r"module\[0\] came trained"):
        clf.fit(*digits)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clf.fit(*digits, X_val=X[:200], y_val=y[:200])


def test_new_networks_and_unfitted_classifiers_are_not_suspected(digits):
    torch.manual_seed(0)
    front = [GaussianNB(), Plain()]
    for module in (Plain, Plain(), Plain(), [*front, Plain()]):
        costs = [0.1, None] if isinstance(module, list) else None
        clf = quickest(module=module, max_epochs=1, companion_costs=costs)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            clf.fit(*digits)
