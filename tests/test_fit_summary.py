"""With verbose=1 a fit ends with what it came to, and with what simpler would do as well."""

import re
from dataclasses import replace

import numpy as np
import pytest

from sklearn_jeidnn._exits.gate_points import CONFIDENCE, MARGIN, GatePoints
from sklearn_jeidnn._exits.policy import sequential_mass
from sklearn_jeidnn._operate.fit_summary import FitSummary
from sklearn_jeidnn._operate.frontier import LEARNED, Frontier
from sklearn_jeidnn._operate.operating_point import OperatingPoint, RiskControl

from .conftest import quick_classifier
from .test_frontier import answers_with

N_SAMPLES = 200
NUMBERS = re.compile(r"(\d+) samples .*accuracy ([\d.]+) ± ([\d.]+) at mean cost ([\d.]+) \(plain")


def gates_on(column):
    """One gate, which lets samples leave where a gate input is above 0.5."""
    weight = np.zeros((1, 1, 15), dtype=np.float32)
    weight[..., column] = 1e4
    return GatePoints(
        weight=weight,
        bias=np.full((1, 1), -5e3, dtype=np.float32),
        mean=np.zeros((1, 15), dtype=np.float32),
        scale=np.ones((1, 15), dtype=np.float32),
    )


def summary_of(*, confidence_knows, last_errs_too=False, exit_costs=(0.2, 1.0), n_errors=100):
    """The first exit errs on ``n_errors`` samples, which the gate, which reads MARGIN, sends on."""
    wrong = np.arange(N_SAMPLES) < n_errors
    gate_inputs = np.zeros((N_SAMPLES, 1, 15), dtype=np.float32)
    gate_inputs[:, 0, MARGIN] = ~wrong
    rng = np.random.default_rng(0)
    gate_inputs[:, 0, CONFIDENCE] = ~wrong if confidence_knows else rng.random(N_SAMPLES)
    errors = np.stack([wrong, wrong & last_errs_too], axis=1)
    frontier = Frontier(
        answers=answers_with(errors, gate_inputs),
        exit_mass=sequential_mass,
        exit_costs=np.array(exit_costs),
    )
    point = OperatingPoint(
        cost_weight=0.1, gates=gates_on(MARGIN), exit_policy=LEARNED, plain_last_exit=False
    )
    return FitSummary(
        frontier=frontier, point=point, exits=["0"], plain_seconds=None, unseen=None, n_folds=0
    )


def by_name(summary):
    return {found.name.split(" (")[0]: found for found in summary.simpler()}


def test_what_gates_alone_know_is_not_done_as_well_by_anything_simpler():
    summary = summary_of(confidence_knows=False)
    found = by_name(summary)
    assert found["one exit for all samples"][1:] == (0.5, 0.2, False)
    assert not found["a threshold"].suffices and found["a threshold"].cost <= 0.6 + 1e-6
    assert set(found) == {"one exit for all samples", "a threshold"}
    text = summary.text()
    assert "200 samples that set the gates, accuracy 1.000 ± 0.000 at mean cost 0.600" in text
    assert "Worse at no higher cost, as these samples show: one exit for all" in text
    assert "would do as well" not in text


def test_a_threshold_that_knows_as_much_does_as_well():
    summary = summary_of(confidence_knows=True)
    assert by_name(summary)["a threshold"][1:] == (1.0, pytest.approx(0.6), True)
    assert (
        "this would do as well: a threshold (exit_policy='confidence'), accuracy 1.000 at cost "
        "0.600." in summary.text()
    )


def test_one_exit_does_as_well_where_later_exits_are_no_better():
    text = summary_of(confidence_knows=True, last_errs_too=True).text()
    assert "do as well: one exit for all samples ('0', the end of member 1), accuracy 0.500" in text


@pytest.mark.parametrize("n_errors, suffices", [(100, False), (2, True)])
def test_the_plain_backbone_is_named_where_it_costs_no_more(n_errors, suffices):
    summary = summary_of(confidence_knows=True, exit_costs=(1.0, 2.0), n_errors=n_errors)
    # The plain backbone errs where the first exit does; the last exit hears both.
    wrong = (np.arange(N_SAMPLES) < n_errors).astype(np.float32)
    answers = replace(
        summary.frontier.answers, backbone_logits=np.stack([1 - wrong, wrong], axis=1)
    )
    found = by_name(replace(summary, frontier=replace(summary.frontier, answers=answers)))
    backbone = found["the plain backbone alone"]
    assert backbone[1:] == (pytest.approx(1 - n_errors / N_SAMPLES), 1.0, suffices)
    assert "the plain backbone alone" not in by_name(summary_of(confidence_knows=True))


def test_times_are_told_where_they_were_measured():
    summary = summary_of(confidence_knows=True)
    assert "Time" not in summary.text()
    assert (
        "Time as measured here: 1.2 ms a sample, plain backbone 2 ms (saves 40%)."
        in replace(summary, plain_seconds=0.002).text()
    )
    dear = summary_of(confidence_knows=True, exit_costs=(1.0, 2.0))
    assert "(costs 50%)" in replace(dear, plain_seconds=0.002).text()


@pytest.mark.parametrize("certified, how", [(True, "is"), (False, "could not be")])
def test_what_was_certified_is_told(certified, how):
    summary = summary_of(confidence_knows=True)
    risk = RiskControl(
        risk="accuracy_drop",
        limit=0.05,
        confidence=0.9,
        n_samples=70,
        estimate=0.01,
        p_value=0.02,
        certified=certified,
    )
    text = replace(summary, point=replace(summary.point, risk=risk)).text()
    assert f"The limit 0.05 of the accuracy drop {how} certified with confidence 0.9, on 70" in text


def told(out):
    """Number of samples, accuracy, mean cost of each line that tells them."""
    found = [NUMBERS.search(line) for line in out.splitlines()]
    return [tuple(map(float, m.group(1, 2, 4))) for m in found if m is not None]


@pytest.mark.parametrize("params", [{}, {"exit_policy": "margin"}, {"gate_training": "bilevel"}])
def test_the_figures_are_those_of_the_held_out_samples(digits, fresh_digits, capsys, params):
    X_val, y_val = (values[:100] for values in fresh_digits)
    clf = quick_classifier(verbose=1, max_epochs=5, **params)
    clf.fit(*digits, X_val=X_val, y_val=y_val)
    gates, unseen = told(capsys.readouterr().out)
    assert gates[0] == unseen[0] == 50
    # Half of X_val each: three decimals of fiftieths are exact.
    assert (gates[1] + unseen[1]) / 2 == pytest.approx(clf.score(X_val, y_val), abs=1e-6)
    mean_cost = clf.set_params(verbose=0).mean_cost(X_val)
    assert (gates[2] + unseen[2]) / 2 == pytest.approx(mean_cost, abs=1e-3)


def test_out_of_fold_answers_are_told_as_such(digits, capsys):
    quick_classifier(verbose=1, max_epochs=1, cv=2, validation_fraction=0).fit(*digits)
    out = capsys.readouterr().out
    assert "Out of fold: 300 samples that set the gates, accuracy " in out
    assert "Held out" not in out


def test_samples_that_test_a_limit_are_not_told_as_if_they_had_chosen_nothing(digits, capsys):
    clf = quick_classifier(verbose=1, max_epochs=1, validation_fraction=0.5)
    clf.set_params(max_accuracy_drop=0.3, risk_confidence=0.6).fit(*digits)
    out = capsys.readouterr().out
    assert len(told(out)) == 1 and "The limit 0.3 of the accuracy drop " in out
