"""A service answers what its predictor answers, to all that ask, and nothing that one client sends harms another."""

import asyncio
import io
import json
import logging
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from dataclasses import replace

import httpx
import numpy as np
import pandas as pd
import pytest

import sklearn_jeidnn
from sklearn_jeidnn.__main__ import main
from sklearn_jeidnn._predictor import Predictor as InnerPredictor
from sklearn_jeidnn._serving import app as app_module
from sklearn_jeidnn.runtime import Predictor
from sklearn_jeidnn.serving import create_app

from .conftest import MaskedTokens, TinyConv, quick_classifier

ROOT = pathlib.Path(sklearn_jeidnn.__file__).parent.parent
NPY = {"content-type": "application/octet-stream"}
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def folder(digits, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "digits"
    quick_classifier(module=TinyConv, max_epochs=2, validation_fraction=0.3).fit(*digits).export(
        path
    )
    return path


@pytest.fixture(scope="module")
def predictor(folder):
    return Predictor.load(folder, n_threads=1)


@pytest.fixture(scope="module")
def X(fresh_digits):
    return fresh_digits[0][:20]


@pytest.fixture
def at_other_points(monkeypatch):
    """Budgets without gates that are trained: costs are weighed as at points that are there."""

    def at(predictor, *, budget):
        if budget < 0.1:
            raise ValueError(f"budget={budget} is less than the first exit costs.")
        points = predictor._predictor.frontier.points
        gates = points.point(int(10 * budget) % len(points))
        inner = predictor._predictor
        return Predictor(inner.moved_to(replace(inner.point, gates=gates)), "joint")

    monkeypatch.setattr(Predictor, "at", at)


class Client:
    """Requests to an application, in its own loop."""

    def __init__(self, app):
        self.app = app

    def together(self, *requests):
        """Responses to requests that come at once, each (method, path, options)."""

        async def run():
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
                return await asyncio.gather(
                    *(client.request(method, path, **own) for method, path, own in requests)
                )

        return asyncio.run(run())

    def post(self, path, body, headers=JSON):
        content = json.dumps(body).encode() if isinstance(body, dict) else body
        return self.together(("POST", path, {"content": content, "headers": headers}))[0]

    def get(self, path):
        return self.together(("GET", path, {}))[0]


@pytest.fixture
def client(predictor):
    return Client(create_app(predictor))


def as_npy(array, **options):
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def metrics(client):
    """Values by name and labels."""
    lines = client.get("/metrics").text.splitlines()
    return dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))


def test_it_answers_what_the_predictor_answers(client, predictor, X):
    expected = predictor.answers(X)
    for body, headers in (
        ({"X": X.tolist()}, JSON),
        (as_npy(X), NPY),
        (as_npy(np.asfortranarray(X)), NPY),
        (as_npy(X.astype(np.uint8)), NPY),
    ):
        response = client.post("/predict", body, headers)
        assert response.status_code == 200, response.text
        found = response.json()
        assert found["labels"] == expected.labels.tolist()
        assert found["exits"] == expected.exits.tolist()
        np.testing.assert_allclose(found["probabilities"], expected.probabilities, atol=1e-6)
    bare = client.post("/predict?probabilities=false", as_npy(X[:1]), NPY).json()
    assert set(bare) == {"labels", "exits", "id"}


def test_sets_are_those_of_the_predictor(client, predictor, X):
    response = client.post("/predict_set", {"X": X.tolist(), "confidence_level": [0.6, 0.9]})
    sets = predictor.predict_set(X, confidence_level=[0.6, 0.9])
    expected = [[np.flatnonzero(row).tolist() for row in sets[..., i]] for i in range(2)]
    assert response.json()["sets"] == expected
    one = client.post("/predict_set?confidence_level=0.6&allow_empty=false", as_npy(X), NPY).json()
    fuller = predictor.predict_set(X, confidence_level=0.6, allow_empty=False)
    assert one["sets"] == [np.flatnonzero(row).tolist() for row in fuller]
    assert one["exits"] == predictor.predict_exit(X).tolist()


