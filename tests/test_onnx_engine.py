"""Exits in ONNX Runtime answer as they do in torch, whatever is between them."""

import os
import pickle
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.naive_bayes import GaussianNB
from torch import nn

from sklearn_jeidnn import EarlyExitClassifier
from sklearn_jeidnn._engines import onnx_export, onnx_sessions
from sklearn_jeidnn._engines.onnx_engine import OnnxEngine
from sklearn_jeidnn._engines.onnx_export import export_exits
from sklearn_jeidnn._engines.onnx_gates import summarise_briefly
from sklearn_jeidnn._engines.onnx_parts import graphs_of_exits
from sklearn_jeidnn._engines.torch_engine import TorchEngine
from sklearn_jeidnn._exits.gates import log_probabilities, summarise
from sklearn_jeidnn._fit import engine_choice

from .conftest import MaskedTokens, TinyConv, quick_classifier
from .test_divergence import Normed, with_blank
from .test_samples import sentences
from .test_tokens import Columns, Placed, Summed
from .test_unanswered import Masked, SilentOnBlank

pytest.importorskip("onnxruntime")

SMALL = (None, {"width": 16, "n_blocks": 2})


def fitted(X, y, **params):
    defaults = {"engine": "onnxruntime", "max_epochs": 2, "module": TinyConv}
    return quick_classifier(**{**defaults, **params}).fit(X, y)


KEPT = {}


def fitted_once(X, y, **params):
    """The same as :func:`fitted`, a copy of one fit for all tests: an export takes seconds."""
    key = repr(params)
    if key not in KEPT:
        KEPT[key] = pickle.dumps(fitted(X, y, **params))
    return pickle.loads(KEPT[key])


def in_torch(clf):
    """The same classifier, answered by torch."""
    other = pickle.loads(pickle.dumps(clf))
    cascade = other._predictor.cascade
    engine = cascade.engine.in_torch
    assert isinstance(engine, TorchEngine)
    object.__setattr__(cascade, "engine", engine)
    return other


def check_same(clf, X):
    """Labels and exits are the same, numbers are up to rounding, for many samples, few and one."""
    assert isinstance(clf._predictor.cascade.engine, OnnxEngine)
    other = in_torch(clf)
    for n_samples in (len(X), 7, 1, 0):
        some = X[:n_samples]
        if n_samples:
            np.testing.assert_array_equal(clf.predict(some), other.predict(some))
            np.testing.assert_array_equal(clf.predict_exit(some), other.predict_exit(some))
            np.testing.assert_allclose(
                clf.predict_proba(some), other.predict_proba(some), atol=1e-5
            )
            np.testing.assert_array_equal(clf.predict_backbone(some), other.predict_backbone(some))
    arrays = clf._predictor.schema.encode((np.asarray(X, dtype=np.float32),))
    for found, expected in zip(
        clf._predictor.every_exit(arrays), other._predictor.every_exit(arrays), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"head": "linear", "companion": None},
        {"module": [(TinyConv, {"width": 4}), TinyConv]},
        # What naive Bayes costs is told: the clock says something else each time.
        {
            "module": [GaussianNB(), (TinyConv, {"width": 4}), TinyConv],
            "companion_costs": [0.1, None],
        },
        {
            "module": [SMALL, GaussianNB(), (None, {"width": 32, "n_blocks": 3})],
            "companion_costs": [None, 0.3],
        },
        {"exit_distribution": "direct"},
        {"gate_training": "bilevel"},
        {"exit_policy": "patience"},
    ],
    ids=lambda params: "-".join(params) or "default",
)
def test_answers_are_torch_s(digits, fresh_digits, params):
    clf = fitted(*digits, **params)
    check_same(clf, fresh_digits[0])
    if clf.gate_training == "joint":
        points = [clf.at(cost_weight=weight) for weight in (0.0, 0.05, 1.0)]
        taken = [point.predict_exit(fresh_digits[0][:100]) for point in points]
        assert len(np.unique(taken)) > 1
        for point in points:
            check_same(point, fresh_digits[0][:100])


