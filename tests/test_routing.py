import copy
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from sklearn_jeidnn._exits import steps
from sklearn_jeidnn._exits.building import build_network, concatenate
from sklearn_jeidnn._exits.gate_points import CONFIDENCE, GatePoints, mean_and_scale
from sklearn_jeidnn._exits.gates import all_gate_inputs

from .conftest import TinyConv, TinyTransformer

EXITS = ["blocks.0", "blocks.1"]


def made(backbone, X, exit_mass="sequential", frozen=False):
    options = {"head": "pooled", "exit_mass": exit_mass, "frozen": frozen}
    network, _ = build_network(backbone, EXITS, (X[:3],), 10, **options)
    torch.nn.init.normal_(network.gates.weight)
    with torch.no_grad():
        network.gates.standardise(*mean_and_scale(all_gate_inputs(network(X)).numpy()))
    return network


@pytest.fixture(scope="module")
def rows(digits):
    return torch.as_tensor(digits[0])


@pytest.fixture(params=["sequential", "direct"])
def network(request, backbone, rows):
    torch.manual_seed(1)
    return made(backbone, rows, request.param)


def batch_sizes(network):
    """Rows of each run of each stage from now on."""
    seen = [[] for _ in network.stages]
    for own, stage in zip(seen, network.stages, strict=True):
        stage.register_forward_hook(lambda _, inputs, __, own=own: own.append(len(inputs[0])))
    return seen


@pytest.mark.parametrize("rows_at_once", [1, 7, 64])
def test_rows_regrouped_from_several_batches_answer_as_in_one(network, rows, rows_at_once):
    whole, parts = network.route(rows), network.route(rows, rows_at_once=rows_at_once)
    assert len(whole.exit_index.unique()) == 3
    assert torch.equal(whole.exit_index, parts.exit_index)
    assert torch.equal(whole.logits.argmax(1), parts.logits.argmax(1))
    torch.testing.assert_close(whole.logits, parts.logits, rtol=1e-4, atol=1e-5)


def test_survivors_wait_until_a_batch_is_full_and_no_longer(network, rows):
    seen = batch_sizes(network)
    exits = network.route(rows, rows_at_once=20).exit_index
    # Rows that are run again come one by one.
    later = [n for n in seen[1] if n > 1]
    assert sum(later) == int((exits >= 1).sum())
    assert all(20 <= n < 40 for n in later[:-1]) and later[-1] < 60


@pytest.fixture
def two_members(rows):
    torch.manual_seed(1)
    members = [made(TinyConv().eval(), rows), made(TinyTransformer().eval(), rows)]
    network = concatenate(members, 10, "sequential", "float32", told_costs=None)
    torch.nn.init.normal_(network.gates.weight)
    with torch.no_grad():
        network.gates.standardise(*mean_and_scale(all_gate_inputs(network(rows)).numpy()))
    return network


def test_rows_of_two_members_are_regrouped_from_their_inputs(two_members, rows):
    whole, parts = two_members.route(rows), two_members.route(rows, rows_at_once=30)
    assert int(whole.exit_index.max()) > 2
    assert torch.equal(whole.exit_index, parts.exit_index)
    torch.testing.assert_close(whole.logits, parts.logits, rtol=1e-4, atol=1e-5)


def alone(network, rows):
    """(logits, exits) of rows that come one by one."""
    each = [network.route(row) for row in rows.split(1)]
    return (torch.cat(parts) for parts in zip(*each, strict=True))


def test_a_row_by_itself_answers_as_beside_others(network, two_members, rows):
    for some in (network, two_members):
        together = some.route(rows[:60])
        logits, exits = alone(some, rows[:60])
        assert len(exits.unique()) > 2 and torch.equal(exits, together.exit_index)
        torch.testing.assert_close(logits, together.logits, rtol=1e-4, atol=1e-5)


def test_a_row_by_itself_leaves_where_it_is_told_and_runs_no_further(two_members, rows):
    seen, row = batch_sizes(two_members), rows[:1]
    expected = two_members(row)[0]
    for stage in seen:
        stage.clear()
    for exit_index in range(two_members.n_exits):
        routed = two_members.route(row, exits=torch.tensor([exit_index]))
        assert routed.exit_index.tolist() == [exit_index]
        torch.testing.assert_close(routed.logits[0], expected[exit_index], rtol=1e-4, atol=1e-5)
    assert [sum(stage) for stage in seen] == list(range(two_members.n_exits, 0, -1))