def test_requests_that_come_together_are_answered_in_one_call_each_with_its_own(
    client, predictor, X
):
    requests = [("POST", "/predict", {"content": as_npy(x[None]), "headers": NPY}) for x in X]
    found = [response.json() for response in client.together(*requests)]
    expected = predictor.answers(X)
    assert [own["labels"][0] for own in found] == expected.labels.tolist()
    assert [own["exits"][0] for own in found] == expected.exits.tolist()
    values = metrics(client)
    assert float(values["jeidnn_batch_size_count"]) < len(X)
    assert float(values["jeidnn_batch_size_sum"]) == len(X)


def test_a_large_request_is_divided(predictor, X):
    client = Client(create_app(predictor, max_batch=6))
    found = client.post("/predict", as_npy(X), NPY).json()
    assert found["labels"] == predictor.predict(X).tolist()
    assert metrics(client)['jeidnn_batch_size_bucket{le="8"}'] == "4"


def test_who_sends_what_fails_alone_fails_alone(client, predictor, X, monkeypatch, caplog):
    answers = InnerPredictor.answers

    def failing(self, arrays, groups=None):
        if (arrays[0] == 99).any():
            raise KeyError("the secret 99")
        return answers(self, arrays, groups)

    monkeypatch.setattr(InnerPredictor, "answers", failing)
    bodies = [as_npy(x[None]) for x in X]
    bodies[3] = as_npy(np.full((1, 64), 99.0))
    with caplog.at_level(logging.ERROR):
        found = client.together(
            *(("POST", "/predict", {"content": body, "headers": NPY}) for body in bodies)
        )
    assert [r.status_code for r in found] == [500 if i == 3 else 200 for i in range(len(X))]
    assert found[3].json() == {"error": "internal error"}
    assert "KeyError" in caplog.text and "secret" not in caplog.text


def test_budgets_are_held_up_to_a_number_of_them(predictor, X, at_other_points):
    client = Client(create_app(predictor, max_budgets=2))
    for budget in (0.5, 0.7):
        at = predictor.at(budget=budget)
        found = client.post("/predict", {"X": X.tolist(), "budget": budget}).json()
        assert found["exits"] == at.predict_exit(X).tolist()
    refused = client.post("/predict", {"X": X.tolist(), "budget": 0.9})
    assert refused.status_code == 422 and "[0.5, 0.7]" in refused.json()["error"]
    assert client.post("/predict?budget=0.5", as_npy(X), NPY).status_code == 200
    assert client.get("/").json()["budgets"] == [0.5, 0.7]
    assert 'jeidnn_watch_limit{budget="0.5"}' in metrics(client)


def test_budgets_that_make_no_sense_are_refused_and_not_held(predictor, X, at_other_points):
    client = Client(create_app(predictor, max_budgets=1))
    for budget in ("much", True, -1, 0, [1], 0.01):
        refused = client.post("/predict", {"X": X.tolist(), "budget": budget})
        assert refused.status_code == 422 and "budget" in refused.json()["error"]
    assert client.post("/predict", {"X": X.tolist(), "budget": 0.5}).status_code == 200


NESTED = b"[" * 100_000
REFUSED = [
    (b"", JSON, 400, "no JSON"),
    (b"\xff\xfe", JSON, 400, "no JSON"),
    (b'{"X": [[1,', JSON, 400, "no JSON"),
    (NESTED, JSON, 400, "nested"),
    (b'{"X": [[NaN]]}', JSON, 400, "NaN is no number"),
    (b'{"X": [[' + b"1" * 5000 + b"]]}", JSON, 400, "too long a number"),
    (b"[[1, 2]]", JSON, 400, '"X"'),
    (b'{"X": 3}', JSON, 422, "list of samples"),
    (b'{"X": []}', JSON, 422, "0 samples"),
    (b'{"X": [[1, 2]]}', JSON, 422, "2 features"),
    (b'{"X": [[1], [1, 2]]}', JSON, 422, "differ in shape"),
    (b'{"X": [["a"]]}', JSON, 422, "X"),
    (b'{"X": {"a": [1]}}', JSON, 422, "mapping"),
    (b'{"X": [{"a": 1}, {"b": 1}]}', JSON, 422, "sample 1 has other names"),
    (b'{"X": [[1e999]]}', JSON, 422, "X has 1 features"),
    (b'{"X": [[1]], "buget": 1}', JSON, 422, "'buget' is no option"),
    (b'{"X": [[1]], "groups": [1]}', JSON, 422, "'groups' is no option"),
    (b"{}", {"content-type": "text/plain"}, 415, "text/plain"),
    (b"{}", {}, 415, "Content-Type"),
    (b"{}", {**JSON, "content-encoding": "gzip"}, 415, "Content-Encoding"),
    (b"PK\x03\x04", NPY, 400, "numpy.save"),
    (b"\x93NUMPY\x01\x00\xff\xff", NPY, 400, "numpy.save"),
    (as_npy(np.zeros((2, 64)))[:-1], NPY, 400, "bytes of numbers"),
    (as_npy(np.zeros((2, 64))) + b"0", NPY, 400, "bytes of numbers"),
    (as_npy(np.array([[{}]]), allow_pickle=True), NPY, 422, "must hold samples"),
    (as_npy(np.array([["a"]])), NPY, 422, "must hold samples"),
    (as_npy(np.float32(3)), NPY, 422, "must hold samples"),
    (as_npy(np.full((1, 64), np.inf)), NPY, 422, "infinity"),
    (as_npy(np.zeros((2, 64))).replace(b"(2, 64)", b"(-2,64)"), NPY, 422, "must hold samples"),
    (as_npy(np.zeros((2, 64))).replace(b"'<f8'", b"'<f0'"), NPY, 400, "numpy.save"),
]


