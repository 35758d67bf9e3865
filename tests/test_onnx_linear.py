"""The linear model in front of a slow classifier answers as a graph what it answers in scikit-learn."""

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.naive_bayes import GaussianNB

from sklearn_jeidnn import EarlyExitClassifier
from sklearn_jeidnn._engines.onnx_graphs import ANSWERS, NUMBERS
from sklearn_jeidnn._fit import companions, onnx_linear
from sklearn_jeidnn._fit.onnx_classifiers import classifier_as_onnx

from .test_onnx_trees import mixed_table, stage_of, with_gaps

onnxruntime = pytest.importorskip("onnxruntime")

N_FREQUENT = 40
# Of the columns of a mixed table.
CATEGORICAL = np.array([False, True, True, True, False])
N_TRAIN = 1000


def run_of(stage):
    model = classifier_as_onnx(stage)
    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run


def check_same(classifier, n_classes, tables):
    run = run_of(stage_of(classifier, n_classes, least_probability=1e-7))
    for table in [*tables, tables[0][:1]]:
        (logits,) = run([ANSWERS], {NUMBERS: table})
        np.testing.assert_allclose(np.exp(logits), classifier.predict_proba(table), atol=1e-5)


@pytest.mark.parametrize("gaps_in_fit", [False, True])
@pytest.mark.parametrize("form", ["both", "numbers", "categories", "empty"])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_a_graph_answers_what_the_linear_model_answers(n_classes, form, gaps_in_fit, monkeypatch):
    monkeypatch.setattr(companions, "MOST_CATEGORIES", N_FREQUENT)
    monkeypatch.setattr(onnx_linear, "ENCODED_AT_ONCE", 7)
    X, y = mixed_table(2 * N_TRAIN, n_classes, 60)
    # An offset that float32 rounds, and a scale that is no power of two.
    X[:, 4] = 1e6 + 300 * X[:, 4]
    categorical = CATEGORICAL
    if form == "empty":
        X = np.insert(X, [0, 2], np.nan, axis=1)
        categorical = np.insert(categorical, [0, 2], [False, True])
    elif form != "both":
        X = X[:, categorical == (form == "categories")]
        categorical = np.full(X.shape[1], form == "categories")
    X_train, X_test = X[:N_TRAIN], X[N_TRAIN:]
    if gaps_in_fit:
        X_train = with_gaps(X_train, np.zeros_like(categorical), 0)
    classifier = companions._linear(categorical).fit(X_train, y[:N_TRAIN])
    # One that the network's numbers have for what fit did not see, and one above all that these samples had.
    unseen = [with_gaps(X_test, categorical, position) for position in (-1, 500)]
    check_same(classifier, n_classes, [X_test, *unseen])


def test_classes_that_the_linear_model_has_not_seen_get_the_floor():
    X, y = mixed_table(N_TRAIN, 3, 9)
    classifier = companions._linear(CATEGORICAL).fit(X[y != 1], y[y != 1])
    (logits,) = run_of(stage_of(classifier, 4, least_probability=1e-3))([ANSWERS], {NUMBERS: X})
    np.testing.assert_allclose(logits[:, [1, 3]], np.log(1e-3), atol=1e-5)
    np.testing.assert_allclose(
        np.exp(logits[:, [0, 2]]), np.maximum(classifier.predict_proba(X), 1e-3), atol=1e-5
    )


@pytest.mark.filterwarnings("ignore:nothing is saved")  # says the clock
def test_in_front_of_another_classifier_it_is_asked_in_its_graph():
    X, y = load_breast_cancer(return_X_y=True)
    X = np.float32(X)
    members = [companions._linear(np.zeros(30, dtype=bool)), GaussianNB()]
    params = {"cv": None, "random_state": 0}
    clf = EarlyExitClassifier(members, **params, engine="torch").fit(X[::2], y[::2])
    # As those are that are made here.
    clf._predictor.cascade.engine.network.stages[0].as_numbers = True
    in_onnx = clf.at(engine="onnxruntime")
    graph = in_onnx._predictor.cascade.engine.sessions.graph
    assert [model is not None for model in graph.classifiers] == [True, False]
    for some in (X, X[:1]):
        np.testing.assert_array_equal(in_onnx.predict(some), clf.predict(some))
        np.testing.assert_array_equal(in_onnx.predict_exit(some), clf.predict_exit(some))
        np.testing.assert_allclose(in_onnx.predict_proba(some), clf.predict_proba(some), atol=1e-5)
