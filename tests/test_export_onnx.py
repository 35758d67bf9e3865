"""One ONNX graph answers what the classifier answers, and leaves early inside the graph."""

import contextlib
import copy
import json
import os
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.exceptions import NotFittedError
from sklearn.naive_bayes import GaussianNB
from torch import nn

from sklearn_jeidnn import EarlyExitClassifier
from sklearn_jeidnn._engines.onnx_int8 import QUANTISED
from sklearn_jeidnn._engines.onnx_single_file import as_tensor_labels
from sklearn_jeidnn._fit import onnx_trees
from sklearn_jeidnn._samples import check_inputs
from sklearn_jeidnn._store import writing

from .conftest import MaskedTokens, TinyConv, TinyTransformer
from .test_divergence import Normed, with_blank
from .test_onnx_engine import Recurrent, Wide, fitted_once
from .test_onnx_trees import table
from .test_samples import sentences
from .test_tokens import Summed
from .test_unanswered import Masked

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

OUTPUTS = ["label", "probabilities", "exit"]


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "classifier.onnx")


def session_of(clf, path):
    clf.export_onnx(path)
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def feeds_of(clf, X):
    """What the network takes, by name."""
    schema = clf._predictor.schema
    arrays = schema.encode(check_inputs(schema, X))
    return dict(zip(schema.input_names or ("X",), arrays, strict=True))


def some_of(X, n_samples):
    rows = slice(n_samples)
    return {k: v[rows] for k, v in X.items()} if isinstance(X, dict) else X[rows]


def check_same(clf, session, X):
    """Labels and exits are the same, and probabilities up to rounding, of many samples, two, one and none."""
    feeds = feeds_of(clf, X)
    n_all = len(next(iter(feeds.values())))
    taken = clf.predict_exit(X)
    for n_samples in (n_all, 2, 1):
        some = some_of(X, n_samples)
        found = session.run(OUTPUTS, {k: v[:n_samples] for k, v in feeds.items()})
        np.testing.assert_array_equal(found[0], clf.predict(some))
        np.testing.assert_allclose(found[1], clf.predict_proba(some), atol=1e-5)
        np.testing.assert_array_equal(found[2], taken[:n_samples])
    # A sample of each exit by itself.
    for row in [np.flatnonzero(taken == exit_index)[0] for exit_index in np.unique(taken)]:
        alone = session.run(["exit"], {k: v[row : row + 1] for k, v in feeds.items()})
        assert alone == [taken[row]]
    label, probabilities, exit_index = session.run(OUTPUTS, {k: v[:0] for k, v in feeds.items()})
    assert label.shape == exit_index.shape == (0,) and len(clf.classes_) == probabilities.shape[1]
    assert probabilities.dtype == np.float32 and exit_index.dtype == np.int64
    assert label.dtype == as_tensor_labels(clf.classes_).dtype
    return taken


TABLE = {"module": None, "module__width": 32, "module__n_blocks": 4, "companion": None}


@pytest.mark.parametrize(
    "params",
    [
        TABLE,
        {},
        {"module": TinyTransformer},
        {"head": "linear", "companion": None},
        {"module": [(TinyConv, {"width": 4}), (TinyConv, {"width": 6}), TinyConv]},
        {"exit_distribution": "direct"},
        {"gate_training": "bilevel"},
        {"exit_policy": "patience"},
        {"engine": "torch"},
        {"precision": "int8", "companion": None},
        {"precision": "int8", "module": [(TinyConv, {"width": 4}), TinyConv]},
    ],
    ids=[
        "table",
        "maps",
        "tokens",
        "linear",
        "two companions",
        "direct",
        "bilevel",
        "patience",
        "torch",
        "int8",
        "int8 companion",
    ],
)
def test_the_file_answers_as_the_classifier_does(digits, fresh_digits, path, params):
    clf = fitted_once(*digits, **params)
    taken = check_same(clf, session_of(clf, path), fresh_digits[0])
    if clf.gate_training == "joint":
        # Where samples leave at several exits.
        points = [clf.at(cost_weight=weight) for weight in (0.0, 0.02, 0.1, 0.5)]
        by_exits = [point.predict_exit(fresh_digits[0]) for point in points]
        most = int(np.argmax([len(np.unique(exits)) for exits in by_exits]))
        taken = check_same(points[most], session_of(points[most], path), fresh_digits[0])
        assert len(np.unique(taken)) > 1


