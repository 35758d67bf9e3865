"""Set rules, calibration samples and calibrations of an operating point, on given answers."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from sklearn_jeidnn import conformal
from sklearn_jeidnn._exits.gate_points import GatePoints
from sklearn_jeidnn._exits.policy import sequential_mass
from sklearn_jeidnn._operate.calibration import (
    Calibration,
    CalibrationSamples,
    SetRule,
    calibrated_probabilities,
)
from sklearn_jeidnn._operate.cascade import AnsweredArrays, Cascade
from sklearn_jeidnn._operate.exit_answers import ExitAnswers
from sklearn_jeidnn._operate.operating_point import OperatingPoint
from sklearn_jeidnn._operate.temperatures import fit_leavers_temperatures, fit_temperatures, softmax
from sklearn_jeidnn._schema import InputSchema

N_CLASSES = 3
# Two gates, each of which lets a sample leave if its only input is above 0.
GATES = GatePoints(
    weight=np.full((1, 2, 1), 9.0),
    bias=np.zeros((1, 2)),
    mean=np.zeros((2, 1)),
    scale=np.ones((2, 1)),
)
POINT = OperatingPoint(cost_weight=1.0, gates=GATES, exit_policy="learned")


def rule_of(conformity_score="lac", condition_on="pooled", **further):
    return SetRule(conformity_score=conformity_score, condition_on=condition_on, seed=7, **further)


def answers_at(exit_index, seed=0):
    """Random answers of samples that the gates send to these exits."""
    rng, n_samples = np.random.default_rng(seed), len(exit_index)
    leaving = np.arange(2) == np.asarray(exit_index)[:, None]
    logits = 2 * rng.standard_normal((n_samples, 3, N_CLASSES), dtype=np.float32)
    return ExitAnswers(
        logits=logits,
        backbone_logits=-logits[:, -1],
        gate_inputs=np.where(leaving, 1.0, -1.0)[..., None],
        codes=rng.integers(N_CLASSES, size=n_samples),
        weights=rng.uniform(0.5, 1.5, size=n_samples),
    )


def samples_at(exit_index, seed=0, **further):
    """Calibration samples at these exits."""
    zeros = np.zeros(len(exit_index), dtype=int)
    given = {"uniform": zeros, "groups": zeros, "known_groups": zeros[:1], **further}
    return CalibrationSamples(answers=answers_at(exit_index, seed), **given)


def routed_of(probabilities, exit_index=0, groups=0):
    column = np.zeros(len(probabilities), dtype=int)
    return conformal.RoutedSamples(probabilities, column + exit_index, column, column + groups)


@pytest.mark.parametrize("score", ["lac", "aps", "raps"])
def test_samples_need_no_random_numbers_if_the_score_is_not_random(score):
    X = np.random.default_rng(0).normal(size=(4, 2))
    assert rule_of(score).uniform((X, X[:, 0])).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("score", ["randomized_aps", "randomized_raps", conformal.aps_scores])
def test_random_numbers_follow_from_the_samples_and_the_seed(score):
    X = np.random.default_rng(0).normal(size=(4, 2))
    found = rule_of(score).uniform((X,))
    assert np.array_equal(found, conformal.row_uniform((X,), 7))
    assert len(set(found)) == 4


def test_without_groups_all_samples_are_in_one():
    labels = rule_of(condition_on="exit").group_labels(np.ones((3, 2)), 3, None)
    assert labels.tolist() == [0, 0, 0]
    assert labels.dtype == int


def test_groups_that_the_user_gives_are_kept():
    assert rule_of().group_labels(np.ones((2, 2)), 2, ["b", "a"]).tolist() == ["b", "a"]


def test_a_function_of_the_samples_gives_groups_unless_the_user_does():
    rule = rule_of(condition_on=lambda X: X[:, 0] > 0)
    X = np.array([[1.0, 0], [-1, 0]])
    assert rule.group_labels(X, 2, None).tolist() == [True, False]
    assert rule.group_labels(X, 2, [5, 6]).tolist() == [5, 6]


@pytest.mark.parametrize("groups", [[1, 2], [[1, 1], [2, 2], [3, 3]]])
def test_groups_of_another_shape_than_the_samples_are_refused(groups):
    with pytest.raises(ValueError, match=r"groups has shape .* but there are 3 samples"):
        rule_of().group_labels(np.ones((3, 1)), 3, groups)
    with pytest.raises(ValueError, match="groups has shape"):
        rule_of(condition_on=lambda X: groups).group_labels(np.ones((3, 1)), 3, None)


def test_groups_of_several_lengths_are_refused_by_name():
    with pytest.raises(ValueError, match="groups must be one label for each sample"):
        rule_of().group_labels(np.ones((2, 1)), 2, [[1], [1, 2]])


def test_groups_in_a_column_are_read_as_labels_are():
    column = np.array([["b"], ["a"]])
    assert rule_of().group_labels(np.ones((2, 1)), 2, column).tolist() == ["b", "a"]
    rule = rule_of(condition_on=lambda X: X > 0)
    assert rule.group_labels(np.array([[1.0], [-1]]), 2, None).tolist() == [True, False]


@pytest.mark.parametrize(
    "params, takes",
    [
        ({"condition_on": lambda X: X["age"]}, r"an array of shape \(n_samples, 2\), also where"),
        ({"condition_on": lambda X: X.age}, r"an array of shape \(n_samples, 2\), also where"),
        ({"conformity_score": lambda p: p}, r"probabilities \(n_samples, n_classes\) and unif"),
        ({"conformity_score": lambda p, u, c: p}, r"probabilities \(n_samples, n_classes\) and"),
    ],
)
def test_functions_that_expect_something_else_are_told_what_they_get(params, takes):
    with pytest.raises(ValueError, match=f"{next(iter(params))}=.* fails: .*called with {takes}"):
        rule_of(**params).try_functions(SCHEMA, (np.ones((3, 2), np.float32),))


def test_groups_are_needed_exactly_if_conformalize_was_given_some():
    rule_of().check_groups(None)
    rule_of(takes_groups=True).check_groups([1])
    with pytest.raises(ValueError, match="called without groups, but some are given here"):
        rule_of().check_groups([1])
    with pytest.raises(ValueError, match="called with groups, but none are given here"):
        rule_of(takes_groups=True).check_groups(None)


def test_thresholds_are_of_the_groups_that_the_rule_names():
    routed = routed_of(np.full((2, 3), 1 / 3), exit_index=[2, 0], groups=[1, 4])
    for name, group in conformal.GROUPS.items():
        assert np.array_equal(rule_of(condition_on=name).groups_of(routed), group(routed))
    for rule in (rule_of(condition_on="exit", takes_groups=True), rule_of(condition_on=len)):
        assert rule.groups_of(routed).tolist() == [[1], [4]]


def test_a_score_is_the_named_one_or_the_users():
    routed = routed_of(np.full((2, 3), 1 / 3))
    for name in ("lac", "aps", "randomized_aps"):
        assert rule_of(name).score(routed, np.zeros(2, int)) is conformal.SCORES[name]
    assert rule_of(len).score(routed, np.zeros(2, int)) is len


@pytest.mark.parametrize("name", ["raps", "randomized_raps"])
def test_penalties_of_raps_are_those_of_the_smallest_sets(name):
    rng = np.random.default_rng(0)
    probabilities, codes = rng.dirichlet(np.ones(6), size=200), rng.integers(6, size=200)
    chosen = rule_of(name).score(routed_of(probabilities), codes)
    assert chosen.keywords == conformal.smallest_raps(probabilities, codes).keywords


class DoubledEngine:
    """Answers the numbers of the samples as logits of the first exit, and twice as much at the last."""

    def answer(self, arrays):
        (X,) = arrays
        assert X.dtype == np.float32
        return AnsweredArrays(
            logits=np.stack([X, 2 * X], axis=1), backbone_logits=X, gate_inputs=X[:, None, :1]
        )


SCHEMA = InputSchema(
    estimator_name="EarlyExitClassifier",
    input_names=None,
    sample_shapes=((N_CLASSES,),),
    dtypes=(np.dtype(np.float32),),
    classes=np.arange(N_CLASSES),
    n_features=N_CLASSES,
    feature_names=None,
    keeps_integers=True,
)
CASCADE = Cascade(
    engine=DoubledEngine(),
    exits=["first"],
    exit_costs=np.array([0.5, 1.0]),
    exit_distribution="sequential",
)


def test_calibration_samples_are_read_as_the_module_takes_them():
    X, codes = np.arange(12).reshape(4, N_CLASSES), np.array([0, 2, 1, 1])
    rule = rule_of("randomized_aps")
    read = CalibrationSamples.read(rule, SCHEMA, CASCADE, (X,), codes)
    assert np.array_equal(read.answers.logits[:, 1], 2 * X)
    assert np.array_equal(read.answers.codes, codes)
    assert read.answers.weights.tolist() == [1, 1, 1, 1]
    assert np.array_equal(read.uniform, conformal.row_uniform((np.float32(X),), 7))
    assert (read.groups.tolist(), read.known_groups.tolist()) == ([0, 0, 0, 0], [0])


def test_groups_of_calibration_samples_are_numbered_in_the_order_of_their_labels():
    X, groups = np.zeros((4, N_CLASSES)), ["old", "new", "old", "a"]
    read = CalibrationSamples.read(rule_of(), SCHEMA, CASCADE, (X,), np.zeros(4, int), groups)
    assert read.known_groups.tolist() == ["a", "new", "old"]
    assert read.groups.tolist() == [2, 1, 2, 0]


def test_a_function_for_groups_reads_calibration_samples_as_new_ones():
    def doubted(X):
        assert X.dtype == np.float32
        return X[:, 0] > 0

    X = np.array([[1, 0, 0], [0, 1, 0]])
    rule = rule_of(condition_on=doubted)
    read = CalibrationSamples.read(rule, SCHEMA, CASCADE, (X,), np.zeros(2, int))
    assert read.known_groups[read.groups].tolist() == [True, False]


def test_some_of_the_samples_keep_their_answers_numbers_and_groups():
    known = np.array(["a", "b", "c"])
    uniform, groups = np.array([0.1, 0.2, 0.3, 0.4]), np.array([2, 0, 0, 2])
    samples = samples_at([0, 1, 2, 0], uniform=uniform, groups=groups, known_groups=known)
    some = samples.take(np.array([3, 1]))
    assert np.array_equal(some.answers.logits, samples.answers.logits[[3, 1]])
    assert some.uniform.tolist() == [0.4, 0.2]
    assert some.groups.tolist() == [2, 0]
    assert some.known_groups.tolist() == ["a", "b", "c"]


@pytest.mark.parametrize(
    "known, labels, numbers",
    [
        (["b", "d"], ["d", "b", "d"], [1, 0, 1]),
        (["b", "d"], ["a", "c", "e", "d"], [2, 2, 2, 1]),
        ([0], [0, 1, -1], [0, 1, 1]),
        ([1, 3, 5], [5, 4, 3, 1], [2, 3, 1, 0]),
    ],
)
def test_a_group_that_did_not_calibrate_gets_a_number_beyond_the_known_ones(known, labels, numbers):
    samples = samples_at([0], known_groups=np.array(known))
    assert samples.group_numbers(np.array(labels)).tolist() == numbers


def test_probabilities_are_those_of_the_exit_taken_at_its_temperature():
    logits = np.array([[2.0, 0, 1], [2, 0, 1]], dtype=np.float32)
    found = calibrated_probabilities(logits, np.array([1, 0]), np.array([0.5, 4.0]))
    np.testing.assert_allclose(found, softmax(logits / np.array([[4.0], [0.5]])), rtol=1e-6)


def test_probabilities_near_one_do_not_round_to_it():
    logits = np.array([[20.0, 0, 0]], dtype=np.float32)
    (found,) = calibrated_probabilities(logits, np.array([0]), np.ones(1))
    assert found.dtype == np.float64
    assert 0 < 1 - found[0] < 1e-8


def test_temperatures_are_those_of_the_gate_samples_that_leave_at_each_exit():
    exit_index = np.arange(400) % 3
    gate_answers = answers_at(exit_index)
    rows = np.arange(400)
    of_all = fit_temperatures(gate_answers.logits, gate_answers.codes, np.ones(400))
    expected = fit_leavers_temperatures(
        gate_answers.logits[rows, exit_index], gate_answers.codes, exit_index, of_all
    )
    assert np.ptp(expected) > 0.01
    found = Calibration.fit(rule_of(), POINT, gate_answers, samples_at([0, 1]), sequential_mass)
    np.testing.assert_allclose(found.temperatures, expected, rtol=1e-6)


TEMPERATURES = np.array([0.5, 1.0, 3.0])


def calibrated(rule, samples, n_gate_samples=60):
    gate_answers = answers_at(np.arange(n_gate_samples) % 3, seed=1)
    return Calibration.of_scores(
        rule, POINT, gate_answers, samples, sequential_mass, temperatures=TEMPERATURES
    )


def test_scores_are_those_of_the_calibration_samples_at_the_exits_they_take():
    exit_index = np.array([0, 2, 1, 1, 0])
    samples = samples_at(exit_index)
    found = calibrated(rule_of(), samples)
    rows = np.arange(5)
    logits = samples.answers.logits[rows, exit_index].astype(float)
    probabilities = softmax(logits / TEMPERATURES[exit_index][:, None])
    assert np.array_equal(found.temperatures, TEMPERATURES)
    assert np.array_equal(found.exit_index, exit_index)
    np.testing.assert_allclose(found.confidence, probabilities.max(axis=1))
    np.testing.assert_allclose(
        found.sets.scores, 1 - probabilities[rows, samples.answers.codes], rtol=1e-6
    )
    np.testing.assert_allclose(found.probabilities(logits, exit_index), probabilities)


def test_random_numbers_and_groups_of_calibration_samples_reach_their_scores():
    uniform, groups = np.array([0.9, 0.1, 0.5]), np.array([1, 0, 1])
    samples = samples_at([0, 0, 0], uniform=uniform, groups=groups, known_groups=np.arange(2))
    found = calibrated(rule_of("randomized_aps", takes_groups=True), samples)
    probabilities = softmax(samples.answers.logits[:, 0].astype(float) / TEMPERATURES[0])
    expected = conformal.aps_scores(probabilities, uniform)
    np.testing.assert_allclose(found.sets.scores, expected[np.arange(3), samples.answers.codes])
    assert found.sets.groups.tolist() == [1, 0, 1]


def test_penalties_are_chosen_on_the_samples_that_set_the_gates():
    seen = []

    def noted(routed, codes):
        seen.append((routed, codes))
        return conformal.lac_scores

    rule = rule_of("raps")
    stand_in = SimpleNamespace(score=noted, groups_of=rule.groups_of)
    calibrated(stand_in, samples_at([0, 1]), n_gate_samples=9)
    ((routed, codes),) = seen
    gate_answers = answers_at(np.arange(9) % 3, seed=1)
    logits = gate_answers.at(np.arange(9) % 3).astype(float)
    np.testing.assert_allclose(
        routed.probabilities, softmax(logits / TEMPERATURES[np.arange(9) % 3][:, None])
    )
    assert np.array_equal(codes, gate_answers.codes)
    assert routed.uniform.tolist() == routed.groups.tolist() == [0] * 9


def test_a_point_with_a_plain_last_exit_is_calibrated_on_the_plain_backbones_answers():
    plain_point = replace(POINT, plain_last_exit=True)
    gate_answers, samples = answers_at([0, 1, 2] * 40, seed=1), samples_at([0, 1, 2] * 30, seed=2)
    plain_samples = replace(samples, answers=samples.answers.with_plain_last_exit())
    found, expected, other = (
        Calibration.fit(rule_of(), point, gate, calibrating, sequential_mass)
        for point, gate, calibrating in (
            (plain_point, gate_answers, samples),
            (POINT, gate_answers.with_plain_last_exit(), plain_samples),
            (POINT, gate_answers, samples),
        )
    )
    np.testing.assert_array_equal(found.temperatures, expected.temperatures)
    np.testing.assert_array_equal(found.sets.scores, expected.sets.scores)
    assert not np.array_equal(found.sets.scores, other.sets.scores)
