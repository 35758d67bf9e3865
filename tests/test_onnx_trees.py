"""Trees as ONNX graphs answer as scikit-learn's do, to the last missing value."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_jeidnn import EarlyExitClassifier
from sklearn_jeidnn._engines.onnx_graphs import ANSWERS, NUMBERS
from sklearn_jeidnn._fit import onnx_trees, trees
from sklearn_jeidnn._fit.classifiers import ClassifierStage
from sklearn_jeidnn._fit.onnx_classifiers import classifier_as_onnx

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
    model = classifier_as_onnx(stage_of(classifier, y.max() + 1))
    run = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run
    expected = np.log(np.maximum(classifier.predict_proba(X), LEAST))
    for n_samples in (len(X), 1):
        (logits,) = run([ANSWERS], {NUMBERS: X[:n_samples]})
        np.testing.assert_allclose(logits, expected[:n_samples], atol=1e-5)


@pytest.mark.parametrize("fitted", [boosted, extra, distilled])
@pytest.mark.parametrize("seen", [[0, 2], [1, 2, 3]])
def test_classes_that_trees_have_not_seen_get_the_floor(fitted, seen):
    X, y = table(load_iris, 2)
    classifier = fitted(X, np.arange(len(seen))[y % len(seen)])
    classifier.classes_ = np.array(seen)
    model = classifier_as_onnx(stage_of(classifier, 4))
    run = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run
    (logits,) = run([ANSWERS], {NUMBERS: X})
    expected = np.full((len(X), 4), LEAST)
    expected[:, seen] = np.maximum(classifier.predict_proba(X), LEAST)
    np.testing.assert_allclose(logits, np.log(expected), atol=1e-5)


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
    model = classifier_as_onnx(stage_of(classifier, 2))
    run = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run
    (logits,) = run([ANSWERS], {NUMBERS: X})
    np.testing.assert_array_equal(logits.argmax(1), classifier.predict(X))


def test_what_has_no_graph_stays_in_scikit_learn(monkeypatch):
    X, y = table(load_iris, 0)
    as_onnx = classifier_as_onnx
    assert as_onnx(stage_of(LogisticRegression(max_iter=500).fit(X, y), 3)) is None
    assert as_onnx(stage_of(boosted(X, y), 3, as_numbers=False)) is None
    behind_scaling = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y)
    assert as_onnx(stage_of(behind_scaling, 3)) is None
    monkeypatch.setattr(onnx_trees, "MOST_NODES", 10)
    assert as_onnx(stage_of(extra(X, y), 3)) is None


N_FREQUENT = 40


def mixed_table(n_samples, n_classes, n_categories):
    """A number, categories (a few, many, two), another number: samples and labels that all of them tell."""
    rng = np.random.default_rng(0)
    few, many = rng.integers(7, size=n_samples), rng.integers(n_categories, size=n_samples)
    two = rng.integers(2, size=n_samples)
    numbers = rng.standard_normal((n_samples, 2))
    # Neighbouring positions say nothing of each other.
    score = np.sin(5 * few) + 2 * np.sin(3 * many) + two * numbers[:, 0] + numbers[:, 1]
    y = np.searchsorted(np.quantile(score, np.linspace(0, 1, n_classes + 1)[1:-1]), score)
    X = np.stack([numbers[:, 0], few, many, two, numbers[:, 1]], axis=1)
    return np.float32(X), y


def with_gaps(X, categorical, unseen):
    """A tenth of the values missing, and a tenth of the categories one that nobody saw."""
    rng = np.random.default_rng(1)
    X = np.where((rng.random(X.shape) < 0.1) & categorical, np.float32(unseen), X)
    return np.where(rng.random(X.shape) < 0.1, np.float32(np.nan), X)


@pytest.mark.parametrize("gaps_in_fit", [False, True])
@pytest.mark.parametrize("form", ["few", "many", "frequent", "empty"])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_graphs_of_trees_that_ask_for_categories(n_classes, form, gaps_in_fit, monkeypatch):
    if form == "frequent":
        monkeypatch.setattr(trees, "MOST_CATEGORIES", N_FREQUENT)
    n_categories = {"few": 9, "many": 400, "frequent": 60, "empty": 60}[form]
    X, y = mixed_table(3000, n_classes, n_categories)
    categorical = np.array([False, True, True, True, False])
    if form == "empty":
        X = np.insert(X, [0, 2], np.nan, axis=1)
        categorical = np.insert(categorical, [0, 2], [False, True])
    X_train, X_test = X[:2000], X[2000:]
    if gaps_in_fit:
        X_train = with_gaps(X_train, np.zeros_like(categorical), 0)
    classifier = trees.boosted_trees(X_train, categorical, 0, max_iter=20).fit(X_train, y[:2000])
    assert isinstance(classifier, Pipeline) == (form != "few")
    model = classifier_as_onnx(stage_of(classifier, n_classes, least_probability=1e-7))
    run = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run
    # One that the network's numbers have for what fit did not see, and those above all that these samples had.
    tables = [X_test, *(with_gaps(X_test, categorical, unseen) for unseen in (-1, 500))]
    for table in [*tables, tables[1][:1]]:
        (logits,) = run([ANSWERS], {NUMBERS: table})
        np.testing.assert_allclose(np.exp(logits), classifier.predict_proba(table), atol=1e-6)


def test_equal_sets_of_categories_are_one_column():
    X, y = mixed_table(3000, 2, 9)
    classifier = trees.boosted_trees(X, np.arange(5) % 4 > 0, 0, max_iter=20).fit(X, y)
    splits = onnx_trees.category_splits(classifier, None)
    np.testing.assert_array_equal(splits.columns, [1, 2, 3])
    for sides in splits.goes_right:
        assert len(np.unique(sides, axis=1).T) == sides.shape[1]
    # Of two categories one goes to the left, and missing values to either side.
    assert splits.goes_right[2].shape[1] <= 4


def test_categories_that_no_tree_asks_for_still_come_before_all_numbers():
    X, y = table(load_iris, 2)
    X[:, 3] = 0
    classifier = trees._boosted(np.array([3]), 0, max_iter=10).fit(X, y)
    model = classifier_as_onnx(stage_of(classifier, 3))
    run = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run
    (logits,) = run([ANSWERS], {NUMBERS: X})
    expected = np.log(np.maximum(classifier.predict_proba(X), LEAST))
    np.testing.assert_allclose(logits, expected, atol=1e-5)


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
    graph = clf._predictor.cascade.engine.sessions.graph
    assert any(graph.is_given)
    for given, model in zip(graph.is_given, graph.classifiers, strict=True):
        assert given == (model is not None)
    np.testing.assert_array_equal(clf.predict(frame), in_torch(clf).predict(frame))
