"""What the estimator says of itself and its answers holds: limits, calibration, chunks, memory, failed fits, import."""

import copy
import subprocess
import sys
import warnings

import joblib
import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError
from skorch.callbacks import Callback
from torch import nn

from sklearn_jeidnn import EarlyExitClassifier
from sklearn_jeidnn._fit.training import ExitsNet

from .conftest import quick_classifier

N_CLASSES = 3
N_LOGITS = 2 * N_CLASSES


class GivenLogits(nn.Module):
    """Reads the logits of both exits from the sample: nothing is learned, and no processor rounds them."""

    def __init__(self):
        super().__init__()
        self.first, self.second = (nn.Linear(N_LOGITS, N_LOGITS, bias=False) for _ in "ab")
        self.last = nn.Linear(N_LOGITS, N_CLASSES, bias=False)
        for layer in (self.first, self.second, self.last):
            rows = torch.eye(N_LOGITS)[-layer.out_features :]
            layer.weight = nn.Parameter(rows)

    def forward(self, X):
        return self.last(self.second(self.first(X[:, :N_LOGITS])))


class FirstLogits(nn.Module):
    """The head of the first exit."""

    def __init__(self, n_features, n_classes):
        super().__init__()

    def forward(self, feature):
        return feature[:, :N_CLASSES]


def samples_of(kinds, n_columns=N_LOGITS):
    """Samples whose last exit is sure and right, and their labels.

    At the first exit "easy" ones are sure and right, "hard" ones unsure and wrong, "misleading" ones as sure as easy
    ones and wrong.
    """
    y = np.arange(len(kinds)) % N_CLASSES
    truth, other = np.eye(N_CLASSES)[y], np.eye(N_CLASSES)[(y + 1) % N_CLASSES]
    first = {"easy": 6 * truth, "hard": other, "misleading": 6 * other}
    X = np.zeros((len(kinds), n_columns), dtype=np.float32)
    X[:, :N_CLASSES] = [first[kind][i] for i, kind in enumerate(kinds)]
    X[:, N_CLASSES:N_LOGITS] = 5 * truth
    return X, y


def untrained(**params):
    """A classifier whose exits answer what the sample says: no weight is learned."""
    fixed = {"module": GivenLogits(), "exits": ["first"], "head": FirstLogits}
    return EarlyExitClassifier(
        **fixed, freeze_backbone=True, companion=None, random_state=0, **params
    )


def fitted_on(kinds, *, n_columns=N_LOGITS, weight=None, **params):
    X, y = samples_of(kinds, n_columns)
    return untrained(**params).fit(X, y, X_val=X, y_val=y, sample_weight_val=weight)


@pytest.fixture(scope="module")
def given():
    """Easy samples leave at the first exit, hard ones at the last."""
    clf = fitted_on(["easy", "hard"] * 100, cost_weight=0.3)
    X, _ = samples_of(["easy", "hard", "misleading"])
    assert clf.predict_exit(X).tolist() == [0, 1, 0]
    return clf


