import copy

import pytest
import torch
from torch import nn

from sklearn_jeidnn._cut import cut
from sklearn_jeidnn._cut import stage as stage_module
from sklearn_jeidnn._exits.pools import average_pool

from .conftest import MaskedTokens, TinyConv, TinyTransformer

EXITS = ["blocks.0", "blocks.1"]


def stages_of(module, exits, X, **options):
    options = {"frozen": True, "head_cost": linear_head_cost, **options}
    return cut(module.eval(), exits, (X[:3],), None, 10, **options)


def linear_head_cost(output):
    return 10 * average_pool(output).numel()


def carried_to(stages, *inputs):
    """What crosses each cut, and the answer."""
    crossing = [inputs]
    for stage in stages:
        crossing.append(stage(*crossing[-1]))
    return crossing[1:]


@pytest.fixture
def X(digits):
    return torch.as_tensor(digits[0])


def test_stages_compute_what_the_backbone_computes(backbone, X):
    stages, names = stages_of(backbone, EXITS, X, frozen=False)
    assert names == EXITS and len(stages) == 3
    torch.testing.assert_close(carried_to(stages, X)[-1], backbone(X), rtol=0, atol=0)


@pytest.mark.parametrize("exits", [EXITS, 0])
@pytest.mark.parametrize("frozen", [True, False])
def test_normalisation_is_folded_where_nothing_is_learned_and_the_answer_stays(X, exits, frozen):
    torch.manual_seed(0)
    module = TinyConv()
    module.train()(X)
    stages, _ = stages_of(module, exits, X, frozen=frozen)
    if not frozen:
        own = stages
        stages = [stage.folded() for stage in own]
        assert any(isinstance(m, nn.BatchNorm2d) for stage in own for m in stage.modules())
    submodules = [m for stage in stages for m in stage.modules()]
    assert not any(isinstance(m, nn.BatchNorm2d) for m in submodules)
    torch.testing.assert_close(carried_to(stages, X)[-1], module(X), rtol=1e-5, atol=1e-5)


