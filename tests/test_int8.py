"""Networks in 8-bit integers: what they answer, and what is learned on these answers."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.naive_bayes import GaussianNB

from sklearn_jeidnn._engines import onnx_int8
from sklearn_jeidnn._engines.onnx_engine import OnnxEngine
from sklearn_jeidnn._engines.onnx_int8 import QUANTISED, kinds_of
from sklearn_jeidnn._engines.onnx_parts import graphs_of_exits
from sklearn_jeidnn._exits.heads import QuartersHead
from sklearn_jeidnn._fit import engines, int8, whole_times
from sklearn_jeidnn._fit.exit_times import ExitTimes
from sklearn_jeidnn._fit.int8 import compared

from .conftest import MaskedTokens, TinyConv, TinyTransformer, quick_classifier
from .test_samples import sentences

pytest.importorskip("onnxruntime")

KEPT = {}


def fitted(digits, **params):
    """A copy of one fit for all tests: a fit in integers takes seconds."""
    key = repr(params)
    if key not in KEPT:
        defaults = {"engine": "onnxruntime", "max_epochs": 4, "module": TinyConv}
        defaults |= {"precision": "int8", "companion": None}
        KEPT[key] = pickle.dumps(quick_classifier(**{**defaults, **params}).fit(*digits))
    return pickle.loads(KEPT[key])


def engine_of(clf):
    return clf._predictor.cascade.engine


@pytest.fixture(scope="module")
def others():
    """Digits that no test trains on: 700 rows."""
    X, y = load_digits(return_X_y=True)
    order = np.random.default_rng(5).permutation(np.arange(1000, len(y)))[:700]
    return np.float32(X[order]), y[order]


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"module": [(TinyConv, {"width": 4}), TinyConv]},
        {"module": [GaussianNB(), TinyConv], "companion_costs": [0.1]},
        {"module": TinyTransformer},
        {"module": None, "module__width": 32, "module__n_blocks": 2},
        {"head": "linear"},
    ],
    ids=["maps", "companion", "classifier in front", "tokens", "table", "linear"],
)
def test_accuracy_is_that_of_float32(digits, others, params):
    clf = fitted(digits, **params)
    engine = engine_of(clf)
    assert isinstance(engine, OnnxEngine) and engine.precision == "int8"
    assert b"QuantizeLinear" in engine.sessions.graph.model
    X, y = others
    arrays = clf._predictor.schema.encode((X,))
    whole = engine.whole_logits(arrays)
    in_float32 = engine.in_torch.backbone_logits(arrays)
    assert not np.array_equal(whole, in_float32)
    # The plain backbone, which limits are against, is in float32.
    np.testing.assert_allclose(engine.backbone_logits(arrays), in_float32, atol=1e-4)
    np.testing.assert_allclose(engine.answer(arrays).backbone_logits, in_float32, atol=1e-4)
    agreement = np.mean(whole.argmax(1) == in_float32.argmax(1))
    assert agreement > 0.9


def test_sentences_of_any_length():
    """What is added where there is no word is minus infinity, which sets no scale."""
    X, y = sentences(300)
    clf = fitted((X, y), module=MaskedTokens)
    assert b"QuantizeLinear" in engine_of(clf).sessions.graph.model
    in_float32 = engine_of(clf).in_torch
    for length in (6, 4):
        some = {name: part[:, :length] for name, part in X.items()}
        arrays = clf._predictor.schema.encode(tuple(some.values()))
        found = engine_of(clf).whole_logits(arrays)
        assert np.mean(found.argmax(1) == in_float32.backbone_logits(arrays).argmax(1)) > 0.9
        assert len(clf.predict(some)) == 300


def test_a_sample_s_answer_does_not_depend_on_those_beside_it(digits, others):
    clf, X = fitted(digits), others[0]
    together = clf.predict(X), clf.predict_exit(X), clf.predict_proba(X)
    order = np.random.default_rng(0).permutation(len(X))
    for n_at_once in (1, 7, 64):
        for start in range(0, 70, n_at_once):
            rows = order[start : start + n_at_once]
            np.testing.assert_array_equal(clf.predict(X[rows]), together[0][rows])
            np.testing.assert_array_equal(clf.predict_exit(X[rows]), together[1][rows])
            np.testing.assert_allclose(clf.predict_proba(X[rows]), together[2][rows], atol=1e-5)


def test_what_crosses_a_cut_stays_in_integers(digits):
    graph = engine_of(fitted(digits)).sessions.graph
    for i, names in enumerate(graph.carried_names[:-1]):
        assert all(QUANTISED in name for name in names), names
        exit_graph = graphs_of_exits(graph)[i]
        assert exit_graph.carried == names
    # A tensor of maps crosses with its channels last, as integers are computed.
    assert graph.carried_names[0][0].endswith("_last")


def test_heads_read_what_integers_compute(digits):
    heads = fitted(digits).network_.heads.heads
    assert len(heads) and all(isinstance(head, QuartersHead) for head in heads)
    graph = graphs_of_exits(engine_of(fitted(digits)).sessions.graph)[0]
    assert b"ReduceMax" not in graph.model and b"Sqrt" not in graph.model


def test_gates_temperatures_and_scores_are_of_these_answers(digits, others):
    X, y = others
    clf = fitted(digits)
    predictor = clf._predictor
    arrays = predictor.schema.encode((X,))
    answers = predictor.cascade.answers(arrays, y)
    # What the frontier knows of the samples that set the gates is what the engine answers for them.
    moved = clf.at(precision="float32", X_val=X, y_val=y)
    assert engine_of(moved).precision == "float32"
    again = moved.at(precision="int8", X_val=X, y_val=y)
    held_out = again._predictor.frontier.answers
    rows = [
        np.flatnonzero(np.isclose(answers.backbone_logits, own, atol=1e-3).all(1))[0]
        for own in held_out.backbone_logits
    ]
    mixed = again._predictor.cascade.answers(tuple(a[rows] for a in arrays), y[rows])
    np.testing.assert_allclose(held_out.logits, mixed.logits, atol=2e-3)
    np.testing.assert_array_equal(held_out.codes, y[rows])
    assert not np.allclose(held_out.logits, moved._predictor.frontier.answers.logits, atol=1e-3)


def test_limits_are_against_float32(digits, others):
    X, y = others
    clf = fitted(digits).at(max_accuracy_drop=0.02)
    frontier = clf._predictor.frontier
    accuracy = frontier.summary(clf._predictor.point)["backbone_accuracy"]
    assert accuracy == frontier.answers.backbone_accuracy
    agreeing = clf.control_risk(X, max_disagreement=0.4)
    assert agreeing._predictor.cascade.plain_last_exit
    at_end = agreeing.predict_exit(X) == len(clf.exits_)
    np.testing.assert_array_equal(agreeing.predict(X)[at_end], clf.predict_backbone(X)[at_end])
    # Where no limit can be shown, all samples get the plain backbone's answer.
    with pytest.warns(UserWarning, match="control_risk|no operating point|limit"):
        never = clf.control_risk(X[:20], max_disagreement=0.001)
    np.testing.assert_array_equal(never.predict(X), clf.predict_backbone(X))


def test_sets_cover(digits, others):
    X, y = others
    # Digits of other writers than those of the training rows, so some of theirs calibrate.
    clf = fitted(digits).conformalize(X[:350], y[:350])
    sets = clf.predict_set(X[350:])
    assert 0.83 < sets[np.arange(350), y[350:]].mean() < 0.97


def test_it_is_pickled(digits, others):
    clf = fitted(digits)
    loaded = pickle.loads(pickle.dumps(clf))
    np.testing.assert_array_equal(loaded.predict_proba(others[0]), clf.predict_proba(others[0]))


def test_what_goes_together(digits, others):
    def fails(match, error=ValueError, **params):
        with pytest.raises(error, match=match):
            quick_classifier(**{"module": TinyConv, **params}).fit(*digits)

    fails("precision='int8' is computed by ONNX Runtime; got engine='torch'", precision="int8")
    fails(
        "precision='int8' learns gates .* gate_training='bilevel'",
        precision="int8",
        engine="onnxruntime",
        gate_training="bilevel",
    )
    fails(
        "cv=3 lets samples set the gates",
        precision="int8",
        engine="onnxruntime",
        cv=3,
    )
    fails("precision", precision="int4", error=ValueError)
    clf = fitted(digits)
    with pytest.raises(ValueError, match="precision='int8' is computed by ONNX Runtime"):
        clf.at(engine="torch")
    with pytest.raises(ValueError, match="give X_val and y_val"):
        clf.at(precision="float32")
    with pytest.raises(ValueError, match="X_val is given, but only another precision"):
        clf.at(X_val=others[0], y_val=others[1])
    assert engine_of(clf.at(engine="onnxruntime")).precision == "int8"
    table = clf.benchmark_engines(others[0][:64])
    assert table["precision"].tolist() == ["float32", "float32", "int8", "int8"]


def test_companions_are_chosen_by_the_clock_of_integers(digits, monkeypatch):
    of_wholes, of_chains = [], []

    def seconds(functions, plain):
        of_wholes.extend(function.func.__self__.precision for function in (*functions, plain))
        return np.linspace(0.1, 0.9, len(functions))

    def times(schema, engine, arrays, n_samples):
        of_chains.append(engine.precision)
        return ExitTimes(np.linspace(0.3, 1.2, engine.network.n_exits), 1e-3)

    monkeypatch.setattr(whole_times, "relative_seconds", seconds)
    monkeypatch.setattr(engines, "time_exits", times)
    images = digits[0].reshape(-1, 1, 8, 8)
    clf = quick_classifier(
        module=TinyConv,
        engine="onnxruntime",
        precision="int8",
        companion="auto",
        cost="seconds",
        max_epochs=1,
    ).fit(images, digits[1])
    assert len(of_wholes) > 2 and set(of_wholes) == {"int8"}
    # The last one is the chain that is kept, from whose answers in float32 integers are made.
    *while_choosing, kept = of_chains
    assert len(while_choosing) > 2 and set(while_choosing) == {"int8"} and kept == "float32"
    assert engine_of(clf).precision == "int8"


def test_without_the_packages_an_error_names_them(digits, monkeypatch):
    monkeypatch.setattr("sklearn_jeidnn._fit.engine_choice._missing", lambda: ["onnx"])
    with pytest.raises(ImportError, match=r"precision='int8' needs onnx: pip install"):
        quick_classifier(precision="int8", engine="auto").fit(*digits)


def test_samples_that_a_network_learned_from_are_told(digits):
    X, y = digits
    clf = fitted(digits, precision="float32")
    with pytest.warns(UserWarning, match="samples trained networks"):
        clf.at(precision="int8", X_val=X, y_val=y)


def test_auto_takes_the_fastest_that_is_as_accurate(digits, others, monkeypatch, capsys):
    clf = fitted(digits, precision="float32")
    X, y = others

    def chosen(times):
        monkeypatch.setattr(
            "sklearn_jeidnn._fit.moving.relative_seconds",
            lambda functions, _: np.array(times[: len(functions)]),
        )
        moved = clf.at(precision="auto", engine="auto", X_val=X, y_val=y)
        return engine_of(moved).precision

    assert chosen([1.0, 2.0, 0.5]) == "int8"
    assert chosen([1.0, 0.3, 0.5]) == "bfloat16"
    assert chosen([1.0, 3.0, 5.0]) == "float32"
    monkeypatch.setattr("sklearn_jeidnn._fit.moving.compared", lambda *_: compared(*differing()))
    assert chosen([1.0, 0.3, 0.5]) == "float32"


def differing():
    """Answers of an engine that is right, and of one that is mostly wrong: (n_samples, n_exits)."""
    right = np.ones((200, 2), dtype=bool)
    return right, np.arange(400).reshape(200, 2) % 3 == 0


def test_what_chance_explains():
    right, wrong = differing()
    assert compared(right, wrong).chance < 1e-6
    assert compared(right, wrong).lost > 0.6
    assert compared(wrong, right).chance == 1.0
    assert compared(right, right).chance == 1.0 and compared(right, right).lost == 0
    few = right.copy()
    few[:4, 1] = False
    # 1/2 ** 4, for each of two exits.
    assert compared(right, few).chance == pytest.approx(0.125)


def test_what_loses_accuracy_stays_in_float32(digits, others, monkeypatch, capsys):
    """A kind of operators, then a stage; if all lose, the one that loses least, with a warning."""
    clf = fitted(digits, precision="float32")
    X, y = others
    kinds = kinds_of(engine_of(clf).sessions.graph)
    assert kinds[0] == "Conv" and len(kinds) > 2
    n_tries = 1 + len(kinds) + engine_of(clf).sessions.graph.n_exits
    tried = {"n": 0}

    def at(*good):
        """Only these attempts lose nothing."""
        tried["n"] = 0

        def worse(before, after):
            tried["n"] += 1
            return compared(before, before) if tried["n"] in good else compared(*differing())

        monkeypatch.setattr(int8, "compared", worse)
        return clf.at(precision="int8", X_val=X, y_val=y)

    other = clf.set_params(verbose=1)
    # Without convolutions hardly anything is left, which is taken only where nothing else will do.
    with pytest.warns(
        UserWarning, match=r"operators Conv stay in float32, and .* all but \d+ % of"
    ):
        model = engine_of(at(2)).sessions.graph.model
    assert "operators Conv stay in float32" in capsys.readouterr().out
    assert b"Conv" in model and tried["n"] == n_tries
    at(2, 3)
    assert f"operators {kinds[1]} stay in float32" in capsys.readouterr().out
    at(len(kinds) + 2)
    assert "the stage before exit 0 stay in float32" in capsys.readouterr().out
    with pytest.warns(UserWarning, match=r"precision='int8' loses up to .* points of accuracy"):
        at()
    assert other is clf


def test_a_stage_in_float32(digits, others):
    engine = engine_of(fitted(digits, precision="float32"))
    arrays = engine_of(fitted(digits)).in_torch and (others[0][:256],)
    feeds = list(int8._feeds(engine, arrays))
    graph = onnx_int8.in_int8(engine.sessions.graph, feeds, float_stages=(0,))
    first, second = (part.model for part in graphs_of_exits(graph)[:2])
    # Its weights are not in integers; what the next stage takes is, before it crosses the cut.
    assert b"weight_quantized" not in first and b"weight_quantized" in second
    assert QUANTISED in graph.carried_names[0][0]
    none = onnx_int8.in_int8(engine.sessions.graph, feeds, left_out=kinds_of(engine.sessions.graph))
    assert none is engine.sessions.graph


def test_weights_have_seven_bits(digits):
    """Products of 8 bits overflow on processors that add them in pairs."""
    import onnx

    model = onnx.load_from_string(engine_of(fitted(digits)).sessions.graph.model)
    weights = [
        onnx.numpy_helper.to_array(tensor)
        for tensor in model.graph.initializer
        if tensor.name.endswith("_quantized") and tensor.data_type == onnx.TensorProto.INT8
    ]
    assert weights and max(np.abs(w.astype(int)).max() for w in weights) <= 64


def test_torch_is_in_float32_beside_it(digits):
    clf = fitted(digits)
    assert (
        clf.network_.precision == "float32"
        and next(clf.network_.parameters()).dtype == torch.float32
    )