def test_small_images(path):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 120)
    X = np.float32(rng.normal(size=(120, 3, 16, 16)) + y[:, None, None, None])
    params = {"module": None, "module__width": 8, "module__n_blocks": 3, "companion": None}
    for precision in ("float32", "int8"):
        clf = fitted_once(X, y, **params, precision=precision).at(cost_weight=0.01)
        check_same(clf, session_of(clf, path), X)


class TimeFirst(Summed):
    """Has the samples on the second axis between its blocks."""

    def forward(self, ids):
        hidden = self.embedding(ids).transpose(0, 1)
        for block in self.blocks:
            hidden = torch.relu(block(hidden))
        return self.classifier(hidden.mean(0))


@pytest.mark.parametrize("module", [Summed, Wide, Recurrent, TimeFirst, MaskedTokens])
def test_sentences_of_any_length(path, module):
    X, y = sentences(200)
    if module is not MaskedTokens:
        X = X["input_ids"]
    exits = {"exits": ["blocks.0", "blocks.1"]} if module is TimeFirst else {}
    clf = fitted_once(X, y, module=module, **exits).at(cost_weight=0.01)
    axes = clf._predictor.cascade.engine.sessions.graph.row_axes
    assert ((1,) in axes) == (module is TimeFirst)
    session = session_of(clf, path)
    names = [value.name for value in session.get_inputs()]
    assert names == (["input_ids", "attention_mask"] if module is MaskedTokens else ["X"])
    for length in (6, 4):
        some = {k: v[:, :length] for k, v in X.items()} if isinstance(X, dict) else X[:, :length]
        check_same(clf, session, some)


@pytest.mark.parametrize("missing", [False, True])
def test_trees_are_part_of_the_file(path, missing, monkeypatch):
    X, y = table(load_breast_cancer, 5 * missing)
    # A network that learns next to nothing: trees stand in front of trees.
    params = {"max_epochs": 1, "lr": 1e-6, "module__width": 16, "cv": None, "random_state": 0}
    # So many that the engine asks scikit-learn.
    monkeypatch.setattr(onnx_trees, "MOST_NODES", 10)
    clf = EarlyExitClassifier(**params, engine="onnxruntime").fit(X[::2], y[::2])
    graph = clf._predictor.cascade.engine.sessions.graph
    assert any(graph.is_given) and not any(graph.classifiers)
    check_same(clf, session_of(clf, path), X)
    assert "TreeEnsembleRegressor" in {node.op_type for node in nodes_of(onnx.load(path).graph)}


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_at_a_certified_point_the_last_exit_answers_as_the_plain_backbone_does(
    digits, fresh_digits, path, precision
):
    X, _ = fresh_digits
    clf = fitted_once(*digits, precision=precision, companion=None)
    clf = clf.control_risk(X, max_disagreement=0.3)
    assert clf._predictor.point.plain_last_exit
    taken = check_same(clf, session_of(clf, path), X)
    (label,) = session_of(clf, path).run(["label"], {"X": X})
    is_last = taken == len(clf.exits_)
    assert 10 < is_last.sum() < len(X) - 10
    np.testing.assert_array_equal(label[is_last], clf.predict_backbone(X)[is_last])


