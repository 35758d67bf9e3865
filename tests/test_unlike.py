"""Held-out samples that were not transformed as X was are told from a random split of it."""

import numpy as np
import pytest
import sklearn
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_jeidnn._operate.unlike import differing_columns

from .conftest import quick_classifier


@pytest.mark.parametrize("load", [load_digits, load_breast_cancer, load_wine])
def test_random_splits_differ_in_nothing_and_untransformed_samples_in_most_columns(load):
    X = np.float32(load().data)
    scaled = np.float32(StandardScaler().fit_transform(X))
    for seed in range(10):
        order = np.random.default_rng(seed).permutation(len(X))
        for n_held_out in (5, 30, len(X) // 3):
            split = [X[rows] for rows in np.split(order, [n_held_out])]
            assert differing_columns((split[1],), (split[0],))[0] == []
        found, n_compared = differing_columns((scaled[order[60:]],), (X[order[:60]],))
        assert len(found) > n_compared / 2


def test_columns_are_named_and_images_compared_by_what_they_hold_on_average():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 3))
    X = np.float32(X)
    other = X[:100] + np.float32([0, 0, 9])
    assert differing_columns((X,), (other,), np.array(["a", "b", "c"])) == (["'c'"], 3)
    assert differing_columns((X,), (other,)) == (["column 2"], 3)
    images = np.float32(rng.uniform(0, 255, size=(100, 3, 8, 8)))
    assert differing_columns((images,), (images[:40],)) == ([], 5)
    assert "the mean of a sample" in differing_columns((images / 255,), (images[:40],))[0]
    tokens = rng.integers(1, 50, size=(100, 20))
    inputs, padded = (tokens, np.ones_like(tokens)), (tokens * (tokens < 5), tokens > 25)
    assert differing_columns(inputs, inputs) == ([], 10)
    assert "the share of zeros of a sample of input 0" in differing_columns(inputs, padded)[0]


def test_a_pipeline_that_transforms_x_alone_is_warned_of_and_the_way_to_transform_x_val_works(
    digits, fresh_digits
):
    X, y = fresh_digits
    clf = quick_classifier(max_epochs=2)
    alone = make_pipeline(StandardScaler(), clf)
    held_out = {"earlyexitclassifier__X_val": X[:200], "earlyexitclassifier__y_val": y[:200]}
    with pytest.warns(UserWarning, match=r"X_val is not like X.*transform_input=\['X_val'\]"):
        alone.fit(*digits, **held_out)
    with sklearn.config_context(enable_metadata_routing=True):
        steps = [
            ("scale", StandardScaler()),
            ("classify", clf.set_fit_request(X_val=True, y_val=True)),
        ]
        both = Pipeline(steps, transform_input=["X_val"])
        both.fit(*digits, X_val=X[:200], y_val=y[:200])
