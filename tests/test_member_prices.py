"""What members cost beside a classifier, by told times."""

import numpy as np
import pytest
import torch
from torch import nn

from sklearn_jeidnn._exits.building import single_stage_network
from sklearn_jeidnn._fit import member_prices
from sklearn_jeidnn._fit.classifiers import ClassifierStage
from sklearn_jeidnn._fit.member_prices import (
    MOST_TOGETHER,
    MemberCost,
    MemberPrices,
    MemberTime,
    member_times,
)


class Trees:
    classes_ = np.arange(2)


class Labels:
    classes = np.arange(2)


def stage():
    return single_stage_network(ClassifierStage(Trees(), Labels()), 2, "sequential", "float32")


def run(*inputs):
    raise AssertionError("times are told in these tests")


def samples(_=None):
    return (torch.zeros(800, 3),)


@pytest.fixture
def seconds(monkeypatch):
    """Members take 1, 4 and 10 for 800 samples; for 100 samples 0.125, 2.25 and 3."""
    told = [np.array([0.1, 0.4, 0.0125, 0.225, 0.3])]
    monkeypatch.setattr(member_prices, "relative_seconds", lambda runs, _: told.pop())


def test_what_few_samples_take_is_told_from_what_samples_take(seconds):
    first, second, last = member_times([run, run, run], samples())
    assert first == pytest.approx((0.0, 0.1))
    # 0.225 = a + b / 8 and 0.4 = a + b.
    assert second == pytest.approx((0.2, 0.2))
    assert last == pytest.approx((0.2, 0.8))


def test_of_several_batches_those_that_go_on_are_answered_in_one_call():
    # Of four batches, each twice as large as the call: the last member takes 4 x (0.2 + 2 x 0.8).
    cost = MemberCost.of(MemberTime(0.2, 0.2), MemberTime(0.2, 0.8), 2.0)
    assert cost == pytest.approx((4 * (0.2 + 0.4) / 7.2, 0.2 / 7.2, 4 * 0.4 / 7.2))


def test_every_sample_pays_what_a_call_takes_anyhow(seconds):
    prices = MemberPrices(run, True, None, samples)
    members = [stage(), stage(), stage()]
    size = members[0].rows_at_once / MOST_TOGETHER
    times = [MemberTime(0, 0.1), MemberTime(0.2, 0.2), MemberTime(0.2, 0.8)]
    first, second, last = (MemberCost.of(time, times[-1], size) for time in times)
    assert prices.of_stages(members) == pytest.approx(
        [first.of_all + second.fixed + last.fixed, second.of_samples, last.of_samples]
    )
    # Times are measured once; the first of a shorter chain is called for every batch.
    shorter = [second.of_all + last.fixed, last.of_samples]
    assert prices.of_stages(members[1:]) == pytest.approx(shorter)


def test_what_is_told_is_not_timed():
    prices = MemberPrices(run, True, [0.01, 0.2], samples)
    assert prices.of_stages([stage(), stage(), stage()]) == [0.01, 0.2, 1.0]
    with pytest.raises(ValueError, match=r"companion_costs=\[0.01, 0.2\] must have one entry"):
        prices.of_stages([stage(), stage()])


def test_a_network_at_the_end_is_counted(monkeypatch):
    monkeypatch.setattr(
        member_prices, "relative_seconds", lambda runs, _: np.array([0.3, 0.2, 0.2])
    )
    prices = MemberPrices(run, False, None, samples)
    network = stage()
    network.stages = nn.ModuleList([nn.Linear(3, 2), nn.Linear(2, 2)])
    companion = stage()
    size = companion.rows_at_once / MOST_TOGETHER
    cost = MemberCost.of(MemberTime(1.3 / 7, 0.8 / 7), MemberTime(0.6 / 7, 6.4 / 7), size)
    first, *others = prices.of_stages([companion, network])
    assert first == pytest.approx(cost.of_all) and others == [None, None]
