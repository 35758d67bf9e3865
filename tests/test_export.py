"""An exported classifier answers what it answered, without torch, and whatever is wrong with its folder is said."""

import copy
import hashlib
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from sklearn.exceptions import NotFittedError
from sklearn.naive_bayes import GaussianNB

import sklearn_jeidnn
from sklearn_jeidnn import EarlyExitClassifier
from sklearn_jeidnn._store.exported import ARRAYS, VALUES, VERSION
from sklearn_jeidnn.runtime import Predictor

from .conftest import TinyConv, quick_classifier

ROOT = pathlib.Path(sklearn_jeidnn.__file__).parent.parent
TARGETS = ({"cost_weight": 0.5}, {"budget": 0.6}, {"max_accuracy_drop": 0.1})


@pytest.fixture(scope="module")
def clf(digits):
    return quick_classifier(module=TinyConv, max_epochs=2, engine="onnxruntime").fit(*digits)


@pytest.fixture(scope="module")
def folder(clf, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "digits"
    clf.export(path)
    return path


@pytest.fixture
def copied(folder, tmp_path):
    """A copy of the folder, to be damaged."""
    other = tmp_path / "copy"
    other.mkdir()
    for file in folder.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    return other


def check_same(predictor, clf, X, within=0.0):
    np.testing.assert_array_equal(predictor.predict(X), clf.predict(X))
    np.testing.assert_array_equal(predictor.predict_exit(X), clf.predict_exit(X))
    np.testing.assert_allclose(predictor.predict_proba(X), clf.predict_proba(X), atol=within)
    for levels in (0.8, [0.7, 0.9]):
        np.testing.assert_array_equal(
            predictor.predict_set(X, confidence_level=levels),
            clf.predict_set(X, confidence_level=levels),
        )


def test_it_answers_what_the_classifier_answers_at_any_point(clf, folder, fresh_digits):
    X, predictor = fresh_digits[0], Predictor.load(folder)
    check_same(predictor, clf, X)
    check_same(predictor, clf, X[:1])
    for target in TARGETS:
        check_same(predictor.at(**target), clf.at(**target), X)
    np.testing.assert_array_equal(predictor.classes, clf.classes_)
    assert predictor.exits == clf.exits_


def test_a_classifier_in_torch_is_exported_too(digits, fresh_digits, tmp_path):
    clf = quick_classifier(module=TinyConv, max_epochs=2).fit(*digits)
    clf.export(tmp_path / "x")
    check_same(Predictor.load(tmp_path / "x"), clf, fresh_digits[0], within=1e-5)


def test_integers_and_a_point_that_answers_as_the_plain_backbone(digits, fresh_digits, tmp_path):
    clf = quick_classifier(
        module=TinyConv, max_epochs=3, engine="onnxruntime", precision="int8"
    ).fit(*digits)
    plain = copy.copy(clf).control_risk(fresh_digits[0], max_disagreement=0.3, risk_confidence=0.9)
    for each in (clf, plain):
        each.export(tmp_path / "x")
        check_same(Predictor.load(tmp_path / "x"), each, fresh_digits[0], within=1e-6)
    assert plain._predictor.point.plain_last_exit
    assert (tmp_path / "x" / "backbone.onnx").is_file()


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_a_table_with_words_and_missing_values(library, tmp_path):
    rng = np.random.default_rng(0)
    columns = {
        "x": rng.normal(size=300),
        "word": rng.choice(["a", "b", None], 300).tolist(),
    }
    y = np.where(np.array(columns["word"]) == "a", columns["x"] > 0, columns["x"] > 1).astype(str)
    X = pytest.importorskip(library).DataFrame(columns)
    clf = quick_classifier(module=None, max_epochs=2, module__width=8, cv=None).fit(X, y)
    clf.export(tmp_path / "x")
    predictor = Predictor.load(tmp_path / "x")
    check_same(predictor, clf, X, within=1e-5)
    with pytest.raises(ValueError, match="word2.*in one of both"):
        predictor.predict(
            X.rename(columns={"word": "word2"})
            if library == "pandas"
            else X.rename({"word": "word2"})
        )


def test_groups_and_scores_that_calibration_chose(clf, fresh_digits, tmp_path):
    X, y = fresh_digits
    groups = np.where(X[:, 20] > 5, "dark", "light")
    for i, score in enumerate(["raps", "randomized_aps"]):
        other = copy.copy(clf).conformalize(X[:400], y[:400], groups=groups[:400])
        other = (
            quick_classifier(
                module=TinyConv, max_epochs=1, conformity_score=score, condition_on="exit"
            ).fit(X, y)
            if i
            else other
        )
        other.export(tmp_path / score)
        predictor = Predictor.load(tmp_path / score)
        given = {} if i else {"groups": groups[400:]}
        np.testing.assert_array_equal(
            predictor.predict_set(X[400:], **given), other.predict_set(X[400:], **given)
        )


def test_it_needs_nothing_but_numpy_and_onnxruntime(clf, folder, fresh_digits, tmp_path):
    np.save(tmp_path / "X.npy", fresh_digits[0][:50])
    missing = ["torch", "skorch", "sklearn", "scipy", "joblib", "onnx", "pandas", "safetensors"]
    code = (
        f"import sys; [sys.modules.__setitem__(name, None) for name in {missing}];"
        "import numpy as np; from sklearn_jeidnn.runtime import Predictor;"
        f"p = Predictor.load({str(folder)!r}).at(budget=0.6);"
        f"X = np.load({str(tmp_path / 'X.npy')!r});"
        "print(p.predict(X).tolist(), p.predict_set(X).sum(), sep=';')"
    )
    run = [sys.executable, "-W", "error", "-c", code]
    result = subprocess.run(run, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    labels, n_labels = result.stdout.split(";")
    at = clf.at(budget=0.6)
    assert json.loads(labels) == at.predict(fresh_digits[0][:50]).tolist()
    assert int(n_labels) == at.predict_set(fresh_digits[0][:50]).sum()


def test_other_programs_find_what_they_need(clf, folder):
    document = json.loads((folder / VALUES).read_text())
    points = document["operating_points"]
    assert [point["mean_cost"] for point in points] == clf.frontier_["mean_cost"].tolist()
    assert len(points[0]["gates"]) == len(clf.exits_)
    assert {"predictor.temperatures", "exit_0.onnx"} <= {
        "predictor.temperatures",
        *document["files"],
    }
    arrays = load_file(folder / ARRAYS)
    np.testing.assert_array_equal(arrays["predictor.calibration.temperatures"], clf.temperatures_)


def test_what_cannot_be_exported_is_named(digits, tmp_path):
    X, y = digits
    members = [GaussianNB(), (TinyConv, {})]
    with_classifier = quick_classifier(module=members, max_epochs=1).fit(X, y)
    with pytest.raises(ValueError, match="GaussianNB.*cannot be exported"):
        with_classifier.export(tmp_path / "x")
    own = quick_classifier(module=TinyConv, max_epochs=1, condition_on=lambda X: X[:, 20] > 5).fit(
        X, y
    )
    with pytest.raises(TypeError, match="condition_on.*function"):
        own.export(tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_folders_of_others_stay(clf, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(FileExistsError, match="no folder that was exported"):
        clf.export(tmp_path / "mine")
    with pytest.raises(FileNotFoundError, match="nowhere.*no such folder"):
        clf.export(tmp_path / "nowhere" / "x")
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"


def test_an_export_that_fails_leaves_the_one_before(clf, folder, copied, monkeypatch):
    before = {file.name: file.read_bytes() for file in copied.iterdir()}
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(OSError, match="No space left"):
        clf.export(copied)
    assert {file.name: file.read_bytes() for file in copied.iterdir()} == before
    assert [file.name for file in copied.parent.iterdir()] == [copied.name]
    monkeypatch.undo()
    clf.at(cost_weight=0.5).export(copied)
    assert [file.name for file in copied.parent.iterdir()] == [copied.name]
    assert Predictor.load(copied).predict_exit(np.zeros((1, 64))).shape == (1,)


def rewritten(folder, change):
    """Change the values of a folder, and its checksum with them."""
    document = json.loads((folder / VALUES).read_text())
    change(document)
    document.pop("sha256", None)
    text = json.dumps(document, sort_keys=True).encode()
    document["sha256"] = hashlib.sha256(text).hexdigest()
    (folder / VALUES).write_text(json.dumps(document))


def path_to(*keys):
    def found(document):
        for key in keys[:-1]:
            document = document[key]
        return document, keys[-1]

    return found


OF_VALUES = ("predictor", "@dict")
WRONG = [
    (("format_version",), VERSION + 1, "newer"),
    (("format",), "other", "no exported"),
    ((*OF_VALUES, "schema", "@"), "os.system", "not known"),
    ((*OF_VALUES, "schema", "sample_shapes"), {"@tuple": [{"@tuple": [2**40]}]}, "shapes"),
    ((*OF_VALUES, "cascade", "@dict", "exit_costs"), {"@array": "nowhere"}, "lacks the array"),
    ((*OF_VALUES, "cascade", "@dict", "exits"), [1, 2], "exits"),
    ((*OF_VALUES, "schema", "estimator_name"), 7, "estimator_name is a int"),
    ((*OF_VALUES, "rule", "takes_groups"), "no", "takes_groups"),
    ((*OF_VALUES, "rule", "conformity_score"), {"@named": "eval"}, "not known"),
    ((*OF_VALUES, "frontier", "exit_mass"), {"@code": "1"}, "not known"),
    ((*OF_VALUES, "schema", "classes"), {"@array": "predictor.point.gates.bias"}, "classes"),
    ((*OF_VALUES, "graphs", "n_inputs"), 3, "inputs"),
    (("files", "exit_0.onnx"), "0" * 64, "checksum of exit_0"),
]


@pytest.mark.parametrize("keys, value, message", WRONG)
def test_hostile_values_are_refused(copied, keys, value, message):
    def change(document):
        place, key = path_to(*keys)(document)
        place[key] = value

    rewritten(copied, change)
    with pytest.raises(ValueError, match=rf"cannot be loaded: .*{message}"):
        Predictor.load(copied)


@pytest.mark.parametrize("name", [VALUES, ARRAYS, "exit_0.onnx"])
def test_damaged_files_are_refused(copied, name):
    data = (copied / name).read_bytes()
    for damaged in (data[:-1], data[: len(data) // 2], b"", bytes([data[0] ^ 1]) + data[1:]):
        (copied / name).write_bytes(damaged)
        with pytest.raises(ValueError, match="cannot be loaded"):
            Predictor.load(copied)
    (copied / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        Predictor.load(copied)


def test_a_graph_that_onnx_runtime_cannot_name_prints_nothing(copied, capfd):
    name = "exit_0.onnx"
    graph = (copied / name).read_bytes()
    # A name that is no UTF-8, which ONNX Runtime repeats.
    assert b"MatMul" in graph
    (copied / name).write_bytes(graph.replace(b"MatMul", b"\xecatMul"))
    of_graph = hashlib.sha256((copied / name).read_bytes()).hexdigest()
    rewritten(copied, lambda document: document["files"].update({name: of_graph}))
    with pytest.raises(ValueError, match="cannot be loaded"):
        Predictor.load(copied)
    assert not any(capfd.readouterr())


def test_what_is_not_fitted_is_not_exported(tmp_path):
    with pytest.raises(NotFittedError):
        EarlyExitClassifier().export(tmp_path / "x")


def test_an_export_from_several_threads_of_torch_answers_the_same(clf, folder, fresh_digits):
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        check_same(Predictor.load(folder), clf, fresh_digits[0])
    finally:
        torch.set_num_threads(threads)
