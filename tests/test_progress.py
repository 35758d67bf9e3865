"""Whoever waits for a fit is told how far it has come."""

import io
import sys
from functools import partial

import pytest
from sklearn.naive_bayes import GaussianNB

from sklearn_jeidnn._fit import progress

from .conftest import quick_classifier

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
    with progress.Progress([3, 3], 0) as told:
        with told.of_member(None):
            for _ in range(5):
                told.epoch_done()
            assert told.bar.n == 3
        with told.of_member(None):
            told.epoch_done()
            assert told.bar.n == 4
        assert told.bar.n == 6
