"""torch datasets as X: of samples and labels where labels are read, of samples alone where they are not."""

import copy

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.model_selection import cross_val_score
from skorch.helper import SliceDataset
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from sklearn_jeidnn._prediction import STREAMED

from .conftest import MaskedTokens, quick_classifier
from .test_samples import sentences


class Items(Dataset):
    """A user's own dataset."""

    def __init__(self, item, n_samples):
        self.item, self.n_samples = item, n_samples

    def __len__(self):
        return self.n_samples

    def __getitem__(self, i):
        return self.item(i)


class Stream(IterableDataset):
    def __init__(self, samples):
        self.samples = samples

    def __iter__(self):
        return iter(self.samples)


@pytest.fixture(scope="module")
def pairs(digits):
    return TensorDataset(*map(torch.as_tensor, digits))


@pytest.fixture(scope="module")
def alone(digits):
    return TensorDataset(torch.as_tensor(digits[0]))


@pytest.fixture(scope="module")
def one_epoch(digits):
    return quick_classifier(max_epochs=1).fit(*digits)


def test_fit_learns_from_a_dataset_what_it_learns_from_arrays(digits, pairs, alone, one_epoch):
    X, y = digits
    expected = one_epoch.predict_proba(X)
    images = Items(lambda i: (X[i], int(y[i])), len(X))
    columns = TensorDataset(torch.as_tensor(X), torch.as_tensor(y)[:, None])
    for given in ((pairs, None), (images,), (alone, y)):
        clf = quick_classifier(max_epochs=1).fit(*given)
        np.testing.assert_array_equal(clf.predict_proba(X), expected)
    with pytest.warns(match="column-vector y"):
        quick_classifier(max_epochs=1).fit(columns)


def test_labels_given_beside_a_dataset_replace_its_own(digits, pairs):
    names = np.array([f"digit {code}" for code in digits[1]])
    assert quick_classifier(max_epochs=1).fit(pairs, names).classes_[3] == "digit 3"


def test_held_out_samples_come_as_a_dataset(digits, pairs):
    X, y = digits
    train = (X[:200], y[:200])
    first = quick_classifier(max_epochs=1).fit(*train, X_val=X[200:], y_val=y[200:])
    second = quick_classifier(max_epochs=1).fit(*train, X_val=Subset(pairs, range(200, 300)))
    np.testing.assert_array_equal(first.predict_set(X), second.predict_set(X))


def test_methods_that_read_labels_take_them_from_a_dataset(digits, pairs, one_epoch):
    X, y = digits
    for method in ("frontier", "exit_answers", "calibration_report", "score"):
        answer = getattr(one_epoch, method)
        for came, expected in zip(*map(_values, (answer(pairs), answer(X, y))), strict=True):
            np.testing.assert_array_equal(came, expected)
    clf, new = quick_classifier(max_epochs=1).fit(X[:150], y[:150]), Subset(pairs, range(150, 300))
    for limits in ({"max_disagreement": 0.3}, {"max_accuracy_drop": 0.3}):
        labels = {"y": y[150:]} if "max_accuracy_drop" in limits else {}
        of_arrays = clf.control_risk(X[150:], **labels, **limits)
        assert clf.control_risk(new, **limits).risk_ == of_arrays.risk_
    assert len(clf.conformalize(new).conformity_scores_) == 150


def _values(answer):
    if isinstance(answer, dict):
        return list(answer.values())
    if isinstance(answer, np.ndarray) and answer.dtype.names:
        return [answer[name] for name in answer.dtype.names]
    return [answer.logits, answer.codes] if hasattr(answer, "logits") else [answer]


def test_a_dataset_without_labels_is_refused_where_they_are_read(alone, one_epoch):
    for read in (one_epoch.frontier, one_epoch.conformalize, one_epoch.score):
        with pytest.raises(ValueError, match="y is missing; only a dataset"):
            read(alone)
    with pytest.raises(ValueError, match="requires y to be passed"):
        one_epoch.fit(alone)


@pytest.mark.parametrize("method", [*STREAMED, "predict_backbone", "mean_cost"])
def test_samples_alone_are_predicted(method, digits, alone, one_epoch):
    X = digits[0]
    predict = getattr(one_epoch, method)
    for dataset in (
        alone,
        Items(lambda i: X[i], 300),
        Items(lambda i: (X[i], None), 300),
        Stream(X),
    ):
        np.testing.assert_array_equal(predict(dataset), predict(X))
    with pytest.raises(ValueError, match=r"0 sample\(s\): the dataset X is empty"):
        predict(Subset(alone, []))


def test_a_dataset_of_images_is_learned_from_and_predicted(digits):
    X, y = np.uint8(digits[0].reshape(-1, 8, 8) * 15), digits[1]
    images = [Image.fromarray(x) for x in X]
    clf = quick_classifier(module__n_blocks=3, max_epochs=1)
    clf.fit(Subset(Items(lambda i: (images[i], y[i]), 300), range(300)))
    expected = clf.predict_proba(X)
    np.testing.assert_array_equal(clf.predict_proba(Items(lambda i: images[i], 300)), expected)
    np.testing.assert_array_equal(clf.predict_proba(images), expected)


