"""Files and folders of every version of the formats load, and answer what they answered."""

import pathlib

import numpy as np
import pytest
from sklearn.datasets import load_iris

from sklearn_jeidnn import EarlyExitClassifier
from sklearn_jeidnn._fit import saving
from sklearn_jeidnn._store import exported, models, predictors
from sklearn_jeidnn.runtime import Predictor

STORED = pathlib.Path(__file__).parent / "stored"


@pytest.mark.parametrize("name", sorted(file.stem for file in STORED.glob("*.csv")))
def test_it_answers_what_it_answered(name):
    is_model = name.startswith("model")
    found = (
        EarlyExitClassifier.load(STORED / f"{name}.jeidnn")
        if is_model
        else Predictor.load(STORED / name)
    )
    X = load_iris().data
    answered = np.loadtxt(STORED / f"{name}.csv", delimiter=",")
    np.testing.assert_allclose(found.predict_proba(X), answered, atol=1e-4)
    assert found.at(budget=0.9).predict_set(X).any(axis=1).mean() > 0.5


def test_this_version_of_the_formats_is_there():
    assert (STORED / f"model_v{models.VERSION}.jeidnn").is_file()
    assert (STORED / f"export_v{exported.VERSION}").is_dir()


# Files of the first version need not tell which calibration samples are answered right.
@pytest.mark.parametrize("certified", [False, True])
def test_what_a_file_does_not_tell_of_its_calibration_samples_is_found_or_asked_for(
    certified, tmp_path, monkeypatch
):
    X, y = load_iris(return_X_y=True)
    clf = EarlyExitClassifier(companion=None, cv=None, max_epochs=20, random_state=0)
    clf.set_params(validation_fraction=0.5, module__width=16, module__n_blocks=2).fit(X, y)
    clf = clf.at(budget=0.9, risk_confidence=0.6) if certified else clf
    clf.save(tmp_path / "new.jeidnn")
    of_now = predictors.predictor_as_values

    def of_before(predictor):
        values = of_now(predictor)
        del values["calibration"]["correct"]
        return values

    monkeypatch.setattr(saving, "predictor_as_values", of_before)
    clf.save(tmp_path / "old.jeidnn")
    new, old = (EarlyExitClassifier.load(tmp_path / f"{n}.jeidnn") for n in ("new", "old"))
    asked = {"risk": 0.3, "confidence": 0.8}
    expected = clf.predict_or_defer(X, **asked)
    assert expected.certificate.certified
    assert new.predict_or_defer(X, **asked).certificate == expected.certificate
    if certified:
        with pytest.raises(ValueError, match=r"risk=0.3 .* store it again"):
            old.predict_or_defer(X, **asked)
    else:
        assert old.predict_or_defer(X, **asked).certificate == expected.certificate
