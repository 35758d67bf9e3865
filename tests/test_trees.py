"""Trees beside the ready network for tables."""

import pickle
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import ExtraTreesClassifier, HistGradientBoostingClassifier
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline

from sklearn_jeidnn import EarlyExitClassifier
from sklearn_jeidnn._fit import assembly, callbacks, trees
from sklearn_jeidnn._fit.ends import chosen_ends
from sklearn_jeidnn._fit.features import ExitFeatures
from sklearn_jeidnn._fit.learning import MemberTrainer

NO_CATEGORIES = np.zeros(30, dtype=bool)
TREES = (trees.QuickExtraTrees, trees.QuickBoostedTrees)


@pytest.fixture(scope="module")
def tumours():
    X, y = load_breast_cancer(return_X_y=True)
    return train_test_split(X, y, random_state=0)


def untaught(**params):
    """A classifier whose network is small and learns next to nothing, so that trees are better and cost more."""
    defaults = {"max_epochs": 1, "lr": 1e-6, "module__width": 16, "cv": None, "random_state": 0}
    return EarlyExitClassifier(**{**defaults, **params})


@pytest.fixture(scope="module")
def with_trees(tumours):
    X, _, y, _ = tumours
    return untaught().fit(X, y)


def member(log_odds, y):
    logits = torch.tensor(np.stack([np.zeros_like(log_odds), log_odds], axis=1))
    held_out = ExitFeatures([logits], torch.as_tensor(y), torch.ones(len(y)))
    return SimpleNamespace(held_out=held_out, cut=SimpleNamespace(cost=0))


def test_trees_are_kept_that_know_what_the_network_does_not_and_no_others():
    rng = np.random.RandomState(0)
    y = rng.randint(2, size=400)
    signs = 2.0 * y - 1
    network, useful, useless = (
        member(share * signs + rng.randn(400), y) for share in (0.5, 0.7, 0.0)
    )
    members = [useful, useless, network]
    assert chosen_ends(members, 2, [0, 1], lambda cuts: [0, 1]) == (2, 0)
    # The costliest is the last.
    assert chosen_ends(members, 2, [0, 1], lambda cuts: [1, 0]) == (0, 2)
    assert chosen_ends(members, 2, [1], lambda cuts: [0, 1]) == (2,)
    assert chosen_ends(members, 2, [], lambda cuts: [0]) == (2,)


def test_trees_stand_beside_a_network_that_knows_less(with_trees, tumours):
    _, X, _, y = tumours
    last = with_trees.module_
    assert isinstance(last, TREES)
    assert with_trees.exit_costs_[-1] > 1
    assert with_trees.at(budget=2.0).score(X, y) > 0.85
    assert np.array_equal(with_trees.predict_backbone(X), last.predict(np.float32(X)))
    assert len(with_trees.history_) == 1


def test_what_trees_cost_does_not_depend_on_the_clock(with_trees, tumours):
    X, X_test, y, _ = tumours
    again = untaught().fit(X, y)
    assert np.array_equal(again.exit_costs_, with_trees.exit_costs_)
    assert np.array_equal(again.predict_proba(X_test), with_trees.predict_proba(X_test))


def test_a_sample_s_answer_does_not_depend_on_those_beside_it(with_trees, tumours):
    X = tumours[1]
    whole = with_trees.predict_proba(X)
    alone = np.concatenate([with_trees.predict_proba(X[i : i + 1]) for i in range(20)])
    assert np.allclose(whole[:20], alone, atol=1e-5)


def test_trees_are_pickled_and_learn_again(with_trees, tumours):
    X, X_test, y, _ = tumours
    copied = pickle.loads(pickle.dumps(with_trees))
    assert np.array_equal(copied.predict(X_test), with_trees.predict(X_test))
    copied.set_params(warm_start=True)
    exits = copied.exits_
    copied.fit(X, y)
    assert copied.exits_ == exits
    assert isinstance(copied.module_, TREES)


@pytest.mark.parametrize("params", [{"companion": None}, {"gate_training": "bilevel"}])
def test_no_trees_stand_where_nothing_is_put_beside_the_network(tumours, params):
    X, _, y, _ = tumours
    clf = untaught(**params).fit(X, y)
    assert isinstance(clf.module_, torch.nn.Module)


def test_trees_that_take_too_much_time_are_left_out(tumours, monkeypatch):
    X, _, y, _ = tumours
    monkeypatch.setattr(assembly, "MOST_TREE_TIME", 0)
    clf = untaught(cost="seconds", cost_batch_size=1).fit(X, y)
    assert isinstance(clf.module_, torch.nn.Module)


def test_trees_learn_from_weighted_samples(tumours):
    X, X_test, y, y_test = tumours
    weight = np.repeat([1.0, 1e-3], len(X))
    # Each sample comes twice, the second time with a wrong label that weighs nearly nothing.
    clf = untaught().fit(np.r_[X, X], np.r_[y, 1 - y], sample_weight=weight)
    assert np.mean(clf.module_.predict(np.float32(X_test)) == y_test) > 0.85


def test_quick_trees_answer_as_scikit_learn_s(tumours):
    X, X_test, y, _ = tumours
    X, X_test = np.float32(X), np.float32(X_test)
    X[::7, 3] = X_test[::5, 3] = np.nan
    quick, usual = (
        kind(20, random_state=0).fit(X, y) for kind in (trees.QuickExtraTrees, ExtraTreesClassifier)
    )
    assert np.allclose(quick.predict_proba(X_test), usual.predict_proba(X_test), atol=1e-12)
    paths = usual.decision_path(X)[0]
    steps = paths.sum() / len(X)
    assert trees.multiply_adds_of(quick) == pytest.approx(trees.EXTRA_STEP * steps)


