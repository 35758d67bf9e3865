import numpy as np
import pytest
import torch
from skorch.callbacks import Callback, Checkpoint, EarlyStopping, LRScheduler
from torch import nn

from sklearn_jeidnn._fit.callbacks import KeepBestCycle, KeepBestEpoch, count_kept_epochs
from sklearn_jeidnn._fit.datasets import SamplesDataset
from sklearn_jeidnn._fit.schedules import (
    StepLimits,
    WarmRestarts,
    WarmUpAndCosine,
    ends_of_cycles,
)
from sklearn_jeidnn._fit.training import train_exits

from .conftest import quick_classifier


class TwoExits(nn.Module):
    """Both exits answer the same linear layer."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 2)

    def forward(self, X):
        logits = self.linear(X)
        return torch.stack([logits, logits], dim=1)


def rows(n_samples, seed=0, noise=0.0):
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(n_samples, 2, generator=generator)
    flipped = torch.rand(n_samples, generator=generator) < noise
    return SamplesDataset((X,), ((X[:, 0] > 0) ^ flipped).long(), torch.ones(n_samples))


def train(train_samples, held_out, **options):
    torch.manual_seed(0)
    defaults = {"max_epochs": 5, "lr": 0.1, "batch_size": 32, "callbacks": None, "verbose": 0}
    return train_exits(
        TwoExits(), train_samples, held_out, early_weight=0.2, **{**defaults, **options}
    )


def test_rows_of_no_weight_teach_nothing():
    taught, held_out = rows(200), rows(50, seed=1)
    wrong = SamplesDataset(taught.inputs, 1 - taught.y, taught.weight)
    both = SamplesDataset(
        (torch.cat([*taught.inputs, *wrong.inputs]),),
        torch.cat([taught.y, wrong.y]),
        torch.cat([taught.weight, 0 * wrong.weight]),
    )
    net = train(both, held_out, max_epochs=20)
    assert (net.predict(held_out) == held_out.y.numpy()).mean() > 0.9


def test_the_learning_rate_rises_then_falls_to_nothing():
    shape = WarmUpAndCosine(100)
    shares = np.array([shape(step) for step in range(101)])
    assert shares[0] < 0.2 and shares.max() <= 1 and shares[-1] == pytest.approx(0)
    assert (np.diff(shares[:9]) > 0).all() and (np.diff(shares[12:]) < 0).all()


@pytest.mark.parametrize("n_steps", [0, 1, 2, 10])
def test_the_learning_rate_is_defined_for_a_few_steps(n_steps):
    assert all(0 <= WarmUpAndCosine(n_steps)(step) <= 1 for step in range(n_steps + 2))


class Spoil(KeepBestEpoch):
    """Turns the answer round in the fourth epoch, before the score is taken."""

    def on_batch_begin(self, net, training=None, **kwargs):
        if len(net.history) == 4 and not training:
            with torch.no_grad():
                net.module_.linear.weight.neg_()


def test_an_earlier_epoch_comes_back_where_the_last_is_clearly_worse():
    options = {
        "callbacks__best_epoch": Spoil(),
        "max_epochs": 4,
        "optimizer": torch.optim.SGD,
        "lr": 3.0,
    }
    held_out = rows(300, seed=1)
    net = train(rows(300), held_out, **options)
    assert net.history[-1, "valid_brier"] > 2 * net.history[-2, "valid_brier"]
    assert (net.predict(held_out) == held_out.y.numpy()).mean() > 0.9


def test_the_last_epoch_stays_where_held_out_rows_are_too_few_to_tell():
    options = {
        "callbacks__best_epoch": Spoil(),
        "max_epochs": 4,
        "optimizer": torch.optim.SGD,
        "lr": 3.0,
    }
    net = train(rows(300), rows(1, seed=1), **options)
    test = rows(300, seed=2)
    assert (net.predict(test) == test.y.numpy()).mean() < 0.3


def test_a_short_training_learns_at_a_larger_rate_where_the_module_suggests_none(digits):
    rates = []

    class Seen(Callback):
        def on_train_begin(self, net, **kwargs):
            rates.append(net.lr)

    blocks = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
    params = {"module": blocks, "exits": ["1"], "lr": None, "callbacks": [Seen()]}
    for batch_size, max_epochs in ((256, 1), (64, 6), (8, 6)):
        quick_classifier(**params, batch_size=batch_size, max_epochs=max_epochs).fit(*digits)
    one_step, some_steps, many_steps = rates
    assert one_step == 0.01 and 0.002 < some_steps < 0.01 and many_steps == 0.002


def test_a_network_suggests_its_number_of_epochs_unless_the_user_says_it(digits):
    class Brief(nn.Sequential):
        max_epochs = 2

        def __init__(self):
            super().__init__(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))

    trained = {
        given: len(
            quick_classifier(module=Brief, exits=["1"], max_epochs=given).fit(*digits).history_
        )
        for given in ("auto", 3)
    }
    assert trained == {"auto": 2, 3: 3}


def test_heads_alone_train_in_cycles_whatever_the_network_suggests(digits):
    backbone = nn.Sequential(nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10))
    backbone.max_epochs = 3
    options = {"exits": ["1"], "batch_size": -1, "max_epochs": "auto", "freeze_backbone": True}
    with pytest.warns(UserWarning):
        frozen = quick_classifier(module=backbone, **options).fit(*digits)
    assert len(frozen.history_) in ends_of_cycles()


@pytest.mark.parametrize("n_steps", [1, 7])
def test_the_learning_rate_is_zero_at_the_end_of_each_cycle_and_only_there(n_steps):
    shape = WarmRestarts(n_steps)
    last_steps = [n_steps * end - 1 for end in ends_of_cycles()]
    rates = [shape(step) for step in range(last_steps[-1] + 1)]
    # Half a cosine of as many steps as the first cycle has falls below this in its last step.
    lowest = 0.5 * (1 + np.cos(np.pi * (2 * n_steps - 1) / (2 * n_steps)))
    assert all(rates[step] <= lowest + 1e-9 for step in last_steps)
    after = [rates[step + n_steps] for step in last_steps[:-1]]
    # An epoch into the longest cycle it still rises.
    assert min(after) > 0.3


class Scored(KeepBestCycle):
    """Takes these mean scores at the ends of cycles, of samples that differ by ``noise``."""

    def __init__(self, means, noise=0.0, **params):
        super().__init__(**params)
        self.means = dict(zip(ends_of_cycles(), means, strict=False))
        drawn = np.random.RandomState(0).randn(len(means), 50)
        self.noise = noise * (drawn - drawn.mean(axis=1, keepdims=True))

    def on_epoch_end(self, net, **kwargs):
        n_epochs = len(net.history)
        mean = self.means.get(n_epochs, 0.0)
        row = list(self.means).index(n_epochs) if n_epochs in self.means else 0
        self.scores_ = [mean + self.noise[row]]
        self.states = {**getattr(self, "states", {}), n_epochs: net.module_.linear.weight.clone()}
        super().on_epoch_end(net, **kwargs)


def trained_in_cycles(means, **params):
    best = Scored(means, **params)
    net = train(rows(300), rows(50, seed=1), max_epochs="auto", callbacks__best_epoch=best)
    return net, best


def test_a_training_ends_after_the_first_cycle_that_does_not_help_and_keeps_the_one_before():
    net, best = trained_in_cycles([0.5, 0.4, 0.3, 0.31, 0.2], steps=StepLimits(1))
    assert len(net.history) == 30
    assert torch.equal(net.module_.linear.weight, best.states[14])
    assert count_kept_epochs(net.history) == 14


def test_a_gain_within_the_noise_of_few_samples_does_not_help():
    net, best = trained_in_cycles([0.5, 0.4, 0.39, 0.1], noise=0.1, steps=StepLimits(1))
    assert len(net.history) == 14
    assert torch.equal(net.module_.linear.weight, best.states[14])


def test_few_samples_are_trained_on_for_so_many_steps_at_least():
    net, best = trained_in_cycles([0.2, 0.3, 0.4, 0.5, 0.6, 0.7], steps=StepLimits(100))
    assert len(net.history) == 14
    assert torch.equal(net.module_.linear.weight, best.states[2])


def test_where_steps_are_enough_a_training_ends_however_much_each_cycle_helps():
    limits = StepLimits(fewest=1, enough=100)
    net, best = trained_in_cycles([0.7, 0.6, 0.5, 0.4, 0.3, 0.2], steps=limits)
    assert len(net.history) == 14
    assert torch.equal(net.module_.linear.weight, best.states[14])


@pytest.mark.parametrize(
    "options",
    [
        {"callbacks": [LRScheduler("ExponentialLR", gamma=0.99)]},
        {"callbacks__lr_schedule": None},
        {"callbacks__best_epoch": None},
    ],
)
def test_a_user_s_learning_rates_or_kept_epochs_leave_no_cycles(options):
    net = train(rows(20), rows(10, seed=1), max_epochs="auto", **options)
    assert len(net.history) == 100


def test_without_held_out_samples_a_training_ends_with_a_cycle():
    net = train(rows(20), None, max_epochs="auto", n_epochs=20)
    assert len(net.history) == 14


class Wish(Callback):
    """Notes weights, and a loss of each epoch that the test gives."""

    def __init__(self, losses):
        self.losses = losses

    def on_train_begin(self, net, **kwargs):
        self.weights = []

    def on_epoch_end(self, net, **kwargs):
        self.weights.append(net.module_.linear.weight.detach().clone())
        losses = self.losses[: len(net.history)]
        net.history.record("wish", losses[-1])
        net.history.record("wish_best", losses[-1] == min(losses))


def early_stopping(folder):
    return EarlyStopping(monitor="wish", patience=9, load_best=True)


def checkpoint(folder):
    return Checkpoint(monitor="wish_best", load_best=True, dirname=folder)


@pytest.mark.parametrize("restores", [early_stopping, checkpoint])
@pytest.mark.parametrize("losses, kept", [([3, 1, 2, 2], 2), ([4, 3, 2, 1], 4)])
def test_the_history_tells_the_epoch_that_a_callback_of_the_users_put_back(
    tmp_path, restores, losses, kept
):
    wish = Wish(losses)
    callbacks = [wish, restores(str(tmp_path))]
    net = train(rows(200), rows(50, seed=1), max_epochs=4, callbacks=callbacks)
    assert torch.equal(net.module_.linear.weight, wish.weights[kept - 1])
    assert count_kept_epochs(net.history) == kept
