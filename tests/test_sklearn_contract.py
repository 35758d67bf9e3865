"""The estimator behaves as scikit-learn's own do."""

import copy
import pickle

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer
from sklearn.naive_bayes import GaussianNB
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import parametrize_with_checks

from sklearn_jeidnn import EarlyExitClassifier

from .conftest import quick_classifier

# The first is what MLPClassifier itself is excused from. The others hold or not by chance: products of matrices in
# float32 round differently for other numbers of samples, and at other places among them; double precision would double
# the time of predict.
EXCUSED = {
    "check_sample_weight_equivalence_on_dense_data": "weighted and repeated samples fall into other batches",
    "check_methods_sample_order_invariance": "probabilities differ by some 1e-7 with the place among the samples",
    "check_methods_subset_invariance": "probabilities differ by some 1e-7 with the number of samples beside one",
}


# A table's missing value stands for the median where fit had none, with a warning, whatever a member says.
WARNED_OF = {"check_estimators_nan_inf": "missing values where fit had none are warned of"}


def excused(estimator):
    return EXCUSED if get_tags(estimator).input_tags.allow_nan else {**EXCUSED, **WARNED_OF}


# Small, so that dozens of fits take seconds; the slow test has every default.
SMALL = (None, {"width": 64, "n_blocks": 3})
# What naive Bayes costs is told where fits are compared: the clock says something else each time.
MEMBERS = [GaussianNB(), (None, {"width": 16, "n_blocks": 1}), SMALL]


@parametrize_with_checks(
    [
        EarlyExitClassifier([SMALL], max_epochs=10),
        EarlyExitClassifier(MEMBERS, companion_costs=[0.05, None], max_epochs=10),
    ],
    expected_failed_checks=excused,
)
@pytest.mark.filterwarnings("default")
def test_check_estimator(estimator, check):
    check(estimator)


@pytest.mark.slow
@parametrize_with_checks([EarlyExitClassifier()], expected_failed_checks=excused)
@pytest.mark.filterwarnings("default")
def test_check_estimator_with_every_default(estimator, check):
    check(estimator)


@pytest.mark.parametrize("copied", [lambda c: pickle.loads(pickle.dumps(c)), copy.deepcopy])
def test_a_copy_of_a_fitted_estimator_answers_the_same(fitted, fresh_digits, copied):
    X, _ = fresh_digits
    assert np.array_equal(copied(fitted).predict_proba(X), fitted.predict_proba(X))
    assert np.array_equal(copied(fitted).predict_set(X), fitted.predict_set(X))


def test_joblib_keeps_a_fitted_estimator(fitted, fresh_digits, tmp_path):
    joblib.dump(fitted, tmp_path / "clf.joblib")
    loaded = joblib.load(tmp_path / "clf.joblib")
    assert np.array_equal(
        loaded.predict_proba(fresh_digits[0]), fitted.predict_proba(fresh_digits[0])
    )


def test_a_copy_still_shares_parameters_between_its_backbone_and_its_stages(fitted):
    copied = pickle.loads(pickle.dumps(fitted))
    parameters = {id(p) for p in copied.network_.stages.parameters()}
    assert {id(p) for p in copied.module_.parameters()} == parameters


def test_clone_keeps_every_parameter_the_prefixed_ones_too():
    original = quick_classifier(optimizer__weight_decay=0.3, iterator_train__num_workers=0)
    assert clone(original).get_params() == original.get_params()


def test_set_params_sets_prefixed_ones_and_refuses_unknown_ones():
    assert quick_classifier().set_params(module__width=7).get_params()["module__width"] == 7
    with pytest.raises(ValueError, match="Invalid parameter 'widht'"):
        quick_classifier().set_params(widht=7)


def test_parameters_that_are_neither_own_nor_prefixed_are_refused_at_fit(digits):
    for clf in (quick_classifier(widht=7), clone(quick_classifier(widht=7))):
        with pytest.raises(TypeError, match=r"unexpected parameters \['widht'\]"):
            clf.fit(*digits)


def test_an_attribute_of_the_users_own_is_no_parameter_and_stops_nothing(digits):
    clf = quick_classifier(max_epochs=1)
    clf.note = 1
    assert clf.fit(*digits).note == 1
    assert "note" not in clf.get_params() and not hasattr(clone(clf), "note")


def test_an_instance_as_module_is_cloned_with_the_estimator(backbone):
    cloned = clone(quick_classifier(module=backbone))
    assert cloned.module is not backbone
    assert torch.equal(cloned.module.classifier.weight, backbone.classifier.weight)


def test_feature_names_are_kept_and_checked(digits):
    X, y = digits
    frame = pd.DataFrame(X, columns=[f"pixel{i}" for i in range(64)])
    clf = quick_classifier(max_epochs=1).fit(frame, y)
    assert clf.feature_names_in_.tolist() == list(frame.columns)
    assert clf.n_features_in_ == 64
    with pytest.raises(ValueError, match="feature names should match"):
        clf.predict(frame[frame.columns[::-1]])


def test_string_labels_come_back_as_strings(digits):
    X, y = digits
    names = np.array(["nought", "one", "two"])
    few = y < 3
    clf = quick_classifier().fit(X[few], names[y[few]])
    assert clf.classes_.tolist() == sorted(names)
    assert set(clf.predict(X[few])) <= set(names)
    assert clf.score(X[few], names[y[few]]) > 0.9


def test_two_classes():
    X, y = load_breast_cancer(return_X_y=True)
    clf = quick_classifier().fit(X, y)
    assert clf.predict_proba(X).shape == (569, 2)
    assert clf.score(X, y) > 0.9


def test_a_class_with_one_row(digits):
    X, y = digits
    y = y.copy()
    y[17] = 99
    clf = quick_classifier(max_epochs=1).fit(X, y)
    assert clf.predict_set(X).shape == (300, 11)


def test_sample_weight_moves_what_is_learned(digits):
    X, y = digits
    favoured = np.where(y < 5, 1.0, 1e-3)
    clf = quick_classifier().fit(X, y, sample_weight=favoured)
    assert clf.score(X[y < 5], y[y < 5]) > 0.9 > clf.score(X[y >= 5], y[y >= 5])


def test_rows_of_weight_zero_are_as_good_as_absent(digits):
    X, y = digits
    weight = np.repeat([1.0, 0.0], 150)
    with_zeros = quick_classifier(max_epochs=2).fit(X, y, sample_weight=weight)
    without = quick_classifier(max_epochs=2).fit(X[:150], y[:150])
    assert np.array_equal(with_zeros.predict_proba(X), without.predict_proba(X))


def test_class_weight_moves_what_is_learned(digits):
    X, y = digits
    clf = quick_classifier(class_weight={k: 1.0 if k < 5 else 1e-3 for k in range(10)}).fit(X, y)
    assert clf.score(X[y < 5], y[y < 5]) > 0.9 > clf.score(X[y >= 5], y[y >= 5])


def test_fitting_again_with_other_data_starts_anew(digits):
    X, y = digits
    clf = quick_classifier(max_epochs=2)
    expected = clone(clf).fit(X, y).predict_proba(X)
    assert np.array_equal(clf.fit(X[:, :10], y).fit(X, y).predict_proba(X), expected)