def with_gates(clf, score):
    """The same classifier, whose gates all have one score."""
    point = clf._predictor.point
    bias = np.full_like(point.gates.bias, score)
    gates = replace(point.gates, weight=np.zeros_like(point.gates.weight), bias=bias)
    moved = clf._predictor.moved_to(replace(point, gates=gates))
    return copy.copy(clf)._adopt(moved)


@pytest.mark.parametrize("distribution", ["sequential", "direct"])
@pytest.mark.parametrize("score", [5.0, -5.0])
def test_all_samples_leave_at_the_first_exit_or_at_the_last(
    digits, fresh_digits, path, distribution, score
):
    clf = with_gates(fitted_once(*digits, exit_distribution=distribution), score)
    taken = check_same(clf, session_of(clf, path), fresh_digits[0])
    assert np.all(taken == (0 if score > 0 else len(clf.exits_)))


def test_direct_gates_take_their_own_probability(digits, fresh_digits, path):
    """0.3 is less than half of 1, and less than half of 0.7, but more than half of 0.4."""
    clf = fitted_once(*digits, **TABLE, exit_distribution="direct")
    clf = with_gates(clf, float(np.log(0.3 / 0.7)))
    taken = check_same(clf, session_of(clf, path), fresh_digits[0])
    assert np.all(taken == 2) and len(clf.exits_) == 3


def test_labels_are_words(digits, fresh_digits, path):
    X, y = digits
    clf = fitted_once(X, np.array(["no", "yes"])[y % 2], **TABLE)
    check_same(clf, session_of(clf, path), fresh_digits[0])


@pytest.mark.parametrize("labels", [[-1, 1], [False, True], [0.0, 1.0], ["a", "b"], [0, 2**62]])
def test_labels_are_as_classes_are(path, labels):
    X, y = load_iris(return_X_y=True)
    X, y = np.float32(X[:100]), y[:100]
    clf = fitted_once(X, np.array(labels)[y], **{**TABLE, "module__n_blocks": 2})
    (found,) = session_of(clf, path).run(["label"], {"X": X})
    assert found.tolist() == clf.predict(X).tolist()


@pytest.mark.parametrize("labels", [np.array(["2020", "2021"], "M8[Y]"), np.array([2**63], "u8")])
def test_labels_that_onnx_does_not_have_are_refused(labels):
    with pytest.raises(ValueError, match="classes_ are .*; fit with such labels"):
        as_tensor_labels(labels)


def test_samples_with_an_excluded_class(digits, fresh_digits, path):
    clf = fitted_once(*digits, module=Masked)
    X = fresh_digits[0].copy()
    X[:9, 0] = -1
    check_same(clf, session_of(clf, path), X)


@pytest.mark.filterwarnings("ignore:. of")
@pytest.mark.parametrize("distribution", ["sequential", "direct"])
def test_where_an_exit_has_no_answer_later_ones_answer_for_themselves(
    digits, fresh_digits, path, distribution
):
    module = [Normed, (TinyConv, {"width": 4})]
    clf = fitted_once(*digits, module=module, exit_distribution=distribution)
    X = with_blank(fresh_digits[0][:20], 2)
    taken = check_same(clf, session_of(clf, path), X)
    assert taken[2] > 0


@pytest.mark.filterwarnings("ignore:. of")
def test_a_sample_without_an_answer_has_uniform_probabilities_and_the_first_class(
    digits, fresh_digits, path
):
    clf = fitted_once(*digits, module=[(TinyConv, {"width": 4}), Normed])
    clf = with_gates(clf, -5.0)
    X = with_blank(fresh_digits[0][:20], 2)
    label, probabilities, exit_index = session_of(clf, path).run(OUTPUTS, {"X": X})
    np.testing.assert_allclose(probabilities, clf.predict_proba(X), atol=1e-5)
    np.testing.assert_array_equal(exit_index, clf.predict_exit(X))
    np.testing.assert_allclose(probabilities[2], 0.1, rtol=1e-6)
    others = np.arange(20) != 2
    np.testing.assert_array_equal(label[others], clf.predict(X)[others])
    # The classifier has kept the answer of an exit before.
    assert label[2] == clf.classes_[0]


