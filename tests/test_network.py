import pytest
import torch
from torch import nn

from sklearn_jeidnn._cut import multiply_adds
from sklearn_jeidnn._exits.building import build_network
from sklearn_jeidnn._exits.gate_points import mean_and_scale
from sklearn_jeidnn._exits.gates import all_gate_inputs
from sklearn_jeidnn._fit.prices import relative_exit_costs

EXITS = ["blocks.0", "blocks.1"]


@pytest.fixture(params=["sequential", "direct"])
def network(request, backbone, digits):
    torch.manual_seed(1)
    X = torch.as_tensor(digits[0])
    network, _ = build_network(
        backbone, EXITS, (X[:3],), 10, head="pooled", exit_mass=request.param, frozen=False
    )
    torch.nn.init.normal_(network.gates.weight)
    with torch.no_grad():
        network.gates.standardise(*mean_and_scale(all_gate_inputs(network(X)).numpy()))
    return network


def open_gates(network, bias):
    torch.nn.init.zeros_(network.gates.weight)
    torch.nn.init.constant_(network.gates.bias, bias)


def test_dense_and_routed_answers_agree(network, digits):
    X = torch.as_tensor(digits[0])
    with torch.no_grad():
        logits = network(X)
        distribution = network.exit_distribution(logits)
    left = torch.cumsum(distribution, 1)
    unspent = 1 - left + distribution
    expected = (distribution >= 0.5 * unspent).float().argmax(1)
    routed = network.route(X)
    assert len(expected.unique()) > 1
    assert torch.equal(routed.exit_index, expected)
    torch.testing.assert_close(routed.logits, logits[torch.arange(len(X)), expected])


def test_a_gate_that_always_says_leave_gives_the_first_exit(network, digits):
    open_gates(network, 50.0)
    X = torch.as_tensor(digits[0])
    routed = network.route(X)
    assert (routed.exit_index == 0).all()
    torch.testing.assert_close(routed.logits, network(X)[:, 0])


def test_gates_that_never_say_leave_give_the_plain_backbones_answer(network, backbone, digits):
    open_gates(network, -50.0)
    X = torch.as_tensor(digits[0])
    routed = network.route(X)
    assert (routed.exit_index == 2).all()
    torch.testing.assert_close(routed.logits, backbone(X))


def test_a_stage_sees_only_the_rows_that_stayed(network, digits):
    seen = []
    for stage in network.stages:
        stage.register_forward_hook(lambda stage, inputs, output: seen.append(len(inputs[0])))
    routed = network.route(torch.as_tensor(digits[0]))
    stayed = [int((routed.exit_index >= exit_index).sum()) for exit_index in range(3)]
    # Rows that came too close to a threshold run again, alone.
    assert seen[:3] == stayed and set(seen[3:]) <= {1}
    assert seen[0] == 300 > seen[1] > seen[2] > 0


def test_stages_that_no_row_reaches_do_not_run(network, digits):
    open_gates(network, 50.0)
    ran = []
    network.stages[1].register_forward_hook(lambda *_: ran.append(1))
    network.route(torch.as_tensor(digits[0]))
    assert not ran


def test_a_fresh_build_that_loads_its_state_answers_as_the_network(network, backbone, digits):
    X = torch.as_tensor(digits[0])
    network.heads.mix([0.0, 0.3, 0.8], 0.0)
    other, _ = build_network(
        type(backbone)().eval(),
        EXITS,
        (X[:3],),
        10,
        head="pooled",
        exit_mass="direct",
        frozen=False,
    )
    with torch.no_grad():
        expected = network(X)
        assert not torch.allclose(other(X), expected)
        other.load_state_dict(network.state_dict())
        assert torch.equal(other(X), expected)


def test_costs_increase_and_count_heads_and_gates(network, digits):
    costs = relative_exit_costs(network, (torch.as_tensor(digits[0]),))
    assert (costs[1:] > costs[:-1]).all()
    assert costs[-1] > 1


def test_costs_of_a_linear_chain_are_the_multiply_adds_by_hand():
    layers = [
        torch.nn.Linear(4, 8),
        torch.nn.ReLU(),
        torch.nn.Linear(8, 8),
        torch.nn.ReLU(),
        torch.nn.Linear(8, 3),
    ]
    network, _ = build_network(
        torch.nn.Sequential(*layers),
        ["1"],
        (torch.randn(3, 4),),
        3,
        head="linear",
        exit_mass="direct",
        frozen=True,
    )
    head, gate, plain = 8 * 3, network.gates.weight.shape[1], 32 + 64 + 24
    costs = relative_exit_costs(network, (torch.zeros(2, 4),))
    assert costs.tolist() == pytest.approx(
        [(32 + head + gate) / plain, (plain + head + gate) / plain]
    )


def test_attention_is_counted_whole():
    layer = torch.nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval()
    n_tokens, width, inner = 8, 16, 32
    projections = n_tokens * (4 * width * width + 2 * width * inner)
    scores_and_mean = 2 * n_tokens * n_tokens * width
    _, count = multiply_adds(layer, torch.zeros(2, n_tokens, width))
    assert count == 2 * (projections + scores_and_mean)
    assert torch.backends.mha.get_fastpath_enabled()


def test_a_backbone_that_multiplies_nothing_has_no_costs():
    backbone = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Tanh())
    network, _ = build_network(
        backbone, ["0"], (torch.randn(3, 3),), 3, head="linear", exit_mass="direct", frozen=True
    )
    with pytest.raises(ValueError, match="no multiplications"):
        relative_exit_costs(network, (torch.zeros(2, 3),))


def test_frozen_stages_stay_in_evaluation_mode(backbone, digits):
    X = torch.as_tensor(digits[0])
    network, _ = build_network(
        backbone, EXITS, (X[:3],), 10, head="pooled", exit_mass="direct", frozen=True
    )
    network.train()
    assert not any(module.training for module in network.stages.modules())
    assert network.heads.training
    assert not any(p.requires_grad for p in network.stages.parameters())


class Shrinking(nn.Module):
    """Images of four channels, halved by a 1x1 convolution: oneDNN's gradient of that breaks channels-last."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([nn.Conv2d(4, 8, 1, stride=2), nn.Conv2d(8, 8, 1)])
        self.classifier = nn.Linear(8, 10)

    def forward(self, images):
        for block in self.blocks:
            images = block(images)
        return self.classifier(images.mean((2, 3)))


def test_narrow_convolutions_with_a_stride_learn_by_the_right_gradient():
    torch.manual_seed(0)
    images, backbone = torch.rand(32, 4, 8, 8), Shrinking()
    expected = Shrinking().requires_grad_(False)
    expected.load_state_dict(backbone.state_dict())
    options = {"head": "pooled", "exit_mass": "sequential", "frozen": False}
    network, _ = build_network(backbone, ["blocks.0"], (images[:3],), 10, **options)
    for _ in range(20):
        network.train().zero_grad()
        network(images)[:, -1].square().mean().backward()
    weight = backbone.blocks[0].weight
    # By hand, with the halved images as vectors.
    pixels = images[:, :, ::2, ::2].permute(0, 2, 3, 1)
    own = weight.detach()[:, :, 0, 0].clone().requires_grad_()
    maps = pixels @ own.T + backbone.blocks[0].bias.detach()
    maps = maps @ expected.blocks[1].weight[:, :, 0, 0].T + expected.blocks[1].bias
    expected.classifier(maps.mean((1, 2))).square().mean().backward()
    torch.testing.assert_close(weight.grad[:, :, 0, 0], own.grad, rtol=1e-4, atol=1e-7)
