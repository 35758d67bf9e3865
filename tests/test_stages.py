import copy

import pytest
import torch
from torch import nn

from sklearn_jeidnn._stages import auto_exits, check_stages, cut, keep_rows

EXITS = ["blocks.0", "blocks.1"]


def run(stages, X):
    carried = (X,)
    for stage in stages[:-1]:
        carried = stage(*carried)
    return stages[-1](*carried)


def test_stages_compute_what_the_backbone_computes(backbone, digits):
    X = torch.as_tensor(digits[0])
    stages, names = cut(backbone, EXITS)
    assert names == EXITS and len(stages) == 3
    torch.testing.assert_close(run(stages, X), backbone(X), rtol=0, atol=0)


def test_rows_dropped_at_a_cut_change_nothing_for_those_that_stay(backbone, digits):
    X = torch.as_tensor(digits[0])
    (first, second, third), _ = cut(backbone, EXITS)
    some = torch.tensor([2, 5, 250])
    answer = third(*second(*keep_rows(first(X), some)))
    torch.testing.assert_close(answer, backbone(X)[some], rtol=1e-5, atol=1e-5)


def test_a_value_read_after_a_later_block_travels_across_every_cut(backbone):
    stages, _ = cut(backbone, EXITS)
    n_crossing = len(stages[0](torch.zeros(2, 64)))
    assert n_crossing == (2 if hasattr(backbone, "position") else 1)


def test_exits_come_in_the_order_in_which_they_are_run(backbone):
    assert cut(backbone, EXITS[::-1])[1] == EXITS


def test_cutting_leaves_the_module_as_it_was(backbone):
    before = copy.deepcopy(backbone)
    stages, _ = cut(backbone, EXITS)
    run(stages, torch.zeros(2, 64))
    for (name, value), (_, expected) in zip(
        backbone.state_dict().items(), before.state_dict().items()
    ):
        assert torch.equal(value, expected), name
    assert [name for name, _ in backbone.named_modules()] == [
        name for name, _ in before.named_modules()
    ]


def test_auto_exits_stand_after_all_blocks_but_the_last(backbone):
    assert auto_exits(backbone) == EXITS


def test_auto_exits_of_a_sequential_stand_where_the_next_child_multiplies():
    layers = [nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU()]
    assert auto_exits(nn.Sequential(nn.Flatten(), *layers, nn.Linear(8, 3))) == ["2", "4"]


def test_a_module_without_a_row_of_blocks_is_refused_with_what_to_do():
    with pytest.raises(ValueError, match=r"Linear has no row of blocks.*exits=\[\.\.\.\]"):
        auto_exits(nn.Linear(3, 2))


def test_names_that_are_not_submodules_are_refused(backbone):
    with pytest.raises(ValueError, match=r"unknown: \['blocks.7'\].*Choose among \[.*'blocks.0'"):
        cut(backbone, ["blocks.0", "blocks.7"])


def test_a_submodule_that_is_run_twice_is_refused():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, X):
            return self.layer(self.layer(X))

    with pytest.raises(ValueError, match="'layer' is run 2 times"):
        cut(Twice(), ["layer"])


def test_a_forward_that_branches_on_values_is_refused_with_the_reason():
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, X):
            return self.layer(X) if X.sum() > 0 else X

    with pytest.raises(ValueError, match="cannot be traced .*inside a submodule"):
        cut(Branching(), ["layer"])


def test_an_answer_of_another_shape_than_classes_is_refused(backbone):
    stages, _ = cut(backbone, EXITS)
    with pytest.raises(ValueError, match=r"answered \(2, 10\).*\(2, 7\), y having 7 classes"):
        check_stages(stages, "Tiny", torch.zeros(2, 64), 7)


def test_rows_of_a_shape_that_the_module_cannot_take_are_refused(backbone):
    stages, _ = cut(backbone, EXITS)
    with pytest.raises(ValueError, match=r"Tiny does not run on rows of shape \(63,\)"):
        check_stages(stages, "Tiny", torch.zeros(2, 63), 10)


def test_a_value_without_rows_that_crosses_a_cut_is_refused():
    class CarriesSize(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)])

        def forward(self, X):
            n_rows = X.shape[0]
            for block in self.blocks:
                X = block(X)
            return X.reshape(n_rows, 3)

    stages, _ = cut(CarriesSize(), ["blocks.0"])
    with pytest.raises(ValueError, match="CarriesSize carries int across a cut"):
        check_stages(stages, "CarriesSize", torch.zeros(2, 3), 3)
