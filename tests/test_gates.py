import torch

from sklearn_jeidnn._gates import Gates, all_gate_inputs, gate_inputs, uncertainty_statistics


def test_statistics_of_a_uniform_row_are_those_of_total_doubt():
    statistics = uncertainty_statistics(torch.full((1, 4), 0.25))
    log4 = torch.log(torch.tensor(4.0))
    torch.testing.assert_close(
        statistics[0], torch.stack([torch.tensor(0.25), log4, log4 * 0, log4])
    )


def test_statistics_of_a_certain_row_are_those_of_no_doubt():
    statistics = uncertainty_statistics(torch.tensor([[1.0, 0.0, 0.0]]))
    torch.testing.assert_close(statistics[0], torch.tensor([1.0, 0.0, 1.0, 0.0]))


def test_gate_inputs_exist_for_two_classes_and_the_first_exit():
    assert (
        gate_inputs(torch.zeros(3, 2), None, None).shape
        == gate_inputs(torch.zeros(3, 2), torch.ones(3, 2), torch.zeros(3)).shape
    )


def test_gate_inputs_say_whether_two_exits_agree():
    here, before = torch.tensor([[2.0, 0.0], [0.0, 2.0]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    agree, given_before, streak = gate_inputs(here, before, torch.ones(2))[:, -3:].T
    assert agree.tolist() == [1.0, 0.0] and streak.tolist() == [2.0, 0.0]
    assert given_before[0] > 0.5 > given_before[1]


def test_gates_do_not_reach_back_into_heads():
    logits = torch.randn(4, 3, 5, requires_grad=True)
    assert not all_gate_inputs(logits).requires_grad


def test_one_gate_answers_what_all_gates_answer():
    gates = Gates(2, 14)
    torch.nn.init.normal_(gates.weight)
    inputs = torch.randn(6, 2, 14)
    gates.standardise(inputs)
    torch.testing.assert_close(gates.one(1, inputs[:, 1]), gates(inputs)[:, 1])
