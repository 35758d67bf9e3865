"""Matrix products in 8-bit integers whose rows have scales of their own."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from sklearn_jeidnn._engines.onnx_int8 import INT8
from sklearn_jeidnn._engines.onnx_parts import plain_graph
from sklearn_jeidnn._engines.onnx_rows import count_products_by_row, products_by_row
from sklearn_jeidnn._engines.onnx_sessions import Sessions
from sklearn_jeidnn._fit.int8 import int8_engine

from .conftest import TinyConv, TinyTransformer, quick_classifier

pytest.importorskip("onnxruntime")
IN_INTEGERS = "MatMulIntegerToFloat"


class Homogeneous(nn.Module):
    """A network whose answer for a sample that is multiplied by a number is multiplied by it, too."""

    def __init__(self, width=32):
        super().__init__()
        sizes = [64, width, width, 10]
        self.blocks = nn.Sequential(
            *(nn.Linear(n, m, bias=False) for n, m in zip(sizes[:-1], sizes[1:], strict=True))
        )

    def forward(self, X):
        for block in self.blocks[:-1]:
            X = torch.relu(block(X))
        return self.blocks[-1](X)


def engine_of(clf):
    return clf._predictor.cascade.engine


def by_row(engine, float_stages=()):
    graph = products_by_row(engine.sessions.graph, [], float_stages)
    return replace(engine, sessions=Sessions(graph), precision=INT8)


def kinds_in(model):
    return [node.op_type for node in onnx.load_from_string(model).graph.node]


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return np.float32(X), y


@pytest.fixture(scope="module")
def transformer(digits):
    clf = quick_classifier(
        module=TinyTransformer, max_epochs=6, engine="onnxruntime", companion=None
    )
    return clf.fit(digits[0][:1000], digits[1][:1000])


@pytest.mark.parametrize("module", [TinyTransformer, Homogeneous, None])
def test_it_answers_about_what_float32_answers(digits, module):
    params = {"module__width": 32, "module__n_blocks": 2} if module is None else {}
    clf = quick_classifier(
        module=module, max_epochs=4, engine="onnxruntime", companion=None, **params
    ).fit(digits[0][:1000], digits[1][:1000])
    engine = engine_of(clf)
    arrays = clf._predictor.schema.encode((digits[0][1000:],))
    found, exact = by_row(engine).answer(arrays).logits, engine.answer(arrays).logits
    assert not np.array_equal(found, exact)
    # 7 bits of a weight, and 8 of an activation.
    assert np.abs(found - exact).mean() < 0.05 * exact.std()


def test_each_product_of_a_stage_with_weights_is_in_integers(transformer):
    graph = engine_of(transformer).sessions.graph
    n_products = count_products_by_row(graph)
    assert kinds_in(products_by_row(graph, []).model).count(IN_INTEGERS) == n_products
    # A projection; in each block queries, keys and values at once, what attention answers, two layers.
    assert n_products >= 3 * 4
    kept = products_by_row(graph, [], range(graph.n_exits))
    assert kept is graph
    some = count_products_by_row(graph, [0])
    assert 0 < some < n_products
    # No exit's head: those read few numbers.
    assert (
        IN_INTEGERS not in kinds_in(products_by_row(graph, [], range(1, graph.n_exits)).model)[-30:]
    )


def test_weights_are_stored_in_integers_alone(transformer):
    graph = engine_of(transformer).sessions.graph
    before, after = (
        sum(len(t.raw_data) for t in onnx.load_from_string(g.model).graph.initializer)
        for g in (graph, products_by_row(graph, []))
    )
    assert after < 0.8 * before
    weights = [
        onnx.numpy_helper.to_array(tensor)
        for tensor in onnx.load_from_string(products_by_row(graph, []).model).graph.initializer
        if tensor.name.endswith("_quantised")
    ]
    assert weights and all(w.dtype == np.int8 and np.abs(w).max() == 63 for w in weights)


def test_an_answer_does_not_depend_on_the_samples_beside_it(transformer, digits):
    engine = by_row(engine_of(transformer))
    X = digits[0][1000:1100]
    others = X.copy()
    others[1:] *= 1e4
    alone, beside = (engine.answer((part,)).logits for part in (X[:1], others))
    np.testing.assert_allclose(beside[0], alone[0], atol=1e-4)


def test_rows_of_nothing_are_answered(digits):
    clf = quick_classifier(module=Homogeneous, max_epochs=1, engine="onnxruntime", companion=None)
    engine = engine_of(clf.fit(digits[0][:300], digits[1][:300]))
    X = np.zeros((3, 64), dtype=np.float32)
    np.testing.assert_array_equal(by_row(engine).whole_logits((X,)), 0)


def test_it_is_taken_where_one_scale_for_all_samples_loses_accuracy(digits):
    X, y = digits
    clf = quick_classifier(module=Homogeneous, max_epochs=20, engine="onnxruntime", companion=None)
    clf.fit(X[:1000] / 16, y[:1000])
    rng = np.random.default_rng(0)
    # Some samples are a thousand times as large as others, which changes no label.
    sizes = np.float32(10 ** rng.uniform(-2, 1, len(X) - 1000))[:, None]
    found = int8_engine(engine_of(clf), (X[1000:] / 16 * sizes,), y[1000:])
    assert found.is_as_accurate and found.in_float32 == ""
    assert IN_INTEGERS in kinds_in(plain_graph(found.engine.sessions.graph))


def test_convolutions_have_no_rows(digits):
    clf = quick_classifier(module=TinyConv, max_epochs=1, engine="onnxruntime", companion=None)
    X, y = digits
    clf.fit(X[:300], y[:300])
    found = int8_engine(engine_of(clf), (X[300:700],), np.zeros(400, dtype=int))
    assert IN_INTEGERS not in kinds_in(found.engine.sessions.graph.model)


def test_one_file_and_a_folder_hold_it(transformer, digits, tmp_path, monkeypatch):
    from onnxruntime import InferenceSession

    from sklearn_jeidnn._fit import int8
    from sklearn_jeidnn.runtime import Predictor

    # As if one scale for all samples lost too much.
    monkeypatch.setattr(int8, "in_int8", lambda graph, *_, **__: graph)
    X, y = digits
    clf = transformer.at(precision="int8", X_val=X[1000:1400], y_val=y[1000:1400])
    assert IN_INTEGERS in kinds_in(engine_of(clf).sessions.graph.model)
    X = X[1400:]
    clf.export(tmp_path / "folder")
    predictor = Predictor.load(tmp_path / "folder")
    np.testing.assert_array_equal(predictor.predict(X), clf.predict(X))
    np.testing.assert_array_equal(predictor.predict_exit(X), clf.predict_exit(X))
    clf.export_onnx(tmp_path / "file.onnx")
    providers = ["CPUExecutionProvider"]
    session = InferenceSession(tmp_path / "file.onnx", providers=providers)
    label, exit_index = session.run(["label", "exit"], {"X": X})
    assert np.mean(label == clf.predict(X)) > 0.99
    assert np.mean(exit_index == clf.predict_exit(X)) > 0.98