def test_boosted_trees_answer_as_scikit_learn_s_and_leave_the_threads_as_they_are(tumours):
    X, X_test, y, _ = tumours
    threads = trees._openmp().info()
    quick, usual = (
        kind(max_iter=5, random_state=0).fit(X, y)
        for kind in (trees.QuickBoostedTrees, HistGradientBoostingClassifier)
    )
    assert np.array_equal(quick.predict_proba(X_test), usual.predict_proba(X_test))
    assert trees._openmp().info() == threads


@pytest.mark.parametrize("n_samples, n_threads", [(10, [1]), (11, None)])
def test_few_samples_take_one_thread(n_samples, n_threads):
    before = [lib["num_threads"] for lib in trees._openmp().info()]
    with trees._one_thread_for(n_samples, 10):
        inside = [lib["num_threads"] for lib in trees._openmp().info()]
    assert inside == ([1] * len(before) if n_threads else before)


def test_boosted_trees_cost_in_proportion_to_their_number(tumours):
    X, _, y, _ = tumours
    few, many = (
        trees.multiply_adds_of(trees.boosted_trees(X, NO_CATEGORIES, 0, max_iter=n).fit(X, y))
        for n in (5, 50)
    )
    assert many == 10 * few
    assert trees.multiply_adds_of(object()) is None


def test_boosted_trees_take_empty_columns_and_many_categories():
    rng = np.random.RandomState(0)
    X = np.float32(np.stack([rng.randint(400, size=2000), rng.randn(2000)], axis=1))
    X = np.c_[X, np.full(2000, np.nan, np.float32)]
    y = rng.randint(2, size=2000)
    categorical = np.array([True, False, False])
    many = trees.boosted_trees(X, categorical, 0, max_iter=2)
    assert isinstance(many, Pipeline)
    fitted = many.fit(X, y)
    assert trees.multiply_adds_of(fitted) == trees.BOOSTED_STEP * trees.BOOSTED_DEPTH * 2
    X[0, 0] = -1
    assert fitted.predict_proba(X[:3]).shape == (3, 2)
    few = np.c_[X[:, :1] % 9, X[:, 1:2]]
    assert not isinstance(trees.boosted_trees(few, categorical[:2], 0), Pipeline)


def test_there_are_as_many_trees_as_memory_and_time_bear():
    X = np.zeros((trees.MOST_EXTRA_SAMPLES + 1, 2), dtype=np.float32)
    none = np.zeros(2, dtype=bool)

    def kinds(n_samples, n_classes):
        return [type(m.module) for m in trees.trees_for(X[:n_samples], n_classes, none, 0)]

    assert kinds(100, 2) == list(TREES)
    assert kinds(len(X), 2) == [trees.QuickBoostedTrees]
    assert kinds(100, trees.MOST_BOOSTED_CLASSES + 1) == [trees.QuickExtraTrees]


def test_frames_with_words_and_gaps_reach_the_trees(tumours):
    X, X_test, y, y_test = (pd.DataFrame(a) if np.ndim(a) == 2 else a for a in tumours)
    X, X_test = (frame.rename(columns=str) for frame in (X, X_test))
    for frame in (X, X_test):
        frame["size"] = np.where(frame["0"] > 14, "large", "small")
        frame.loc[frame.index[::9], "1"] = np.nan
    clf = untaught().fit(X, y)
    assert isinstance(clf.module_, TREES)
    assert clf.at(budget=2.0).score(X_test, y_test) > 0.85


@pytest.mark.parametrize("companion, n_epochs", [("tabular", 14), (None, 30)])
def test_a_network_beside_trees_may_end_its_training_sooner(tumours, companion, n_epochs):
    X, _, y, _ = tumours
    # It learns nothing, so that no cycle helps: 24 steps an epoch, 300 or 700 at least.
    params = {"max_epochs": "auto", "lr": 1e-30, "batch_size": 16, "companion": companion}
    assert len(untaught(**params).fit(X, y).history_) == n_epochs


@pytest.mark.parametrize("cv, n_epochs", [(None, 254), (2, 30)])
def test_beside_trees_in_folds_a_training_ends_however_much_each_cycle_helps(
    tumours, monkeypatch, cv, n_epochs
):
    X, _, y, _ = tumours
    monkeypatch.setattr(callbacks, "_is_better", lambda scores, before: True)
    # In a fold 14 steps an epoch, and 240 are enough.
    params = {"max_epochs": "auto", "lr": 1e-30, "batch_size": 16}
    assert len(untaught(cv=cv, **params).fit(X, y).history_) == n_epochs


def test_the_network_learns_labels_in_and_after_folds_where_trees_are_the_last(
    tumours, monkeypatch
):
    X, _, y, _ = tumours
    plain, of_labels = MemberTrainer._learn, []

    def noted(trainer, cut, samples, known):
        if cut.names:
            of_labels.append(samples is trainer.train)
        return plain(trainer, cut, samples, known)

    monkeypatch.setattr(MemberTrainer, "_learn", noted)
    clf = untaught(cv=2, companion_training="distilled").fit(X, y)
    assert isinstance(clf.module_, TREES)
    assert of_labels == [True] * 3
