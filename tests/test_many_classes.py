"""From 2 to thousands of classes: what heads cost, and what is held at once."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from sklearn_jeidnn import _schema
from sklearn_jeidnn._exits.heads import MOST_MIXED_CLASSES, VectorHead
from sklearn_jeidnn._samples import checked_chunks

from .conftest import quick_classifier


def rows(n_classes, n_samples=900):
    X = np.random.default_rng(0).normal(size=(n_samples, 20)).astype(np.float32)
    return X, np.arange(n_samples) % n_classes


def test_a_head_of_many_classes_costs_little_more_than_one_linear_layer():
    many = VectorHead(16, MOST_MIXED_CLASSES + 1)
    n_weights = sum(parameter.numel() for parameter in many.parameters())
    assert n_weights == (16 + 1) * (MOST_MIXED_CLASSES + 1) + 2 * 16
    feature, previous = torch.randn(2, 16), torch.randn(2, MOST_MIXED_CLASSES + 1)
    assert torch.equal(many(feature, previous), many(feature, None))


@pytest.mark.filterwarnings("ignore:The number of unique classes is greater than 50%")
@pytest.mark.parametrize("n_classes", [2, 300, 600])
def test_the_ready_network_takes_two_classes_and_hundreds(n_classes):
    X, y = rows(n_classes, 1200)
    clf = quick_classifier(max_epochs=1, companion="tabular").fit(X, y)
    assert clf.predict_proba(X[:3]).shape == (3, n_classes)
    assert clf.exits_ and clf.exit_costs_[0] < 1
    # Heads as expensive as the classifier itself: few of them.
    assert clf.exit_costs_[-1] < 3


def test_exits_that_save_nothing_are_told():
    layers = [nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 4), nn.Linear(4, 300)]
    clf = quick_classifier(module=nn.Sequential(*layers), max_epochs=1)
    with pytest.warns(UserWarning, match="no early exit that saves anything: with 300 classes"):
        clf.fit(*rows(300))
    assert len(clf.exits_) == 1


def test_a_class_of_one_sample_is_a_class(digits):
    X, y = digits
    y = np.where(np.arange(300) == 7, 99, y)
    clf = quick_classifier(max_epochs=1).fit(X, y)
    assert 99 in clf.classes_ and clf.predict_set(X[:5]).shape == (5, 11)


def test_chunks_are_smaller_where_answers_are_long(fitted, monkeypatch):
    monkeypatch.setattr(_schema, "CHUNK_BYTES", 10_000)
    schema = fitted._predictor.schema
    longer = replace(schema, classes=np.arange(1000))
    X = np.zeros((100, 64), np.float32)
    n_chunks = [len(list(checked_chunks(s, [X], 1))) for s in (schema, longer)]
    assert n_chunks == [4, 50]