def ignoring_warnings(method, *args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return method(*args, **kwargs)


def follows_its_confidence(controlled, confidence):
    """Whether the statement names the confidence that was asked for and was shown with it."""
    risk = controlled.risk_
    shown = risk.p_value <= 1 - confidence if risk.certified else np.isnan(risk.p_value)
    return risk.confidence == confidence and shown


def test_samples_take_the_exits_of_the_point_that_was_asked_for(given):
    X, y = samples_of(["easy", "hard"] * 150)
    by_confidence = given.at(cost_weight=0.3, exit_policy="confidence")
    moved = by_confidence.at(cost_weight=10.0)
    limited = by_confidence.control_risk(X, budget=0.62, risk_confidence=0.9)
    moved_back = [clf.at(cost_weight=0.3) for clf in (moved, limited)]
    wrong_if_hard = np.where(np.arange(300) % 2, (y + 1) % N_CLASSES, y)
    for clf in (moved, limited):
        assert not clf.predict_exit(X).any()
        assert np.array_equal(clf.predict(X), wrong_if_hard)
        assert np.array_equal(clf.predict_proba(X).argmax(axis=1), wrong_if_hard)
        assert clf.mean_cost(X) == pytest.approx(clf.exit_costs_[0])
        # Sets that are calibrated at another point hold the labels of half of the samples.
        assert clf.predict_set(X)[np.arange(300), y].mean() > 0.75
    for clf in (given, by_confidence, *moved_back):
        assert np.array_equal(clf.predict_exit(X), np.arange(300) % 2)
        assert np.array_equal(clf.predict(X), y)


# No bet loses more than three quarters of the capital, which so grows to at most
# (1 + 0.75 limit / (1 - limit)) ** n_samples, with limit and losses on the scale from 0 to 1.
FEW_EASY = [
    ({"max_disagreement": 0.05}, 40),  # p >= 0.95 ** 40 = 0.13
    ({"max_accuracy_drop": 0.1}, 25),  # p >= (1 + 0.75 * 0.05 / 0.45) ** -25 = 0.13
    ({"budget": 0.8}, 5),  # p >= (1 + 0.75 * 0.41 / 0.59) ** -5 = 0.12
]


@pytest.mark.parametrize("limit, n_samples", FEW_EASY)
def test_few_samples_show_a_limit_with_little_confidence_and_not_with_much(given, limit, n_samples):
    X, y = samples_of(["easy"] * n_samples)
    asked = {"y": y if "max_accuracy_drop" in limit else None, **limit}
    certified = {}
    for confidence in (0.5, 0.7, 0.9, 0.999):
        controlled = ignoring_warnings(given.control_risk, X, **asked, risk_confidence=confidence)
        assert follows_its_confidence(controlled, confidence)
        certified[confidence] = controlled.risk_.certified
    assert certified[0.5]
    assert not certified[0.9]
    assert not certified[0.999]


@pytest.mark.parametrize("limit, n_samples", FEW_EASY[1:])
def test_at_and_fit_test_a_limit_with_the_confidence_that_is_asked_for(given, limit, n_samples):
    X, y = samples_of(["easy"] * (2 * n_samples))
    clf = given.at(cost_weight=0.3).conformalize(X, y)
    for confidence, certified in ((0.5, True), (0.999, False)):
        asked = {**limit, "risk_confidence": confidence}
        moved = ignoring_warnings(clf.at, **asked)
        # A quarter of the held-out samples tests.
        fitted = ignoring_warnings(fitted_on, ["easy"] * (4 * n_samples), **asked)
        for controlled in (moved, fitted):
            assert controlled.risk_.n_samples == n_samples
            assert follows_its_confidence(controlled, confidence)
            assert controlled.risk_.certified == certified


def test_samples_that_test_a_point_give_no_sets(given):
    """Of an odd number of hard samples two equal parts hold different numbers, which add up if they are disjoint."""
    X, y = samples_of(["hard"] * 201 + ["easy"] * 201)
    clf = given.at(cost_weight=0.3).conformalize(X, y)
    controlled = clf.at(budget=1.05, risk_confidence=0.9)
    assert len(controlled.conformity_scores_) == controlled.risk_.n_samples == 201
    taken, scores = controlled.predict_exit(X), 1 - controlled.predict_proba(X).max(axis=1)
    assert (taken == (np.arange(402) < 201)).all()
    of_hard, of_easy = scores[0], scores[-1]
    hard_in_sets = abs(controlled.conformity_scores_ - of_hard) < abs(of_hard - of_easy) / 2
    costs_in_sets = controlled.exit_costs_[hard_in_sets.astype(int)]
    costs_tested = controlled.risk_.estimate * controlled.risk_.n_samples
    assert costs_tested + costs_in_sets.sum() == pytest.approx(controlled.exit_costs_[taken].sum())


def test_samples_that_fit_tests_a_point_on_give_no_sets():
    clf = fitted_on(["easy", "hard"] * 100, budget=1.05, risk_confidence=0.5)
    assert len(clf.conformity_scores_) == clf.risk_.n_samples == 50


ORDERS = {"last": np.arange(200), "first": np.arange(200)[::-1]}
ORDERS["mixed"] = np.random.default_rng(0).permutation(200)


@pytest.mark.parametrize(
    "limit, kinds",
    [
        ({"budget": 0.75}, ["easy"] * 80 + ["hard"] * 120),
        ({"max_accuracy_drop": 0.1}, ["easy"] * 100 + ["misleading"] * 100),
        ({"max_disagreement": 0.1}, ["easy"] * 100 + ["misleading"] * 100),
    ],
)
def test_the_order_of_the_samples_shows_no_limit(given, limit, kinds):
    """Where all losses come last, a gambler who bets in that order is rich before the first."""
    X, y = samples_of(kinds)
    (value,) = limit.values()
    found = []
    for order in ORDERS.values():
        labels = {"y": y[order]} if "max_accuracy_drop" in limit else {}
        controlled = ignoring_warnings(given.control_risk, X[order], **labels, **limit)
        assert controlled.risk_.estimate <= value
        found.append((controlled.risk_.certified, pytest.approx(controlled.risk_.estimate)))
    assert all(result == found[0] for result in found)


def test_calibration_samples_are_halved_at_random(given):
    X, y = samples_of(["easy"] * 200 + ["hard"] * 200)
    controlled = given.at(cost_weight=0.3).conformalize(X, y).at(budget=1.05, risk_confidence=0.9)
    low, high = controlled.exit_costs_
    # Further from one half than six standard deviations: never.
    assert 0.3 < (controlled.risk_.estimate - low) / (high - low) < 0.7


def test_few_samples_show_a_mean_cost_that_does_not_vary(given):
    """A rate of 0.56 against a limit of 0.62 takes a thousand; all samples here cost the same."""
    X, _ = samples_of(["easy"] * 150)
    controlled = given.control_risk(X, budget=0.62, risk_confidence=0.999)
    assert controlled.risk_.certified
    assert controlled.risk_.estimate == pytest.approx(given.exit_costs_[0])


WIDE = 2**15  # float32 columns: 256 samples in a chunk of 2 ** 25 bytes
MANY = 600


@pytest.fixture(scope="module")
def wide():
    """A classifier, and samples of every kind that fill three chunks."""
    clf = fitted_on(
        ["easy", "hard"] * 30, n_columns=WIDE, cost_weight=0.3, iterator_valid__batch_size=64
    )
    kinds = np.random.default_rng(0).choice(["easy", "hard", "misleading"], size=MANY)
    X, _ = samples_of(kinds, WIDE)
    X[:, :N_LOGITS] *= np.random.default_rng(1).uniform(0.7, 1.3, size=(MANY, 1))
    return clf, X


def test_samples_of_later_chunks_get_the_threshold_of_their_own_group(wide):
    clf, _ = wide
    X, y = samples_of(["easy", "misleading"] * 40, WIDE)
    groups = np.array(["trusting", "doubting"] * 40)
    clf = clf.at(cost_weight=0.3).conformalize(X, y, groups=groups)
    alike = np.repeat(X[:1], MANY, axis=0)
    doubting = np.random.default_rng(2).random(MANY) < np.repeat([0.1, 0.5, 0.9], MANY // 3)
    sets = clf.predict_set(alike, groups=np.where(doubting, "doubting", "trusting"))
    assert (sets.sum(axis=1) == np.where(doubting, N_CLASSES, 1)).all()


def test_samples_in_chunks_are_answered_as_one_by_one(wide):
    clf, X = wide
    exits, labels, sets = clf.predict_exit(X), clf.predict(X), clf.predict_set(X)
    probabilities = clf.predict_proba(X)
    assert len(exits) == len(labels) == len(probabilities) == len(sets) == MANY
    assert set(exits) == {0, 1}
    for i in [*range(0, MANY, 29), *range(254, 258), *range(510, 514), MANY - 1]:
        alone = X[i : i + 1]
        assert clf.predict_exit(alone) == exits[i]
        assert clf.predict(alone) == labels[i]
        assert np.array_equal(clf.predict_set(alone)[0], sets[i])
        np.testing.assert_allclose(clf.predict_proba(alone)[0], probabilities[i], atol=1e-6)


def test_held_out_samples_decide_by_their_weight_whether_it_pays_to_leave():
    """Gates cannot tell easy from misleading samples; what they cost together depends on their weights."""
    kinds = np.array(["easy", "misleading"] * 100)
    X, _ = samples_of(kinds)
    for lighter, exit_index in (("misleading", 0), ("easy", 1)):
        weight = np.where(kinds == lighter, 0.02, 1.0)
        clf = fitted_on(kinds, weight=weight, cost_weight=0.3)
        assert (clf.predict_exit(X) == exit_index).all()


def perceptron():
    """A network whose first exit costs next to nothing."""
    layers = [nn.Linear(64, 4), nn.ReLU(), nn.Linear(4, 100), nn.ReLU(), nn.Linear(100, 100)]
    torch.manual_seed(0)
    return nn.Sequential(*layers, nn.ReLU(), nn.Linear(100, 10))


class LossOfEarlyExit(Callback):
    """Notes the loss of a network whose last exit is right and sure and whose first knows nothing."""

    def on_train_begin(self, net, **kwargs):
        logits = torch.zeros(1, 2, 10)
        logits[:, 1, 0] = 100
        self.loss = float(net.criterion_(logits, torch.tensor([0])).sum())


def test_early_exits_weigh_more_in_training_if_the_budget_is_small(digits):
    losses = []
    for budget in (0.2, 0.35, 0.9):
        noted = LossOfEarlyExit()
        params = {"module": perceptron(), "exits": ["1"], "max_epochs": 1, "callbacks": [noted]}
        quick_classifier(budget=budget, exit_policy="confidence", **params).fit(*digits)
        losses.append(noted.loss)
    assert losses[0] > 1.3 * losses[1] > 1.6 * losses[2] > 0


@pytest.mark.usefixtures("no_trees")
@pytest.mark.parametrize(
    "companion, companion_training", [("given", "distilled"), ("tabular", "labels")]
)
def test_members_that_memory_has_are_not_trained_again(
    digits, tmp_path, companion, companion_training, monkeypatch
):
    trained = []
    plain = ExitsNet.on_train_begin
    # Not in a callback: what is remembered depends on all that a callback holds.
    monkeypatch.setattr(
        ExitsNet, "on_train_begin", lambda *args, **kwargs: trained.append(plain(*args, **kwargs))
    )
    members = {
        "given": {"module": [nn.Linear(64, 10), perceptron()], "exits": [0, ["1"]]},
        "tabular": {"module__width": 16, "module__n_blocks": 2, "companion": "tabular"},
    }[companion]
    params = {"memory": str(tmp_path), "max_epochs": 1}
    counts, weights = [], []
    for cost_weight in (0.1, 0.5):
        trained.clear()
        clf = EarlyExitClassifier(
            **members,
            **params,
            companion_training=companion_training,
            cost_weight=cost_weight,
            random_state=0,
        )
        weights.append(clf.fit(*digits).module_.state_dict())
        counts.append(len(trained))
    assert counts[0] >= 2, "a companion and the backbone"
    assert counts[1] == 0
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


class Interrupted(Exception):
    pass


class Interrupt(Callback):
    def on_epoch_end(self, net, **kwargs):
        raise Interrupted


def interrupted_score(probabilities, uniform):
    raise KeyboardInterrupt


def state_of(clf, X):
    """A fingerprint of everything that a classifier knows and answers."""
    weights = [
        {name: value.numpy() for name, value in module.state_dict().items()}
        for module in (clf.module_, clf.network_)
    ]
    learned = [clf.classes_, clf.exits_, clf.exit_costs_, clf.temperatures_, clf.cost_weight_]
    answers = [clf.predict_proba(X), clf.predict_exit(X), clf.predict_set(X), clf.frontier_]
    moved = clf.at(cost_weight=2.0)
    answers += [moved.predict_proba(X), moved.predict_set(X), clf.conformity_scores_]
    history = clf.history_[:, ("train_loss", "valid_loss")]
    attributes = sorted(name for name in vars(clf) if name.endswith("_"))
    return joblib.hash([weights, learned, answers, history, attributes, clf.n_features_in_])


@pytest.fixture(scope="module")
def trained(digits):
    return quick_classifier(module=perceptron(), exits=["1"], max_epochs=1).fit(*digits)


@pytest.mark.parametrize(
    "params, error",
    [
        ({"max_epochs": 0}, ValueError),
        ({"budget": 1e-9}, ValueError),
        ({"risk_confidence": 0.9}, ValueError),
        ({"callbacks": [Interrupt()]}, Interrupted),
        ({"conformity_score": interrupted_score}, KeyboardInterrupt),
    ],
)
def test_a_fit_that_fails_leaves_the_former_one_as_it_was(digits, trained, params, error):
    X, y = digits
    clf, before = copy.deepcopy(trained), state_of(trained, X)
    known = clf.get_params(deep=False)
    clf.set_params(**params)
    with pytest.raises(error):
        clf.fit(X[:200] / 2, np.array(list("abcdefghij"))[y[:200]])
    clf.set_params(**{name: known[name] for name in params})
    assert state_of(clf, X) == before


def test_a_first_fit_that_fails_leaves_an_estimator_that_is_not_fitted(digits):
    clf = quick_classifier(module=perceptron(), max_epochs=1, conformity_score=interrupted_score)
    before = set(vars(clf))
    with pytest.raises(KeyboardInterrupt):
        clf.fit(*digits)
    assert set(vars(clf)) == before
    with pytest.raises(NotFittedError):
        clf.predict(digits[0])


class InterruptedCall:
    """A conformity score that is interrupted at its last call."""

    def __init__(self, n_calls):
        self.left = n_calls

    def __call__(self, probabilities, uniform):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
        return 1 - probabilities


@pytest.mark.parametrize("n_calls", [1, 2, 3])
def test_a_fit_that_fails_while_it_certifies_leaves_nothing_behind(n_calls):
    """Sets are made at the first point, at the certified one, and there on the samples that tested nothing."""
    X, y = samples_of(["easy", "hard"] * 50)
    asked = {"budget": 1.05, "risk_confidence": 0.5, "exit_policy": "confidence"}
    clf = untrained(**asked, conformity_score=InterruptedCall(n_calls))
    before = set(vars(clf))
    with pytest.raises(KeyboardInterrupt):
        clf.fit(X, y, X_val=X, y_val=y)
    assert set(vars(clf)) == before


IMPORT_TWICE = """
import random, sys, warnings
import numpy as np, torch
from sklearn_jeidnn import EarlyExitClassifier
# Once more, when everything that others do on import has been done.
for name in [name for name in sys.modules if name.split(".")[0] == "sklearn_jeidnn"]:
    del sys.modules[name]
warnings.resetwarnings()
warnings.simplefilter("always")
def surroundings():
    numbers = np.random.get_state()[1].tolist(), torch.get_rng_state().tolist(), random.getstate()
    dtype = torch.get_default_dtype(), torch.get_default_device()
    modes = torch.is_grad_enabled(), torch.are_deterministic_algorithms_enabled()
    return list(warnings.filters), numbers, dtype, modes, torch.get_num_threads(), np.geterr()
before = surroundings()
from sklearn_jeidnn import EarlyExitClassifier
assert surroundings() == before
warnings.warn("this is heard")
"""


def test_importing_changes_nothing_and_silences_no_warnings():
    heard = subprocess.run(
        [sys.executable, "-c", IMPORT_TWICE], capture_output=True, text=True, check=False
    )
    assert heard.returncode == 0, heard.stderr
    assert "this is heard" in heard.stderr
