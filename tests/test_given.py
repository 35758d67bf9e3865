"""What a user gives, before it is checked: columns, dates, images and labels are named where they do not do."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy import sparse
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from sklearn_jeidnn._given import as_array_like
from sklearn_jeidnn._samples import named_arrays
from sklearn_jeidnn._streams import unpack_batch

from .conftest import MaskedTokens, quick_classifier
from .test_checks import NoTraining
from .test_samples import sentences

WHEN = pd.date_range("2020-01-01", periods=300)


@pytest.fixture(scope="module")
def frame(digits):
    return pd.DataFrame(digits[0][:, 20:23], columns=["age", "height", "weight"])


@pytest.fixture(scope="module")
def fitted_on_frame(frame, digits):
    return quick_classifier(max_epochs=1).fit(frame, digits[1])


@pytest.mark.parametrize(
    "column, match",
    [
        (WHEN, r"dates or times \(columns \['weight'\]\); make numbers"),
        (WHEN - WHEN[0], r"dates or times \(columns \['weight'\]\)"),
        ([np.inf, 1.0] * 150, r"contains infinity .*, in columns \['weight'\]"),
    ],
)  # fmt: skip
def test_columns_that_do_not_do_are_named(frame, digits, fitted_on_frame, column, match):
    spoilt = frame.assign(weight=column)
    with pytest.raises(ValueError, match=match):
        quick_classifier().fit(spoilt, digits[1])
    for read in (fitted_on_frame.predict, lambda X: fitted_on_frame.conformalize(X, digits[1])):
        with pytest.raises(ValueError, match=match):
            read(spoilt)


@pytest.mark.parametrize(
    "column", [[True, False] * 150, pd.Categorical([1, 2] * 150), np.array([1, 2.5] * 150, object)]
)
def test_columns_of_numbers_in_other_clothes_are_numbers(frame, fitted_on_frame, column):
    numbers = np.asarray(column).astype(float)
    np.testing.assert_array_equal(
        fitted_on_frame.predict_proba(frame.assign(weight=column)),
        fitted_on_frame.predict_proba(frame.assign(weight=numbers)),
    )


def test_arrays_of_dates_and_masked_cells_are_refused(fitted, digits):
    with pytest.raises(ValueError, match=r"dates or times \(an array of datetime64\[D\]\)"):
        fitted.predict(np.full((2, 64), "2020-01-01", dtype="M8[D]"))
    X = np.ma.masked_array(digits[0], mask=digits[0] > 15)
    with pytest.raises(ValueError, match=f"X has {X.mask.sum()} masked cells.*X.filled"):
        fitted.predict(X)
    assert fitted.predict(np.ma.masked_array(digits[0])).shape == (300,)


@pytest.mark.parametrize(
    "column, match",
    [
        (["nurse", "smith"] * 150, r"'weight' \(such as 'nurse'\)\. Encode .*OneHotEncoder.*\['weight'\]"),
        (pd.Categorical(["u", "v"] * 150), r"'weight' \(such as 'u'\).*OrdinalEncoder"),
        ([[1, 2]] * 300, r"'weight' \(such as \[1, 2\]\)"),
        (pd.array([1, None] * 150, dtype="Int64"), r"contains NaN, in columns \['weight'\]"),
        ([np.nan, 1.0] * 150, r"contains NaN, in columns \['weight'\]"),
        ([None, 1.0] * 150, r"contains NaN, in columns \['weight'\]"),
    ],
)  # fmt: skip
def test_a_module_of_the_users_takes_numbers_only(frame, digits, column, match):
    with pytest.raises(ValueError, match=match):
        quick_classifier(module=nn.Linear).fit(frame.assign(weight=column), digits[1])


def test_missing_cells_of_an_array_are_told_by_their_column(digits):
    X = digits[0].copy()
    X[3, 5] = np.nan
    with pytest.raises(ValueError, match=r"contains NaN, in columns \[5\]\."):
        quick_classifier(module=nn.Linear).fit(X, digits[1])


def images(*sizes, mode="L"):
    return [Image.new(mode, size) for size in sizes]


def test_lists_and_series_of_images_become_one_array():
    alike = images((4, 3), (4, 3))
    for given in (alike, tuple(alike), pd.Series(alike)):
        assert as_array_like(given).shape == (2, 3, 4)
    assert unpack_batch(alike).shape == (2, 3, 4) and unpack_batch(alike[:1]).shape == (1, 3, 4)


@pytest.mark.parametrize(
    "given, match",
    [
        (images((4, 3))[0], r"X is one image; give a list"),
        (images((4, 3), (5, 3)), r"images of shapes \[\(3, 4\), \(3, 5\)\]; they must be alike"),
        (images((4, 3), mode="P"), r"mode 'P'.*image.convert\('RGB'\)"),
    ],
)
def test_images_that_do_not_stack_are_refused_with_what_to_do(given, match):
    with pytest.raises(ValueError, match=match):
        as_array_like(given)


SAMPLES = torch.arange(6.0).reshape(3, 2)


@pytest.mark.parametrize(
    "given",
    [
        SAMPLES,
        SAMPLES.bfloat16(),
        SAMPLES.half(),
        SAMPLES.double(),
        SAMPLES.clone().requires_grad_(),
        SAMPLES.bfloat16().requires_grad_(),
        (SAMPLES * 1j).conj().imag.neg(),
        list(SAMPLES),
        list(SAMPLES.clone().requires_grad_().bfloat16()),
    ],
)
def test_tensors_of_any_kind_are_read(given):
    for read in (as_array_like, unpack_batch):
        np.testing.assert_array_equal(np.asarray(read(given), np.float32), SAMPLES.numpy())


@pytest.mark.parametrize(
    "given, match",
    [
        (SAMPLES.to("meta"), "'meta', which has no values"),
        (SAMPLES.to_sparse(), r"a sparse tensor \(torch.sparse_coo\).*to_dense"),
        ([SAMPLES[0], SAMPLES[0, :1]], r"tensors of shapes \[\(1,\), \(2,\)\]; they must be alike"),
    ],
)
def test_tensors_that_are_no_array_are_refused_with_what_to_do(given, match):
    with pytest.raises((ValueError, TypeError), match=match):
        as_array_like(given)


def test_tensors_with_gradients_are_labels_weights_and_named_inputs_too(digits):
    X, y = (torch.as_tensor(part) for part in digits)
    weights = torch.ones(300, dtype=torch.bfloat16)
    expected = quick_classifier(max_epochs=1).fit(*digits).predict_proba(digits[0])
    clf = quick_classifier(max_epochs=1)
    clf.fit(X.clone().requires_grad_(), y.float().requires_grad_(), weights.requires_grad_())
    np.testing.assert_array_equal(clf.predict_proba(X.requires_grad_()), expected)
    assert named_arrays({"a": X.bfloat16()})["a"].dtype == np.float32


@pytest.mark.parametrize("make", [lambda X: (x for x in X), iter, lambda X: map(list, X)])
@pytest.mark.parametrize(
    "method",
    ["predict", "predict_set", "mean_cost", "score", "frontier", "conformalize", "fit"],
)
def test_what_can_be_read_only_once_is_refused_with_what_to_do(fitted, digits, make, method):
    X, y = digits
    labels = [y] if method in ("score", "frontier", "conformalize", "fit") else []
    with pytest.raises(TypeError, match=r"X is a .*, which can be read only once.*predict_stream"):
        getattr(fitted, method)(make(X), *labels)
    with pytest.raises(TypeError, match="y is a .*, which can be read only once"):
        quick_classifier().fit(X, make(y[:, None]))
    with pytest.raises(TypeError, match=r"X_val is a .*list\(X_val\)"):
        quick_classifier().fit(X, y, X_val=make(X), y_val=y)


def test_missing_samples_and_sets_are_refused(fitted):
    with pytest.raises(ValueError, match=r"X is missing \(None\)"):
        fitted.predict(None)
    for given in ({1, 2}, {1: 2}.values()):
        with pytest.raises(TypeError, match="which is no array"):
            fitted.predict(given)


def test_a_batch_of_a_stream_has_samples_and_labels_and_no_more():
    X = np.zeros((3, 2))
    assert unpack_batch((X, [0, 1, 2])).shape == unpack_batch([X]).shape == X.shape
    with pytest.raises(ValueError, match="a batch has 3 entries; give"):
        unpack_batch((X, X, X))


def test_weights_of_answers_are_checked(fitted, digits):
    with pytest.raises(ValueError, match="sample_weight.shape"):
        fitted.exit_answers(*digits, np.ones(299))


def test_logarithms_of_probabilities_are_finite(fitted, digits):
    X = digits[0] * np.float32(1e6)
    logs = fitted.predict_log_proba(X)
    assert np.isfinite(logs).all()
    np.testing.assert_allclose(np.exp(logs), fitted.predict_proba(X), atol=1e-300)


@pytest.mark.parametrize(
    "spoil, match",
    [
        (lambda f: f.assign(age=WHEN), r"^X_val has dates or times \(columns \['age'\]\)"),
        (lambda f: f.assign(age="X"), "^X_val has 'X' in column 'age', which is one of numbers"),
        (lambda f: f.assign(age=np.inf), r"^Input X_val contains infinity .*, in columns \['age'\]"),
        (lambda f: f[["age", "height"]].to_numpy(), "^X_val has 2 features"),
        (lambda f: f.rename(columns={"age": "X"}), "^X_val: The feature names.*\n.*\n- X\n"),
        (lambda f: f["age"], "^X_val: Expected a 2-dimensional container"),
        (lambda f: f.to_numpy()[:, :, None], r"^X_val has samples of shape \(3, 1\)"),
        (lambda f: f[:0], "^X_val: Found array with 0 sample"),
        (lambda f: dict(f), "^X_val is a mapping"),
        (lambda f: sparse.csr_array(f), "^Sparse data was passed for X_val"),
        (lambda f: images((4, 3), (5, 3)), "^X_val has images of shapes"),
        (lambda f: np.ma.masked_array(f, f > 0), r"^X_val has .* masked cells.*X_val\.filled"),
        (lambda f: DataLoader(TensorDataset(torch.ones(2, 3))), "^X_val is a DataLoader.*X_val=loader"),
        (lambda f: TensorDataset(*3 * [torch.ones(2, 3)]), "^X_val is a dataset that gives 3 values"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
def test_held_out_samples_that_do_not_do_are_told_by_their_name(frame, digits, spoil, match):
    with pytest.raises((ValueError, TypeError), match=match):
        quick_classifier().fit(frame, digits[1], X_val=spoil(frame), y_val=digits[1])


def test_unlabeled_samples_that_do_not_do_are_told_by_their_name(digits):
    X, y = digits
    clf = quick_classifier(module__n_blocks=2, companion="auto", companion_training="distilled")
    with pytest.raises(ValueError, match="^X_unlabeled has 60 features"):
        clf.fit(X, y, X_unlabeled=X[:, :60])


def test_tokens_of_held_out_samples_that_are_not_embedded_are_told_before_training():
    X, y = sentences(60)
    others = {**X, "input_ids": np.where(np.arange(60)[:, None] == 7, 50, X["input_ids"])}
    clf = quick_classifier(module=MaskedTokens, callbacks=[NoTraining()])
    with pytest.raises(ValueError, match=r"^X_val\['input_ids'\] has the token 50, but the module"):
        clf.fit(X, y, X_val=others, y_val=y)


@pytest.mark.parametrize(
    "given, match",
    [
        ([[1, 2, 3], [1, 2]], r"^X has samples that differ in shape; pad or cut"),
        (np.array([np.zeros(3), np.zeros(2)], object), r"^X has samples that differ in shape"),
        (
            [{"a": 1}, {"a": 2}],
            "^X has values that are no numbers; .*a data frame, or one dict of arrays",
        ),
        (["some words", "and others"], "^X has text; turn it into numbers or tokens"),
        (np.zeros(2, [("a", "f4"), ("b", "f4")]), r"^X is a structured array .*\['a', 'b'\]"),
    ],
)
def test_what_numpy_makes_no_table_of_is_told_in_words(fitted, given, match):
    for call in (fitted.predict, lambda X: quick_classifier().fit(X, [0, 1])):
        with pytest.raises((ValueError, TypeError), match=match):
            call(given)


def test_weights_of_a_score_are_checked(fitted, digits):
    for weights in (np.ones(299), ["a"] * 300):
        with pytest.raises(ValueError, match="sample_weight"):
            fitted.score(*digits, sample_weight=weights)
    assert fitted.score(*digits, sample_weight=pd.Series(np.ones(300))) == fitted.score(*digits)
