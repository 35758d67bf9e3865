"""Members that are no torch modules, as people write them."""

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.ensemble import ExtraTreesClassifier, StackingClassifier
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from .conftest import quick_classifier
from .test_table_samples import people

# Small trees on a few samples are faster than what stands in front of them, or not, as the machine likes.
pytestmark = pytest.mark.filterwarnings("ignore:nothing is saved")


def pair(last, **params):
    return quick_classifier(module=[GaussianNB(), last], companion_costs=[0.1], **params)


@pytest.mark.parametrize("routing", [False, True])
def test_a_pipeline_takes_weights_in_its_last_step(digits, routing):
    X, y = digits
    weights = np.where(y < 5, 1.0, 1e-6)
    linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=50, C=0.01))
    with sklearn.config_context(enable_metadata_routing=routing):
        clf = pair(linear).fit(X, y, sample_weight=weights)
    assert np.isin(clf.predict_backbone(X), range(5)).all()
    nearest = make_pipeline(StandardScaler(), KNeighborsClassifier())
    with pytest.raises(ValueError, match=r"the member KNeighbors.* takes no sample_weight"):
        pair(nearest).fit(X, y, sample_weight=weights)


def test_companions_of_a_lone_classifier_take_weights():
    X, y = people(200)
    numbers = X[["age", "member"]].astype(float)
    clf = quick_classifier(module=ExtraTreesClassifier(5), max_epochs=1, class_weight="balanced")
    assert clf.set_params(companion="auto").fit(numbers, y).exits_


def test_members_without_a_seed_draw_from_the_fits(digits):
    X, y = digits
    module = make_pipeline(StandardScaler(), ExtraTreesClassifier(5))
    one, same = (pair(module, random_state=3).fit(X, y) for _ in range(2))
    np.testing.assert_array_equal(one.predict_proba(X), same.predict_proba(X))
    other = pair(module, random_state=4).fit(X, y)
    seeds = [clf.module_.steps[-1][1].random_state for clf in (one, other)]
    assert seeds[0] != seeds[1] and module.steps[-1][1].random_state is None


class Oddly(DecisionTreeClassifier):
    """Answers in a shape that NumPy would stretch."""

    def __init__(self, how="one column", max_depth=None, random_state=None):
        self.how = how
        super().__init__(max_depth=max_depth, random_state=random_state)

    def predict_proba(self, X):
        probs = super().predict_proba(X)
        return {"one column": probs[:, :1], "one row": probs[:1], "one axis": probs[:, 0]}[self.how]


@pytest.mark.parametrize("how", ["one column", "one row", "one axis"])
def test_probabilities_of_another_shape_are_refused(digits, how):
    X, y = digits
    with pytest.raises(ValueError, match=r"predict_proba of the member Oddly.* array of shape"):
        pair(Oddly(how)).fit(X, y)
    with pytest.raises(ValueError, match=r"predict_proba of the member Oddly.* array of shape"):
        pair(Oddly(how).fit(X, y)).fit(X, y)


def test_classifiers_that_have_probabilities_only_once_fitted_are_members(digits):
    X, y = digits
    stacked = StackingClassifier([("nb", GaussianNB())], cv=2)
    assert not hasattr(stacked, "predict_proba")
    clf = pair(stacked).fit(X, y)
    assert isinstance(clf.module_, StackingClassifier)
    with pytest.raises(TypeError, match="RidgeClassifier.* no predict_proba; .*Calibrated"):
        pair(RidgeClassifier()).fit(X, y)
    with pytest.raises(TypeError, match=r"an instance of the classifier, GaussianNB\(\)"):
        pair(GaussianNB).fit(X, y)


def test_what_a_member_does_not_take_is_told_with_its_name():
    with pytest.raises(ValueError, match="the member GaussianNB.* cannot be fitted on X: could"):
        pair(GaussianNB()).fit(*people(100))


def test_some_costs_may_be_told_and_others_timed(digits):
    module = [GaussianNB(), LogisticRegression(max_iter=5, tol=1), ExtraTreesClassifier(5)]
    clf = quick_classifier(module=module, companion_costs=[None, 0.2]).fit(*digits)
    first, second, last = clf.exit_costs_
    # What a call of the trees takes anyhow is paid by all.
    assert first > 0 and second == pytest.approx(first + 0.2) and second <= last <= second + 1


def test_a_pair_of_a_classifier_and_its_options_is_a_lone_classifier(digits):
    clf = quick_classifier(module=(ExtraTreesClassifier(5), {"batch_size": 64}), max_epochs=1)
    clf.set_params(companion="tabular").fit(*digits)
    assert isinstance(clf.module_, ExtraTreesClassifier) and clf.exits_


def test_no_companions_are_made_for_named_inputs(digits):
    X, y = digits
    with pytest.raises(ValueError, match=r"X is a mapping, .* module=\[cheaper, classifier\]"):
        quick_classifier(module=OfNames(), companion="auto").fit({"pixels": X}, y)


class OfNames(GaussianNB):
    """Takes a mapping."""

    def fit(self, X, y):
        return super().fit(X["pixels"], y)


def words_first():
    return make_pipeline(
        make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["job"])),
        ExtraTreesClassifier(5),
    )


def test_warm_start_fits_a_last_pipeline_anew():
    clf = quick_classifier(
        module=[(None, {"width": 16, "n_blocks": 1}), words_first()], warm_start=True, max_epochs=1
    )
    clf.fit(*people(100))
    again = clf.fit(*people(100, seed=1))
    assert again.predict(people(5)[0]).shape == (5,)


def test_companions_take_many_categories_and_columns_without_values():
    X, y = people(600)
    X = X.assign(street=[f"{i % 300} Road" for i in range(600)], empty=np.nan)
    X["nothing"] = pd.Series([None] * 600, dtype=object)
    clf = quick_classifier(module=words_first(), max_epochs=1, companion="auto")
    with pytest.warns(UserWarning, match=r"without any value: \['empty', 'nothing'\]"):
        clf.fit(X, y)
    assert clf.exits_ and clf.score(X, y) > 0.5


def test_identifiers_that_become_rounded_are_told():
    X, y = people(100)
    X["id"] = 10**9 + np.arange(100) ** 4
    with pytest.warns(UserWarning, match=r"above 2\*\*24 in columns \['id'\].*Pipeline"):
        clf = quick_classifier(module=[words_first(), words_first()], max_epochs=1).fit(X, y)
    clone(clf).set_params(categorical_features=["job", "id"]).fit(X, y)


def test_the_papers_gates_need_a_head_that_learns(digits):
    with pytest.raises(ValueError, match="gate_training='bilevel' .* no exit has a head"):
        pair(ExtraTreesClassifier(5), gate_training="bilevel").fit(*digits)
