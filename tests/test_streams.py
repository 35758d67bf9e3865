"""Large inputs, streams, several threads at once."""

import concurrent.futures

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from torch.utils.data import DataLoader, TensorDataset

from sklearn_jeidnn import _prediction, _schema
from sklearn_jeidnn._engines.torch_engine import TorchEngine
from sklearn_jeidnn._samples import iter_user_chunks

from .conftest import quick_classifier


@pytest.fixture
def small_pieces(monkeypatch):
    monkeypatch.setattr(_schema, "CHUNK_BYTES", 64 * 4 * 10)
    monkeypatch.setattr(TorchEngine, "batch_size", 20)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_memory_map_is_predicted_piece_by_piece(
    fitted, fresh_digits, tmp_path, small_pieces, dtype
):
    X = fresh_digits[0][:300]
    np.save(tmp_path / "rows.npy", X.astype(dtype))
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    assert isinstance(mapped, np.memmap)
    for method in ("predict", "predict_exit", "predict_set"):
        np.testing.assert_array_equal(
            getattr(fitted, method)(mapped), getattr(fitted, method)(X.tolist())
        )
    assert len(list(iter_user_chunks(mapped, 20))) > 1


def test_a_row_that_is_no_number_is_found_in_any_piece(fitted, fresh_digits, small_pieces):
    X = fresh_digits[0][:300].copy()
    X[-1, 0] = np.inf
    with pytest.raises(ValueError, match="infinity"):
        fitted.predict(X)


def test_no_rows_are_refused(fitted):
    with pytest.raises(ValueError, match="0 sample"):
        fitted.predict(np.zeros((0, 64), np.float32))


def test_a_dataset_is_predicted_with_and_without_labels(fitted, fresh_digits, small_pieces):
    X, y = fresh_digits[0][:100], torch.as_tensor(fresh_digits[1][:100])
    expected = fitted.predict(X)
    for dataset in (TensorDataset(torch.as_tensor(X), y), list(X)):
        if isinstance(dataset, list):
            dataset = torch.utils.data.StackDataset(dataset, dataset)
        np.testing.assert_array_equal(fitted.predict(dataset), expected)


@pytest.mark.parametrize("method", _prediction.STREAMED)
def test_a_stream_is_answered_batch_by_batch(fitted, fresh_digits, method):
    X = fresh_digits[0][:100]
    asked = []

    def batches():
        for start in range(0, 100, 30):
            asked.append(start)
            yield X[start : start + 30]

    answers = fitted.predict_stream(batches(), method=method)
    first = next(answers)
    assert asked == [0] and len(first) == 30
    together = np.concatenate([first, *answers])
    np.testing.assert_allclose(together, getattr(fitted, method)(X), atol=1e-5)


def test_a_data_loaders_labels_are_left_out(fitted, fresh_digits):
    X, y = (torch.as_tensor(part[:50]) for part in fresh_digits)
    loader = DataLoader(TensorDataset(X, y), batch_size=20)
    labels = np.concatenate(list(fitted.predict_stream(loader)))
    np.testing.assert_array_equal(labels, fitted.predict(X.numpy()))


def test_an_unknown_method_of_a_stream_is_refused(fitted):
    with pytest.raises(ValueError, match="method='score' is not known; give one of"):
        fitted.predict_stream([], method="score")


def test_a_long_run_shows_its_progress_where_that_is_asked_for(
    digits, fresh_digits, small_pieces, capsys, monkeypatch
):
    loud = quick_classifier(max_epochs=1).fit(*digits)
    loud.predict(fresh_digits[0])
    assert not capsys.readouterr().err
    monkeypatch.setattr(_prediction, "BAR_AFTER_SECONDS", 0)
    loud.set_params(verbose=1).predict(fresh_digits[0])
    assert "Samples" in capsys.readouterr().err


def test_threads_share_one_estimator(fitted, fresh_digits):
    X = fresh_digits[0]
    expected = fitted.predict_proba(X)
    parts = np.array_split(np.arange(len(X)), 8)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            answers = pool.map(lambda rows: fitted.predict_proba(X[rows]), parts)
            np.testing.assert_allclose(np.concatenate(list(answers)), expected, atol=1e-6)


def test_a_module_that_writes_into_its_input_leaves_the_rows_alone(digits):
    X, y = digits[0] - 8, digits[1]
    layers = [torch.nn.ReLU(inplace=True)]
    for _ in range(2):
        layers += [torch.nn.Linear(64, 64), torch.nn.ReLU(inplace=True)]
    network = torch.nn.Sequential(*layers, torch.nn.Linear(64, 10))
    before = X.copy()
    clf = quick_classifier(module=network, max_epochs=2).fit(X, y)
    first = clf.predict_proba(X)
    np.testing.assert_array_equal(X, before)
    np.testing.assert_array_equal(clf.predict_proba(X), first)


def test_a_streams_frames_keep_the_names_of_their_columns(digits, fresh_digits):
    X = pd.DataFrame(digits[0], columns=[f"pixel{i}" for i in range(64)])
    clf = quick_classifier(max_epochs=1).fit(X, digits[1])
    new = pd.DataFrame(fresh_digits[0][:30], columns=X.columns)
    pairs = ((new[:20], fresh_digits[1][:20]), new[20:])
    assert np.array_equal(np.concatenate(list(clf.predict_stream(pairs))), clf.predict(new))
    for batch in (new[new.columns[::-1]], (new[new.columns[::-1]], fresh_digits[1][:30])):
        with pytest.raises(ValueError, match="must be in the same order"):
            next(clf.predict_stream([batch]))


def test_batches_are_refused_as_predict_refuses_them(fitted, fresh_digits):
    X = fresh_digits[0][:20]
    masked = np.ma.masked_array(X, X > 15)
    for batch in (sparse.csr_matrix(X), sparse.dok_array(X), masked, None, (x for x in X)):
        with pytest.raises((ValueError, TypeError)) as expected:
            fitted.predict(batch)
        for given in (batch, (batch, np.zeros(20))):
            with pytest.raises(expected.type) as caught:
                list(fitted.predict_stream([given]))
            assert str(caught.value) == str(expected.value)


def test_one_batch_in_the_place_of_batches_is_refused_with_what_to_do(fitted, fresh_digits):
    X = fresh_digits[0][:20]
    for batches in (X, pd.DataFrame(X), torch.as_tensor(X), {"X": X}, 3, "X"):
        with pytest.raises(
            (ValueError, TypeError), match=r"batches is .*such as \[X\], or call pred"
        ):
            fitted.predict_stream(batches)


def test_a_list_of_two_rows_is_a_batch_of_two(fitted, fresh_digits):
    X = fresh_digits[0][:2]
    for batch in ([X[0], X[1]], X.tolist()):
        (labels,) = fitted.predict_stream([batch])
        np.testing.assert_array_equal(labels, fitted.predict(X))


@pytest.mark.parametrize("level", [np.array(0.9), torch.tensor(0.9), np.float32(0.9)])
def test_one_level_of_any_type_gives_no_axis_of_levels(fitted, fresh_digits, level):
    assert fitted.predict_set(fresh_digits[0][:3], confidence_level=level).shape == (3, 10)


def test_levels_that_are_no_sequence_are_refused(fitted, fresh_digits):
    with pytest.raises(ValueError, match="confidence_level=.* is not allowed"):
        fitted.predict_set(fresh_digits[0][:3], confidence_level=[[0.1], [0.2, 0.3]])
