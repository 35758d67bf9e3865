"""Which point of a path is certified, and what is said of it, on given answers."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from sklearn_jeidnn._exits.gate_points import GatePoints
from sklearn_jeidnn._exits.policy import direct_mass, sequential_mass
from sklearn_jeidnn._operate import risk as p_values
from sklearn_jeidnn._operate.certification import certify, random_halves, risk_losses, shuffled
from sklearn_jeidnn._operate.exit_answers import ExitAnswers
from sklearn_jeidnn._operate.operating_point import OperatingPoint

EXIT_COSTS = np.array([0.25, 0.5, 1.0])
# At this threshold no sample leaves; at 0 all leave at the first exit.
NEVER = 2.0


def point_of(threshold):
    """The point at which samples whose first input is at least the threshold leave at the first exit."""
    gates = GatePoints(
        weight=np.full((1, 2, 1), 100.0),
        bias=np.array([[-100 * threshold, -100 * NEVER]]),
        mean=np.zeros((2, 1)),
        scale=np.ones((2, 1)),
    )
    return OperatingPoint(cost_weight=threshold, gates=gates, exit_policy="learned")


def frontier_of(*thresholds):
    """Candidates with these thresholds, as if the first were the most expensive one."""
    return SimpleNamespace(
        candidates_by_cost=[point_of(threshold) for threshold in thresholds],
        exit_costs=EXIT_COSTS,
        exit_mass=sequential_mass,
        always_first_exit=lambda: point_of(0.0),
        always_last_exit=lambda: point_of(NEVER),
    )


def answers_of(first, last, codes, inputs, plain=None):
    """Samples with these labels at the first and the last exit; the exit between has a third label.

    The plain backbone has the last exit's labels, or others.
    """
    labels = np.stack([first, np.full(len(codes), 2), last], axis=1)
    return ExitAnswers(
        logits=np.eye(3)[labels],
        backbone_logits=np.eye(3)[np.asarray(last if plain is None else plain)],
        gate_inputs=np.repeat(np.reshape(inputs, (-1, 1, 1)), 2, axis=1),
        codes=np.asarray(codes),
        weights=np.ones(len(codes)),
    )


def answers_worse_below(threshold, n_samples=1000):
    """Samples in random order, whose inputs are even in [0, 1); below the threshold the first exit is wrong."""
    inputs = np.random.default_rng(0).permutation(n_samples) / n_samples + 0.5 / n_samples
    zeros = np.zeros(n_samples, dtype=int)
    return answers_of(np.where(inputs < threshold, 1, 0), zeros, zeros, inputs)


THRESHOLDS = (0.9, 0.7, 0.5, 0.3, 0.1)


@pytest.mark.parametrize(
    "risk, p_value_of",
    [
        ("accuracy_drop", p_values.drop_p_value),
        ("disagreement", p_values.binomial_p_value),
        ("mean_cost", p_values.cost_p_value(EXIT_COSTS)),
    ],
)
@pytest.mark.parametrize("confidence", [0.9, 0.99])
def test_the_cheapest_point_that_keeps_its_limit_is_taken_and_the_most_expensive_for_a_cost(
    risk, p_value_of, confidence
):
    frontier, answers = frontier_of(*THRESHOLDS), answers_worse_below(0.5)
    limit = {"accuracy_drop": 0.1, "disagreement": 0.1, "mean_cost": 0.7}[risk]
    found = certify(frontier, answers, risk=risk, limit=limit, confidence=confidence)
    # A quarter for half of the samples, 1 for the others: 0.625 on average.
    assert found.cost_weight == 0.5
    losses = risk_losses(frontier, answers, risk, found)
    shown = found.risk
    assert (shown.risk, shown.limit, shown.confidence) == (risk, limit, confidence)
    assert (shown.n_samples, shown.certified) == (1000, True)
    assert shown.estimate == pytest.approx(0.625 if risk == "mean_cost" else 0)
    expected = p_value_of(losses, limit, 1 - confidence)
    assert shown.p_value == pytest.approx(expected, rel=1e-6, abs=0)
    assert 0 < shown.p_value <= 1 - confidence


@pytest.mark.parametrize(
    "risk, limit, expected",
    [
        ("accuracy_drop", 0.1, 0.9),
        ("disagreement", 0.1, 0.9),
        ("mean_cost", 0.75, 0.6),
    ],
)
def test_no_point_behind_one_that_fails_is_taken(risk, limit, expected):
    """Tests go from the most expensive point; for a cost, from the cheapest."""
    # At 0.1 and 0.95 limits of accuracy and of cost are broken.
    frontier, answers = frontier_of(0.9, 0.1, 0.8, 0.95, 0.6, 0.5), answers_worse_below(0.5)
    found = certify(frontier, answers, risk=risk, limit=limit, confidence=0.9)
    assert found.cost_weight == expected
    assert found.risk.certified


@pytest.mark.parametrize(
    "risk, limit, safe, estimate, where",
    [
        ("accuracy_drop", 0.1, NEVER, 0.0, "run to the last exit"),
        ("disagreement", 0.1, NEVER, 0.0, "run to the last exit"),
        ("mean_cost", 0.3, 0.0, 0.25, "leave at the first exit"),
    ],
)
def test_if_no_point_passes_a_warning_says_so_and_all_samples_take_the_safe_exit(
    risk, limit, safe, estimate, where
):
    frontier, answers = frontier_of(0.5, 0.4), answers_worse_below(1.0, n_samples=50)
    with pytest.warns(UserWarning, match=f"50 samples do not show .* all samples {where}"):
        found = certify(frontier, answers, risk=risk, limit=limit, confidence=0.9)
    assert found.cost_weight == safe
    assert not found.risk.certified
    assert math.isnan(found.risk.p_value)
    assert found.risk.estimate == pytest.approx(estimate)


@pytest.mark.parametrize(
    "risk, limit, n_samples", [("accuracy_drop", 0.1, 25), ("disagreement", 0.05, 30)]
)
def test_few_samples_certify_with_little_confidence_and_not_with_much(risk, limit, n_samples):
    frontier, answers = frontier_of(0.5), answers_worse_below(0.0, n_samples)
    asked = {"risk": risk, "limit": limit}
    assert certify(frontier, answers, **asked, confidence=0.5).risk.certified
    with pytest.warns(UserWarning, match="confidence 0.99"):
        assert not certify(frontier, answers, **asked, confidence=0.99).risk.certified


@pytest.mark.parametrize("plain_last_exit", [False, True])
def test_losses_are_those_of_the_exit_taken_against_the_plain_backbone(plain_last_exit):
    # Samples leave at the first exit but for the last two.
    answers = answers_of(
        first=[0, 1, 0, 1, 1, 1, 1],
        last=[1, 1, 0, 1, 0, 1, 1],
        plain=[0, 0, 1, 0, 1, 0, 1],
        codes=[0, 0, 0, 2, 2, 0, 0],
        inputs=[1.0, 1, 1, 1, 1, 0, 0],
    )
    frontier, point = frontier_of(), replace(point_of(0.5), plain_last_exit=plain_last_exit)
    found = {
        risk: risk_losses(frontier, answers, risk, point).tolist()
        for risk in ("accuracy_drop", "disagreement", "mean_cost")
    }
    # The sixth sample's last exit, where it listens to the others, differs from the plain backbone.
    changed = 0 if plain_last_exit else 1
    assert found["accuracy_drop"] == [0, 1, -1, 0, 0, changed, 0]
    assert found["disagreement"] == [False, True, True, True, False, bool(changed), False]
    assert found["mean_cost"] == [0.25] * 5 + [1.0] * 2


def test_losses_are_those_of_the_frontiers_exit_distribution():
    """The second gate takes 0.45 of the mass: half of what is left only if the first took 0.3 directly."""
    gates = GatePoints(
        weight=np.zeros((1, 2, 1)),
        bias=np.log([[0.3 / 0.7, 0.45 / 0.55]]),
        mean=np.zeros((2, 1)),
        scale=np.ones((2, 1)),
    )
    point = OperatingPoint(cost_weight=1.0, gates=gates, exit_policy="learned")
    answers = answers_worse_below(0.5, n_samples=3)
    for exit_mass, cost in ((sequential_mass, 1.0), (direct_mass, 0.5)):
        frontier = SimpleNamespace(exit_costs=EXIT_COSTS, exit_mass=exit_mass)
        assert risk_losses(frontier, answers, "mean_cost", point).tolist() == [cost] * 3


def numbered(n_samples):
    """Samples whose only gate input is their number."""
    zeros = np.zeros(n_samples, dtype=int)
    return answers_of(zeros, zeros, zeros, np.arange(n_samples))


def numbers_of(answers):
    return answers.gate_inputs[:, 0, 0].astype(int).tolist()


@pytest.mark.parametrize("n_samples", [40, 41])
def test_halves_are_disjoint_and_hold_every_sample(n_samples):
    tested, kept = random_halves(numbered(n_samples), seed=3)
    assert sorted([*numbers_of(tested), *kept.tolist()]) == list(range(n_samples))
    assert len(tested) - len(kept) == n_samples % 2


def test_halves_are_random_and_so_is_the_order_of_the_first():
    tested, kept = random_halves(numbered(200), seed=3)
    numbers = numbers_of(tested)
    assert numbers != sorted(numbers)
    # Further from 50 of 100 than six standard deviations: never.
    assert 20 < sum(number < 100 for number in numbers) < 80
    again, _ = random_halves(numbered(200), seed=3)
    other, _ = random_halves(numbered(200), seed=4)
    assert numbers_of(again) == numbers
    assert set(numbers_of(other)) != set(numbers)
    assert len(kept) == 100


def test_a_random_order_holds_every_sample_once_and_follows_from_the_seed():
    orders = [numbers_of(shuffled(numbered(100), seed)) for seed in (0, 0, 1)]
    assert all(sorted(order) == list(range(100)) for order in orders)
    assert orders[0] == orders[1] != orders[2]
    assert list(range(100)) not in orders
