"""Samples that a network answers with NaN or infinity: nothing is excluded, nothing certified, and it is said."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.naive_bayes import GaussianNB
from torch import nn

from sklearn_jeidnn._exits.exit_heads import PreviousExit
from sklearn_jeidnn._exits.policy import EXIT_DISTRIBUTIONS, decide, exits_taken
from sklearn_jeidnn._operate.exit_answers import ExitAnswers, with_gaps
from sklearn_jeidnn._operate.frontier import Frontier
from sklearn_jeidnn._operate.risk import last_certified

from .conftest import TinyConv, quick_classifier
from .test_divergence import Normed, with_blank

BLANK = 2


class Masked(nn.Module):
    """Excludes, for samples with a dark corner, the last class by minus infinity."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(64, 64), nn.ReLU()) for _ in range(2))
        self.classifier = nn.Linear(64, 10)

    def forward(self, X):
        dark = X[:, :1] < 0
        for block in self.blocks:
            X = block(X / 4)
        last = torch.arange(10, device=X.device) == 9
        return self.classifier(X).masked_fill(dark & last, -torch.inf)


class SilentOnBlank(GaussianNB):
    """Gives blank samples probabilities of NaN."""

    def predict_proba(self, X):
        return np.where(X.any(axis=1, keepdims=True), super().predict_proba(X), np.nan)


@pytest.fixture(scope="module")
def normed(digits):
    return quick_classifier(module=Normed, max_epochs=5).fit(*digits)


@pytest.fixture(scope="module")
def some(fresh_digits):
    """Five samples, one of which is blank."""
    return with_blank(fresh_digits[0][:5], BLANK)


@pytest.fixture
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def answers_with_gap(n_samples=40, exits=(1,), rows=(0, 1)):
    """Random answers of three exits, some of which are missing."""
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((n_samples, 3, 4), dtype=np.float32)
    gate_inputs = rng.random((n_samples, 2, 15), dtype=np.float32)
    for exit_index in exits:
        logits[list(rows), exit_index] = np.nan
        gate_inputs[list(rows), exit_index : exit_index + 2] = np.nan
    codes = rng.integers(4, size=n_samples)
    weights = np.ones(n_samples, dtype=np.float32)
    return ExitAnswers(
        logits=logits,
        backbone_logits=logits[:, -1],
        gate_inputs=gate_inputs,
        codes=codes,
        weights=weights,
    )


def test_a_sample_without_an_answer_gets_the_full_set_and_uniform_probabilities(normed, some):
    with pytest.warns(UserWarning, match="1 of 5 samples are answered with NaN or infinity"):
        probabilities = normed.predict_proba(some)
    assert (probabilities[BLANK] == 0.1).all() and np.isfinite(probabilities).all()
    with pytest.warns(UserWarning, match="1 of 5 samples"):
        sets = normed.predict_set(some, confidence_level=[0.01, 0.9], allow_empty=False)
    assert sets[BLANK].all() and not sets[:, :, 0].all()


@pytest.mark.parametrize("method", ["predict", "predict_exit", "predict_backbone", "mean_cost"])
def test_every_answer_without_a_number_is_warned_of(normed, some, method):
    with pytest.warns(UserWarning, match="1 of 5 samples"):
        getattr(normed, method)(some)


def test_other_samples_of_the_call_are_not_touched(normed, some, quiet):
    others = np.delete(some, BLANK, axis=0)
    of_call = np.delete(normed.predict_proba(some), BLANK, axis=0)
    np.testing.assert_allclose(of_call, normed.predict_proba(others), atol=1e-6)
    assert np.array_equal(normed.predict(some)[[0, 1, 3, 4]], normed.predict(others))


def test_the_label_is_that_of_the_last_exit_with_an_answer(digits, quiet):
    X, y = digits
    clf = quick_classifier(module=[SilentOnBlank(), Normed], max_epochs=5).fit(X, y)
    last = clf.at(cost_weight=0.0)
    blank = with_blank(X[:2], 1)
    answers = last.exit_answers(blank, y[:2])
    codes = answers.labels[1, last.predict_exit(blank)[1]]
    assert last.predict(blank)[1] == clf.classes_[max(codes, 0)]


def test_exits_behind_one_without_an_answer_answer_as_if_it_said_nothing(digits, quiet):
    X, y = digits
    clf = quick_classifier(module=[SilentOnBlank(), TinyConv], max_epochs=2).fit(X, y)
    assert any(clf.network_.heads.mixing_weights)
    blank = with_blank(X[:3], 1)
    assert clf.predict_exit(blank)[1] > 0
    assert np.ptp(clf.predict_proba(blank)[1]) > 1e-3
    alone = np.concatenate([clf.predict_proba(sample[None]) for sample in blank])
    np.testing.assert_allclose(clf.predict_proba(blank), alone, atol=1e-6)


def test_a_class_excluded_by_minus_infinity_is_an_answer(digits, fresh_digits):
    X, y = np.copy(digits[0]), digits[1]
    X[:, 0] = np.where((y != 9) & (np.arange(len(y)) % 2 == 0), -1, 1)
    clf = quick_classifier(module=Masked, max_epochs=3, cost_weight=0.0).fit(X, y)
    probabilities = clf.predict_proba(X)
    assert np.isfinite(probabilities).all() and (clf.predict(X[X[:, 0] < 0]) != 9).all()
    assert np.isfinite(clf.conformity_scores_).all()