class Looking(nn.Module):
    """Sees whether it is traced."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8))

    def forward(self, X):
        maps = self.layers(X.reshape(-1, 1, 8, 8))
        return 2 * maps if isinstance(X, torch.Tensor) else maps


@pytest.mark.parametrize("exits", [["0"], 0])
@pytest.mark.parametrize("frozen", [True, False])
def test_normalisation_is_not_folded_where_the_answer_would_change(X, exits, frozen):
    module = nn.Sequential(Looking(), nn.Flatten(), nn.Linear(512, 10))
    stages, _ = stages_of(module, exits, X, frozen=frozen)
    folded = [stage.folded() for stage in stages]
    torch.testing.assert_close(carried_to(folded, X)[-1], module(X))


class Shifted(nn.Module):
    """Adds a number, and a smaller tensor, to what a folded convolution answers."""

    def __init__(self, n_classes=10):
        super().__init__()
        self.block = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8))
        self.offset = nn.Parameter(torch.randn(8, 1, 1))
        self.mean = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(8, n_classes)

    def forward(self, X):
        maps = torch.relu(self.block(X.reshape(-1, 1, 8, 8)) + 1.5) + self.offset
        return self.classifier(self.mean(maps).flatten(1))


def test_what_is_added_to_a_folded_convolution_may_be_a_number_or_smaller(X):
    torch.manual_seed(0)
    module = Shifted()
    module.train()(X)
    stages, _ = stages_of(module, ["mean"], X)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in stages[0].modules())
    torch.testing.assert_close(carried_to(stages, X)[-1], module(X), rtol=1e-5, atol=1e-5)


def test_rows_dropped_at_a_cut_change_nothing_for_those_that_stay(backbone, X):
    (first, second, third), _ = stages_of(backbone, EXITS, X)
    some = torch.tensor([2, 5, 250])
    answer = third(*second(*first.keep_rows(first(X), some)))
    torch.testing.assert_close(answer, backbone(X)[some], rtol=1e-5, atol=1e-5)


def test_a_value_read_after_a_later_block_travels_across_every_cut(backbone, X):
    stages, _ = stages_of(backbone, EXITS, X)
    assert len(stages[0](X)) == (2 if hasattr(backbone, "position") else 1)


def test_exits_come_in_the_order_in_which_they_are_run(backbone, X):
    assert stages_of(backbone, EXITS[::-1], X)[1] == EXITS


def test_cutting_leaves_the_module_as_it_was(backbone, X):
    before = copy.deepcopy(backbone)
    stages, _ = stages_of(backbone, EXITS, X, frozen=False)
    carried_to(stages, X)
    for name, value in backbone.state_dict().items():
        assert torch.equal(value, before.state_dict()[name]), name
    names = [[name for name, _ in module.named_modules()] for module in (backbone, before)]
    assert names[0] == names[1]


class Branching(nn.Module):
    """Its outer code branches on the shape and reads it: tracing fails, torch.export does not."""

    def __init__(self, width=12):
        super().__init__()
        self.embedding = nn.Linear(8, width)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 2, 16, dropout=0.2, batch_first=True)
            for _ in range(3)
        )
        self.norm = nn.BatchNorm1d(width)
        self.classifier = nn.Linear(width, 10)

    def forward(self, X):
        n_samples = X.shape[0]
        if X.shape[1] != 64:
            raise ValueError("64 pixels are expected")
        tokens = self.embedding(X.reshape(n_samples, 8, 8) / 16)
        for block in self.blocks:
            tokens = block(tokens).view(n_samples, 8, -1)
        return {"logits": self.classifier(self.norm(tokens.mean(1)))}


def test_a_module_that_cannot_be_traced_is_exported(X):
    module = Branching().eval()
    (first, second, third), names = stages_of(module, EXITS, X)
    assert names == EXITS
    torch.testing.assert_close(carried_to([first, second, third], X)[-1], module(X)["logits"])
    some = torch.tensor([7, 3])
    answer = third(*second.keep_rows(second(*first(X)), some))
    torch.testing.assert_close(answer, module(X)["logits"][some], rtol=1e-5, atol=1e-5)


def test_exported_stages_learn_with_dropout_and_batch_statistics_and_share_their_parameters(X):
    module = Branching()
    stages, _ = stages_of(module, EXITS, X, frozen=False)
    assert not module.training
    network = nn.ModuleList(stages).train()
    first, second = carried_to(network, X)[-1], carried_to(network, X)[-1]
    assert not torch.equal(first, second), "dropout"
    assert module.norm.num_batches_tracked > 0 and module.norm.running_mean.any()
    second.sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())
    torch.testing.assert_close(carried_to(network.eval(), X)[-1], module.eval()(X)["logits"])


def test_named_inputs_and_a_mask_cross_the_cut_with_the_rows():
    module, n_samples = MaskedTokens().eval(), 7
    ids = torch.randint(0, 50, (n_samples, 6))
    mask = torch.arange(6) < torch.randint(1, 6, (n_samples, 1))
    names = ("input_ids", "attention_mask")
    (first, second), _ = cut(
        module, ["blocks.0"], (ids[:3], mask[:3]), names, 3, frozen=True, head_cost=linear_head_cost
    )
    some = torch.tensor([6, 0, 2])
    answer = second(*first.keep_rows(first(ids, mask), some))
    expected = module(input_ids=ids, attention_mask=mask).logits[some]
    torch.testing.assert_close(answer, expected, rtol=1e-5, atol=1e-5)


class SequenceFirst(nn.Module):
    """Rows lie along the second axis; a position each row shares crosses every cut."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(8, 2, 16) for _ in range(3))
        self.classifier = nn.Linear(8, 10)
        self.position = nn.Parameter(torch.randn(8, 1, 8))

    def forward(self, X):
        tokens = X.reshape(-1, 8, 8).transpose(0, 1)
        position = self.position * 2
        for block in self.blocks:
            tokens = block(tokens + position)
        return self.classifier(tokens.mean(0))