@pytest.mark.parametrize("n_classes", [2, 3, 10])
def test_what_gates_read_is_what_they_read_in_torch(n_classes):
    logits = 10 * torch.randn(50, 3, n_classes)
    logits[0] = torch.tensor([1e4] + [0.0] * (n_classes - 1))  # others are as good as impossible
    expected = found = None
    for log_probs in log_probabilities(logits).unbind(1):
        expected, found = summarise(log_probs, expected), summarise_briefly(log_probs, found)
        np.testing.assert_array_equal(found.label, expected.label)
        np.testing.assert_allclose(found.inputs, expected.inputs, rtol=1e-5, atol=2e-6)


def test_a_lone_classifier_is_asked_in_python(digits, fresh_digits):
    clf = fitted(*digits, module=[SMALL, GaussianNB()], companion_costs=[0.1])
    check_same(clf, fresh_digits[0])


def test_other_operating_points_share_the_sessions(digits, fresh_digits):
    clf = fitted_once(*digits)
    clf.predict(fresh_digits[0])
    for cost_weight in (0.0, 0.1, 0.5):
        other = clf.at(cost_weight=cost_weight)
        check_same(other, fresh_digits[0])
        assert other._predictor.cascade.engine.sessions is clf._predictor.cascade.engine.sessions
    agreeing = clf.control_risk(fresh_digits[0], max_disagreement=0.5)
    check_same(agreeing, fresh_digits[0])


def test_a_sample_s_answer_does_not_depend_on_those_beside_it(digits, fresh_digits):
    clf = fitted_once(*digits)
    together = clf.predict(fresh_digits[0]), clf.predict_exit(fresh_digits[0])
    alone = [(clf.predict(x[None])[0], clf.predict_exit(x[None])[0]) for x in fresh_digits[0]]
    np.testing.assert_array_equal(np.transpose(together), alone)
    few = clf.set_params(iterator_valid__batch_size=3).predict(fresh_digits[0])
    np.testing.assert_array_equal(few, together[0])


class Wide(Summed):
    """Reads its tokens again behind each block."""

    def forward(self, ids):
        hidden = self.embedding(ids).mean(1)
        for block in self.blocks:
            hidden = torch.relu(block(hidden)) + ids.float().mean(1, keepdim=True)
        return self.classifier(hidden)


class Recurrent(Summed):
    """Reads sentences from both ends."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.LSTM(8, 4, batch_first=True, bidirectional=True) for _ in range(3)
        )

    def forward(self, ids):
        hidden = self.embedding(ids)
        for block in self.blocks:
            hidden = block(hidden)[0]
        return self.classifier(hidden.mean(1))


@pytest.mark.parametrize("module", [Summed, Wide, Recurrent, MaskedTokens])
def test_sentences_of_any_length(module):
    X, y = sentences(200)
    if module is not MaskedTokens:
        X = X["input_ids"]
    clf = fitted(X, y, module=module)
    assert isinstance(clf._predictor.cascade.engine, OnnxEngine)
    other = in_torch(clf)
    for length in (6, 5, 4):
        some = {k: v[:, :length] for k, v in X.items()} if isinstance(X, dict) else X[:, :length]
        np.testing.assert_array_equal(clf.predict(some), other.predict(some))
        np.testing.assert_array_equal(clf.predict_exit(some), other.predict_exit(some))


def test_samples_without_a_class(digits, fresh_digits):
    clf = fitted(*digits, module=Masked)
    check_same(clf, fresh_digits[0])


@pytest.mark.filterwarnings("ignore:1 of")
@pytest.mark.parametrize("module", [Normed, [SilentOnBlank(), (TinyConv, {"width": 4})]])
def test_a_sample_without_an_answer(digits, fresh_digits, module):
    """Of any exit, or of the first."""
    costs = [0.1] if isinstance(module, list) else None
    clf = fitted(*digits, module=module, companion_costs=costs)
    check_same(clf, with_blank(fresh_digits[0][:20], 2))


def test_it_is_pickled_and_copied_without_its_sessions(digits, fresh_digits, tmp_path):
    clf = fitted_once(*digits)
    expected = clf.predict(fresh_digits[0])
    loaded = pickle.loads(pickle.dumps(clf))
    assert not loaded._predictor.cascade.engine.sessions._made
    np.testing.assert_array_equal(loaded.predict(fresh_digits[0]), expected)
    assert clone(clf).engine == "onnxruntime"
    (tmp_path / "clf.pkl").write_bytes(pickle.dumps(clf))
    np.save(tmp_path / "X.npy", fresh_digits[0])
    code = (
        "import pickle, numpy as np; clf = pickle.load(open('clf.pkl', 'rb')); "
        "print(clf.predict(np.load('X.npy')).tolist())"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([os.getcwd(), *sys.path])}
    there = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert there.stdout.strip() == str(expected.tolist()), there.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_child_process_makes_sessions_of_its_own(digits, fresh_digits):
    clf = fitted_once(*digits)
    expected = clf.predict(fresh_digits[0])
    receiver, sender = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python's own, of forks beside threads
        child = os.fork()
    if child == 0:  # pragma: no cover
        code = 1
        try:
            os.write(sender, bytes(clf.predict(fresh_digits[0]) == expected))
            code = 0
        finally:
            os._exit(code)
    os.close(sender)
    assert os.waitpid(child, 0)[1] == 0
    assert os.read(receiver, 10_000) == b"\1" * len(expected)


def test_another_process_makes_its_own_sessions(digits, fresh_digits, monkeypatch):
    clf = fitted_once(*digits)
    made = clf._predictor.cascade.engine.sessions._made
    clf.predict(fresh_digits[0])
    n_made = len(made)
    monkeypatch.setattr(os, "getpid", lambda: -1)
    clf.predict(fresh_digits[0])
    assert len(made) == n_made + 1


def test_sessions_have_as_many_threads_as_torch(digits, fresh_digits):
    clf = fitted_once(*digits)
    expected = clf.predict(fresh_digits[0])
    made = clf._predictor.cascade.engine.sessions._made
    n_made = len(made)
    try:
        torch.set_num_threads(2)
        np.testing.assert_array_equal(clf.predict(fresh_digits[0]), expected)
    finally:
        torch.set_num_threads(1)
    assert len(made) > n_made


class Unusual(nn.Module):
    """Sorts by an operation that ONNX has not."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(64, 64) for _ in range(3))
        self.classifier = nn.Linear(64, 10)

    def forward(self, X):
        for layer in self.layers:
            X = torch.special.i1e(layer(X / 4))
        return self.classifier(X)


