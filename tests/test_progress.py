"""Whoever waits for a fit is told how far it has come."""

import io
import sys
from functools import partial

import pytest
from sklearn.naive_bayes import GaussianNB

from sklearn_jeidnn._fit import progress
from sklearn_jeidnn._fit.tasks import FitTasks

from .conftest import quick_classifier

NO_CALLBACKS = FitTasks(None, {})
SMALL = (None, {"width": 8, "n_blocks": 1})


class Terminal(io.StringIO):
    def isatty(self):
        return True


def fit(digits, **params):
    module = [GaussianNB(), SMALL, SMALL]
    return quick_classifier(module=module, max_epochs=3, **params).fit(*digits)


def test_verbose_tells_which_member_is_trained(digits, capsys):
    fit(digits, verbose=1)
    out, err = capsys.readouterr()
    told = [line for line in out.splitlines() if ", member " in line]
    assert [line.partition(":")[0] for line in told[::2]] == [
        "TabularResNet, member 1 of 3",
        "TabularResNet, member 2 of 3",
        "GaussianNB, member 3 of 3",
    ]
    assert "at most 3 epochs" in told[0] and "done in" in told[1]
    assert "asked for its answers" in told[4] and err == ""


@pytest.mark.parametrize("seconds, is_shown", [(0, True), (1000, False)])
def test_a_long_fit_shows_a_bar_in_a_terminal(digits, monkeypatch, seconds, is_shown):
    terminal = Terminal()
    monkeypatch.setattr(progress, "BAR_AFTER_SECONDS", seconds)
    monkeypatch.setattr(sys, "stderr", terminal)
    # The bar moves at once, not ten times a second.
    monkeypatch.setattr(progress, "tqdm", partial(progress.tqdm, mininterval=0))
    fit(digits)
    assert ("member 2 of 3" in terminal.getvalue()) == is_shown
    assert ("| 6/9" in terminal.getvalue()) == is_shown


def test_a_fit_is_silent_in_a_log(digits, monkeypatch, capsys):
    monkeypatch.setattr(progress, "BAR_AFTER_SECONDS", 0)
    fit(digits)
    assert capsys.readouterr() == ("", "")


def test_a_bar_counts_no_epoch_twice(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with progress.Progress([3, 3], 0, 0, NO_CALLBACKS) as told:
        told.begin_round([3, 3])
        with told.of_member(None):
            for _ in range(5):
                told.epoch_done()
            assert told.bar.n == 3
        with told.of_member(None):
            told.epoch_done()
            assert told.bar.n == 4
        assert told.bar.n == 6


def test_a_last_round_of_fewer_members_ends_the_bar(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with progress.Progress([3, 2], 1, 0, NO_CALLBACKS) as told:
        told.begin_round([3, 2])
        told.skip_to(1)
        assert (told.bar.n, told.bar.total) == (5, 10)
        told.begin_round([3])
        with told.of_member(None):
            assert told.bar.total == 8
        assert told.bar.n == 8


class Clock:
    """Seconds that pass as a test says."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def train(told, clock, seconds, n_epochs=1):
    with told.of_member(None):
        for _ in range(n_epochs):
            clock.now += seconds / n_epochs
            told.epoch_done()


def test_lines_tell_what_is_to_come_and_how_long_it_may_take(clock, capsys):
    with progress.Progress([10, 10], 1, 1, NO_CALLBACKS) as told:
        told.begin_round([10, 10])
        train(told, clock, 30.0, n_epochs=10)
        train(told, clock, 5.0)
        told.begin_round([10, 10])
        train(told, clock, 40.0)
        train(told, clock, 6.0)
    lines = [line.replace("NoneType, member ", "") for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "1 of 2, without fold 1 of 1: at most 10 epochs",
        "1 of 2, without fold 1 of 1: first epoch in 3.0 s, all in at most about 30 s",
        # What the next member takes is not known yet.
        "1 of 2, without fold 1 of 1: done in 30.0 s, at most 3 trainings to come",
        "2 of 2, without fold 1 of 1: at most 10 epochs",
        "2 of 2, without fold 1 of 1: first epoch in 5.0 s, all in at most about 50 s",
        "2 of 2, without fold 1 of 1: done in 5.0 s, at most 2 trainings to come, in about 35 s",
        "1 of 2, on all samples: at most 10 epochs",
        "1 of 2, on all samples: first epoch in 40.0 s, all in at most about 400 s",
        "1 of 2, on all samples: done in 40.0 s, at most 1 training to come, in about 5 s",
        "2 of 2, on all samples: at most 10 epochs",
        "2 of 2, on all samples: first epoch in 6.0 s, all in at most about 60 s",
        "2 of 2, on all samples: done in 6.0 s",
        "All trainings done in 81.0 s; now costs, gates and calibration.",
    ]


def test_a_fit_that_fails_is_not_told_as_done(capsys):
    with pytest.raises(ValueError), progress.Progress([1], 0, 1, NO_CALLBACKS):
        raise ValueError
    assert capsys.readouterr().out == ""


def test_folds_are_told(digits, capsys):
    quick_classifier(cv=2, max_epochs=1, verbose=1).fit(*digits)
    told = [line for line in capsys.readouterr().out.splitlines() if ": at most" in line]
    folds = ["without fold 1 of 2", "without fold 2 of 2", "on all samples"]
    names = [f"TabularResNet, member 1 of 1, {fold}: at most 1 epochs" for fold in folds]
    assert told == names


def test_a_warm_up_counts_twice(digits, capsys):
    quick_classifier(freeze_backbone="after_warmup", max_epochs=2, verbose=1).fit(*digits)
    assert "member 1 of 1: at most 4 epochs" in capsys.readouterr().out