def test_rows_are_dropped_along_the_axis_that_they_have():
    module, X = SequenceFirst().eval(), torch.randn(9, 64)
    (first, second, third), _ = stages_of(module, EXITS, X)
    assert first.info.row_axes == second.info.taken_axes == (1, None)
    assert first.read(first(X)).shape == (9, 8, 8)
    some = torch.tensor([8, 1])
    answer = third(*second(*first.keep_rows(first(X), some)))
    torch.testing.assert_close(answer, module(X)[some], rtol=1e-5, atol=1e-5)


def test_stages_that_write_into_what_they_take_are_cut(X):
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(64, 64)

        def forward(self, hidden):
            return self.linear(hidden.add_(1))

    module = nn.Sequential(nn.Linear(64, 64), Counting(), Counting(), nn.Linear(64, 10))
    stages, _ = stages_of(module, ["0", "1"], X)
    torch.testing.assert_close(carried_to(stages, X)[-1], module(X))


@pytest.mark.parametrize("module", [TinyConv, TinyTransformer, SequenceFirst])
@pytest.mark.parametrize("exits", [EXITS, 0])
def test_many_rows_go_through_a_stage_in_parts_and_answer_as_at_once(X, module, exits, monkeypatch):
    torch.manual_seed(0)
    stages, _ = stages_of(module(), exits, X)
    rows = torch.as_tensor(X[:23])
    at_once, seen = carried_to(stages, rows), []
    for stage in stages:
        stage.evaluating.register_forward_hook(lambda *_: seen.append(1))
    monkeypatch.setattr(stage_module, "PART_SAMPLES", 10)
    # As many numbers as 10 rows have where they are widest.
    monkeypatch.setattr(stage_module, "PART_NUMBERS", 1)
    in_parts = carried_to(stages, rows)
    assert len(seen) == 3 * len(stages)
    torch.testing.assert_close(in_parts, at_once, rtol=1e-4, atol=1e-5)


def test_narrow_stages_take_more_rows_at_a_time(monkeypatch):
    monkeypatch.setattr(stage_module, "PART_SAMPLES", 2)
    monkeypatch.setattr(stage_module, "PART_NUMBERS", 160 * torch.get_num_threads())
    seen = []
    for width in (8, 40):
        module = nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 10))
        (stage,), _ = stages_of(module, 0, torch.randn(3, 4))
        module.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
        stage(torch.randn(20, 4))
    # 160 numbers are 20 rows of 8, or 4 of 40; the ten classes count, too.
    assert seen == [10, 10, 4, 4, 4, 4, 4]


def test_auto_exits_stand_after_all_blocks_but_the_last(backbone, X):
    assert stages_of(backbone, "auto", X)[1] == EXITS


def test_auto_exits_of_a_sequential_stand_where_the_next_child_multiplies():
    layers = [nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU()]
    module = nn.Sequential(nn.Flatten(), *layers, nn.Linear(8, 10))
    assert stages_of(module, "auto", torch.randn(3, 4))[1] == ["2", "4"]


def test_a_number_of_exits_is_spread_evenly_by_cost():
    widths = [16, 16, 16, 16, 16, 64, 64, 16]
    layers = [nn.Linear(before, after) for before, after in zip(widths, widths[1:])]
    module = nn.Sequential(*layers, nn.Linear(16, 10))
    # Multiply-adds reached: 256, 512, 768, 1024, 2048, 6144, 7168, of 7328 in all.
    assert stages_of(module, 2, torch.randn(3, 16))[1] == ["4", "5"]


def test_inside_of_residual_blocks_no_exit_is_chosen(X):
    class Nested(nn.Module):
        """Two groups of two blocks, each of two layers and a shortcut; exported."""

        def __init__(self):
            super().__init__()
            self.groups = nn.ModuleList(nn.Sequential(Shortcut(), Shortcut()) for _ in range(2))
            self.classifier = nn.Linear(64, 10)

        def forward(self, X):
            if X.shape[1] != 64:
                raise ValueError
            for group in self.groups:
                X = group(X)
            return nn.functional.relu(self.classifier(X.reshape(X.shape[0], 64)))

    class Shortcut(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64))

        def forward(self, X):
            return X + self.layers(X)

    # groups.0.1 ends where groups.0 does.
    assert stages_of(Nested(), 3, X)[1] == ["groups.0.0", "groups.0.1", "groups.1.0"]


