import copy

import numpy as np
import pytest
import torch

from sklearn_jeidnn._exits.gate_points import MARGIN, is_borderline, mean_and_scale
from sklearn_jeidnn._exits.gates import Gates, all_gate_inputs, summarise


def statistics_of(probs):
    return summarise(torch.tensor([probs]).log().clamp(min=-27.6), None).inputs[0, :4]


def test_statistics_of_a_uniform_row_are_those_of_total_doubt():
    log4 = torch.log(torch.tensor(4.0))
    expected = torch.stack([torch.tensor(0.25), log4, log4 * 0, log4])
    torch.testing.assert_close(statistics_of([0.25] * 4), expected)


def test_statistics_of_a_certain_row_are_those_of_no_doubt():
    expected = torch.tensor([1.0, 0.0, 1.0, 0.0])
    torch.testing.assert_close(statistics_of([1.0, 0.0, 0.0]), expected)


def test_statistics_are_the_papers():
    probs = torch.tensor([0.5, 0.3, 0.2])
    squared = probs.square() / probs.square().sum()
    expected = [probs[0], -(probs @ probs.log()), torch.tensor(0.2), -(squared @ squared.log())]
    torch.testing.assert_close(statistics_of(probs.tolist()), torch.stack(expected))


def test_gate_inputs_exist_for_two_classes_and_the_first_exit():
    first = summarise(torch.zeros(3, 2).log_softmax(1), None)
    assert summarise(torch.ones(3, 2).log_softmax(1), first).inputs.shape == first.inputs.shape


def test_gate_inputs_say_whether_two_exits_agree():
    here, before = torch.tensor([[2.0, 0.0], [0.0, 2.0]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    first = summarise(before.log_softmax(1), None)
    first.inputs[:, -1] = 1
    agree, given_before, streak = summarise(here.log_softmax(1), first).inputs[:, -3:].T
    assert agree.tolist() == [1.0, 0.0] and streak.tolist() == [2.0, 0.0]
    assert given_before[0] > 0.5 > given_before[1]


def test_gates_do_not_reach_back_into_heads():
    logits = torch.randn(4, 3, 5, requires_grad=True)
    assert not all_gate_inputs(logits).requires_grad


def test_one_gate_answers_what_all_gates_answer():
    gates = Gates(2, 14)
    torch.nn.init.normal_(gates.weight)
    inputs = torch.randn(6, 2, 14)
    gates.standardise(*mean_and_scale(inputs.numpy()))
    score = gates.per_exit_gates()[1].score(inputs[:, 1])
    torch.testing.assert_close(score.sigmoid(), gates(inputs)[:, 1])


def test_gates_by_themselves_follow_what_is_written_into_the_gates():
    gates = Gates(2, 14)
    assert gates.per_exit_gates()[0].score(torch.ones(1, 14)) == 0
    other = copy.deepcopy(gates)
    for changed in (gates, other):
        with torch.no_grad():
            changed.bias.fill_(3.0)
        assert changed.per_exit_gates()[0].score(torch.ones(1, 14)) == 3


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor])
def test_decisions_that_rounding_may_change_are_borderline(kind):
    """A score within its margin of 0; or two probabilities as near as rounding of logits of a million."""
    scores, margins, largest = [2e-6, 5e-6, 1.0, 1.0], [0.5, 0.5, 0.5, 0.5], [1.0, 1.0, 1.0, 1e6]
    gate_inputs = np.zeros((4, 15))
    gate_inputs[:, MARGIN] = margins
    found = is_borderline(kind(np.array(scores)), kind(gate_inputs), kind(np.array(largest)), 3e-6)
    assert found.tolist() == [True, False, False, True]
