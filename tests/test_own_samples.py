"""A user's code that writes into the samples it is given changes them for nobody else."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_jeidnn._cut.probing import _writes_into_inputs
from sklearn_jeidnn._fit.datasets import SamplesDataset

from .conftest import TinyConv, quick_classifier

ANSWERS = ("predict", "predict_proba", "predict_exit", "predict_set", "predict_backbone")
OF_LABELLED = ("frontier", "calibration_report", "exit_answers", "conformalize")


def scaled_logistic(copy):
    return make_pipeline(StandardScaler(copy=copy), LogisticRegression(max_iter=50))


def by_first_pixel(X):
    groups = X[:, 0] > 0
    X[:] = 0
    return groups


def lac(probabilities, uniform):
    scores = 1 - probabilities
    probabilities[:], uniform[:] = 0, 0
    return scores


@pytest.mark.filterwarnings("ignore:.*samples trained networks or set their gates")
@pytest.mark.parametrize(
    "params",
    [
        {"module": [scaled_logistic(copy=False), TinyConv]},
        {"condition_on": by_first_pixel},
        {"conformity_score": lac},
    ],
)
def test_the_callers_samples_stay_as_they_are(digits, fresh_digits, params):
    (X, y), (new, new_y) = digits, (part[:60] for part in fresh_digits)
    before, new_before = X.copy(), new.copy()
    # With X_val all of X trains, and no sample has to be copied.
    clf = quick_classifier(max_epochs=2, **params).fit(X, y, X_val=new, y_val=new_y)
    for method in ANSWERS:
        getattr(clf, method)(new)
    for method in OF_LABELLED:
        getattr(clf, method)(new, new_y)
    clf.check_exchangeability(new)
    assert np.array_equal(X, before) and np.array_equal(new, new_before)


def test_a_member_that_scales_in_place_is_as_good_as_one_that_copies(digits, fresh_digits):
    writing, copying = (
        quick_classifier(module=[scaled_logistic(copy), TinyConv], max_epochs=2, cost_weight=0)
        for copy in (False, True)
    )
    new = fresh_digits[0][:100]
    expected = copying.fit(*digits).predict_proba(new)
    np.testing.assert_allclose(writing.fit(*digits).predict_proba(new), expected, atol=1e-6)


class Detached(torch.nn.Module):
    def forward(self, X):
        X.data.mul_(0.5)
        return X


def test_what_is_written_by_way_of_data_is_noticed():
    inputs = (torch.ones(2, 3),)
    assert _writes_into_inputs(Detached(), inputs)
    assert not _writes_into_inputs(torch.nn.Identity(), inputs)
    assert torch.equal(inputs[0], torch.ones(2, 3))


def test_a_collate_function_that_writes_into_a_sample_changes_it_for_one_epoch():
    dataset = SamplesDataset((torch.ones(3, 2),), torch.zeros(3).long(), torch.ones(3))
    for sample in dataset.__getitems__([0, 1]):
        sample[0]["X"][0].mul_(0.5)
    assert torch.equal(dataset.inputs[0], torch.ones(3, 2))