def test_calibration_samples_without_an_answer_make_sets_larger(normed, fresh_digits, quiet):
    X, y = fresh_digits[0][:100].copy(), fresh_digits[1][:100]
    before = normed.conformalize(X, y).predict_set(X[20:]).sum()
    X[:10] = 0
    clf = normed.conformalize(X, y)
    assert np.isinf(clf.conformity_scores_[:10]).all() and clf.predict_set(X[20:]).all()
    X[5:10] = X[20:25]
    assert normed.conformalize(X, y).predict_set(X[20:]).sum() > before


def test_held_out_samples_without_an_answer_are_errors_and_said(digits, fresh_digits):
    X_val, y_val = fresh_digits[0][:60].copy(), fresh_digits[1][:60]
    X_val[:12] = 0
    with pytest.warns(UserWarning) as told:
        clf = quick_classifier(module=Normed, max_epochs=2).fit(*digits, X_val=X_val, y_val=y_val)
    messages = " ".join(str(warning.message) for warning in told)
    assert "of 30 held-out samples that set the gates" in messages
    assert "of 30 calibration samples" in messages
    assert all(np.isfinite(clf.frontier_[name]).all() for name in ("accuracy", "log_loss"))
    assert np.isfinite(clf.temperatures_).all() and np.isfinite(clf.exit_costs_).all()


@pytest.mark.filterwarnings("ignore:X_val is not like X")
def test_held_out_samples_none_of_which_has_an_answer_are_refused(digits):
    X, y = digits
    with pytest.raises(ValueError, match="all .* held-out samples .* give other samples as X_val"):
        quick_classifier(module=Normed, max_epochs=1).fit(X, y, X_val=0 * X[:40], y_val=y[:40])


def test_exchangeability_counts_samples_without_an_answer(normed, fresh_digits):
    X = fresh_digits[0][:100].copy()
    X[:50] = 0
    with pytest.warns(UserWarning) as told:
        assert normed.check_exchangeability(X).scores < 0.05
    assert any("50 of 100 samples" in str(warning.message) for warning in told)


@pytest.mark.parametrize("exit_policy", ["learned", "confidence", "entropy_per_exit"])
def test_gates_are_made_without_the_samples_that_have_no_gate_inputs(exit_policy):
    answers = answers_with_gap()
    costs = np.array([0.3, 0.6, 1.0])
    frontier = Frontier(
        answers=answers,
        exit_mass=EXIT_DISTRIBUTIONS["sequential"],
        exit_costs=costs,
        exit_policy=exit_policy,
    )
    point = frontier.choose(cost_weight=0.1)
    assert np.isfinite(point.gates.weight).all() and np.isfinite(point.gates.bias).all()
    # The second gate has nothing to go by.
    assert not (answers.exits(point.gates, frontier.exit_mass)[:2] == 1).any()


def test_an_exit_without_an_answer_errs_and_keeps_the_label_before_it():
    answers = answers_with_gap(exits=(0, 2))
    assert (answers.errors[:2, [0, 2]] == 1).all() and answers.n_gaps == 2
    assert (answers.labels[:2, 0] == -1).all()
    assert np.array_equal(answers.labels[:2, 2], answers.labels[:2, 1])
    assert np.isfinite(answers.log_losses).all() and (answers.smoothed_errors[:2, 2] == 1).all()
    np.testing.assert_allclose(answers.log_losses[:2, 0], np.log(4), rtol=1e-5)
    assert (answers.agreement().codes >= 0).all()


def test_logits_without_an_answer_are_nan_alone():
    logits = np.array([[1, np.inf], [np.nan, 0], [-np.inf, -np.inf], [-np.inf, 2], [1, 2]])
    assert np.isnan(with_gaps(logits)).tolist() == [[True] * 2] * 3 + [[False] * 2] * 2
    assert with_gaps(logits)[3, 0] < -1e29 and with_gaps(logits[4:]) is not None
    finite = logits[4:]
    assert with_gaps(finite) is finite


@pytest.mark.parametrize("name", EXIT_DISTRIBUTIONS)
def test_a_gate_without_a_number_lets_no_sample_leave(name):
    exit_mass = EXIT_DISTRIBUTIONS[name]
    nan, survival = torch.full((2,), torch.nan), torch.ones(2)
    leave, left = decide(nan, survival, exit_mass)
    assert not leave.any() and torch.equal(left, survival)
    gate_probs = np.array([[np.nan, 0.9], [np.nan, np.nan], [0.9, np.nan]])
    assert exits_taken(gate_probs, exit_mass).tolist() == [1, 2, 0]


def test_the_next_exit_reads_uniform_probabilities_of_one_without_an_answer():
    log_probs = torch.tensor([[torch.nan, torch.nan], [0.0, -9.0]])
    filled = PreviousExit(log_probs, log_probs, log_probs).without_gaps()
    for of_exit in filled:
        assert of_exit.exp().tolist()[0] == pytest.approx([0.5, 0.5])
        assert torch.equal(of_exit[1], log_probs[1])
    assert PreviousExit(log_probs, log_probs).without_gaps().previous_member_log_probs is None


def test_a_p_value_of_nan_certifies_nothing():
    point, p_value = last_certified([np.zeros(9)], lambda *_: np.nan, 0.1, 0.95)
    assert point == -1 and np.isnan(p_value)


def test_unlabeled_samples_that_the_teacher_does_not_answer_are_refused(digits):
    X, y = digits
    clf = quick_classifier(module=[TinyConv, Normed], companion_training="distilled", max_epochs=1)
    with pytest.raises(ValueError, match="answers 1 of 300 samples of X_unlabeled"):
        clf.fit(X, y, X_unlabeled=with_blank(X, 7))
