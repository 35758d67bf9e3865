"""Whole numbers, and several inputs by name."""

import copy
import pickle

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.model_selection import GridSearchCV
from skorch.helper import SliceDict
from torch import nn

from sklearn_jeidnn import _samples
from sklearn_jeidnn._given import naming
from sklearn_jeidnn._samples import named_arrays

from .conftest import Answer, MaskedTokens, quick_classifier


def sentences(n_samples, seed=0):
    """Words 1 to 49, padded with 0; the class is which of words 1, 2, 3 comes first of all."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(4, 50, (n_samples, 6))
    y = rng.integers(1, 4, n_samples)
    ids[:, 0] = y
    mask = np.arange(6) < rng.integers(2, 7, (n_samples, 1))
    return {"input_ids": np.where(mask, ids, 0), "attention_mask": mask}, y


class Words(nn.Module):
    """Takes an array of word numbers."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(50, 8)
        self.blocks = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))
        self.classifier = nn.Linear(8, 3)

    def forward(self, ids):
        hidden = self.embedding(ids)[:, 0]
        for block in self.blocks:
            hidden = torch.relu(block(hidden))
        return Answer(self.classifier(hidden))


@pytest.fixture(scope="module")
def text():
    return sentences(300)


@pytest.fixture(scope="module")
def fitted_on_text(text):
    return quick_classifier(module=MaskedTokens, max_epochs=15).fit(*text)


def test_a_module_of_several_inputs_learns_from_a_dict(fitted_on_text):
    X, y = sentences(200, seed=1)
    assert fitted_on_text.score(X, y) > 0.9
    assert fitted_on_text.mean_cost(X) < 1
    assert fitted_on_text.predict_set(X).shape == (200, 3)
    assert not hasattr(fitted_on_text, "n_features_in_")


@pytest.mark.parametrize("copied", [lambda c: pickle.loads(pickle.dumps(c)), copy.deepcopy])
def test_a_copy_of_exported_stages_answers_the_same(fitted_on_text, copied):
    X, _ = sentences(50, seed=1)
    twin = copied(fitted_on_text)
    assert np.array_equal(twin.predict_proba(X), fitted_on_text.predict_proba(X))
    parameters = {id(p) for p in twin.network_.stages.parameters()}
    assert {id(p) for p in twin.module_.parameters()} == parameters


def test_the_order_of_the_keys_does_not_matter(fitted_on_text):
    X, _ = sentences(50, seed=1)
    turned = dict(reversed(X.items()))
    assert np.array_equal(fitted_on_text.predict_proba(turned), fitted_on_text.predict_proba(X))


def test_neither_batch_size_nor_company_changes_a_row(fitted_on_text):
    X, _ = sentences(50, seed=1)
    together = fitted_on_text.predict_proba(X)
    alone = [
        fitted_on_text.predict_proba({name: array[[i]] for name, array in X.items()})
        for i in range(50)
    ]
    np.testing.assert_allclose(np.concatenate(alone), together, atol=1e-5)


def test_cross_validation_takes_skorchs_slice_dict(text, fitted_on_text):
    X, y = text
    clf = quick_classifier(module=MaskedTokens, max_epochs=6)
    search = GridSearchCV(clf, {"cost_weight": [0.1]}, cv=2, refit=False, error_score="raise")
    search.fit(SliceDict(**X), y)
    assert search.best_score_ > 0.5
    assert np.array_equal(fitted_on_text.predict(SliceDict(**X)), fitted_on_text.predict(X))


def test_given_held_out_rows_and_calibration_take_dicts_too(text):
    clf = quick_classifier(module=MaskedTokens, max_epochs=1)
    X_val, y_val = sentences(40, seed=2)
    clf.fit(*text, X_val=X_val, y_val=y_val).conformalize(*sentences(30, seed=3))
    assert len(clf.conformity_scores_) == 30


@pytest.mark.parametrize("as_given", [np.asarray, np.ndarray.tolist, lambda X: X.astype(np.int32)])
def test_a_module_that_embeds_takes_an_array_of_whole_numbers(text, as_given):
    X, y = text[0]["input_ids"], text[1]
    clf = quick_classifier(module=Words, max_epochs=15).fit(as_given(X), y)
    assert clf.score(X, y) > 0.9
    assert np.array_equal(clf.predict(X.astype(float)), clf.predict(X))
    with pytest.raises(ValueError, match="fraction.*whole numbers"):
        clf.predict(X + 0.5)