def test_a_plain_last_exit_listens_to_no_other_and_the_others_stay_as_they_are(network, rows):
    network.heads.mix([0.0, 2.0, 2.0], 0.0)
    at = network.with_gates(network.gates.point(), plain_last_exit=True)
    with torch.no_grad():
        expected = network(rows)
        expected[:, -1] = network.exit_features(rows)[-1]
        torch.testing.assert_close(at(rows), network(rows))
    for exit_index in range(network.n_exits):
        everyone = torch.full((len(rows),), exit_index)
        logits = at.route(rows, exits=everyone).logits
        torch.testing.assert_close(logits, expected[:, exit_index], rtol=1e-4, atol=1e-4)
    back = at.with_gates(network.gates.point()).route(rows)
    torch.testing.assert_close(back.logits, network.route(rows).logits, rtol=1e-4, atol=1e-4)


def test_a_row_exactly_at_the_threshold_takes_the_same_exit_in_any_batch(network, rows):
    """Thresholds that are some rows' own confidence, where rounding decides."""
    with torch.no_grad():
        confidence = all_gate_inputs(network(rows))[:, 0, CONFIDENCE].numpy()
    weight = np.zeros((1, *network.gates.weight.shape), dtype=np.float32)
    weight[..., CONFIDENCE] = 1e4
    standard = {"mean": np.zeros_like(weight[0]), "scale": np.ones_like(weight[0])}
    for row in range(5):
        bias = np.full((1, 2), np.float32(-1e4) * confidence[row])
        at = network.with_gates(GatePoints(weight=weight, bias=bias, **standard))
        alone = at.route(rows[row : row + 1]).exit_index
        for rows_at_once in (3, 17, 300):
            assert at.route(rows, rows_at_once=rows_at_once).exit_index[row] == alone
        assert at.route(rows.flip(0)).exit_index[len(rows) - 1 - row] == alone


def test_rows_whose_best_labels_are_tied_are_run_again_by_themselves(rows):
    torch.manual_seed(1)
    network = made(TinyConv().eval(), rows)
    # The last exit answers the same logit for every class.
    torch.nn.init.zeros_(list(network.stages[-1].parameters())[-2])
    torch.nn.init.zeros_(list(network.stages[-1].parameters())[-1])
    seen = batch_sizes(network)
    n_last = int((network.route(rows).exit_index == 2).sum())
    assert n_last <= seen[0].count(1) <= n_last + 15
    # So does the first: all rows are tied there, wherever they leave.
    for parameter in network.heads.heads[0].output.parameters():
        torch.nn.init.zeros_(parameter)
    seen[0].clear()
    network.route(rows)
    assert seen[0].count(1) == len(rows)


def test_rows_that_leave_where_they_are_told_are_looked_at_for_ties_as_others_are(
    network, rows, monkeypatch
):
    """What is timed so must take as long as a prediction does."""
    asked = []
    monkeypatch.setattr(steps, "has_tie", lambda logits: asked.append(1) or logits[:, 0] > 1e9)
    network.route(rows, exits=torch.full((len(rows),), 2))
    assert asked


def test_few_rows_are_close_to_a_threshold(network, rows):
    seen = batch_sizes(network)
    network.route(rows)
    assert len([n for n in seen[0] if n == 1]) <= 3


def test_folded_heads_answer_as_before(network, rows):
    heads = copy.deepcopy(network.heads)
    with torch.no_grad():
        for _ in range(3):
            heads.train()(network.exit_features(rows))
        features = network.exit_features(rows)
        before = heads.eval()(features)
        after = heads.fold().fold()(features)
    torch.testing.assert_close(before, after, rtol=1e-4, atol=1e-5)


def test_a_plain_pass_is_the_backbones(network, backbone, rows):
    torch.testing.assert_close(network.plain(rows), backbone(rows), rtol=1e-4, atol=1e-5)


@pytest.mark.slow  # compiles for half a minute
@pytest.mark.filterwarnings("ignore:`torch.jit")  # torch's compiler imports what torch deprecates
def test_compiled_exits_answer_as_before(network, rows):
    network, compiled = network.for_inference(), network.for_inference(compiles=True)
    expected = network.route(rows, rows_at_once=30)
    for rows_at_once in (30, 1):
        routed = compiled.route(rows, rows_at_once=rows_at_once)
        assert torch.equal(routed.exit_index, expected.exit_index)
        assert torch.equal(routed.logits.argmax(1), expected.logits.argmax(1))
        torch.testing.assert_close(routed.logits, expected.logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(compiled.plain(rows), network.plain(rows), rtol=1e-4, atol=1e-5)
    # Other gates take what is compiled already; a copy compiles anew.
    gates = network.gates.point()
    point = replace(gates, weight=-gates.weight, bias=-gates.bias)
    at = compiled.with_gates(point)
    assert torch.equal(at.route(rows).exit_index, network.with_gates(point).route(rows).exit_index)
    assert at._functions is compiled._functions and len(compiled._functions) == 4
    assert not pickle.loads(pickle.dumps(compiled))._functions