def test_the_file_tells_how_a_table_becomes_numbers(path):
    X, y = table(load_breast_cancer, 5)
    frame = pd.DataFrame(X[:, :5]).rename(columns=str)
    frame["size"] = np.where(frame["2"] > 90, "large", "small")
    frame["day"] = 20_000_000 + np.arange(len(frame)) % 7
    params = {"max_epochs": 1, "module__width": 16, "cv": None, "random_state": 0}
    clf = EarlyExitClassifier(**params, companion=None).fit(frame, y)
    session = session_of(clf, path)
    told = {k: json.loads(v) for k, v in session.get_modelmeta().custom_metadata_map.items()}
    assert told["classes"] == [0, 1] and told["exits"] == clf.exits_
    np.testing.assert_allclose(told["exit_costs"], clf.exit_costs_)
    assert told["precision"] == "float32" and told["version"]
    assert [column["name"] for column in told["columns"]] == list(frame.columns)
    assert told["columns"][-1]["offset"] > 0 and told["columns"][-1]["fill"] is not None
    numbers = [
        frame[column["name"]] - column["offset"]
        if column["categories"] is None
        else frame[column["name"]].map(column["categories"].index)
        for column in told["columns"]
    ]
    (label,) = session.run(["label"], {"X": np.float32(np.transpose(numbers))})
    np.testing.assert_array_equal(label, clf.predict(frame))


def nodes_of(graph):
    """All nodes, those of graphs within it included."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from nodes_of(attribute.g)


def weights_of(graph):
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from weights_of(attribute.g)


class Tied(nn.Module):
    """Has one block, several times."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(64, 24)
        self.block = nn.Sequential(nn.Linear(24, 24), nn.ReLU())
        self.blocks = nn.ModuleList(nn.Sequential(self.block) for _ in range(3))
        self.classifier = nn.Linear(24, 10)

    def forward(self, X):
        X = self.stem(X / 16)
        for block in self.blocks:
            X = X + block(X)
        return self.classifier(X)


@pytest.mark.parametrize("module", [TinyTransformer, Tied])
def test_weights_are_there_once(digits, fresh_digits, path, module):
    clf = fitted_once(*digits, module=module)
    check_same(clf, session_of(clf, path), fresh_digits[0])
    model = onnx.load(path)
    large = [w.raw_data for w in weights_of(model.graph) if np.prod(w.dims) > 64]
    assert len(large) > 3 and len(set(large)) == len(large)
    graph = clf._predictor.cascade.engine.sessions.graph
    assert os.path.getsize(path) < 1.1 * len(graph.model) + 20_000


def test_old_runtimes_can_read_it(digits, path):
    clf = fitted_once(*digits)
    clf.export_onnx(path)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert model.ir_version <= 9
    versions = {opset.domain: opset.version for opset in model.opset_import}
    assert versions == {"": 20, "ai.onnx.ml": 3}
    assert {node.domain for node in nodes_of(model.graph)} <= {"", "ai.onnx.ml"}


def test_integers_cross_the_cuts(digits, path):
    clf = fitted_once(*digits, precision="int8", companion=None)
    clf.export_onnx(path)
    kept = [n.input[0] for n in nodes_of(onnx.load(path).graph) if n.op_type == "Gather"]
    assert any(QUANTISED in name for name in kept)


def test_what_left_is_not_run_further(digits, fresh_digits, path, tmp_path):
    """What a runtime says that it ran, and on how many samples."""
    clf = fitted_once(*digits).at(cost_weight=0.02)
    clf.export_onnx(path)
    X = fresh_digits[0][:200]
    taken = clf.predict_exit(X)
    n_exits = len(clf.exits_) + 1
    staying = [int((taken >= i).sum()) for i in range(n_exits)]
    assert staying[0] > staying[1] > staying[-1]
    assert samples_run(path, X, n_exits) == staying
    first = X[taken == 0][:1]
    assert samples_run(path, first, n_exits) == [1] + [0] * (n_exits - 1)