@pytest.mark.parametrize("body, headers, status, message", REFUSED)
def test_what_is_wrong_with_a_request_is_said(client, body, headers, status, message):
    response = client.post("/predict", body, headers)
    assert response.status_code == status, response.text
    assert set(response.json()) == {"error"} and message in response.json()["error"]
    assert "Traceback" not in response.text


@pytest.mark.parametrize(
    "options, message",
    [
        ({"confidence_level": 2}, "confidence_level=2"),
        ({"confidence_level": [[0.5]]}, "confidence_level"),
        ({"allow_empty": 3}, "allow_empty=3"),
        ({"groups": [1]}, "groups"),
        ({"probabilities": True}, "'probabilities' is no option"),
    ],
)
def test_options_of_sets_that_make_no_sense_are_refused(client, X, options, message):
    response = client.post("/predict_set", {"X": X.tolist(), **options})
    assert response.status_code == 422 and message in response.json()["error"]


def test_an_error_of_our_own_shows_nothing_and_holds_no_budget(predictor, X, monkeypatch):
    client = Client(create_app(predictor, max_budgets=1))

    def broken(self, *, budget):
        raise TypeError("secret of the inside")

    with monkeypatch.context() as patch:
        patch.setattr(Predictor, "at", broken)
        failed = client.post("/predict?budget=0.7", as_npy(X), NPY)
        assert failed.status_code == 500 and failed.json() == {"error": "internal error"}
    monkeypatch.setattr(Predictor, "at", lambda self, *, budget: self)
    assert client.post("/predict?budget=0.8", as_npy(X), NPY).status_code == 200


def test_other_paths_and_methods_are_refused_as_json(client):
    assert client.get("/nowhere").json() == {"error": "Not Found"}
    assert client.get("/predict").json() == {"error": "Method Not Allowed"}


def test_too_many_samples_and_bytes_are_refused(predictor, X):
    client = Client(create_app(predictor, max_samples=5, max_bytes=4000))
    many = client.post("/predict", as_npy(np.zeros((6, 64), np.uint8)), NPY)
    assert many.status_code == 413 and "more than 5 samples" in many.json()["error"]
    long = client.post("/predict", as_npy(X), NPY)
    assert long.status_code == 413 and long.headers["connection"] == "close"

    async def endless():
        while True:
            yield b"[" * 1000

    # Without a length, so it is counted while it comes.
    found = client.together(("POST", "/predict", {"content": endless(), "headers": JSON}))[0]
    assert found.status_code == 413


def test_many_large_bodies_at_once_are_refused_and_their_bytes_given_back(predictor, X):
    app = create_app(predictor, max_bytes=2000, max_samples=1000)
    client, body = Client(app), as_npy(X[:4])

    async def slow():
        yield body[:1000]
        await asyncio.sleep(0.3)
        yield body[1000:]

    requests = [("POST", "/predict", {"content": slow(), "headers": NPY}) for _ in range(40)]
    statuses = [response.status_code for response in client.together(*requests)]
    assert set(statuses) == {200, 503}
    assert client.post("/predict", body, NPY).status_code == 200


