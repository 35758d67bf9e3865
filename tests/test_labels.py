"""Labels of any kind are read; those that are missing, mixed or no labels are refused by name."""

import decimal

import numpy as np
import pandas as pd
import pytest

from sklearn_jeidnn._labels import read_labels
from sklearn_jeidnn._schema import class_codes

from .conftest import quick_classifier


@pytest.mark.parametrize(
    "y, kind",
    [
        (pd.Series([3, 1], index=[7, 8]), "i"),
        (pd.Categorical([3, 1]), "i"),
        ([3, 1], "i"),
        (["b", "a"], "U"),
        ([True, False], "b"),
        (np.array(["b", "a"], object), "O"),
        (np.array([3, 1], object), "i"),
        (np.array([True, 0], object), "i"),
        (np.array([["a", 1.5], ["b", 1]], dtype=object)[:, 1], "f"),
    ],
)
def test_labels_of_any_kind_are_read(y, kind):
    labels = read_labels(y, "y")
    assert labels.shape == (2,) and labels.dtype.kind == kind
    assert class_codes(np.unique(labels), labels, 2, "y").tolist() == [1, 0]


@pytest.mark.parametrize(
    "y, match",
    [
        (np.eye(3), r"shape \(3, 3\) instead: y_val looks one-hot; give y_val.argmax\(axis=1\)"),
        (np.ones((3, 2)), r"shape \(3, 2\) instead: y_val needs one label a sample"),
        (None, "y_val is missing; only a dataset"),
        (["a", None, None], r"y_val has 2 missing labels \(None\), the first of sample 1"),
        (np.array(["a", np.nan, "b"], object), r"1 missing labels \(nan\), the first of sample 1"),
        (["a", np.nan, "b"], r"y_val has 1 missing labels \(nan\), the first of sample 1"),
        ([1.0, 0.0, np.nan], r"y_val has 1 missing labels \(nan\), the first of sample 2"),
        (
            pd.Series([pd.NA, "a"], dtype="string"),
            r"1 missing labels \(<NA>\), the first of sample 0",
        ),
        (pd.Series(["a", None], dtype="category"), "1 missing labels .*the first of sample 1"),
        (pd.Series([1, pd.NA], dtype="Int64"), "1 missing labels .*the first of sample 1"),
        (pd.Series(["2020-01-01", None], dtype="datetime64[ns]"), r"1 missing labels \(NaT\)"),
        (np.zeros((2, 1, 1)), r"shape \(2, 1, 1\) instead: y_val needs one label a sample"),
        (3, r"shape \(\) instead: y_val needs one label a sample"),
        ([[1, 2], [1]], "y_val needs one label a sample: .*inhomogeneous"),
        (
            pd.cut([1, 5], 2),
            r"labels of type Interval, such as Interval\(.*str\(label\) for label in y_val",
        ),
        (
            [decimal.Decimal(1), decimal.Decimal(2)],
            r"labels of type Decimal, such as Decimal\('1'\)",
        ),
        ((label for label in "ab"), r"y_val is a generator, .*list\(y_val\)"),
        (np.array([1, "a"], object), r"y_val mixes labels of types \['Number', 'str'\]"),
    ],
)
def test_labels_that_do_not_do_are_refused_by_name(y, match):
    with pytest.raises((ValueError, TypeError), match=match):
        read_labels(y, "y_val")


HALVES = (slice(150), slice(150, None))


def test_labels_in_a_column_are_read_everywhere(digits):
    (known, y_known), (X, y) = (tuple(part[rows] for part in digits) for rows in HALVES)
    column = y[:, None]
    clf = quick_classifier(max_epochs=1).fit(known, y_known)
    expected = clf.frontier(X, y)["accuracy"]
    calls = [
        lambda: quick_classifier(max_epochs=1).fit(known, y_known[:, None], X_val=X, y_val=column),
        lambda: clf.conformalize(X, column),
        lambda: clf.calibration_report(X, column),
        lambda: clf.control_risk(X, column, max_accuracy_drop=0.3),
        lambda: clf.score(X, column),
        lambda: np.testing.assert_array_equal(clf.frontier(X, column)["accuracy"], expected),
        lambda: np.testing.assert_array_equal(clf.exit_answers(X, column).codes, y),
    ]
    for call in calls:
        with pytest.warns(match="A column-vector y was passed"):
            call()