def refusal(module, exits, X, match):
    with pytest.raises(ValueError, match=match):
        stages_of(module, exits, X)


def test_a_module_without_a_row_of_blocks_is_refused_with_what_to_do(X):
    refusal(nn.Linear(64, 10), "auto", X, r"Linear cannot be cut after exits='auto'.*Name other")


def test_more_exits_than_there_are_blocks_are_refused(backbone, X):
    refusal(backbone, 99, X, r"exits=99 asks for more places.*blocks.0.*blocks.1")


def test_names_that_are_not_submodules_are_refused(backbone, X):
    match = r"unknown: \['blocks.7'\].*Choose among \[.*'blocks.0'"
    refusal(backbone, ["blocks.0", "blocks.7"], X, match)


def test_a_submodule_that_is_run_twice_is_refused(X):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.classifier = nn.Linear(64, 64), nn.Linear(64, 10)

        def forward(self, X):
            return self.classifier(self.layer(self.layer(X)))

    refusal(Twice(), ["layer"], X, "'layer' is run 2 times")


def test_a_branch_on_values_is_refused_with_the_line_where_it_stands(X):
    class OnValues(TinyConv):
        def forward(self, X):
            if X.sum() > 0:
                return super().forward(X)
            return X[:, :10]

    refusal(
        OnValues(), EXITS, X, r"torch.export stopped at .*test_cutting.py:\d+ \(if X.sum\(\) > 0"
    )


def test_a_module_that_answers_another_shape_is_refused(X):
    refusal(nn.Sequential(nn.Linear(64, 4)), ["0"], X, r"answered \(3, 4\) for 3 rows.*\(3, 10\)")


def test_one_logit_for_two_classes_is_refused_with_what_to_do():
    one = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1))
    samples = torch.eye(4)[:3]
    for module in (one, nn.Sequential(one, nn.Flatten(0))):
        with pytest.raises(
            ValueError, match=r"One logit, as .* give two, as nn.Linear\(\.\.\., 2\)"
        ):
            cut(module, 0, (samples,), None, 2, head_cost=lambda output: 0, frozen=False)
    with pytest.raises(ValueError, match=r"answered \(3, 1\)") as caught:
        cut(one, 0, (samples,), None, 3, head_cost=lambda output: 0, frozen=False)
    assert "One logit" not in str(caught.value)


@pytest.mark.parametrize(
    "mixing, where",
    [
        (nn.BatchNorm1d(64, track_running_stats=False), r"first in 'blocks.0', BatchNorm1d"),
        (nn.Softmax(dim=0), r"first in 'blocks.0', Softmax"),
    ],
)
def test_a_module_whose_rows_depend_on_each_other_is_refused(mixing, where, X):
    module = nn.Sequential()
    module.blocks = nn.ModuleList([mixing, nn.Linear(64, 64)])
    module.forward = lambda X: module.classifier(module.blocks[1](module.blocks[0](X)))
    module.classifier = nn.Linear(64, 10)
    refusal(module, ["blocks.0"], X, rf"differently when other rows stand beside it \({where}\)")


def test_a_stage_that_writes_into_its_input_spoils_no_exit(X):
    from sklearn_jeidnn._exits.building import build_network

    layers = [nn.Linear(64, 16), nn.ReLU(inplace=True), nn.Linear(16, 16), nn.Linear(16, 10)]
    network, _ = build_network(
        nn.Sequential(*layers),
        ["0"],
        (X[:3],),
        10,
        head="linear",
        exit_mass="direct",
        frozen=True,
    )
    with torch.no_grad():
        feature = network.exit_features(X)[0]
        torch.testing.assert_close(feature, layers[0](X))
