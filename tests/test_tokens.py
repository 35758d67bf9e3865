"""Tokens: which a module embeds, and sentences of another length than in fit."""

import numpy as np
import pytest
import torch
from torch import nn

from sklearn_jeidnn._cut import LogitsModule, takes_other_lengths, token_counts, token_length

from .conftest import MaskedTokens, quick_classifier
from .test_samples import Words, sentences


class Summed(Words):
    """Takes sentences of any length, through an outer forward that can be traced."""

    def forward(self, ids):
        hidden = self.embedding(ids).mean(1)
        for block in self.blocks:
            hidden = torch.relu(block(hidden))
        return self.classifier(hidden)


class Placed(Summed):
    """Adds a vector for each of six places."""

    def __init__(self):
        super().__init__()
        self.place = nn.Parameter(torch.ones(6, 8))

    def forward(self, ids):
        hidden = (self.embedding(ids) + self.place[: ids.shape[1]]).mean(1)
        for block in self.blocks:
            hidden = torch.relu(block(hidden))
        return self.classifier(hidden)


class Flat(Summed):
    """Takes six tokens only."""

    def __init__(self):
        super().__init__()
        self.flat = nn.Linear(48, 8)

    def forward(self, ids):
        hidden = self.flat(self.embedding(ids).flatten(1))
        for block in self.blocks:
            hidden = torch.relu(block(hidden))
        return self.classifier(hidden)


class Columns(Summed):
    """Looks up its second column in a table of its own."""

    def __init__(self):
        super().__init__()
        self.second = nn.Embedding(50, 8)

    def forward(self, ids):
        hidden = self.embedding(ids[:, 0]) + self.second(ids[:, 1])
        for block in self.blocks:
            hidden = torch.relu(block(hidden))
        return self.classifier(hidden)


def quick(module, **params):
    return quick_classifier(module=module, max_epochs=1, **params)


@pytest.fixture(scope="module")
def text():
    return sentences(60)


@pytest.fixture(scope="module")
def masked(text):
    return quick(MaskedTokens).fit(*text)


@pytest.fixture(scope="module")
def summed(text):
    return quick(Summed).fit(text[0]["input_ids"], text[1])


@pytest.mark.parametrize("length", [2, 5, 9])
def test_a_mapping_of_other_length_is_answered_as_the_module_answers_it(masked, text, length):
    numbers = np.arange(length) % 6
    X = {name: array[:, numbers] for name, array in text[0].items()}
    with torch.no_grad():
        logits = masked.module_(
            **{name: torch.as_tensor(array) for name, array in X.items()}
        ).logits
    expected = masked.classes_[logits.argmax(1).numpy()]
    np.testing.assert_array_equal(masked.predict_backbone(X), expected)
    together = masked.predict_proba(X)
    alone = [masked.predict_proba({k: a[[i]] for k, a in X.items()}) for i in range(10)]
    np.testing.assert_allclose(np.concatenate(alone), together[:10], atol=1e-5)
    assert len(masked.frontier(X, text[1])["accuracy"])


def test_inputs_of_a_mapping_must_have_one_length(masked, text):
    X = {**text[0], "input_ids": text[0]["input_ids"][:, :4]}
    with pytest.raises(ValueError, match=r"samples of shape \(\(4,\), \(6,\)\)"):
        masked.predict(X)


def test_an_array_of_tokens_may_be_shorter_or_longer(summed, text):
    ids = text[0]["input_ids"]
    for X in (ids[:, :3], np.hstack([ids, ids])):
        assert summed.predict(X).shape == (60,) and summed.predict_set(X).shape == (60, 3)


def test_lengths_that_a_module_does_not_take_are_refused_with_what_to_do(text):
    ids, y = text[0]["input_ids"], text[1]
    with pytest.raises(ValueError, match=r"shape \(4,\), .* shape \(6,\). Pad or cut sentences"):
        quick(Flat).fit(ids, y).predict(ids[:, :4])
    placed = quick(Placed).fit(ids, y)
    assert placed.predict(ids[:, :4]).shape == (60,)
    with pytest.raises(ValueError, match=r"shapes \(\(12,\),\); those of fit had \(\(6,\),\)"):
        placed.predict_set(np.hstack([ids, ids]))