def samples_run(path, X, n_exits):
    """Number of samples in the logits of each exit, 0 where it was not run."""
    model = onnx.load(path)
    # Each exit's number is added to its logits, which no runtime fuses with anything.
    for node in nodes_of(model.graph):
        if node.op_type == "Pad" and "logits" in node.input[0]:
            node.name = "numbered:" + node.input[0].rpartition(".")[2]
    options = onnxruntime.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = path
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    session.run(None, {"X": X})
    with open(session.end_profiling()) as file:
        events = json.load(file)
    n_samples = [0] * n_exits
    for event in events:
        if event["name"].startswith("numbered:") and event["name"].endswith("_kernel_time"):
            shape = next(iter(event["args"]["output_type_shape"][0].values()))
            n_samples[int(event["name"].removeprefix("numbered:")[0])] = shape[0]
    return n_samples


def test_a_member_without_a_graph_is_named(digits, path):
    clf = fitted_once(
        *digits, module=[GaussianNB(), (TinyConv, {"width": 4})], companion_costs=[0.1]
    )
    with pytest.raises(ValueError, match=r"member 0 \(GaussianNB\) has no ONNX graph.*predictor"):
        clf.export_onnx(path)
    assert os.listdir(os.path.dirname(path)) == []


def test_what_onnx_runtime_does_not_run_is_refused(digits, path):
    clf = fitted_once(*digits, engine="torch", precision="bfloat16", max_epochs=1)
    with pytest.raises(ValueError, match=r"export_onnx writes what .*precision='bfloat16'"):
        clf.export_onnx(path)


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(8, 8) for _ in range(2))
        self.classifier = nn.Linear(8, 2)

    def forward(self, label):
        for block in self.blocks:
            label = torch.relu(block(label))
        return self.classifier(label)


def test_an_input_with_the_name_of_an_output_is_refused(path):
    rng = np.random.default_rng(0)
    X = {"label": np.float32(rng.normal(size=(60, 8)))}
    clf = fitted_once(X, np.arange(60) % 2, module=Named, max_epochs=1)
    with pytest.raises(ValueError, match=r"inputs \['label'\].*rename"):
        clf.export_onnx(path)


def test_without_a_fit_there_is_nothing_to_write(path):
    with pytest.raises(NotFittedError):
        EarlyExitClassifier().export_onnx(path)


def test_where_nothing_can_be_written_an_error_says_so(digits, tmp_path, path):
    clf = fitted_once(*digits)
    for wrong, error in (
        (tmp_path / "missing" / "clf.onnx", FileNotFoundError),
        (tmp_path, IsADirectoryError),
        ("", ValueError),
        (3, TypeError),
        (b"clf.onnx", TypeError),
    ):
        with pytest.raises(error, match="path="):
            clf.export_onnx(wrong)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_what_was_there_stays_whole_until_the_new_file_is(
    digits, path, tmp_path, monkeypatch, failing
):
    clf = fitted_once(*digits)
    with open(path, "wb") as file:
        file.write(b"before")

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing.os, failing, full)
    with pytest.raises(OSError, match="No space left"):
        clf.export_onnx(path)
    monkeypatch.undo()
    assert os.listdir(tmp_path) == ["classifier.onnx"]
    with open(path, "rb") as file:
        assert file.read() == b"before"
    link = tmp_path / "link.onnx"
    with contextlib.suppress(OSError, NotImplementedError):
        link.symlink_to(path)
        clf.export_onnx(link)
        assert link.is_symlink()
    clf.export_onnx(tmp_path / "classifier.onnx")
    onnx.checker.check_model(path)
