"""Stages learn what the module that they were cut from would learn, or it is refused."""

import copy
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sklearn_jeidnn._cut import comparing, cutting
from sklearn_jeidnn._cut.cutting import cut
from sklearn_jeidnn._cut.graphs import LogitsModule

EXITS = ["blocks.0", "blocks.1"]
WIDTH = 12


class Outer(nn.Module):
    """A stem, three blocks and a classifier; subclasses change what is around the blocks."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(64, WIDTH)
        self.norm = nn.BatchNorm1d(WIDTH)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh()) for _ in range(3)
        )
        self.classifier = nn.Linear(WIDTH, 10)
        self.register_buffer("mean", torch.zeros(WIDTH))
        self.n_calls = 0

    def prepared(self, x):
        return self.stem(x)

    def forward(self, x):
        x = self.prepared(x)
        for block in self.blocks:
            x = block(x)
        return self.classifier(x)


class FunctionalDropout(Outer):
    def prepared(self, x):
        return F.dropout(self.stem(x), 0.5, self.training)


class BranchOnTraining(Outer):
    def prepared(self, x):
        return self.stem(x) + torch.randn_like(x[:, :WIDTH]) if self.training else self.stem(x)


class WithoutGradients(Outer):
    def prepared(self, x):
        with torch.no_grad():
            return self.stem(x)


class StopsGradients(Outer):
    def prepared(self, x):
        return self.stem(x).detach()


class OwnMean(Outer):
    def prepared(self, x):
        x = self.stem(x)
        if self.training:
            with torch.no_grad():
                self.mean.mul_(0.5).add_(0.5 * x.mean(0))
        return x - self.mean


class FunctionalNorm(Outer):
    def prepared(self, x):
        norm = self.norm
        return F.batch_norm(
            self.stem(x), norm.running_mean, norm.running_var, training=self.training
        )


class FrozenNorm(Outer):
    def prepared(self, x):
        return self.norm(self.stem(x))

    def train(self, mode=True):
        super().train(mode)
        self.norm.eval()
        return self


class DropsDepth(Outer):
    def prepared(self, x):
        x = self.stem(x)
        if self.training:
            x = x * torch.empty(x.shape[0], 1).bernoulli_(0.5)
        return x


class Parameters(Outer):
    def prepared(self, x):
        return self.stem(x) * self.mean.exp() + sum(p.sum() for p in self.norm.parameters())


WORK = [FunctionalDropout, BranchOnTraining, WithoutGradients, StopsGradients, OwnMean]
WORK += [FunctionalNorm, FrozenNorm, DropsDepth, Parameters]


def step(run, module, X):
    """Logits, gradients and buffers of a training step, which is undone."""
    before = copy.deepcopy(module.state_dict())
    torch.manual_seed(1)
    logits = run(X.clone())
    weights = torch.linspace(-1, 1, logits.numel()).view_as(logits)
    gradients = torch.autograd.grad(
        (logits * weights).sum(), list(module.parameters()), allow_unused=True
    )
    gradients = [torch.zeros(1) if g is None or not g.any() else g for g in gradients]
    buffers = [buffer.clone() for buffer in module.buffers()]
    module.load_state_dict(before)
    return [logits.detach(), *gradients, *buffers]


@pytest.mark.parametrize("kind", WORK)
def test_stages_learn_what_the_module_would_learn(kind):
    torch.manual_seed(0)
    module, X = kind().eval(), torch.randn(9, 64)
    before, state = copy.deepcopy(module.state_dict()), torch.get_rng_state()
    stages, _ = cut(module, EXITS, (X[:3],), None, 10, head_cost=lambda _: 0, frozen=False)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    network = nn.ModuleList(stages)

    def staged(carried):
        carried = (carried,)
        for stage in network:
            carried = stage(*carried)
        return carried

    torch.testing.assert_close(staged(X), module(X))
    network.train()
    in_stages = step(staged, module, X)
    whole = step(LogitsModule(module, None).train(), module, X)
    torch.testing.assert_close(in_stages, whole, rtol=1e-4, atol=1e-5)


class Autocast(Outer):
    def forward(self, x):
        with torch.autocast("cpu", torch.bfloat16):
            x = self.stem(x)
        for block in self.blocks:
            x = block(x.float())
        return self.classifier(x)


class PythonRandom(Outer):
    def prepared(self, x):
        return self.stem(x) * (random.random() if self.training else 1)


class NumPyRandom(Outer):
    def prepared(self, x):
        skips = self.training and np.random.rand() < 1e-6  # noqa: NPY002
        return self.stem(x) * (0 if skips else 1)


class TorchRandom(Outer):
    def prepared(self, x):
        return self.stem(x) if not self.training or torch.rand(1) < 0.5 else self.stem(x) * 2


class Schedule(Outer):
    def prepared(self, x):
        self.n_calls += self.training
        return self.stem(x) / (1 + self.n_calls)


class Reversed(torch.autograd.Function):
    @staticmethod
    def forward(context, x):
        return x.view_as(x)

    @staticmethod
    def backward(context, gradient):
        return -gradient


class ReversesGradients(Outer):
    def prepared(self, x):
        return Reversed.apply(self.stem(x))


@pytest.mark.parametrize(
    "kind, said",
    [
        (PythonRandom, "random"),
        (NumPyRandom, "numpy.random"),
        (TorchRandom, r"draws random numbers \(aten.rand\) at .*test_comparing.py:\d+ \(return"),
        (Schedule, "changes from call to call"),
        (ReversesGradients, "another gradient of 'stem.weight'"),
    ],
)
def test_what_stages_cannot_learn_is_refused(kind, said):
    with pytest.raises(ValueError, match=f"{kind.__name__} cannot be cut.*{said}"):
        cut(
            kind().eval(),
            EXITS,
            (torch.randn(3, 64),),
            None,
            10,
            head_cost=lambda _: 0,
            frozen=False,
        )


def test_a_context_around_the_blocks_is_refused_with_its_line():
    class Around(Outer):
        def forward(self, x):
            with torch.no_grad():
                return super().forward(x)

    with pytest.raises(ValueError, match=r"`torch.no_grad` is switched at .*.py:\d+ \(return self"):
        cut(
            Around().eval(),
            EXITS,
            (torch.randn(3, 64),),
            None,
            10,
            head_cost=lambda _: 0,
            frozen=False,
        )


def test_autocast_in_the_outer_code_is_kept_or_refused():
    module, X = Autocast().eval(), torch.randn(9, 64)
    stages, _ = cut(module, EXITS, (X[:3],), None, 10, head_cost=lambda _: 0, frozen=True)
    carried = (X,)
    for stage in stages:
        carried = stage(*carried)
    torch.testing.assert_close(carried, module(X), rtol=0, atol=1e-6)


class OwnNoise(nn.Module):
    """Noise that no seed repeats."""

    def forward(self, x):
        rng = np.random.default_rng()
        return x + torch.as_tensor(rng.normal(size=tuple(x.shape))).to(x) if self.training else x


def test_random_numbers_inside_of_blocks_that_no_seed_repeats_are_no_reason_to_refuse():
    module = Outer().eval()
    module.blocks[1] = OwnNoise().eval()
    X = torch.randn(3, 64)
    stages, _ = cut(module, EXITS, (X,), None, 10, head_cost=lambda _: 0, frozen=False)
    assert len(stages) == 3


def test_samples_without_gradients_that_are_numbers_do_not_end_the_comparison():
    class Shares(Outer):
        def forward(self, x):
            return super().forward(x / x.sum(1, keepdim=True))

    samples = torch.rand(3, 64)
    samples[0] = 0
    stages, _ = cut(
        Shares().eval(), EXITS, (samples,), None, 10, head_cost=lambda _: 0, frozen=False
    )
    assert len(stages) == len(EXITS) + 1


@pytest.mark.parametrize("n_disturbed", [1, 2])
def test_random_numbers_that_another_thread_draws_refuse_no_good_module(n_disturbed, monkeypatch):
    run, n_runs = comparing._run, 0
    # In a comparison the module runs four times, then its stages twice.
    disturbed = [4 + 6 * i for i in range(n_disturbed)]

    def run_beside_another_thread(stages, inputs):
        nonlocal n_runs
        if n_runs in disturbed:
            torch.rand(1)
        n_runs += 1
        return run(stages, inputs)

    def never(*args):
        raise AssertionError("the first way of cutting was refused")

    monkeypatch.setattr(comparing, "_run", run_beside_another_thread)
    monkeypatch.setattr(cutting, "_cut_exported", never)
    test_stages_learn_what_the_module_would_learn(FunctionalDropout)
    assert n_runs == 6 * (n_disturbed + 1)
