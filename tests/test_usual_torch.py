"""What a user sets in torch around a call changes no answer."""

import contextlib

import numpy as np
import pytest
import torch
from torch import nn

from sklearn_jeidnn._exits.usual_torch import usual_defaults, usual_torch

from .conftest import TinyConv, quick_classifier


class MakesTensors(nn.Module):
    """Makes tensors when it is built, around its blocks and inside of them."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(64, 16)
        self.scale = nn.Parameter(torch.full((16,), 0.5) + torch.rand(16))
        self.blocks = nn.ModuleList(MakesTensorsInside() for _ in range(2))
        self.classifier = nn.Linear(16, 10)

    def forward(self, X):
        hidden = self.stem(X / 16) * self.scale + torch.linspace(0, 1, 16)
        for block in self.blocks:
            hidden = block(hidden)
        return self.classifier(hidden)


class MakesTensorsInside(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(16, 16)

    def forward(self, hidden):
        shift = torch.zeros(16) + torch.tensor(0.1) + torch.arange(16) * torch.tensor(0.01)
        return torch.relu(self.linear(hidden) + shift)


@contextlib.contextmanager
def default_dtype(dtype):
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextlib.contextmanager
def default_device(device):
    torch.set_default_device(device)
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextlib.contextmanager
def deterministic():
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


SETTINGS = {
    "float64": lambda: default_dtype(torch.float64),
    "bfloat16": lambda: default_dtype(torch.bfloat16),
    "another device": lambda: default_device("meta"),
    "a device around": lambda: torch.device("meta"),
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "deterministic": deterministic,
}


def answers(clf, X, y):
    return [
        clf.predict_proba(X),
        clf.predict_backbone(X[:1]),
        clf.exit_answers(X, y).logits,
        clf.at(cost_weight=0.3).predict_proba(X),
        clf.measure_costs("multiply_adds"),
    ]


@pytest.fixture(scope="module")
def usual(digits):
    fitted = {}

    def of(module, **params):
        key = (module, *params)
        if key not in fitted:
            fitted[key] = quick_classifier(module=module, max_epochs=1, **params).fit(*digits)
        return fitted[key]

    return of


@pytest.mark.parametrize("setting", SETTINGS)
def test_settings_around_calls_change_no_answer(digits, usual, setting):
    clf = usual(MakesTensors)
    expected = answers(clf, *digits)
    with SETTINGS[setting]():
        found = answers(quick_classifier(module=MakesTensors, max_epochs=1).fit(*digits), *digits)
        of_old_fit = answers(clf, *digits)
    for own, first, second in zip(expected, found, of_old_fit, strict=True):
        assert np.array_equal(own, first) and np.array_equal(own, second)


@pytest.mark.parametrize("setting", ["float64", "another device", "inference_mode"])
@pytest.mark.parametrize(
    "params", [{"gate_training": "bilevel"}, {"freeze_backbone": "after_warmup"}]
)
def test_nor_do_they_change_other_ways_of_training(digits, usual, setting, params):
    expected = usual(TinyConv, **params).predict_proba(digits[0])
    with SETTINGS[setting]():
        clf = quick_classifier(module=TinyConv, max_epochs=1, **params).fit(*digits)
    assert np.array_equal(clf.predict_proba(digits[0]), expected)


class Doubles(TinyConv):
    def forward(self, X):
        return super().forward(X * torch.ones(64, dtype=torch.get_default_dtype()))


def test_what_a_module_makes_double_by_itself_is_refused_by_name(digits):
    with default_dtype(torch.float64):
        with pytest.raises(ValueError, match=r"default dtype is torch.float64.*set_default_dtype"):
            quick_classifier(module=Doubles, max_epochs=1).fit(*digits)
        module = TinyConv()
    quick_classifier(module=module.float(), max_epochs=1).fit(*digits)


def test_the_settings_of_the_process_are_left_alone():
    with default_dtype(torch.float64):
        with usual_torch():
            assert torch.get_default_dtype() == torch.float64
            assert torch.empty(1).dtype == torch.zeros(1).dtype == torch.tensor(1.5).dtype
            assert torch.tensor(1.5).dtype == torch.float32
        assert torch.zeros(1).dtype == torch.float64


def test_only_what_has_no_dtype_of_its_own_gets_one():
    with default_dtype(torch.float64), usual_defaults():
        assert torch.tensor(1).dtype == torch.arange(3).dtype == torch.int64
        assert torch.full((1,), True).dtype == torch.bool
        assert torch.as_tensor(np.zeros(1)).dtype == torch.float64
        assert torch.zeros(1, dtype=torch.float64).dtype == torch.float64
        assert torch.arange(0, 1, 0.5).dtype == torch.float32
