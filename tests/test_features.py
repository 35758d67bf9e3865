import errno
import os

import numpy as np
import pytest
import torch

from sklearn_jeidnn._exits.building import build_network
from sklearn_jeidnn._fit import features as _features
from sklearn_jeidnn._fit.datasets import SamplesDataset
from sklearn_jeidnn._fit.features import exit_features

from .conftest import TinyConv, quick_classifier


@pytest.fixture
def frozen(digits):
    X = torch.as_tensor(digits[0])
    network, _ = build_network(
        TinyConv(), "auto", (X[:3],), 10, head="pooled", exit_mass="sequential", frozen=True
    )
    return network, SamplesDataset((X,), torch.as_tensor(digits[1]), torch.ones(len(X)))


def test_features_are_what_the_exits_read_whatever_the_batch_size(frozen):
    network, rows = frozen
    with torch.no_grad():
        expected = network.exit_features(*rows.inputs)
    for batch_size in (7, 1024):
        kept = exit_features(network, rows, batch_size, "cpu")
        for feature, own in zip(kept.features, expected, strict=True):
            torch.testing.assert_close(feature, own, rtol=1e-5, atol=1e-5)
        assert torch.equal(kept.y, rows.y)


def test_features_too_large_for_memory_are_kept_in_a_file(frozen, monkeypatch, digits):
    network, rows = frozen
    in_memory = exit_features(network, rows, 64, "cpu")
    monkeypatch.setattr(_features, "_memory_bytes", lambda: 1e4)
    opened = []
    original = np.memmap
    monkeypatch.setattr(np, "memmap", lambda *a, **k: opened.append(a) or original(*a, **k))
    in_file = exit_features(network, rows, 64, "cpu")
    assert len(opened) == network.n_exits
    for first, second in zip(in_memory.features, in_file.features, strict=True):
        assert torch.equal(first, second)


@pytest.mark.filterwarnings("ignore:the labels of the module itself are right on")
def test_a_fit_from_a_file_is_the_fit_from_memory(digits, monkeypatch):
    torch.manual_seed(0)
    params = {"module": TinyConv().eval(), "freeze_backbone": True, "max_epochs": 2}
    X, y = digits
    samples = {"X": X[:200], "y": y[:200], "X_val": X[200:], "y_val": y[200:]}
    first = quick_classifier(**params).fit(**samples)
    monkeypatch.setattr(_features, "_memory_bytes", lambda: 1e4)
    second = quick_classifier(**params).fit(**samples)
    assert np.array_equal(first.predict_proba(digits[0]), second.predict_proba(digits[0]))


def brighter(batch):
    """A random transform, as a DataLoader's collate_fn."""
    inputs, y = torch.utils.data.default_collate(list(batch))
    (X,) = inputs["X"]
    return {**inputs, "X": (X + torch.rand(len(X), 1),)}, y


def test_several_transformed_passes_are_kept(frozen):
    network, rows = frozen
    kept = exit_features(network, rows, 64, "cpu", n_passes=2, collate_fn=brighter)
    first, second = kept.features[0].split(len(rows))
    assert not torch.equal(first, second)
    assert torch.equal(kept.y, torch.cat([rows.y, rows.y]))


@pytest.mark.filterwarnings("ignore:the labels of the module itself are right on")
@pytest.mark.parametrize("freeze", [False, True])
def test_a_transform_in_the_iterator_reaches_the_backbone(digits, freeze):
    X, y = digits
    calls, n_train = [], 200

    def noted(batch):
        calls.append(len(batch))
        return brighter(batch)

    torch.manual_seed(0)
    clf = quick_classifier(
        module=TinyConv().eval(),
        freeze_backbone=freeze,
        feature_passes=2 if freeze else 1,
        max_epochs=3,
        iterator_train__collate_fn=noted,
    ).fit(X[:n_train], y[:n_train], X_val=X[n_train:], y_val=y[n_train:])
    # The first call is a trial.
    assert calls[0] == 3 and sum(calls[1:]) == n_train * (2 if freeze else 3)
    assert clf.history_[-1, "train_loss"] > 0


@pytest.fixture
def little_memory(monkeypatch):
    monkeypatch.setattr(_features, "_memory_bytes", lambda: 1e4)


def test_a_disk_without_room_is_told_before_anything_is_computed(
    frozen, little_memory, monkeypatch
):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    network, rows = frozen
    with pytest.raises(
        OSError, match=r"300 samples need .* GB in .* free .*TMPDIR.*feature_passes"
    ):
        exit_features(network, rows, 64, "cpu")


@pytest.mark.parametrize("error", [None, OSError(errno.EOPNOTSUPP, "not supported")])
def test_where_space_cannot_be_reserved_it_is_written(frozen, little_memory, monkeypatch, error):
    def cannot(*_):
        raise error

    if error is None:
        monkeypatch.delattr(os, "posix_fallocate", raising=False)
    else:
        monkeypatch.setattr(os, "posix_fallocate", cannot, raising=False)
    written = []
    monkeypatch.setattr(_features, "WRITTEN_AT_ONCE", 1000)
    original = _features._reserve
    monkeypatch.setattr(
        _features,
        "_reserve",
        lambda file, n: original(file, n) or written.append((os.fstat(file.fileno()).st_size, n)),
    )
    network, rows = frozen
    kept = exit_features(network, rows, 64, "cpu")
    assert written and all(size == n_bytes for size, n_bytes in written)
    monkeypatch.setattr(_features, "_memory_bytes", lambda: 1e12)
    for first, second in zip(
        kept.features, exit_features(network, rows, 64, "cpu").features, strict=True
    ):
        assert torch.equal(first, second)


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="POSIX only")
def test_the_space_of_the_file_is_taken_from_the_disk_at_once(little_memory, monkeypatch):
    blocks = []
    original = _features._reserve
    monkeypatch.setattr(
        _features,
        "_reserve",
        lambda file, n: original(file, n) or blocks.append(os.fstat(file.fileno()).st_blocks),
    )
    _features._room_for(1000, [100])
    assert blocks[0] * 512 >= 4 * 1000 * 100