def test_half_a_body_is_not_waited_for(predictor):
    client = Client(create_app(predictor, body_timeout=0.05))

    async def half():
        yield b'{"X": [['
        await asyncio.sleep(30)

    response = client.together(("POST", "/predict", {"content": half(), "headers": JSON}))[0]
    assert response.status_code == 408 and "0.05 seconds" in response.json()["error"]


def test_a_full_queue_says_when_to_come_again(predictor, X, monkeypatch):
    client = Client(create_app(predictor, max_queue=4))
    answers, may_go = InnerPredictor.answers, threading.Event()

    def waiting(self, arrays, groups=None):
        may_go.wait(10)
        return answers(self, arrays, groups)

    monkeypatch.setattr(InnerPredictor, "answers", waiting)
    threading.Timer(0.5, may_go.set).start()
    requests = [("POST", "/predict", {"content": as_npy(x[None]), "headers": NPY}) for x in X]
    found = client.together(*requests)
    refused = [response for response in found if response.status_code == 503]
    # One call may have begun before the queue was full.
    assert len(X) - 5 <= len(refused) <= len(X) - 4
    assert refused[0].headers["retry-after"] == "1"
    assert {response.status_code for response in found} == {200, 503}


def test_labels_that_come_late_are_taken_by_ids(predictor, fresh_digits):
    X, y = (values[:200] for values in fresh_digits)
    client = Client(create_app(predictor, confidence_level=0.8))
    parts = [slice(0, 150), slice(150, 200)]
    ids = [client.post("/predict", as_npy(X[rows]), NPY).json()["id"] for rows in parts]
    labels = [y[rows].tolist() for rows in parts]
    labels[1][0] = None
    told = client.post("/labels", {"labels": {**dict(zip(ids, labels)), "no": [1]}})
    assert told.json() == {"n_labels": 199, "unknown_ids": ["no"]}
    expected = predictor.watch(confidence_level=0.8).update_labels(
        np.delete(X, 150, axis=0), np.delete(y, 150)
    )
    values = metrics(client)
    for name, bounds in expected.coverage().items():
        labels = f'{{budget="own",exit="{name}"}}'
        assert float(values[f"jeidnn_labels_total{labels}"]) == bounds.n_samples
        assert float(values[f"jeidnn_covered_total{labels}"]) == bounds.n_covered
    again = client.post("/labels", {"labels": {ids[0]: y[:150].tolist()}})
    assert again.json()["unknown_ids"] == [ids[0]]


def test_labels_that_make_no_sense_change_nothing(client, X):
    key = client.post("/predict", as_npy(X[:2]), NPY).json()["id"]
    for labels in ([1], [1, 2, 3], "12", [1, "one"], [1, [2]]):
        refused = client.post("/labels", {"labels": {key: labels}})
        assert refused.status_code == 422 and "labels of" in refused.json()["error"]
    for body in (b"[]", b'{"labels": [1]}', b'{"other": {}}'):
        assert client.post("/labels", body).status_code in (400, 422)
    assert client.post("/labels", {"labels": {key: [1, 2]}}).json()["n_labels"] == 2


def test_only_so_many_answers_are_kept(predictor, X):
    client = Client(create_app(predictor, max_remembered=3))
    ids = [client.post("/predict", as_npy(X[:2]), NPY).json()["id"] for _ in range(2)]
    told = client.post("/labels", {"labels": {key: [1, 1] for key in ids}}).json()
    assert told == {"n_labels": 2, "unknown_ids": [ids[0]]}
    assert "id" not in client.post("/predict", as_npy(X[:4]), NPY).json()


