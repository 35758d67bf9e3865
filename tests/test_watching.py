"""Samples that come are compared with those that calibrated: seldom a false alarm, and changes are noticed."""

import copy
import pickle
from dataclasses import replace

import numpy as np
import pytest

from sklearn_jeidnn._operate.bets import CHUNK, Bets, DensityBets, HistogramBets, densities
from sklearn_jeidnn._operate.coverage import CoverageCounts
from sklearn_jeidnn._operate.watching import Observed, Ranks, Watch
from sklearn_jeidnn.runtime import Predictor

N_EXITS, N_CLASSES = 3, 5
SIZES = {"n_exits": N_EXITS, "n_classes": N_CLASSES}


def drawn(rng, n_samples, harder=0.0, shares=None):
    """What is watched of samples, some of which are harder."""
    hard = rng.random(n_samples) < 0.3 + harder
    log_odds = rng.normal(np.where(hard, 0.5, 3.0), 1.0)
    return Observed(
        np.where(hard, rng.integers(1, N_EXITS, n_samples), 0),
        np.maximum(1 / (1 + np.exp(-log_odds)), 1 / N_CLASSES),
        rng.choice(N_CLASSES, n_samples, p=shares),
    )


def watched(seed, n_known=200, alpha=0.01, **change):
    """A watch after 400 samples."""
    rng = np.random.default_rng(seed)
    watch = Watch(drawn(rng, n_known), **SIZES, alpha=alpha, seed=seed)
    watch.update(drawn(rng, 400, **change))
    return watch


def steep_grid(n_points):
    """P-values, dense at both ends, and what each stands for."""
    u = (np.arange(n_points) + 0.5) / n_points
    low, weights = (2 * u) ** 4 / 2, 4 * (2 * u) ** 3
    is_low = u < 0.5
    return np.where(is_low, low, 1 - low[::-1]), np.where(is_low, weights, weights[::-1])


# Histograms are constant in each bin.
GRIDS = {
    DensityBets: steep_grid(200),
    HistogramBets: ((np.arange(50) + 0.5) / 50, np.ones(50)),
}


@pytest.mark.parametrize("kind", GRIDS)
@pytest.mark.parametrize("n_before", [0, 1, CHUNK - 1, CHUNK, 200, 2200])
def test_no_bet_wins_on_average_if_p_values_are_uniform(kind, n_before):
    bets, rng = kind(2), np.random.default_rng(0)
    before, known = np.ones(2), rng.beta(0.9, 1, (2, n_before))
    for start in range(0, n_before, CHUNK):
        before = bets.update(known[:, start : start + CHUNK])[:, -1]
    p_values, weights = GRIDS[kind]
    after = [copy.deepcopy(bets).update(np.full((2, 1), p))[:, 0] for p in p_values]
    means = np.average(after, axis=0, weights=weights)
    assert np.all(means > 0.9 * before) and np.all(means < (1 + 1e-4) * before)


def test_bets_are_half_of_either_kind():
    p_values = np.random.default_rng(0).random((2, CHUNK))
    both, dense, counted = Bets(2), DensityBets(2), HistogramBets(2)
    expected = (dense.update(p_values) + counted.update(p_values)) / 2
    np.testing.assert_allclose(both.update(p_values), expected)
    assert both.n_left == CHUNK


def test_each_stream_has_its_own_capital():
    p_values = np.random.default_rng(0).beta([[0.5], [1.0], [2.0]], 1, (3, 40 * CHUNK))
    together, alone = Bets(3), [Bets(1) for _ in range(3)]
    for part in np.split(p_values, 40, axis=1):
        found = together.update(part)
        own = [bets.update(one[None])[0] for bets, one in zip(alone, part)]
        np.testing.assert_allclose(found, own)
    assert found[0, -1] > 1e6 and found[1, -1] < 10


def test_whatever_comes_capital_is_a_number():
    for p in (0.0, 1.0, 0.5):
        bets = Bets(1)
        capital = [bets.update(np.full((1, CHUNK), p)) for _ in range(5)]
        assert np.isfinite(capital).all() and np.min(capital) > 0


def test_densities_are_densities():
    grid, weights = steep_grid(2000)
    means = np.average(densities(grid), axis=0, weights=weights)
    assert densities(grid).min() > 0.09
    assert np.all(means < 1 + 1e-6) and np.all(means > 0.75)


def p_values_by_definition(known, new, uniform):
    """Groups and values one by one."""
    seen, found = list(known), []
    for (group, value), u in zip(new, uniform, strict=True):
        seen.append((group, value))
        own = [v for g, v in seen if g == group]
        larger, equal = sum(v > value for v in own), sum(v == value for v in own)
        found.append((larger + u * equal) / len(own))
    return found