def test_a_dataset_of_dicts_is_learned_from_and_predicted():
    X, y = sentences(60)
    rows = [{name: array[i] for name, array in X.items()} for i in range(60)]
    clf = quick_classifier(module=MaskedTokens, max_epochs=1)
    clf.fit(Items(lambda i: (rows[i], y[i]), 60))
    np.testing.assert_array_equal(clf.predict(Items(lambda i: rows[i], 60)), clf.predict(X))


def test_skorchs_slice_datasets_are_taken(digits, pairs, one_epoch):
    X, y = (SliceDataset(pairs, i) for i in (0, 1))
    clf = quick_classifier(max_epochs=1).fit(X, y)
    np.testing.assert_array_equal(clf.predict_proba(X), one_epoch.predict_proba(digits[0]))


def test_loaders_are_refused_with_the_way_to_do_it(pairs, alone, one_epoch):
    loader = DataLoader(pairs, batch_size=50)
    for call in (one_epoch.fit, one_epoch.predict, one_epoch.frontier, one_epoch.score):
        with pytest.raises(TypeError, match=r"X=loader.dataset.*predict_stream\(loader"):
            call(loader)
    for batches in (loader, DataLoader(alone, batch_size=50)):
        labels = np.concatenate(list(one_epoch.predict_stream(batches)))
        np.testing.assert_array_equal(labels, one_epoch.predict(alone))


@pytest.mark.parametrize(
    "item, match",
    [
        (lambda i: (np.zeros(64), 0, 0), "gives 3 values a sample"),
        (lambda i: np.zeros(60 + i % 2, np.float32), "differ in shape.*pad or resize"),
        (lambda i: np.zeros(63, np.float32), "X has 63 features"),
    ],
)
def test_datasets_that_do_not_fit_are_refused(item, match, one_epoch):
    with pytest.raises(ValueError, match=match):
        one_epoch.predict(Items(item, 10))
    with pytest.raises(TypeError, match="IterableDataset; fit and what reads labels"):
        one_epoch.fit(Stream([(np.zeros(64), 0)]))


def test_reading_a_dataset_keeps_its_order_and_draws_no_random_numbers(digits, pairs, one_epoch):
    state = torch.get_rng_state()
    in_order = one_epoch.predict(digits[0])
    for name in ("shuffle", "drop_last"):
        with pytest.raises(ValueError, match=f"iterator_valid__{name}=True"):
            one_epoch.set_params(**{f"iterator_valid__{name}": True})
    np.testing.assert_array_equal(one_epoch.predict(pairs), in_order)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_batch_of_all_samples_may_come_from_a_dataset_without_a_length(digits, one_epoch):
    X = digits[0]
    expected = one_epoch.predict(X)
    clf = copy.copy(one_epoch).set_params(iterator_valid__batch_size=-1)
    np.testing.assert_array_equal(clf.predict(Stream(X)), expected)


def test_groups_are_one_for_each_sample_of_a_dataset_too(digits, pairs):
    X, y = digits
    clf = quick_classifier(max_epochs=1).fit(X, y).conformalize(X + 0.01, y, groups=y % 2)
    for dataset in (pairs, Stream(X)):
        np.testing.assert_array_equal(
            clf.predict_set(dataset, groups=y % 2), clf.predict_set(X, groups=y % 2)
        )
        for groups in (y[1:], np.append(y, 0)):
            with pytest.raises(ValueError, match="groups has shape .* but there are"):
                clf.predict_set(dataset, groups=groups)


def test_options_of_data_loaders_are_checked_before_a_dataset_is_read():
    def read(i):
        raise AssertionError("the dataset was read")

    for option in ("shuffle", "schuffle"):
        name = f"iterator_valid__{option}"
        with pytest.raises((TypeError, ValueError), match=name):
            quick_classifier(**{name: True}).fit(Items(read, 100))


def test_labels_beside_a_dataset_that_differ_from_its_own_are_told(digits):
    X, y = digits
    pairs = TensorDataset(torch.as_tensor(X), torch.as_tensor(y))
    with pytest.warns(UserWarning, match="y is given, and takes the place of the labels"):
        quick_classifier(max_epochs=1).fit(pairs, np.roll(y, 1))


def test_tensors_that_numpy_does_not_take_come_from_a_dataset_too(digits, one_epoch):
    X, y = map(torch.as_tensor, digits)
    expected = one_epoch.predict_proba(digits[0])
    for samples in (X.bfloat16(), X.clone().requires_grad_()):
        pairs = TensorDataset(samples, y)
        clf = quick_classifier(max_epochs=1).fit(pairs)
        np.testing.assert_array_equal(clf.predict_proba(pairs), expected)


@pytest.mark.filterwarnings("ignore:.*Scoring failed", "ignore:.*fits failed")
def test_cross_validation_over_a_dataset_is_refused_with_the_way_to_do_it(digits, pairs):
    X, y = digits
    few = Subset(pairs, range(100))
    clf = quick_classifier(max_epochs=1)
    with pytest.raises(ValueError, match="a list of pairs.*SliceDataset"):
        cross_val_score(clf, few, y[:100], cv=2, error_score="raise")
    of_slices = cross_val_score(clf, SliceDataset(few, 0), y[:100], cv=2)
    np.testing.assert_array_equal(of_slices, cross_val_score(clf, X[:100], y[:100], cv=2))
