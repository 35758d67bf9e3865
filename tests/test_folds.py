"""Gates set on out-of-fold answers: what they are, what the members learn afterwards, and what is refused."""

import copy

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.tree import DecisionTreeClassifier
from skorch.callbacks import EarlyStopping, LRScheduler
from torch.utils.data import WeightedRandomSampler

from sklearn_jeidnn import EarlyExitClassifier
from sklearn_jeidnn._fit import folds, learning
from sklearn_jeidnn._fit.callbacks import count_kept_epochs
from sklearn_jeidnn._fit.training import train_exits
from sklearn_jeidnn._history import CALIBRATION, TRAIN

from .conftest import MaskedTokens, TinyConv

N_ROWS, N_CALIBRATION = 120, 6
SMALL = {"module__width": 8, "module__n_blocks": 2, "max_epochs": 2, "random_state": 0}


@pytest.fixture(scope="module")
def table():
    random = np.random.RandomState(0)
    X = random.standard_normal((N_ROWS, 3))
    return X, (X[:, 0] > 0).astype(int)


@pytest.fixture(scope="module")
def in_folds(table):
    return EarlyExitClassifier(cv=4, **SMALL).fit(*table)


def gate_answers(clf):
    return clf._predictor.frontier.answers


def test_all_rows_but_those_that_calibrate_train_and_set_the_gates(table, in_folds):
    assert len(gate_answers(in_folds)) == N_ROWS - N_CALIBRATION
    parts = in_folds._predictor.history.parts
    assert np.bincount(parts).tolist() == [N_ROWS - N_CALIBRATION, 0, N_CALIBRATION]
    assert len(in_folds.conformity_scores_) == N_CALIBRATION


def test_the_rows_that_calibrate_are_those_of_a_fit_without_folds(table, in_folds):
    split = EarlyExitClassifier(**SMALL).fit(*table)
    own, others = (
        clf._predictor.history.hashes[clf._predictor.history.parts == CALIBRATION]
        for clf in (in_folds, split)
    )
    assert np.array_equal(np.sort(own), np.sort(others))


def test_a_member_that_knows_its_rows_by_heart_is_judged_on_rows_that_it_does_not_know(table):
    X, _ = table
    y = np.random.RandomState(1).permutation(np.arange(N_ROWS) % 2)
    clf = EarlyExitClassifier([KNeighborsClassifier(1), None], cv=4, max_epochs=1, random_state=0)
    clf.fit(X, y)
    assert gate_answers(clf).errors[:, 0].mean() > 0.3
    # In the end it knows all rows but those that calibrate.
    assert clf.exit_answers(X, y).errors[:, 0].sum() <= N_CALIBRATION


@pytest.mark.filterwarnings("ignore:nothing is saved")
def test_answers_of_all_folds_stand_beside_the_labels_of_their_rows(table):
    members = [DecisionTreeClassifier(max_depth=1), LogisticRegression()]
    clf = EarlyExitClassifier(members, cv=3, random_state=0).fit(*table)
    assert gate_answers(clf).errors.mean(axis=0).max() < 0.1


def recorded_starts(monkeypatch):
    """Weights and mixing weights with which trainings begin, and their samples."""
    begun = []

    def train(module, samples, held_out, **options):
        state = {name: value.clone() for name, value in module.state_dict().items()}
        begun.append((state, len(samples), held_out is not None))
        return train_exits(module, samples, held_out, **options)

    monkeypatch.setattr(learning, "train_exits", train)
    return begun


