"""A saved classifier answers bit for bit what it answered, and nothing in its file is run."""

import copy
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import NotFittedError
from sklearn.naive_bayes import GaussianNB
from torch import nn

from sklearn_jeidnn import EarlyExitClassifier
from sklearn_jeidnn._store.arrays import checksum_of
from sklearn_jeidnn._store.models import VERSION

from .conftest import TinyConv, quick_classifier


class OwnHead(nn.Module):
    def __init__(self, n_features, n_classes):
        super().__init__()
        self.linear = nn.Linear(n_features, n_classes)

    def forward(self, feature):
        return self.linear(feature)


class OfSize(nn.Module):
    """A module with parameters of its own, whose layers are blocks."""

    def __init__(self, width=16, depth=3):
        super().__init__()
        self.blocks = nn.Sequential(
            nn.Sequential(nn.Linear(64, width), nn.BatchNorm1d(width), nn.ReLU()),
            *(
                nn.Sequential(nn.Linear(width, width), nn.BatchNorm1d(width), nn.ReLU())
                for _ in range(depth - 1)
            ),
        )
        self.last = nn.Linear(width, 10)

    def forward(self, X):
        return self.last(self.blocks(X))


class Stranger(ClassifierMixin, BaseEstimator):
    """A classifier whose code nobody trusts unasked."""

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        self.n_features_in_ = X.shape[1]
        return self

    def predict_proba(self, X):
        return np.full((len(X), len(self.classes_)), 1 / len(self.classes_))


def _with(**params):
    return params


def check_same(loaded, clf, X, **groups):
    for a, b in ((loaded, clf), (loaded.at(cost_weight=0.7), clf.at(cost_weight=0.7))):
        np.testing.assert_array_equal(a.predict(X), b.predict(X))
        np.testing.assert_array_equal(a.predict_exit(X), b.predict_exit(X))
        np.testing.assert_array_equal(a.predict_proba(X), b.predict_proba(X))
        np.testing.assert_array_equal(a.predict_set(X, **groups), b.predict_set(X, **groups))
        np.testing.assert_array_equal(a.predict_backbone(X), b.predict_backbone(X))


def through_a_file(clf, path, **given):
    clf.save(path)
    return EarlyExitClassifier.load(path, **given)


@pytest.fixture(scope="module")
def clf(digits):
    return quick_classifier(module=TinyConv, max_epochs=2).fit(*digits)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.jeidnn"


KINDS = {
    "ready table with trees": (
        _with(module=None, module__width=8, module__n_blocks=2, cv=None),
        {},
    ),
    "ready images": (_with(module=None, module__image_shape=(8, 8), module__width=8, cv=None), {}),
    "own class": (_with(module=TinyConv), {"module": TinyConv}),
    "own class with parameters": (
        _with(module=OfSize, module__width=12, module__depth=4),
        {"module": OfSize},
    ),
    "own instance": (_with(module=OfSize(width=8)), {"module": OfSize(width=8)}),
    "frozen instance": (
        _with(module=OfSize(width=8), freeze_backbone=True),
        {"module": OfSize(width=8)},
    ),
    "several members": (
        _with(module=[GaussianNB(), (OfSize, {"width": 4}), TinyConv], companion_costs=[0.1, None]),
        {"module": [(OfSize, {"width": 4}), TinyConv]},
    ),
    "a head of one's own": (
        _with(module=TinyConv, head=OwnHead),
        {"module": TinyConv, "head": OwnHead},
    ),
    "linear heads": (_with(module=TinyConv, head="linear"), {"module": TinyConv}),
    "bilevel": (_with(module=TinyConv, gate_training="bilevel"), {"module": TinyConv}),
    "direct": (_with(module=TinyConv, exit_distribution="direct"), {"module": TinyConv}),
    "bfloat16": (_with(module=TinyConv, precision="bfloat16"), {"module": TinyConv}),
    "onnxruntime": (_with(module=TinyConv, engine="onnxruntime"), {"module": TinyConv}),
    "int8": (
        _with(module=TinyConv, engine="onnxruntime", precision="int8", max_epochs=4),
        {"module": TinyConv},
    ),
    "trees in onnxruntime": (
        _with(module=None, module__width=8, cv=None, engine="onnxruntime"),
        {},
    ),
    "a classifier made fast": (_with(module=GaussianNB()), {}),
    "words": (_with(module=TinyConv, classes=None), {"module": TinyConv}),
}


