"""Trees as ONNX graphs answer as scikit-learn's do, to the last missing value."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.linear_model import LogisticRegression

from sklearn_jeidnn import EarlyExitClassifier
from sklearn_jeidnn._engines.onnx_graphs import ANSWERS, NUMBERS
from sklearn_jeidnn._fit import onnx_trees, trees
from sklearn_jeidnn._fit.classifiers import ClassifierStage

from .test_onnx_engine import in_torch

onnxruntime = pytest.importorskip("onnxruntime")

NO_CATEGORIES = np.zeros(0, dtype=int)
LEAST = 1e-4


def table(load, n_missing):
    """Numbers, with some missing, and labels."""
    X, y = load(return_X_y=True)
    X = np.float32(X)
    missing = np.random.default_rng(0).random(X.shape) < 0.1
    missing[:, n_missing:] = False
    return np.where(missing, np.float32(np.nan), X), y


def boosted(X, y):
    return trees._boosted(NO_CATEGORIES, 0, max_iter=10).fit(X, y)


def extra(X, y):
    return trees.QuickExtraTrees(10, random_state=0).fit(X, y)


def distilled(X, y):
    probabilities = 0.8 * np.eye(y.max() + 1)[y] + 0.2 / (y.max() + 1)
    classes = np.unique(y)
    return trees.distilled_extra_trees(X, probabilities, classes, np.ones(len(y)), 0).module


def stage_of(classifier, n_classes, **options):
    schema = SimpleNamespace(classes=np.arange(n_classes), n_classes=n_classes)
    options = {"as_numbers": True, "least_probability": LEAST, **options}
    return ClassifierStage(classifier, schema, **options)


@pytest.mark.parametrize("n_missing", [0, 2])
@pytest.mark.parametrize("load", [load_iris, load_breast_cancer])
@pytest.mark.parametrize("fitted", [boosted, extra, distilled])
def test_a_graph_answers_what_the_trees_answer(fitted, load, n_missing):
    X, y = table(load, n_missing)
    classifier = fitted(X[::2], y[::2])
    model = onnx_trees.trees_as_onnx(stage_of(classifier, y.max() + 1))
    run = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run
    expected = np.log(np.maximum(classifier.predict_proba(X), LEAST))
    for n_samples in (len(X), 1):
        (logits,) = run([ANSWERS], {NUMBERS: X[:n_samples]})
        np.testing.assert_allclose(logits, expected[:n_samples], atol=1e-5)


def test_thresholds_keep_apart_the_same_float32_numbers():
    numbers = np.float32([1.5, -2.25, 1e-3, 3e38])
    next_up = np.nextafter(numbers, np.float32(np.inf))
    between = numbers + (next_up.astype(np.float64) - numbers) * np.array([0, 0.3, 0.9, 0.5])
    np.testing.assert_array_equal(onnx_trees._rounded_down(between), numbers)


@pytest.mark.parametrize("fitted", [boosted, extra])
def test_numbers_beside_each_other_are_kept_apart(fitted):
    numbers = np.float32([1])
    for _ in range(7):
        numbers = np.append(numbers, np.nextafter(numbers[-1], np.float32(2)))
    X = np.tile(numbers, 50)[:, None]
    y = np.tile(np.arange(8) % 2, 50)
    classifier = fitted(X, y)
    model = onnx_trees.trees_as_onnx(stage_of(classifier, 2))
    run = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run
    (logits,) = run([ANSWERS], {NUMBERS: X})
    np.testing.assert_array_equal(logits.argmax(1), classifier.predict(X))


def test_what_has_no_graph_stays_in_scikit_learn(monkeypatch):
    X, y = table(load_iris, 0)
    as_onnx = onnx_trees.trees_as_onnx
    assert as_onnx(stage_of(LogisticRegression(max_iter=500).fit(X, y), 3)) is None
    assert as_onnx(stage_of(boosted(X, y), 3, as_numbers=False)) is None
    assert as_onnx(stage_of(boosted(X, y), 4)) is None  # a class that the trees have not seen
    X[:, 0] = X[:, 0] > 5
    with_categories = trees._boosted(np.array([0]), 0, max_iter=10).fit(X, y)
    assert as_onnx(stage_of(with_categories, 3)) is None
    X[:, 3] = 0  # a category that no tree asks for still comes before all numbers there
    assert as_onnx(stage_of(trees._boosted(np.array([3]), 0, max_iter=10).fit(X, y), 3)) is None
    monkeypatch.setattr(onnx_trees, "MOST_NODES", 10)
    assert as_onnx(stage_of(extra(X, y), 3)) is None


@pytest.mark.parametrize("missing", [False, True])
def test_trees_in_a_cascade(missing):
    X, y = table(load_breast_cancer, 5 * missing)
    # A network that learns next to nothing: trees stand in front of trees.
    params = {"max_epochs": 1, "lr": 1e-6, "module__width": 16, "cv": None, "random_state": 0}
    clf = EarlyExitClassifier(**params, engine="onnxruntime").fit(X[::2], y[::2])
    graph = clf._predictor.cascade.engine.sessions.graph
    assert any(model is not None for model in graph.classifiers)
    other = in_torch(clf)
    for n_samples in (len(X), 1):
        np.testing.assert_array_equal(clf.predict(X[:n_samples]), other.predict(X[:n_samples]))
        np.testing.assert_array_equal(
            clf.predict_exit(X[:n_samples]), other.predict_exit(X[:n_samples])
        )
    np.testing.assert_array_equal(clf.predict_backbone(X), other.predict_backbone(X))


def test_a_table_with_words_is_answered_in_both():
    X, y = table(load_breast_cancer, 5)
    frame = pd.DataFrame(X).rename(columns=str)
    frame["size"] = np.where(frame["2"] > 90, "large", "small")
    params = {"max_epochs": 1, "module__width": 16, "cv": None, "random_state": 0}
    clf = EarlyExitClassifier(**params, engine="onnxruntime").fit(frame, y)
    np.testing.assert_array_equal(clf.predict(frame), in_torch(clf).predict(frame))