def test_a_cut_that_holds_for_one_length_only_is_noticed():
    ids = torch.arange(6)[None].repeat(3, 1)

    def module(tokens):
        return tokens.float().mean(1, keepdim=True).repeat(1, 2)

    assert takes_other_lengths(module, module, (ids,))
    assert not takes_other_lengths(
        lambda tokens: module(tokens) * 6 / tokens.shape[1], module, (ids,)
    )
    assert not takes_other_lengths(module, module, (ids.float(),)) and token_length((ids,)) == 6


@pytest.mark.parametrize("token", [50, -1])
def test_an_unknown_token_is_named(masked, summed, text, token):
    X, y = text
    ids = X["input_ids"].copy()
    ids[3, 2] = token
    match = f"has the token {token}, but the module embeds 50 tokens, 0 to 49"
    for method in ("predict", "predict_set"):
        with pytest.raises(ValueError, match=rf"X {match}"):
            getattr(summed, method)(ids)
        with pytest.raises(ValueError, match=rf"X\['input_ids'\] {match}"):
            getattr(masked, method)({**X, "input_ids": ids})
    with pytest.raises(ValueError, match=match):
        quick(Summed).fit(X["input_ids"], y, X_val=ids, y_val=y)
    with pytest.raises(ValueError, match=match):
        quick(Summed).fit(ids[:6], [0, 1, 2] * 2)


def test_a_number_that_another_table_lacks_is_explained(text):
    ids, y = text[0]["input_ids"], text[1]
    clf = quick(Columns).fit(ids, y)
    for method in ("predict", "predict_set"):
        with pytest.raises(ValueError, match="whole numbers from 0 to 77, and the module looks up"):
            getattr(clf, method)(np.where(ids == 0, ids, 77))


def test_only_inputs_that_are_embedded_as_they_are_have_a_number_of_tokens(text):
    tensors = tuple(torch.as_tensor(array[:3]) for array in text[0].values())
    assert token_counts(LogitsModule(MaskedTokens(), tuple(text[0])), tensors) == (50, None)
    assert token_counts(LogitsModule(Columns(), None), tensors[:1]) == (None,)
    assert token_counts(nn.Linear(6, 2), (tensors[0].float(),)) == (None,)


def test_floats_that_are_whole_are_tokens_in_fit_too(summed, text):
    ids, y = text[0]["input_ids"], text[1]
    clf = quick(Summed).fit(ids.astype(float), y)
    np.testing.assert_array_equal(clf.predict_proba(ids), summed.predict_proba(ids))
    assert clf.measure_costs("multiply_adds").shape == clf.exit_costs_.shape
    with pytest.raises(ValueError, match="fraction.*whole numbers"):
        quick(Summed).fit(ids + 0.5, y)


@pytest.mark.parametrize("dtype", [np.int32, np.uint8, np.float64])
def test_a_mapping_has_the_dtypes_of_fit_whatever_holds_its_numbers(masked, text, dtype):
    X = text[0]
    cast = {name: array.astype(dtype) for name, array in X.items()}
    np.testing.assert_array_equal(masked.predict_proba(cast), masked.predict_proba(X))


@pytest.mark.parametrize(
    "change, match",
    [
        (lambda X: {**X, "input_ids": X["input_ids"] + 0.5}, r"X\['input_ids'\] has float32 .* fit was given int64"),
        (lambda X: {**X, "attention_mask": X["attention_mask"] * 2}, r"numbers such as 2, but fit was given bool"),
        (lambda X: {**X, "input_ids": X["input_ids"].astype(str)}, r"X\['input_ids'\] is <U.*must hold numbers"),
        (lambda X: {**X, "attention_mask": 1}, r"of shape \(\); it must hold numbers for each sample"),
        (lambda X: {name: array[:0] for name, array in X.items()}, r"0 sample\(s\)"),
    ],
)  # fmt: skip
def test_other_numbers_than_those_of_fit_are_refused(masked, text, change, match):
    with pytest.raises(ValueError, match=match):
        masked.predict(change(text[0]))
