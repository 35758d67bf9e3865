"""The predictor answers what its classifier answers."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from sklearn_jeidnn._schema import CHUNK_BYTES, InputSchema
from sklearn_jeidnn.runtime import Predictor

from .conftest import TinyConv, quick_classifier


@pytest.fixture(scope="module")
def clf(digits):
    return quick_classifier(module=TinyConv, max_epochs=2).fit(*digits)


@pytest.fixture(scope="module")
def predictor(clf):
    return clf.predictor()


def check_same(predictor, clf, X):
    np.testing.assert_array_equal(predictor.predict(X), clf.predict(X))
    np.testing.assert_array_equal(predictor.predict_exit(X), clf.predict_exit(X))
    np.testing.assert_array_equal(predictor.predict_proba(X), clf.predict_proba(X))
    for levels in (0.8, [0.7, 0.9]):
        np.testing.assert_array_equal(
            predictor.predict_set(X, confidence_level=levels, allow_empty=False),
            clf.predict_set(X, confidence_level=levels, allow_empty=False),
        )


def test_it_answers_what_the_classifier_answers(clf, predictor, fresh_digits):
    for n_samples in (1, 50):
        check_same(predictor, clf, fresh_digits[0][:n_samples])
    assert isinstance(predictor, Predictor)
    np.testing.assert_array_equal(predictor.classes, clf.classes_)
    np.testing.assert_array_equal(predictor.exit_costs, clf.exit_costs_)
    assert predictor.exits == clf.exits_


def test_it_moves_to_other_operating_points(clf, predictor, fresh_digits):
    before = predictor.predict_exit(fresh_digits[0])
    for target in ({"cost_weight": 0.5}, {"budget": 0.6}, {"max_accuracy_drop": 0.2}):
        check_same(predictor.at(**target), clf.at(**target), fresh_digits[0])
    np.testing.assert_array_equal(predictor.predict_exit(fresh_digits[0]), before)


def test_it_keeps_the_point_that_the_classifier_is_at(clf, fresh_digits):
    other = clf.at(cost_weight=0.5)
    check_same(other.predictor(), other, fresh_digits[0])


@pytest.mark.parametrize(
    "target", [{}, {"budget": 0.5, "cost_weight": 0.1}, {"budget": 1e-6}, {"cost_weight": -1}]
)
def test_it_refuses_targets_that_make_no_sense(predictor, target):
    with pytest.raises(ValueError, match=r"budget|cost_weight"):
        predictor.at(**target)


def test_it_refuses_samples_of_another_shape_and_infinite_ones(predictor, fresh_digits):
    with pytest.raises(ValueError, match="10 features.*64"):
        predictor.predict(fresh_digits[0][:, :10])
    with pytest.raises(ValueError, match="infinity"):
        predictor.predict(np.where(fresh_digits[0] > 0.5, np.inf, fresh_digits[0]))


def test_it_refuses_datasets(predictor, fresh_digits):
    dataset = TensorDataset(torch.from_numpy(fresh_digits[0]))
    for X in (dataset, DataLoader(dataset)):
        with pytest.raises(TypeError, match=f"X is a {type(X).__name__}.*give arrays"):
            predictor.predict(X)


def test_it_takes_a_table_with_words():
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"x": rng.normal(size=300), "word": rng.choice(["a", "b"], 300)})
    y = np.where(X["word"] == "a", X["x"] > 0, X["x"] > 1)
    clf = quick_classifier(module=None, max_epochs=2, module__width=8, cv=None).fit(X, y)
    check_same(clf.predictor(), clf, X)


def test_it_is_pickled(predictor, fresh_digits):
    loaded = pickle.loads(pickle.dumps(predictor))
    np.testing.assert_array_equal(
        loaded.predict(fresh_digits[0]), predictor.predict(fresh_digits[0])
    )


def test_many_samples_are_not_looked_through_in_one_piece(clf, fresh_digits, monkeypatch):
    plain, sizes = InputSchema.plain_inputs, []

    def noted(schema, X):
        sizes.append(len(X))
        return plain(schema, X)

    monkeypatch.setattr(InputSchema, "plain_inputs", noted)
    batch_size = clf._predictor.cascade.engine.batch_size
    X = np.tile(fresh_digits[0], (CHUNK_BYTES // fresh_digits[0].nbytes + 2, 1))
    assert len(clf.predict(X)) == len(X) > batch_size
    assert max(sizes) < len(X)


def test_it_refuses_what_the_classifier_refuses(predictor, digits, fresh_digits):
    with pytest.raises(TypeError, match="allow_empty='no' is not allowed"):
        predictor.predict_set(fresh_digits[0], allow_empty="no")
    bilevel = quick_classifier(module=TinyConv, max_epochs=1, gate_training="bilevel").fit(*digits)
    with pytest.raises(ValueError, match=r"at\(\) needs gate_training='joint'; got 'bilevel'"):
        bilevel.predictor().at(cost_weight=0.5)