def test_p_values_are_those_of_the_definition_however_samples_are_divided():
    rng = np.random.default_rng(0)
    known, new = (rng.integers(0, (2, 6), size=(n, 2)) for n in (30, 40))
    uniform = rng.random(40)
    for size in (1, 7, 40):
        ranks = Ranks(2, 6)
        ranks.add(*known.T)
        found = np.concatenate(
            [
                ranks.p_values(*new[i : i + size].T, uniform[i : i + size])
                for i in range(0, 40, size)
            ]
        )
        expected = p_values_by_definition(map(tuple, known), map(tuple, new), uniform)
        np.testing.assert_allclose(found, expected)


def test_p_values_of_exchangeable_samples_are_independent_and_uniform():
    rng = np.random.default_rng(0)
    found = []
    for _ in range(2000):
        ranks = Ranks(1, 4)
        zeros = np.zeros(4, dtype=int)
        ranks.add(zeros[:2], rng.integers(0, 4, 2))
        found.append(ranks.p_values(zeros, rng.integers(0, 4, 4), rng.random(4)))
    found = np.array(found)
    low = (np.array([0.25, 0.5, 0.75])[:, None, None] > found).mean(axis=1)
    np.testing.assert_allclose(low, np.array([[0.25], [0.5], [0.75]]) * np.ones(4), atol=0.04)
    assert np.abs(np.corrcoef(found.T) - np.eye(4)).max() < 0.08


def test_alarms_are_false_no_more_often_than_alpha_says():
    alpha, n_streams = 0.2, 100
    alarms = [watched(seed, 60, alpha).alarm_at is not None for seed in range(n_streams)]
    assert np.mean(alarms) <= alpha + 3 * np.sqrt(alpha * (1 - alpha) / n_streams)
    assert np.any(alarms)


@pytest.mark.parametrize("change", [{"harder": 0.5}, {"shares": [0.6, 0.1, 0.1, 0.1, 0.1]}])
def test_changes_are_noticed_and_an_alarm_stays(change):
    for seed in range(5):
        watch = watched(seed, **change)
        assert watch.alarm_at is not None and watch.alarm_at < 200
        # The watch is the same one by one, which tells when exactly it was raised.
        rng = np.random.default_rng(seed)
        other = Watch(drawn(rng, 200), **SIZES, alpha=0.01, seed=seed)
        new = drawn(rng, 400, **change)
        while other.alarm_at is None:
            other.update(new.take(slice(other.n_seen, other.n_seen + 1)))
        assert watch.alarm_at == other.n_seen
        watch.update(drawn(np.random.default_rng(seed), 1000))
        assert watch.alarm_at == other.n_seen


def test_what_changes_late_is_noticed():
    rng = np.random.default_rng(0)
    watch = Watch(drawn(rng, 200), **SIZES, alpha=0.01, seed=0)
    watch.update(drawn(rng, 5000))
    assert watch.alarm_at is None
    watch.update(drawn(rng, 400, harder=0.5))
    assert 5000 < watch.alarm_at < 5400


def test_neither_calls_nor_the_order_of_calibration_samples_count():
    rng = np.random.default_rng(0)
    known, new = drawn(rng, 100), drawn(rng, 300, harder=0.3)
    whole = Watch(known, **SIZES, alpha=0.01, seed=3)
    whole.update(new)
    parts = Watch(known, **SIZES, alpha=0.01, seed=3)
    for start in range(0, 300, 7):
        parts.update(new.take(slice(start, start + 7)))
    np.testing.assert_allclose(parts.wealth, whole.wealth)
    assert parts.alarm_at == whole.alarm_at and parts.n_seen == whole.n_seen == 300
    np.testing.assert_allclose(parts.most_wealth, whole.most_wealth)


def test_the_state_does_not_grow():
    rng = np.random.default_rng(0)
    watch = Watch(drawn(rng, 100), **SIZES, alpha=0.01, seed=0)
    watch.update(drawn(rng, 20 * CHUNK))
    size = len(pickle.dumps(watch))
    watch.update(drawn(rng, 50 * CHUNK))
    assert len(pickle.dumps(watch)) <= size + 200


def test_rounding_is_no_change():
    rng = np.random.default_rng(0)
    zeros = np.zeros(3000, dtype=int)
    # At an edge of the bins of log-odds, and just below.
    edge = 1 / (1 + np.exp(-1.0))
    known = Observed(zeros[:500], np.full(500, edge + 1e-9), zeros[:500])
    new = Observed(zeros, np.full(3000, edge - 1e-7), rng.integers(0, 1, 3000))
    watch = Watch(known, **SIZES, alpha=0.01, seed=0)
    watch.update(new)
    assert watch.alarm_at is None


def test_certain_and_hopeless_answers_have_places():
    zeros = np.zeros(2, dtype=int)
    watch = Watch(Observed(zeros, np.array([1.0, 0.0]), zeros), **SIZES, alpha=0.01, seed=0)
    watch.update(Observed(zeros, np.array([0.0, 1.0]), zeros))
    assert np.isfinite(watch.wealth)