def test_metrics_count_what_was_answered(client, predictor, X):
    for body in (as_npy(X), as_npy(X[:5]), b"no"):
        client.post("/predict", body, NPY)
    values, exits = metrics(client), predictor.predict_exit(np.concatenate([X, X[:5]]))
    assert values['jeidnn_requests_total{endpoint="/predict",status="200"}'] == "2"
    assert values["jeidnn_errors_total"] == "1"
    assert values["jeidnn_samples_total"] == "25"
    for i, name in enumerate([*predictor.exits, "last exit"]):
        assert int(values[f'jeidnn_exits_total{{exit="{name}"}}']) == (exits == i).sum()
    mean_cost = float(values["jeidnn_mean_cost"])
    np.testing.assert_allclose(mean_cost, predictor.exit_costs[exits].mean())
    quantiles = [float(values[f'jeidnn_latency_seconds{{quantile="{q}"}}']) for q in (0.5, 0.99)]
    assert 0 < quantiles[0] <= quantiles[1]
    assert values['jeidnn_watched_samples_total{budget="own"}'] == "25"
    text = client.get("/metrics").text
    line = r'(# (HELP|TYPE) \w+ .+|\w+(\{\w+="[^"]*"(,\w+="[^"]*")*\})? (NaN|[-+.e0-9]+|inf))'
    assert all(re.fullmatch(line, own) for own in text.splitlines())


def test_samples_of_another_kind_raise_the_alarm(client, caplog):
    noise = np.random.default_rng(0).uniform(0, 16, size=(1000, 64))
    with caplog.at_level(logging.WARNING):
        assert client.post("/predict", as_npy(noise), NPY).status_code == 200
        assert metrics(client)['jeidnn_watch_alarm{budget="own"}'] == "1"
    assert "not like those that calibrated" in caplog.text


def test_without_watching_nothing_is_kept(predictor, X):
    client = Client(create_app(predictor, watch=False))
    assert "id" not in client.post("/predict", as_npy(X), NPY).json()
    assert not any(name.startswith("jeidnn_watch") for name in metrics(client))


def test_without_calibration_samples_it_is_said_that_nothing_is_watched(predictor, X):
    without = Predictor(replace(predictor._predictor, samples=None), "joint")
    with pytest.warns(UserWarning, match="watch=True.*nothing is watched"):
        client = Client(create_app(without))
    assert client.get("/").json()["has_sets"] is False
    assert set(client.post("/predict", as_npy(X), NPY).json()) == {
        "labels",
        "exits",
        "probabilities",
    }
    refused = client.post("/predict_set", as_npy(X), NPY)
    assert refused.status_code == 422 and "no sample calibrates" in refused.json()["error"]


def any_json(rng, depth=0):
    """A document of any form."""
    kind = rng.integers(0, 9 if depth < 5 else 6)
    if kind < 6:
        values = [None, True, "a", 1, -2.5, 1e300, "", 2**70, [], {}]
        return values[rng.integers(len(values))]
    items = [any_json(rng, depth + 1) for _ in range(rng.integers(1, 4))]
    if kind == 8:
        return {"X"[: rng.integers(2)] or "x": item for item in items}
    return items * int(rng.integers(1, 3))


def test_no_document_is_an_error_of_the_service(client, caplog):
    rng = np.random.default_rng(0)
    bodies = [json.dumps({"X": any_json(rng)}).encode() for _ in range(400)]
    bodies += [json.dumps(any_json(rng)).encode() for _ in range(50)]
    bodies += [b'{"X": ' + b"[" * n + b"]" * n + b"}" for n in (60, 70, 500, 900)]
    paths = ["/predict", "/predict_set", "/labels"]
    requests = [
        ("POST", paths[i % 3], {"content": body, "headers": JSON}) for i, body in enumerate(bodies)
    ]
    statuses = {response.status_code for response in client.together(*requests)}
    assert statuses <= {400, 413, 422}, caplog.text


def test_it_says_what_it_serves_and_that_it_is_there(client, predictor):
    about = client.get("/").json()
    assert about["classes"] == list(range(10))
    assert about["exits"] == [*predictor.exits, "last exit"]
    assert about["exit_costs"] == predictor.exit_costs.tolist()
    assert about["sample_shapes"] == [[64]] and about["columns"] is None
    assert client.get("/health").json() == {"status": "ok"}
    assert client.get("/ready").json() == {"status": "ready"}


