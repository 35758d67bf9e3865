"""Files and folders of every version of the formats load, and answer what they answered."""

import pathlib

import numpy as np
import pytest
from sklearn.datasets import load_iris

from sklearn_jeidnn import EarlyExitClassifier
from sklearn_jeidnn._store import exported, models
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