def covered(rng, coverage, n_samples=600):
    return rng.random(n_samples) < coverage


def test_intervals_of_coverage_hold_at_all_times():
    alpha, misses = 0.2, []
    for seed in range(100):
        counts, missed = CoverageCounts(0.9, alpha), False
        for part in np.split(covered(np.random.default_rng(seed), 0.85), 30):
            counts.update(part)
            bounds = counts.bounds()
            assert bounds.low <= bounds.coverage <= bounds.high
            missed |= not bounds.low <= 0.85 <= bounds.high
        misses.append(missed)
    assert np.mean(misses) <= alpha + 3 * np.sqrt(alpha * (1 - alpha) / 100)
    assert bounds.high - bounds.low < 0.12


def test_coverage_is_called_too_low_if_it_is_and_seldom_if_it_is_not():
    below = {}
    for coverage in (0.75, 0.9, 0.95):
        own = []
        for seed in range(100):
            counts = CoverageCounts(0.9, 0.1)
            for part in np.split(covered(np.random.default_rng(seed), coverage), 30):
                counts.update(part)
            own.append(counts.is_below)
        below[coverage] = np.mean(own)
    assert below[0.75] > 0.95
    assert below[0.9] <= 0.1 + 3 * np.sqrt(0.09 / 100)
    assert below[0.95] <= 0.02


def test_without_labels_nothing_is_known():
    bounds = CoverageCounts(0.9, 0.05).bounds()
    assert (bounds.low, bounds.high, bounds.is_below) == (0.0, 1.0, False)
    assert np.isnan(bounds.coverage)


@pytest.fixture(scope="module")
def predictor(fitted):
    return fitted.predictor()


def test_a_predictor_watches_what_it_answers(predictor, fresh_digits):
    X = fresh_digits[0][:100]
    watcher = predictor.watch(alpha=0.05)
    other = copy.deepcopy(watcher)
    watcher.update(X[:30]).update(X[30:])
    other.update_answers(predictor.predict_proba(X), predictor.predict_exit(X))
    assert watcher.n_seen == other.n_seen == 100
    np.testing.assert_allclose(watcher.wealth, other.wealth, rtol=1e-3)
    assert watcher.alarm == other.alarm == (watcher.alarm_at is not None)


def test_noise_raises_the_alarm_of_a_predictor(predictor):
    noise = np.float32(np.random.default_rng(0).uniform(0, 16, size=(400, 64)))
    watcher = predictor.watch().update(noise)
    assert watcher.alarm and watcher.alarm_at < 400
    assert watcher.alpha == 0.01


def test_labels_that_come_late_give_coverage_by_exit(predictor, fresh_digits):
    X, y = (values[:300] for values in fresh_digits)
    watcher = predictor.watch(confidence_level=0.8).update_labels(X, y)
    sets = predictor.predict_set(X, confidence_level=0.8)
    is_in = sets[np.arange(300), np.searchsorted(predictor.classes, y)]
    exits = predictor.predict_exit(X)
    coverage = watcher.coverage()
    assert list(coverage) == [*predictor.exits, "last exit", "all exits"]
    for i, bounds in enumerate(list(coverage.values())[:-1]):
        assert (bounds.n_samples, bounds.n_covered) == ((exits == i).sum(), is_in[exits == i].sum())
    assert coverage["all exits"].n_covered == is_in.sum()
    assert watcher.n_seen == 0


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda w: w.update_answers(np.ones((3, 4)), [0, 0, 0]), r"probabilities have shape"),
        (lambda w: w.update_answers(np.ones((3, 10)), [0, 0]), r"give whole numbers \(3,\)"),
        (lambda w: w.update_answers(np.ones((3, 10)), [0.5, 0, 0]), "exits are float64"),
        (lambda w: w.update_answers(np.ones((1, 10)), [99]), "exits are from 99 to 99"),
        (lambda w: w.update_coverage([0], [1]), "covered is int64"),
        (lambda w: w.update_coverage([0, 0], [True]), "exits are int64 of shape"),
        (lambda w: w.update_labels(np.ones((1, 64)), [77]), "y has labels"),
        (lambda w: w.update_labels(np.ones((1, 64)), [1], groups=[0]), "groups"),
        (lambda w: w.update(np.ones((1, 3))), "3 features"),
    ],
)
def test_what_makes_no_sense_is_refused(predictor, call, message):
    with pytest.raises(ValueError, match=message):
        call(predictor.watch())


@pytest.mark.parametrize("name", ["alpha", "confidence_level", "random_state"])
def test_parameters_that_make_no_sense_are_named(predictor, name):
    with pytest.raises(ValueError, match=name):
        predictor.watch(**{name: -1})


def test_without_calibration_samples_there_is_nothing_to_compare_with(fitted):
    without = Predictor(replace(fitted._predictor, samples=None), "joint")
    with pytest.raises(ValueError, match="no sample calibrates.*nothing to compare"):
        without.watch()