# What trees save beside a quick classifier is for the clock to say.
@pytest.mark.filterwarnings("ignore:nothing is saved")
@pytest.mark.parametrize("kind", KINDS)
def test_it_answers_bit_for_bit(kind, digits, fresh_digits, path):
    params, given = KINDS[kind]
    X, y = digits
    if kind == "words":
        y = np.array([f"digit {label}" for label in y])
    held_out = {}
    if "freeze_backbone" in params:
        X, y, held_out = X[:150], y[:150], {"X_val": X[150:], "y_val": y[150:]}
    clf = quick_classifier(**{"max_epochs": 2, **params}).fit(X, y, **held_out)
    loaded = through_a_file(clf, path, **given)
    if kind == "bilevel":
        np.testing.assert_array_equal(
            loaded.predict_proba(fresh_digits[0]), clf.predict_proba(fresh_digits[0])
        )
    else:
        check_same(loaded, clf, fresh_digits[0][:300])
    ours, theirs = loaded.get_params(deep=False), clf.get_params(deep=False)
    assert {n: str(v) for n, v in ours.items() if n not in ("module", "head")} == {
        n: str(v) for n, v in theirs.items() if n not in ("module", "head")
    }
    for name in ("exits_", "classes_", "exit_costs_", "temperatures_", "cost_weight_"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(clf, name))


def test_it_answers_the_same_in_another_process(digits, fresh_digits, path):
    clf = quick_classifier(module=None, max_epochs=2, module__width=8, cv=None).fit(*digits)
    clf.save(path)
    np.save(path.with_suffix(".npy"), fresh_digits[0])
    code = (
        "import numpy as np; from sklearn_jeidnn import EarlyExitClassifier as E;"
        f"X = np.load({str(path.with_suffix('.npy'))!r});"
        f"np.save({str(path.with_suffix('.out.npy'))!r}, E.load({str(path)!r}).predict_proba(X))"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
    np.testing.assert_array_equal(
        np.load(path.with_suffix(".out.npy")), clf.predict_proba(fresh_digits[0])
    )


def test_what_was_certified_and_conformalized_is_kept(clf, fresh_digits, path):
    X, y = fresh_digits
    groups = np.where(X[:, 20] > 5, "dark", "light")
    other = copy.copy(clf).control_risk(X[:700], max_disagreement=0.2)
    other = other.conformalize(X[700:1200], y[700:1200], groups=groups[700:1200])
    loaded = through_a_file(other, path, module=TinyConv)
    assert loaded.risk_ == other.risk_
    np.testing.assert_array_equal(
        loaded.predict_set(X[1200:], groups=groups[1200:]),
        other.predict_set(X[1200:], groups=groups[1200:]),
    )


def test_a_later_fit_goes_on_from_it(digits, fresh_digits, path):
    clf = quick_classifier(module=OfSize, max_epochs=2, warm_start=True).fit(*digits)
    loaded = through_a_file(clf, path, module=OfSize)
    for each in (clf, loaded):
        each.fit(*fresh_digits)
    np.testing.assert_array_equal(clf.predict(fresh_digits[0]), loaded.predict(fresh_digits[0]))
    started_anew = quick_classifier(module=OfSize, max_epochs=2).fit(*fresh_digits)
    assert (started_anew.predict_proba(digits[0]) != loaded.predict_proba(digits[0])).any()


def test_it_knows_which_samples_it_has_seen(clf, digits, path):
    loaded = through_a_file(clf, path, module=TinyConv)
    with pytest.warns(UserWarning, match="samples trained networks or set their gates"):
        copy.copy(clf).conformalize(*digits)
    with pytest.warns(UserWarning, match="samples trained networks or set their gates"):
        loaded.conformalize(*digits)


def test_parameters_that_no_file_holds_are_named(digits, path):
    clf = quick_classifier(
        module=TinyConv, max_epochs=1, optimizer=torch.optim.SGD, callbacks=[]
    ).fit(*digits)
    clf.save(path)
    with pytest.warns(UserWarning, match=r"\['optimizer'\] are functions or objects"):
        loaded = EarlyExitClassifier.load(path, TinyConv)
    assert loaded.optimizer is torch.optim.AdamW


def test_what_is_missing_is_asked_for(clf, digits, path):
    clf.save(path)
    with pytest.raises(ValueError, match="module TinyConv, whose class.*give module=TinyConv"):
        EarlyExitClassifier.load(path)
    with pytest.raises(ValueError, match="other weights than the file"):
        EarlyExitClassifier.load(path, OfSize)
    quick_classifier(module=TinyConv, max_epochs=1, head=OwnHead).fit(*digits).save(path)
    with pytest.raises(ValueError, match="give head=OwnHead"):
        EarlyExitClassifier.load(path, TinyConv)


def test_code_of_others_is_run_only_where_it_is_trusted(digits, path):
    members = [Stranger(), TinyConv]
    clf = quick_classifier(module=members, max_epochs=1, companion_costs=[0.1]).fit(*digits)
    clf.save(path)
    with pytest.raises(ValueError, match=r"needs the types \['tests.test_saving.Stranger'\]"):
        EarlyExitClassifier.load(path, TinyConv)
    trusted = ["tests.test_saving.Stranger"]
    loaded = EarlyExitClassifier.load(path, TinyConv, trusted=trusted)
    np.testing.assert_array_equal(loaded.predict(digits[0]), clf.predict(digits[0]))


def test_what_a_file_cannot_hold_is_refused(digits, path):
    clf = quick_classifier(module=TinyConv, max_epochs=1, conformity_score=lambda p, u: 1 - p).fit(
        *digits
    )
    with pytest.raises(TypeError, match="conformity_score=.* is a function"):
        clf.save(path)
    with pytest.raises(NotFittedError):
        EarlyExitClassifier().save(path)
    assert not list(path.parent.iterdir())


def test_a_file_that_fails_leaves_the_one_before(clf, path, monkeypatch):
    clf.save(path)
    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(OSError, match="No space left"):
        clf.at(cost_weight=0.5).save(path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
    monkeypatch.undo()
    with pytest.raises(FileNotFoundError, match="no such folder"):
        clf.save(path / "x" / "y")


def test_others_read_the_file(clf, path):
    clf.save(path)
    arrays = load_file(path)
    of_module = clf.module_.state_dict()
    for name, tensor in of_module.items():
        np.testing.assert_array_equal(arrays[f"model.members.0.state.{name}"], tensor.numpy())


def test_damaged_files_are_refused(clf, path):
    clf.save(path)
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    for place in [0, 7, 8, 9, 200, len(data) - 1, *rng.integers(len(data), size=20)]:
        damaged = bytearray(data)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="cannot be loaded"):
            EarlyExitClassifier.load(path, TinyConv)
    for end in (0, 5, 100, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:end])
        with pytest.raises(ValueError, match="cannot be loaded"):
            EarlyExitClassifier.load(path, TinyConv)
    save_file({"x": np.zeros(3)}, path)
    with pytest.raises(ValueError, match="no fitted classifier"):
        EarlyExitClassifier.load(path, TinyConv)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        EarlyExitClassifier.load(path)


