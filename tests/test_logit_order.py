"""Logits of a trained network stand for the labels that are said, and a wrong order does not pass in silence."""

import copy
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.naive_bayes import GaussianNB
from torch import nn

from sklearn_jeidnn._fit.logit_order import labels_of_logits, logit_order

from .conftest import quick_classifier

NAMES = np.array("zero one two three four five six seven eight nine".split())


def trained_on(X, y):
    """A plain network whose logit i is that of digit i."""
    torch.manual_seed(0)
    layers = [nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10)]
    network = nn.Sequential(nn.BatchNorm1d(64), *layers)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(network(torch.as_tensor(X)), torch.as_tensor(y))
        loss.backward()
        optimizer.step()
    return network.eval()


@pytest.fixture(scope="module")
def network(digits):
    return trained_on(*digits)


@pytest.fixture(scope="module")
def named(digits, fresh_digits):
    """(samples, their names), (held-out samples, their names), (new samples, their names)"""
    (X, y), (fresh, codes) = digits, fresh_digits
    return (X, NAMES[y]), (fresh[:300], NAMES[codes[:300]]), (fresh[300:], NAMES[codes[300:]])


def fit(module, named, **params):
    train, (X_val, y_val), _ = named
    params = {"freeze_backbone": True, "max_epochs": 2, **params}
    return quick_classifier(module=module, **params).fit(*train, X_val=X_val, y_val=y_val)


def test_a_trained_network_in_another_order_is_told_and_the_order_that_would_fit_named(
    network, named
):
    with pytest.warns(UserWarning, match="another order") as caught:
        clf = fit(network, named)
    (warning,) = caught
    assert f"classes={NAMES.tolist()}" in str(warning.message)
    assert "(If not: the module may not be trained, or X may come" in str(warning.message)
    assert np.mean(clf.predict_backbone(named[2][0]) == named[2][1]) < 0.4


@pytest.mark.parametrize("by", ["classes", "id2label"])
def test_the_order_of_logits_can_be_said(network, named, by):
    module, classes = copy.deepcopy(network), NAMES.tolist()
    if by == "id2label":
        module.config, classes = SimpleNamespace(id2label=dict(enumerate(classes))), None
    clf = fit(module, named, classes=classes)
    X, y = named[2]
    assert np.array_equal(clf.classes_, np.sort(NAMES))
    with torch.no_grad():
        own = NAMES[network(torch.as_tensor(X)).argmax(1).numpy()]
    assert np.array_equal(clf.predict_backbone(X), own)
    answers = clf.exit_answers(X, y)
    assert np.array_equal(clf.classes_[answers.backbone_codes], own)
    assert clf.score(X, y) > np.mean(own == y) - 0.05
    # As it is routed, not only as every exit is run.
    stays = clf.predict_exit(X) == len(clf.exits_)
    last = clf.classes_[answers.logits[:, -1].argmax(1)]
    assert np.array_equal(clf.predict(X)[stays], last[stays])


def test_y_may_lack_labels_that_the_network_has(network, named, digits):
    """As in a fold, or a few classes of ImageNet."""
    train, held_out, (X, y) = named
    few = np.isin(train[1], NAMES[:4])
    some = ((train[0][few], train[1][few]), held_out, None)
    with pytest.raises(ValueError, match=r"y having 4 classes.*classes=\[...\]"):
        quick_classifier(module=network).fit(*some[0])
    clf = fit(network, some, classes=NAMES, class_weight="balanced", condition_on="class")
    assert np.array_equal(clf.classes_, np.sort(NAMES))
    assert clf.predict_proba(X).shape == (len(X), 10)
    sets = clf.predict_set(X)
    of_truth = sets[np.arange(len(y)), np.searchsorted(clf.classes_, y)]
    assert of_truth.mean() > 0.8
    with_another = fit([GaussianNB(), network], some, classes=NAMES)
    assert with_another.predict_proba(X).shape == (len(X), 10)


def test_sets_by_class_are_full_of_labels_without_calibration_samples(network, named):
    train, (X_val, y_val), (X, _) = named
    some = np.isin(y_val, NAMES[:4])
    held_out = (X_val[some], y_val[some])
    clf = fit(network, (train, held_out, None), classes=NAMES, condition_on="class")
    absent = ~np.isin(clf.classes_, NAMES[:4])
    sets = clf.predict_set(X, confidence_level=0.5)
    assert sets[:, absent].all() and not sets[:, ~absent].all()


@pytest.mark.parametrize(
    "classes, message",
    [
        (NAMES[:9].tolist(), r"y has labels \['nine'\] that are not in classes="),
        ([*NAMES, "nine"], "each once"),
        (["zero"], "at least two different labels"),
        ([NAMES], "at least two different labels"),
    ],
)
def test_classes_that_do_not_fit_are_refused_by_name(named, classes, message):
    with pytest.raises(ValueError, match=message):
        quick_classifier(classes=classes).fit(*named[0])


def test_a_network_in_the_right_order_is_not_suspected(network, digits, fresh_digits):
    X, y = fresh_digits
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quick_classifier(module=network, freeze_backbone=True, max_epochs=2).fit(
            *digits, X_val=X[:300], y_val=y[:300]
        )


def test_an_order_is_a_column_for_each_sorted_label():
    assert logit_order(nn.Identity(), ["b", "c", "a"], np.array(["a", "b", "c"])) == [2, 0, 1]
    assert logit_order(nn.Identity(), [1, 2], np.array([1, 2])) is None
    assert logit_order(nn.Identity(), None, np.array([1, 2])) is None


def test_labels_that_a_module_names_twice_are_not_taken():
    module = nn.Identity()
    module.config = SimpleNamespace(id2label={0: "a", 1: "a"})
    assert labels_of_logits(module) is None
    assert labels_of_logits(None) is None