def test_tables_come_by_rows_or_by_columns(tmp_path, no_trees):
    rng = np.random.default_rng(0)
    columns = {
        "x": [None if u < 0.1 else u for u in rng.random(300)],
        "word": rng.choice(["a", "b", None], 300).tolist(),
    }
    frame = pd.DataFrame(columns)
    y = np.where(np.array(columns["word"]) == "a", "yes", "no")
    clf = quick_classifier(module=None, max_epochs=2, module__width=8, cv=None).fit(frame, y)
    clf.export(tmp_path / "x")
    predictor = Predictor.load(tmp_path / "x")
    client = Client(create_app(predictor))
    assert client.get("/").json()["columns"] == ["x", "word"]
    few = {name: values[:40] for name, values in columns.items()}
    rows = [{"word": w, "x": x} for x, w in zip(few["x"], few["word"], strict=True)]
    expected = clf.predict(frame[:40]).tolist()
    for X in (few, rows):
        response = client.post("/predict", {"X": X})
        assert response.json()["labels"] == expected
        assert "warnings" not in response.json()
    np.testing.assert_array_equal(predictor.predict(few), expected)
    unseen = client.post("/predict", {"X": [{"x": 1, "word": "c"}]}).json()
    assert "categories that fit did not see" in unseen["warnings"][0]
    for X, message in (
        ([{"x": 1}], r"\['word'\] are in one of both"),
        ([{"x": "many", "word": "a"}], "'many' in column 'x'"),
        ({"x": [1, 2], "word": ["a"]}, "inconsistent numbers"),
        ({"x": [], "word": []}, "0 samples"),
        ({"x": [[1]], "word": ["a"]}, "column 'x'"),
    ):
        refused = client.post("/predict", {"X": X})
        assert refused.status_code == 422
        assert re.search(message, refused.json()["error"]), refused.text


def test_modules_of_several_inputs_take_arrays_by_name(tmp_path):
    rng = np.random.default_rng(0)
    ids = rng.integers(1, 50, size=(200, 6))
    X = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    clf = quick_classifier(module=MaskedTokens, max_epochs=1).fit(X, ids[:, 0] % 3)
    clf.export(tmp_path / "x")
    client = Client(create_app(Predictor.load(tmp_path / "x")))
    few = {name: values[:9].tolist() for name, values in X.items()}
    found = client.post("/predict", {"X": few})
    assert found.json()["labels"] == clf.predict({k: v[:9] for k, v in X.items()}).tolist()
    assert client.get("/").json()["inputs"] == list(X)
    wrong = client.post("/predict", {"X": {**few, "attention_mask": few["input_ids"][:2]}})
    assert wrong.status_code == 422 and "inconsistent" in wrong.json()["error"]
    array = client.post("/predict", as_npy(ids), NPY)
    assert array.status_code == 422 and "mapping" in array.json()["error"]
    negative = client.post("/predict", {"X": {**few, "input_ids": (-ids[:9]).tolist()}})
    assert negative.status_code == 422 and "token" in negative.json()["error"]


def test_groups_of_samples_are_taken_where_calibration_has_some(digits, fresh_digits, tmp_path):
    X, y = fresh_digits
    groups = np.where(X[:, 20] > 5, "dark", "light")
    clf = quick_classifier(module=TinyConv, max_epochs=1).fit(*digits)
    clf.conformalize(X[:400], y[:400], groups=groups[:400]).export(tmp_path / "x")
    predictor = Predictor.load(tmp_path / "x")
    client = Client(create_app(predictor))
    body = {"X": X[400:420].tolist(), "groups": groups[400:420].tolist()}
    sets = predictor.predict_set(X[400:420], groups=groups[400:420])
    expected = [np.flatnonzero(row).tolist() for row in sets]
    assert client.post("/predict_set", body).json()["sets"] == expected
    assert client.post("/predict_set", {"X": body["X"]}).status_code == 422
    assert "id" not in client.post("/predict", {"X": body["X"]}).json()


@pytest.mark.parametrize(
    "name, value",
    [
        ("max_batch", 0),
        ("max_wait_ms", -1),
        ("max_queue", 1.5),
        ("max_samples", "many"),
        ("max_bytes", 0),
        ("max_budgets", -1),
        ("body_timeout", 0),
        ("alpha", 1),
        ("confidence_level", 0),
        ("max_remembered", -1),
    ],
)
def test_limits_that_make_no_sense_are_refused(predictor, name, value):
    with pytest.raises(ValueError, match=name):
        create_app(predictor, **{name: value})