def rewritten(path, change):
    """Change the values of a file, and its checksum with them."""
    data = path.read_bytes()
    n_header = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + n_header]), data[8 + n_header :]
    texts = header.pop("__metadata__")
    texts.pop("sha256")
    values = json.loads(texts["values"])
    change(values["@dict"], texts)
    texts["values"] = json.dumps(values)
    header["__metadata__"] = {**texts, "sha256": checksum_of(header, texts, [body])}
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)


def newer(values, texts):
    texts["format_version"] = str(VERSION + 1)


def wide(values, texts):
    values["schema"]["sample_shapes"] = {"@tuple": [{"@tuple": [2**60]}]}


def no_members(values, texts):
    values["members"] = []


def other_weights(values, texts):
    state = values["members"][0]["@dict"]["state"]["@dict"]
    name = next(iter(state))
    state[name] = {"@array": "model.point.gates.bias"}


def code(values, texts):
    values["rule"]["condition_on"] = {"@named": "os.system"}


def other_exits(values, texts):
    values["members"][0]["@dict"]["exits"] = ["nowhere"]


def no_sets(values, texts):
    values["calibration"]["@dict"]["sets"] = None


def unknown_groups(values, texts):
    values["rule"]["condition_on"] = "nobody"


def no_device(values, texts):
    values["engine"]["@dict"]["device"] = None


def device_left_out(values, texts):
    del values["engine"]["@dict"]["device"]


def names_left_out(values, texts):
    del values["left_out"]


@pytest.mark.parametrize(
    "change, message",
    [
        (newer, "newer"),
        (names_left_out, "left_out"),
        (no_sets, "calibration do not fit"),
        (unknown_groups, "nobody"),
        (no_device, "device"),
        (device_left_out, "device"),
        (wide, "shapes"),
        (no_members, "no members"),
        (other_weights, "size mismatch|weights"),
        (code, "not known"),
        (other_exits, "nowhere"),
    ],
)
def test_hostile_values_are_refused(clf, path, change, message):
    clf.save(path)
    rewritten(path, change)
    with pytest.raises(ValueError, match=rf"(?s)cannot be loaded: .*({message})"):
        EarlyExitClassifier.load(path, TinyConv)


def test_trees_that_point_nowhere_are_refused(digits, path):
    from sklearn_jeidnn._fit import skops_members
    from sklearn_jeidnn._fit.trees import QuickExtraTrees

    trees = QuickExtraTrees(3, random_state=0).fit(digits[0], digits[1])
    data = skops_members.as_bytes(trees)
    assert skops_members.of_bytes(data, ()).n_features_in_ == 64
    for name, value in (("left_child", 10**6), ("left_child", 0), ("feature", 64)):
        state = trees.estimators_[0].tree_.__getstate__()
        state["nodes"][name][0] = value
        damaged = copy.deepcopy(trees)
        damaged.estimators_[0].tree_.__setstate__(state)
        with pytest.raises(ValueError, match="nodes or columns that it has not"):
            skops_members.of_bytes(skops_members.as_bytes(damaged), ())