def test_what_cannot_be_exported_is_refused_or_left_to_torch(digits, fresh_digits, capsys):
    match = "engine='onnxruntime' cannot run the module: .*No ONNX function .*i1e.*'torch'"
    with pytest.raises(ValueError, match=match):
        fitted(*digits, module=Unusual)
    clf = fitted(*digits, module=Unusual, engine="auto", verbose=1)
    assert isinstance(clf._predictor.cascade.engine, TorchEngine)
    assert "onnxruntime cannot run the module" in capsys.readouterr().out


class Branching(nn.Module):
    """Decides by its numbers what to compute."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 64)

    def forward(self, X):
        hidden = torch.relu(self.layer(X))
        return hidden.clamp(max=1e6) if (hidden > 1e6).any() else hidden


class Branches(Unusual):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(Branching() for _ in range(3))

    def forward(self, X):
        for layer in self.layers:
            X = layer(X)
        return self.classifier(X)


def test_torch_does_not_tell_how_an_export_failed(digits, capfd):
    clf = fitted(*digits, module=Branches, engine="torch", max_epochs=1)
    capfd.readouterr()
    assert isinstance(clf.at(engine="auto")._predictor.cascade.engine, TorchEngine)
    assert capfd.readouterr() == ("", "")
    with pytest.raises(ValueError, match="cannot run the module: .*data-dependent.*'torch'"):
        clf.at(engine="onnxruntime")


def test_other_answers_than_torch_s_are_refused(digits, monkeypatch):
    plain = OnnxEngine.answer

    def off(engine, arrays):
        answered = plain(engine, arrays)
        return answered._replace(logits=answered.logits + 0.1)

    monkeypatch.setattr(OnnxEngine, "answer", off)
    with pytest.raises(ValueError, match="logits of 1 samples differ by up to 0.1"):
        fitted(*digits)


@pytest.mark.parametrize(
    "params, match",
    [
        (
            {"precision": "bfloat16"},
            "engine='onnxruntime' computes in float32 or int8, .*'bfloat16'",
        ),
        ({"device": "meta"}, "device='meta'"),
        ({"engine": "tensorrt"}, "engine"),
    ],
)
def test_what_it_does_not_do_is_refused(digits, params, match):
    with pytest.raises(ValueError, match=match):
        fitted(*digits, **params)


def test_without_the_packages_an_error_names_the_extra(digits, monkeypatch):
    monkeypatch.setattr(engine_choice, "PACKAGES", ("onnx", "package_that_is_not_there"))
    with pytest.raises(ImportError, match=r"package_that_is_not_there.*sklearn_jeidnn\[onnx\]"):
        fitted(*digits)
    clf = fitted(*digits, engine="auto")
    assert isinstance(clf._predictor.cascade.engine, TorchEngine)


@pytest.mark.parametrize("relative, engine", [(0.5, OnnxEngine), (2.0, TorchEngine)])
def test_auto_takes_the_faster_one(digits, monkeypatch, relative, engine):
    monkeypatch.setattr(engine_choice, "relative_seconds", lambda calls, plain: [relative])
    clf = fitted(*digits, engine="auto")
    assert isinstance(clf._predictor.cascade.engine, engine)


def test_costs_are_timed_in_it(digits, monkeypatch):
    routed = []
    plain = OnnxEngine.route
    monkeypatch.setattr(OnnxEngine, "route", lambda *args: routed.append(args[-1]) or plain(*args))
    clf = fitted(*digits, cost="seconds", cost_batch_size=16)
    assert any(exits is not None for exits in routed)
    assert (clf.exit_costs_ > 0).all()


def test_a_part_holds_its_own_weights_only(digits):
    clf = fitted_once(*digits)
    engine = clf._predictor.cascade.engine
    graph = engine.sessions.graph
    parts = graphs_of_exits(graph)
    assert sum(len(part.model) for part in parts) < 1.2 * len(graph.model) + 5000 * len(parts)
    assert all(part.carried and part.passed_on for part in parts[:-1])
    samples = [torch.zeros(2, *shape) for shape in clf._predictor.schema.sample_shapes]
    again = export_exits(engine.network, samples, 10)
    assert again.starts == graph.starts and again.row_axes == graph.row_axes


def test_the_default_is_torch(digits):
    assert EarlyExitClassifier().engine == "torch"


def test_a_fitted_classifier_moves_to_another_engine(digits, fresh_digits):
    clf = fitted_once(*digits, engine="torch")
    moved = clf.at(engine="onnxruntime")
    check_same(moved, fresh_digits[0])
    assert moved.engine == "onnxruntime" and clf.engine == "torch"
    np.testing.assert_array_equal(
        moved.predict_exit(fresh_digits[0]), clf.predict_exit(fresh_digits[0])
    )
    at = clf.at(engine="onnxruntime", cost_weight=0.3)
    check_same(at, fresh_digits[0])
    expected = clf.at(cost_weight=0.3)
    np.testing.assert_array_equal(at.predict(fresh_digits[0]), expected.predict(fresh_digits[0]))
    np.testing.assert_array_equal(
        at.predict_set(fresh_digits[0]), expected.predict_set(fresh_digits[0])
    )
    back = moved.at(engine="torch")
    assert isinstance(back._predictor.cascade.engine, TorchEngine)
    np.testing.assert_array_equal(back.predict(fresh_digits[0]), clf.predict(fresh_digits[0]))
    with pytest.raises(ValueError, match="engine"):
        clf.at(engine="tensorrt")


def test_another_engine_keeps_what_was_certified(digits, fresh_digits):
    clf = fitted_once(*digits, engine="torch").control_risk(fresh_digits[0], max_disagreement=0.5)
    moved = clf.at(engine="onnxruntime")
    assert moved.risk_ == clf.risk_
    check_same(moved, fresh_digits[0])


def test_engines_are_timed_side_by_side(digits, fresh_digits):
    X, y = fresh_digits
    clf = fitted_once(*digits, engine="torch")
    table = clf.benchmark_engines(X, y)
    assert table["engine"].tolist() == ["torch", "torch", "onnxruntime", "onnxruntime"]
    assert table["what"].tolist() == ["whole network", "exits"] * 2
    assert (table["microseconds"] > 0).all()
    assert (table["microseconds_p95"] >= table["microseconds"]).all()
    expected = [np.mean(clf.predict_backbone(X) == y), clf.score(X, y)] * 2
    np.testing.assert_allclose(table["accuracy"], expected)
    assert np.isnan(clf.benchmark_engines(X, engines=["torch"])["accuracy"]).all()
    with pytest.raises(ValueError, match="engine"):
        clf.benchmark_engines(X, engines=["tensorrt"])
    for engines in ("torch", [], 3):
        with pytest.raises(ValueError, match=r"engines=.* give a list of names, such as \['torch'"):
            clf.benchmark_engines(X, engines=engines)
    with pytest.raises(TypeError, match="Dataset; give the samples of one call as arrays"):
        clf.benchmark_engines(torch.utils.data.TensorDataset(torch.from_numpy(X)))


@pytest.mark.parametrize("name", ["onnx", "onnxruntime"])
def test_where_a_package_is_missing_torch_answers(digits, fresh_digits, monkeypatch, name):
    clf = fitted_once(*digits)
    expected = clf.predict(fresh_digits[0])
    loaded = pickle.loads(pickle.dumps(clf))
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=rf"{name} here: .*\[onnx\].*at\(engine='torch'\)"):
        loaded.predict(fresh_digits[0])
    np.testing.assert_array_equal(loaded.at(engine="torch").predict(fresh_digits[0]), expected)


@pytest.mark.parametrize("module", [Columns, Placed])
def test_what_the_module_does_not_take_is_explained_as_with_torch(module, capfd):
    X, y = sentences(60)
    ids = X["input_ids"]
    clf = fitted(ids, y, module=module, max_epochs=1)
    if module is Placed:
        some, match = np.hstack([ids, ids]), "shapes .* those of fit"
    else:
        some, match = ids.copy(), "looks up one that it does not have"
        some[:, 1] = 50
    other = in_torch(clf)
    for predict in (clf.predict, clf.predict_backbone, other.predict, clf.predictor().predict):
        for n_samples in (len(some), 1):
            with pytest.raises(ValueError, match=match):
                predict(some[:n_samples])
    assert "onnxruntime" not in capfd.readouterr().err


def test_an_index_below_zero_is_refused_as_torch_does():
    X, y = sentences(200)
    clf = fitted(X["input_ids"], y, module=Columns)
    wrong = X["input_ids"][:20].copy()
    wrong[3, 1] = -1
    for answer in (clf.predict, clf.predict_backbone, clf.predictor().predict):
        with pytest.raises(ValueError, match="-1"):
            answer(wrong)


def test_what_other_threads_print_while_a_graph_is_made_is_not_lost(capsys):
    with onnx_export._quietly():
        print("lost")
        other = threading.Thread(target=print, args=("kept",))
        other.start()
        other.join()
    assert capsys.readouterr().out == "kept\n"


def test_a_graph_is_made_once(digits, monkeypatch):
    clf = fitted_once(*digits)
    monkeypatch.setattr(engine_choice, "export_exits", None)
    engine = clf._predictor.cascade.engine
    assert clf.at(engine="onnxruntime")._predictor.cascade.engine is engine


def test_auto_tells_why_torch_answers(digits, capsys):
    fitted(*digits, engine="auto", precision="bfloat16", verbose=1)
    assert (
        "onnxruntime computes in float32 or int8, but precision='bfloat16', so torch"
        in capsys.readouterr().out
    )


def test_a_single_sample_that_is_timed_takes_the_way_of_one_that_is_answered(digits, monkeypatch):
    clf = fitted_once(*digits)
    engine = clf._predictor.cascade.engine
    one, n_exits = (digits[0][:1],), len(clf.exits_) + 1
    for exit_index in range(n_exits):
        forced = np.array([exit_index])
        alone = engine.route(one, torch.as_tensor(forced))
        among_others = engine.route((digits[0][:2],), torch.as_tensor([exit_index, exit_index]))
        np.testing.assert_array_equal(alone.exit_index, forced)
        np.testing.assert_allclose(alone.logits[0], among_others.logits[0], rtol=1e-4, atol=1e-4)
    monkeypatch.setattr("sklearn_jeidnn._engines.onnx_runner.route", None)
    assert engine.route(one, torch.as_tensor([0])).exit_index == [0]


def test_threads_of_one_exit_do_not_wait_busily_while_the_next_one_runs(digits):
    clf = quick_classifier(module=TinyConv, engine="onnxruntime", max_epochs=1).fit(*digits)
    graph = clf._predictor.cascade.engine.sessions.graph
    session = onnx_sessions.session(graphs_of_exits(graph)[0].model)
    entry = session.get_session_options().get_session_config_entry("session.force_spinning_stop")
    assert entry == "1"