def test_without_the_extra_it_is_named(predictor, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn_jeidnn._serving.app", None)
    with pytest.raises(ImportError, match=r"sklearn_jeidnn\[serve\]"):
        create_app(predictor)


def test_large_bodies_are_parsed_beside_the_loop(client, predictor, X, monkeypatch):
    threads = []
    read = app_module.read_request

    def noted(*given):
        threads.append(threading.current_thread().name)
        return read(*given)

    monkeypatch.setattr(app_module, "read_request", noted)
    large = json.dumps({"X": np.tile(X, (50, 1)).tolist()}).encode()
    assert len(client.post("/predict", large).json()["labels"]) == 1000
    client.post("/predict", {"X": X[:1].tolist()})
    assert threads[0].startswith("parser") and not threads[1].startswith("parser")


def test_the_command_says_what_is_wrong(tmp_path, capsys):
    assert main(["serve", str(tmp_path / "nothing")]) == 2
    assert "nothing" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["serve"])


MISSING = ["torch", "skorch", "sklearn", "scipy", "joblib", "onnx", "pandas", "polars"]
SERVE = """
import sys
for name in {missing}: sys.modules[name] = None
from sklearn_jeidnn._serving import server
server.PATIENCE = 0.5
from sklearn_jeidnn.__main__ import main
sys.exit(main(["serve", {folder!r}, "--port", {port!r}, "--body-timeout", "2", "--threads", "1"]))
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Process:
    """A service in a process of its own, without torch and scikit-learn."""

    def __init__(self, folder):
        self.port = free_port()
        code = SERVE.format(missing=MISSING, folder=str(folder), port=str(self.port))
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", code], cwd=ROOT, stderr=subprocess.PIPE, text=True
        )
        for _ in range(300):
            try:
                self.request("/ready")
                return
            except OSError:
                assert self.process.poll() is None, self.process.stderr.read()
                time.sleep(0.1)
        raise AssertionError("the service does not begin")

    def request(self, path, body=None, headers=NPY):
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", body, headers)
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.loads(response.read())

    def connect(self, sent):
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        connection.sendall(sent)
        return connection

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(60)
        return status, self.process.stderr.read()


@pytest.fixture(scope="module")
def process(folder):
    service = Process(folder)
    yield service
    service.process.kill()
    service.process.wait()
    service.process.stderr.close()


HEAD = "POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/octet-stream\r\n"


def read_all(connection):
    parts = []
    try:
        while part := connection.recv(65536):
            parts.append(part)
    except ConnectionError:
        pass
    connection.close()
    return b"".join(parts)


def test_in_a_process_of_its_own_nobody_harms_another(process, predictor, X):
    expected = predictor.predict(X).tolist()
    harm = [
        process.connect(b""),
        process.connect(b"\x16\x03\x01garbage\r\n\r\n" * 20),
        process.connect(b"POST /predict HTTP/1.1\r\nHost"),
        process.connect(f"{HEAD}Content-Length: 1000\r\n\r\nhalf".encode()),
        process.connect(f"{HEAD}Content-Length: 1000000000\r\n\r\n".encode()),
        process.connect(f"{HEAD}Transfer-Encoding: chunked\r\n\r\nffffffff\r\n".encode()),
    ]
    for _ in range(20):
        assert process.request("/predict", as_npy(X))["labels"] == expected
    told = [read_all(connection) for connection in harm]
    # Connections on which nothing begins are closed.
    assert told[0] == told[2] == b""
    statuses = [answer[9:12] for answer in told]
    assert statuses[1] == b"400" and statuses[3] == b"408" and statuses[4] == b"413"
    assert statuses[5] == b"408"
    assert process.request("/predict", as_npy(X))["labels"] == expected


def test_what_was_begun_is_finished_before_it_ends(process, predictor, X):
    body = as_npy(X)
    begun = process.connect(f"{HEAD}Content-Length: {len(body)}\r\n\r\n".encode() + body[:100])
    time.sleep(0.3)
    process.process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    begun.sendall(body[100:])
    answer = read_all(begun)
    assert answer.startswith(b"HTTP/1.1 200")
    found = json.loads(answer.split(b"\r\n\r\n", 1)[1])
    assert found["labels"] == predictor.predict(X).tolist()
    status = process.process.wait(60)
    assert status in (0, -signal.SIGTERM)
    assert "Traceback" not in process.process.stderr.read()
