"""Frames of words, categories and missing values through a whole fit."""

import pickle

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from sklearn.utils import get_tags
from torch import nn

from .conftest import quick_classifier


def people(n_samples, seed=0):
    """A job and a missing age tell the class, and nothing else does."""
    rng = np.random.default_rng(seed)
    job = rng.choice(["nurse", "smith", "baker"], n_samples)
    age = rng.integers(20, 60, n_samples).astype(float)
    age[rng.random(n_samples) < 0.3] = np.nan
    y = np.where(np.isnan(age), "old", np.where(job == "smith", "strong", "other"))
    member = rng.random(n_samples) < 0.5
    return pd.DataFrame({"age": age, "job": job, "member": member}), y


@pytest.fixture(scope="module")
def fitted_on_people():
    return quick_classifier(max_epochs=20).fit(*people(600))


def test_words_and_missing_values_are_learned_from(fitted_on_people):
    X, y = people(300, seed=1)
    assert fitted_on_people.score(X, y) > 0.97
    assert fitted_on_people.feature_names_in_.tolist() == ["age", "job", "member"]
    sets = fitted_on_people.predict_set(X)
    assert sets[np.arange(300), np.searchsorted(fitted_on_people.classes_, y)].mean() > 0.7


def test_a_sample_is_answered_alike_in_any_company_and_in_other_dtypes(fitted_on_people):
    X, _ = people(40, seed=2)
    together = fitted_on_people.predict_proba(X)
    alone = np.concatenate([fitted_on_people.predict_proba(X.iloc[[i]]) for i in range(40)])
    np.testing.assert_allclose(alone, together, atol=1e-5)
    other = X.assign(job=X["job"].astype("category"), member=X["member"].astype(float))
    np.testing.assert_array_equal(fitted_on_people.predict_proba(other), together)
    copied = pickle.loads(pickle.dumps(fitted_on_people))
    np.testing.assert_array_equal(copied.predict_proba(X), together)


def test_columns_in_another_order_are_refused(fitted_on_people):
    X, _ = people(5)
    with pytest.raises(ValueError, match="feature names should match"):
        fitted_on_people.predict(X[["job", "age", "member"]])


def test_missing_values_where_fit_had_none_are_told(fitted_on_people):
    X, _ = people(20, seed=3)
    gaps = X.assign(member=X["member"].astype(object).mask(np.arange(20) < 3))
    with pytest.warns(
        UserWarning, match=r"missing values in columns \['member'\], where fit had none"
    ):
        found = fitted_on_people.predict(gaps)
    np.testing.assert_array_equal(found[3:], fitted_on_people.predict(X)[3:])


def test_columns_without_any_value_are_told():
    X, y = people(100)
    with pytest.warns(UserWarning, match=r"columns without any value: \['empty'\]"):
        clf = quick_classifier(max_epochs=1).fit(X.assign(empty=np.nan), y)
    assert np.isfinite(clf.predict_proba(X.assign(empty=np.nan))).all()
    assert np.isfinite(clf.predict_proba(X.assign(empty=1.5))).all()


def test_an_array_with_missing_values_is_taken():
    X, y = people(600)
    X = np.column_stack([X["age"], X["member"]])
    clf = quick_classifier(max_epochs=20).fit(X, y == "old")
    assert clf.score(X, y == "old") > 0.97


def test_numbers_are_categories_where_that_is_said():
    rng = np.random.default_rng(0)
    X = rng.integers(0, 40, (800, 1)).astype(float)
    y = (X[:, 0] * 7 % 40) % 2 < 1
    codes = rng.permutation(40)[X.astype(int)].astype(float)
    y = X[:, 0] % 2 == 0
    clf = quick_classifier(max_epochs=20, categorical_features=[0]).fit(codes, y)
    assert clf.score(codes, y) == 1


def test_members_are_given_what_the_user_gave():
    X, y = people(400)

    class NotesColumns(HistGradientBoostingClassifier):
        def predict_proba(self, X):
            assert isinstance(X, pd.DataFrame) and X["job"].dtype == "category"
            assert X["member"].dtype == bool
            return super().predict_proba(X)

    X = X.assign(job=X["job"].astype("category"))
    trees = NotesColumns(max_iter=10)
    clf = quick_classifier(module=[trees, (None, {"width": 16, "n_blocks": 1})], max_epochs=2)
    assert clf.fit(X, y).score(X, y) > 0.9
    words = make_pipeline(
        make_column_transformer((OneHotEncoder(), ["job"]), remainder="passthrough"),
        HistGradientBoostingClassifier(max_iter=10),
    )
    clf = quick_classifier(module=[words, (None, {"width": 16, "n_blocks": 1})], max_epochs=2)
    assert clf.fit(X, y).score(X, y) > 0.9


def test_groups_are_of_the_columns_that_the_user_gave():
    X, y = people(600)
    clf = quick_classifier(max_epochs=2, condition_on=lambda X: X["job"].to_numpy())
    sets = clf.fit(X, y).predict_set(people(50, seed=1)[0])
    assert sets.shape == (50, 3)


def test_a_warm_start_keeps_the_categories():
    X, y = people(300)
    clf = quick_classifier(max_epochs=2, warm_start=True).fit(X, y)
    some = X["job"] != "baker"
    clf.fit(X[some], y[some])
    assert np.isfinite(clf.predict_proba(X)).all()


def test_tags_say_that_tables_may_have_words_and_missing_values():
    trees = HistGradientBoostingClassifier()
    for module, reads_tables in ((None, True), ([trees, None], True), (nn.Linear, False)):
        given = get_tags(quick_classifier(module=module)).input_tags
        assert given.allow_nan == given.string == given.categorical == reads_tables
    given = get_tags(quick_classifier(module=[GaussianNB(), None])).input_tags
    assert given.string and not given.allow_nan
    assert not get_tags(
        quick_classifier(module=None, module__image_shape=(1, 8, 8))
    ).input_tags.string
    assert not get_tags(quick_classifier(module=[])).input_tags.string


@pytest.mark.skipif(
    sklearn.__version__ < "1.7", reason="scikit-learn 1.6 reads no names of polars 2"
)
def test_a_frame_of_polars_is_fitted_and_lazy_ones_are_refused(fitted_on_people):
    polars = pytest.importorskip("polars")
    X, y = people(200)
    own = polars.DataFrame({name: X[name].tolist() for name in X}, strict=False)
    own = own.with_columns(polars.col("age").fill_nan(None))
    np.testing.assert_array_equal(fitted_on_people.predict(own), fitted_on_people.predict(X))
    clf = quick_classifier(max_epochs=2).fit(own, y)
    same = quick_classifier(max_epochs=2).fit(X, y)
    np.testing.assert_array_equal(clf.predict_proba(own), same.predict_proba(X))
    for ask in (clf.predict, lambda X: clone(clf).fit(X, y)):
        with pytest.raises(TypeError, match=r"X is a LazyFrame.*X.collect\(\)"):
            ask(own.lazy())