def test_a_module_that_multiplies_takes_whole_numbers_as_floats(digits, fresh_digits):
    layers = [nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 10)]
    clf = quick_classifier(module=nn.Sequential(*layers), exits=["1"], max_epochs=2)
    X, (X_val, y_val) = digits[0].astype(int), fresh_digits
    X_val = np.where(np.arange(len(X_val))[:, None] % 9, X_val, X_val + 0.5)
    clf.fit(X, digits[1], X_val=X_val, y_val=y_val)
    assert np.array_equal(clf.predict(X), clf.predict(digits[0]))


@pytest.mark.parametrize(
    "change, match",
    [
        (lambda X: X["input_ids"], "X is an array, but EarlyExitClassifier was fitted on a mapping"),
        (lambda X: {"input_ids": X["input_ids"]}, r"X has keys \['input_ids'\], but .* fitted on keys"),
        (lambda X: {**X, "input_ids": X["input_ids"][:3]}, r"inconsistent numbers of samples: \{'input_ids': 3"),
        (lambda X: {name: array[..., None] for name, array in X.items()}, "X has samples of shape"),
        (lambda X: {**X, "input_ids": np.full((10, 6), np.nan)}, r"X\['input_ids'\] contains NaN"),
        (lambda X: {}, "at least one key"),
    ],
)  # fmt: skip
def test_other_inputs_than_the_fitted_ones_are_refused(fitted_on_text, change, match):
    X, _ = sentences(10)
    with pytest.raises(ValueError, match=match):
        fitted_on_text.predict(change(X))


def test_a_dict_needs_a_module_and_a_module_its_arguments(text):
    with pytest.raises(ValueError, match="module=None takes an array X, not a mapping"):
        quick_classifier().fit(*text)
    X, y = text
    with pytest.raises(ValueError, match="MaskedTokens does not run .*token_ids"):
        quick_classifier(module=MaskedTokens).fit({"token_ids": X["input_ids"]}, y)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        quick_classifier(module=MaskedTokens).fit(X, y[:-1])


def test_plain_arrays_skip_only_checks_that_would_find_nothing(fitted, fresh_digits, monkeypatch):
    X = fresh_digits[0][:40]
    by_lists = fitted.predict_proba(X.tolist())
    broken = X.copy()
    broken[3, 5] = np.inf
    with pytest.raises(ValueError) as of_list:
        fitted.predict(broken.tolist())
    for wrong in (broken, X[:, :9], X[:0]):
        with pytest.raises(ValueError, match="Input X contains|features|minimum of 1"):
            fitted.predict(wrong)
    with pytest.raises(ValueError) as of_array:
        fitted.predict(broken)
    assert str(of_array.value) == str(of_list.value)

    def no_checks(*args, **kwargs):
        raise AssertionError("scikit-learn's checks take a fifth of a single prediction")

    monkeypatch.setattr(_samples, "validate_data", no_checks)
    for plain in (X, np.float64(X), np.asfortranarray(X), np.repeat(X, 2, axis=0)[::2]):
        np.testing.assert_array_equal(fitted.predict_proba(plain), by_lists)


@pytest.mark.parametrize(
    "values, match",
    [
        (None, r"^X\['a'\] is missing \(None\)"),
        ((row for row in np.eye(3)), r"^X\['a'\] is a generator"),
        ([[1, 2], [1]], r"^X\['a'\] has samples that differ in shape"),
        (np.full((3, 2), "w", object), r"^X\['a'\] has text"),
        (
            sparse.csr_matrix(np.eye(3)),
            r"^X\['a'\]: Sparse data|^Sparse data was passed for X\['a'\]",
        ),
        ({"b": np.eye(3)}, r"^X\['a'\] is object of shape \(\)"),
        ([["word"] * 2] * 3, r"^X\['a'\] is <U4 of shape \(3, 2\)"),
        (np.full((3, 2), np.nan), r"^Input X\['a'\] contains NaN"),
    ],
)
def test_named_inputs_that_do_not_do_are_told_by_their_name(values, match):
    with pytest.raises((ValueError, TypeError), match=match):
        named_arrays({"b": np.eye(3), "a": values})
    with pytest.raises((ValueError, TypeError), match=match.replace("X", "X_val")), naming("X_val"):
        named_arrays({"b": np.eye(3), "a": values})