def test_every_training_begins_with_the_weights_that_the_member_came_with(table, monkeypatch):
    begun = recorded_starts(monkeypatch)
    EarlyExitClassifier(cv=3, companion=None, **SMALL).fit(*table)
    states = [state for state, _, _ in begun]
    assert len(states) == 4
    for state in states[1:]:
        assert all(torch.equal(state[name], value) for name, value in states[0].items())
    n_train = N_ROWS - N_CALIBRATION
    assert [told for _, *told in begun] == [[n_train * 2 // 3, True]] * 3 + [[n_train, False]]


def mix_half(heads, held_out, *, plain_last):
    heads.mix([0.0] + [0.5] * len(heads.heads), 0.0)


@pytest.mark.usefixtures("no_trees")
def test_companions_are_chosen_before_only_those_learn_again(table, monkeypatch):
    begun = recorded_starts(monkeypatch)
    monkeypatch.setattr(folds, "fit_mixing_weights", mix_half)
    clf = EarlyExitClassifier(cv=2, **SMALL).fit(*table)
    n_last = sum(not has_held_out for *_, has_held_out in begun)
    assert n_last == len(clf.network_.heads.first_exits) <= (len(begun) - n_last) / 2
    # While members learn, their exits are not combined.
    for state, *_ in begun:
        assert not any(v.any() for name, v in state.items() if name.endswith("heads._extra_state"))


def test_mixing_weights_of_the_folds_are_those_of_the_network(table):
    members = [DecisionTreeClassifier(max_depth=2), None]
    clf = EarlyExitClassifier(members, cv=3, exits=[0, 0], max_epochs=1, random_state=0)
    clf.fit(*table)
    answers = gate_answers(clf)
    weight = clf.network_.heads.mixing_weights[1]
    first, last = (torch.as_tensor(answers.logits[:, i]) for i in range(2))
    expected = torch.as_tensor(answers.backbone_logits) + weight * first.log_softmax(-1)
    torch.testing.assert_close(last, expected, atol=1e-4, rtol=1e-4)
    assert weight > 0


def test_the_last_training_ends_after_as_many_epochs_as_the_folds_kept(table, monkeypatch):
    kept = iter([1, 3, 2])
    monkeypatch.setattr(learning, "count_kept_epochs", lambda history: next(kept, 9))
    params = {**SMALL, "max_epochs": 4, "companion": None}
    assert len(EarlyExitClassifier(cv=3, **params).fit(*table).history_) == 2


def test_the_median_is_of_each_training():
    assert folds._medians([(3, 9), (5, 7), (40, 8)]) == (5, 8)
    assert folds._medians([(), ()]) == ()


def test_training_that_stops_early_in_the_folds_stops_as_early_in_the_end(table):
    stop = EarlyStopping("valid_loss", threshold=100, threshold_mode="abs")
    params = {**SMALL, "max_epochs": 6, "companion": None, "callbacks": [stop]}
    params["callbacks__EarlyStopping__patience"] = 1
    clf = EarlyExitClassifier(cv=3, **params).fit(*table)
    assert len(clf.history_) == 2


def test_a_callback_that_reads_held_out_rows_is_told_that_there_are_none(table):
    plateau = LRScheduler("ReduceLROnPlateau", monitor="valid_loss")
    clf = EarlyExitClassifier(cv=2, companion=None, callbacks=[plateau], **SMALL)
    with pytest.raises(ValueError, match="callbacks.*cv=None"):
        clf.fit(*table)


@pytest.mark.parametrize(
    "params",
    [
        {"cv": 3, "freeze_backbone": "after_warmup"},
        {"cv": 3, "companion_training": "distilled"},
        {"cv": 3, "class_weight": "balanced", "budget": 0.9},
        {"cv": 3, "max_accuracy_drop": 0.05, "exit_policy": "margin"},
        {"cv": 3, "cost": "seconds", "cost_batch_size": 8},
        {"cv": 3, "validation_fraction": 0},
    ],
)
def test_folds_go_together_with(table, params):
    first, second = (EarlyExitClassifier(**{**SMALL, **params}).fit(*table) for _ in range(2))
    if params.get("cost") != "seconds":
        assert np.array_equal(first.predict_proba(table[0]), second.predict_proba(table[0]))
    n_calibration = 0 if params.get("validation_fraction") == 0 else N_CALIBRATION
    assert len(gate_answers(first)) == N_ROWS - n_calibration


def test_modules_of_ones_own_answer_out_of_fold(digits):
    X, y = digits[0][:200], digits[1][:200]
    clf = EarlyExitClassifier(TinyConv, exits=["blocks.0"], cv=2, max_epochs=1, random_state=0)
    assert len(gate_answers(clf.fit(X, y))) == 190
    module = TinyConv()
    EarlyExitClassifier(module, exits=["blocks.0"], cv=2, max_epochs=1).fit(X, y)


def test_tokens_that_one_fold_alone_has_are_embedded():
    random = np.random.RandomState(0)
    tokens = random.randint(2, 20, (60, 5))
    tokens[7, 0] = 49
    X = {"input_ids": tokens, "attention_mask": np.ones_like(tokens)}
    y = np.arange(60) % 3
    clf = EarlyExitClassifier(
        MaskedTokens, companion="auto", cv=3, max_epochs=1, cost_weight=0.0, random_state=0
    )
    assert len(gate_answers(clf.fit(X, y))) == 57


def test_folds_are_remembered(table, tmp_path, monkeypatch):
    clf = EarlyExitClassifier(cv=2, companion=None, memory=tmp_path, **SMALL).fit(*table)
    begun = recorded_starts(monkeypatch)
    again = EarlyExitClassifier(cv=2, companion=None, memory=tmp_path, **SMALL).fit(*table)
    assert not begun
    assert np.array_equal(clf.predict_proba(table[0]), again.predict_proba(table[0]))


class Weighing(ClassifierMixin, BaseEstimator):
    """Remembers the weights of its samples."""

    seen = []

    def fit(self, X, y, sample_weight=None):
        self.classes_ = np.unique(y)
        self.seen.append(sample_weight)
        return self

    def predict_proba(self, X):
        return np.full((len(X), len(self.classes_)), 1 / len(self.classes_))


def test_weights_have_mean_one_in_each_training(table):
    Weighing.seen.clear()
    X, y = table
    weights = np.where(y == 1, 1.0, 9.0)
    clf = EarlyExitClassifier([Weighing(), None], cv=3, max_epochs=1, random_state=0)
    clf.fit(X, y, sample_weight=weights)
    assert [len(own) for own in Weighing.seen] == [114, 76, 76, 76]
    assert all(abs(own.mean() - 1) < 1e-6 for own in Weighing.seen)
    assert abs(gate_answers(clf).weights.mean() - 1) < 1e-6


REFUSED = [
    ({"gate_training": "bilevel"}, "gate_training='joint'"),
    ({"warm_start": True}, "warm_start=True"),
    ({"module": TinyConv(), "freeze_backbone": True}, "freeze_backbone=True"),
    (
        {"iterator_train__sampler": WeightedRandomSampler(np.ones(114), 114)},
        "iterator_train__sampler",
    ),
]


@pytest.mark.parametrize(("params", "named"), REFUSED)
def test_what_does_not_go_together_with_folds_is_named(table, params, named):
    with pytest.raises(ValueError, match=f"cv=3.*{named}.*cv=None"):
        EarlyExitClassifier(cv=3, **params).fit(*table)


def test_held_out_rows_of_ones_own_and_folds_exclude_each_other(table):
    X, y = table
    with pytest.raises(ValueError, match="cv=3.*X_val"):
        EarlyExitClassifier(cv=3).fit(X, y, X_val=X[:10], y_val=y[:10])


def test_members_that_come_fitted_are_refused(table):
    members = [LogisticRegression().fit(*table), None]
    with pytest.raises(ValueError, match="cv=3.*LogisticRegression.*fitted"):
        EarlyExitClassifier(members, cv=3).fit(*table)


def test_a_network_that_has_learned_from_the_rows_is_refused(table):
    in_folds = EarlyExitClassifier(cv=4, companion=None, **SMALL).fit(*table)
    with pytest.raises(ValueError, match="cv=3.*earlier fit knew 120 of 120"):
        EarlyExitClassifier(in_folds.module_, cv=3).fit(*table)


def test_a_network_that_knows_the_rows_from_elsewhere_is_refused(table):
    X, y = table
    known = torch.nn.Linear(3, 2)
    with torch.no_grad():
        known.weight.copy_(torch.tensor([[-9.0, 0, 0], [9.0, 0, 0]]))
        known.bias.zero_()
    module = torch.nn.Sequential(torch.nn.Identity(), known)
    with pytest.raises(
        ValueError, match="cv=3 needs members that have learned from no sample of X"
    ):
        EarlyExitClassifier(module, exits=["0"], cv=3).fit(X, y)


def test_too_few_rows_for_the_folds_are_refused():
    X = np.arange(8.0)[:, None]
    with pytest.raises(ValueError, match="cv=8 needs a sample for each fold beside 1"):
        EarlyExitClassifier(cv=8).fit(X, np.arange(8) % 2)


@pytest.mark.parametrize("cv", [1, 2.0, True, "five"])
def test_cv_is_a_whole_number_from_two(table, cv):
    with pytest.raises(ValueError, match="cv"):
        EarlyExitClassifier(cv=cv).fit(*table)


def test_classes_with_fewer_rows_than_folds_are_told(table):
    X, y = table
    y = y.copy()
    y[:2], y[2] = 7, 8
    with pytest.warns(UserWarning, match=r"fewer samples than cv=3 folds"):
        clf = EarlyExitClassifier(cv=3, validation_fraction=0, **SMALL).fit(X, y)
    # The only row of a class sets no gates.
    assert np.bincount(gate_answers(clf).codes).tolist()[2:] == [2]
    assert clf.classes_.tolist() == [0, 1, 7, 8]


@pytest.fixture(scope="module")
def without_calibration(table):
    return EarlyExitClassifier(cv=3, validation_fraction=0, **SMALL).fit(*table)


def test_without_rows_that_calibrate_there_are_no_sets(table, without_calibration):
    X, _ = table
    assert (without_calibration._predictor.history.parts == TRAIN).all()
    assert not hasattr(without_calibration, "conformity_scores_")
    assert without_calibration.predict_proba(X).shape == (N_ROWS, 2)
    for method in (without_calibration.predict_set, without_calibration.check_exchangeability):
        with pytest.raises(ValueError, match="no sample calibrates.*conformalize"):
            method(X)
    with pytest.raises(ValueError, match="no sample calibrates.*risk_confidence=0.9"):
        without_calibration.at(budget=1.0, risk_confidence=0.9)


def test_rows_of_their_own_calibrate_afterwards(without_calibration):
    random = np.random.RandomState(5)
    X = random.standard_normal((40, 3))
    y = (X[:, 0] > 0).astype(int)
    clf = without_calibration.at(cost_weight=0.0).conformalize(X, y)
    assert clf.predict_set(X).shape == (40, 2) and len(clf.conformity_scores_) == 40
    assert without_calibration.control_risk(X, budget=1.0).risk_.n_samples == 40


def test_a_certificate_needs_rows_that_calibrate(table):
    clf = EarlyExitClassifier(cv=3, validation_fraction=0, budget=0.5, risk_confidence=0.9)
    with pytest.raises(
        ValueError, match=r"risk_confidence=0.9.*validation_fraction=0.*control_risk"
    ):
        clf.fit(*table)


def test_without_folds_some_rows_must_be_held_out(table):
    with pytest.raises(ValueError, match="validation_fraction=0 .*cv=5"):
        EarlyExitClassifier(cv=None, validation_fraction=0).fit(*table)


def test_after_folds_a_warm_start_halves_the_rows_that_calibrated(table, in_folds):
    clf = copy.deepcopy(in_folds).set_params(cv=None, warm_start=True).fit(*table)
    assert len(gate_answers(clf)) == len(clf.conformity_scores_) == N_CALIBRATION // 2


def test_the_history_tells_which_epoch_was_kept(table, in_folds):
    history = EarlyExitClassifier(companion=None, **SMALL).fit(*table).history_
    assert [row["kept"] for row in history] == [False, True]
    assert count_kept_epochs(history) == 2
    # After folds nothing is held out to choose an epoch on.
    assert all("kept" not in row for row in in_folds.history_)
