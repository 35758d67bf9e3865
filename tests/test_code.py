"""Code is told by what it does: by all that it names, and by nothing else."""

import functools
import importlib
import logging
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from torch import nn

from sklearn_jeidnn._fit.code import describe

HELPERS = """
SLOPE = 0.1
def inner(h):
    '''Called by another helper.'''
    return h * SLOPE
def act(h): return inner(h)
"""
NETWORK = """
import functools
import logging
import torch
from torch import nn
import helpers
from helpers import act

logger = logging.getLogger(__name__)
WIDTHS = {"small": [8, 16]}
ACTS = {"act": lambda h: h + 1}

def scaled(factor):
    def decorator(function):
        @functools.wraps(function)
        def wrapper(*args): return factor * function(*args)
        return wrapper
    return decorator

class Base(nn.Module):
    def helper(self, h, power=2): return h ** power

class Net(Base):
    kinds = frozenset({"a", "b", "c"})
    @property
    def gain(self): return 1.5
    @staticmethod
    def shift(h): return h + 3
    @scaled(2)
    @torch.no_grad()
    def quiet(self, h): return h - 4
    def forward(self, h):
        from helpers import inner as late
        logger.debug("forward")
        outer = [act(x) + helpers.act(x) for x in (h,)]
        return ACTS["act"](self.shift(self.helper(self.quiet(late(outer[0]))))) * WIDTHS["small"][0]
"""


@pytest.fixture
def described(tmp_path, monkeypatch):
    """Digest of the network's class as its files are, with some of their text replaced."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def of(old="", new="", name="Net"):
        assert old in HELPERS + NETWORK
        for module, text in (("helpers", HELPERS), ("network", NETWORK)):
            (tmp_path / f"{module}.py").write_text(text.replace(old, new) if old else text)
            sys.modules.pop(module, None)
        importlib.invalidate_caches()
        return describe(getattr(importlib.import_module("network"), name))

    yield of
    for module in ("helpers", "network"):
        sys.modules.pop(module, None)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("return h * SLOPE", "return h / SLOPE"),
        ("SLOPE = 0.1", "SLOPE = 0.2"),
        ("h ** power", "h * power"),
        ("power=2", "power=3"),
        ("return 1.5", "return 1.6"),
        ("h + 3", "h + 5"),
        ("h - 4", "h - 5"),
        ("@scaled(2)", "@scaled(3)"),
        ("factor * function", "factor + function"),
        ("lambda h: h + 1", "lambda h: h + 2"),
        ("[8, 16]", "[9, 16]"),
        ('"b", "c"', '"b", "d"'),
        ("for x in (h,)", "for x in (h, h)"),
    ],
)
def test_a_change_of_anything_that_a_class_uses_is_told(described, old, new):
    assert described(old, new) != described()


def test_what_changes_nothing_is_not_told(described):
    assert described() == described()
    assert described("def act", "# a comment\n\ndef unused(): return 5\ndef act") == described()


def test_what_code_may_reach_by_a_computed_name_is_told(described, monkeypatch):
    monkeypatch.setattr(
        sys.modules[__name__],
        "NETWORK",
        NETWORK.replace("helpers.act(x)", "getattr(helpers, 'a')(x)"),
    )
    assert described("return h * SLOPE", "return h * SLOPE\ndef a(h): return 5") != described()


def test_two_processes_tell_code_alike(tmp_path, monkeypatch):
    values = """
import network
VALUES = network.Net, set("abcdefghij"), lambda h: h + 1
"""
    for module, text in (("helpers", HELPERS), ("network", NETWORK), ("values", values)):
        (tmp_path / f"{module}.py").write_text(text)
        sys.modules.pop(module, None)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    values = importlib.import_module("values").VALUES
    digest = describe(*values)
    for module in ("helpers", "network", "values"):
        sys.modules.pop(module)
    code = textwrap.dedent("""
        from values import VALUES
        from sklearn_jeidnn._fit.code import describe
        print(*VALUES[1], describe(*VALUES))
    """)
    # The other process reads what this one compiled, and orders sets differently.
    seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    other = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(filter(None, sys.path))},
    )
    *order, found = other.stdout.split()
    assert order != [*values[1]], "by chance once in three million times"
    assert found == digest


class Slotted:
    __slots__ = ("value",)

    def __init__(self, value):
        self.value = value


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 1.0),
        (1, True),
        ("1", 1),
        ([1, 2], [2, 1]),
        ((1,), [1]),
        ({"a": 1}, {"a": 2}),
        (np.zeros(2), np.zeros(3)),
        (np.zeros(2), np.zeros(2, dtype=np.float32)),
        (np.array([object]), np.array([int])),
        (torch.zeros(2), torch.ones(2)),
        (torch.zeros(2, dtype=torch.bfloat16), torch.ones(2, dtype=torch.bfloat16)),
        (torch.float32, torch.float64),
        (torch.relu, torch.tanh),
        (nn.functional.relu, nn.functional.gelu),
        (functools.partial(max, 1), functools.partial(max, 2)),
        (functools.lru_cache(lambda h: h), functools.lru_cache(lambda h: h + 1)),
        (Slotted(1), Slotted(2)),
        (nn.Linear(2, 2).requires_grad_(False), nn.ReLU()),
        (np.random.default_rng(0), np.random.default_rng(1)),
        (logging.getLogger("one"), logging.getLogger("other")),
        ([].append, [1].append),
    ],
)
def test_values_are_told_by_their_content(one, other):
    assert describe(one) != describe(other)
    assert describe(one) == describe(one)


def test_what_holds_itself_and_what_cannot_be_pickled_are_described():
    holder = []
    holder.append(holder)
    assert describe(holder) == describe(holder)

    def countdown(n):
        return n and countdown(n - 1)

    assert describe(countdown, sys.stdout, (i for i in range(3)))
