"""Sentences that are padded: what exits read of them does not depend on the padding."""

import numpy as np
import pytest
import torch

from sklearn_jeidnn._cut.padding import is_mask_of, without_padding

from .conftest import MaskedTokens, quick_classifier
from .test_samples import sentences


def padded(X, n_more):
    """The same sentences, filled up with a token that no mask counts."""
    ids, mask = X["input_ids"], X["attention_mask"]
    return {
        "input_ids": np.pad(ids, ((0, 0), (0, n_more)), constant_values=7),
        "attention_mask": np.pad(mask, ((0, 0), (0, n_more))),
    }


@pytest.mark.parametrize("engine, freeze_backbone", [("torch", False), ("onnxruntime", True)])
def test_answers_do_not_depend_on_how_far_sentences_are_padded(engine, freeze_backbone):
    if engine == "onnxruntime":
        pytest.importorskip("onnxruntime")
    X, y = sentences(90)
    torch.manual_seed(0)
    fresh = {name: array[60:] for name, array in X.items()}
    clf = quick_classifier(
        module=MaskedTokens(),
        freeze_backbone=freeze_backbone,
        exits=2,
        max_epochs=1,
        engine=engine,
    )
    clf.fit({name: array[:60] for name, array in X.items()}, y[:60], X_val=fresh, y_val=y[60:])
    of_exits = clf._predictor.cascade.engine.answer
    for n_more in (1, 9):
        more = padded(X, n_more)
        np.testing.assert_allclose(clf.predict_proba(more), clf.predict_proba(X), atol=1e-5)
        answers = [of_exits(tuple(part.values())).logits for part in (X, more)]
        np.testing.assert_allclose(*answers, atol=1e-5)
        np.testing.assert_array_equal(clf.predict_exit(more), clf.predict_exit(X))


def test_the_mean_of_all_places_is_that_of_a_sentences_own_tokens():
    tokens, mask = torch.randn(2, 4, 3), torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]])
    filled = without_padding(tokens, mask)
    torch.testing.assert_close(
        filled.mean(1), torch.stack([tokens[0, :2].mean(0), tokens[1].mean(0)])
    )
    assert torch.equal(filled[0, :2], tokens[0, :2]) and torch.equal(filled[1], tokens[1])
    tokens[0, 2:] = torch.nan
    assert torch.equal(without_padding(tokens, mask)[0], filled[0])
    assert without_padding(tokens, torch.zeros(2, 4)).isfinite().all()


def test_a_mask_is_that_of_tokens_alone():
    mask = torch.ones(2, 4)
    assert is_mask_of(mask, torch.ones(2, 4, 3))
    for shape in [(2, 4), (2, 3, 4), (2, 4, 3, 3)]:
        assert not is_mask_of(mask, torch.ones(shape))
