"""Notebooks show the chain of members, and what their exits cost once the estimator is fitted."""

import re

import numpy as np
import pytest
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from sklearn_jeidnn import EarlyExitClassifier
from sklearn_jeidnn._chain import chain_of, exit_labels, kind_of
from sklearn_jeidnn._fit.trees import QuickExtraTrees

from .conftest import TinyConv


def text_of(estimator):
    """What a reader sees of an estimator's page, without styles and scripts."""
    page = re.sub(r"<(style|script).*?</\1>", "", estimator._repr_html_(), flags=re.DOTALL)
    return re.sub(r"<[^>]+>", "\n", page)


@pytest.fixture(scope="module")
def chain(digits):
    """Two members, the second with exits inside."""
    members = [LogisticRegression(max_iter=5000), TinyConv]
    clf = EarlyExitClassifier(
        members, companion_costs=[0.05], max_epochs=1, exits=[0, 2], random_state=0
    )
    return clf.fit(*digits)


def test_members_are_told_in_their_order_before_fit():
    clf = EarlyExitClassifier([LogisticRegression(), (ExtraTreesClassifier(), {"batch_size": 7})])
    text = text_of(clf)
    assert text.index("\nLogisticRegression\n") < text.index("\nExtraTreesClassifier\n")
    assert "batch_size=7" in text and "1 exit" not in text
    assert "ready network" in text_of(EarlyExitClassifier())
    assert "made by fit" in text_of(EarlyExitClassifier(companion="auto"))
    assert "made by fit" not in text_of(EarlyExitClassifier(companion=None))


def test_a_fitted_chain_tells_exits_and_costs(chain):
    text = text_of(chain)
    first, *inside, last = chain.exit_costs_
    assert f"1 exit, cost {first:.3g}" in text
    assert f"3 exits, cost {inside[0]:.3g} to {last:.3g}" in text
    for name, cost in zip(chain.exits_[1:], inside, strict=True):
        assert re.search(rf"{re.escape(name.removeprefix('1.'))} +{cost:.3g}\n", text), name
    # What comes before are parameters and attributes.
    assert text.rindex("\nLogisticRegression\n") < text.rindex("\nTinyConv\n")


def test_a_pipeline_shows_the_chain_inside_of_it(chain):
    assert "\nTinyConv\n" in text_of(make_pipeline(StandardScaler(), chain))


def test_a_loaded_classifier_shows_the_same_chain(chain, tmp_path):
    pytest.importorskip("skops")
    chain.save(tmp_path / "model.jeidnn")
    loaded = EarlyExitClassifier.load(tmp_path / "model.jeidnn", TinyConv)
    assert "3 exits" in text_of(loaded)


def test_parameters_that_mean_nothing_are_still_shown():
    assert "EarlyExitClassifier" in text_of(EarlyExitClassifier(module=[]))


def test_a_member_is_called_what_its_readers_know():
    assert kind_of(QuickExtraTrees()) == "ExtraTreesClassifier"
    assert kind_of(make_pipeline(StandardScaler(), LogisticRegression())) == "LogisticRegression"
    assert kind_of(nn.Linear(1, 1)) == "Linear"


def test_every_exit_has_the_member_that_it_ends():
    members = [QuickExtraTrees(), nn.Linear(1, 1)]
    chain = chain_of(members, [[], ["blocks.0"]], [0.1, 0.5, 1.0])
    assert [member.costs for member in chain] == [[0.1], [0.5, 1.0]]
    assert exit_labels(["0", "1.blocks.0"], chain) == [
        "0: ExtraTrees",
        "1.blocks.0",
        "last exit: Linear",
    ]
    lone = chain_of(members[1:], [["0"]], np.array([0.5, 1.0]))
    assert exit_labels(["0"], lone) == ["0", "last exit"]
