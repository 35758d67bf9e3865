"""Samples are known again by their hashes, and equal samples of coarse tables are not taken for others."""

import numpy as np

from sklearn_jeidnn._history import (
    CALIBRATION,
    GATES,
    NEW,
    TRAIN,
    SampleHistory,
    joined,
    sample_hashes,
)

CLASSES = np.array(["a", "b"])


def hashes_of(X, codes=None):
    codes = np.zeros(len(X), int) if codes is None else codes
    return sample_hashes((X,), codes, CLASSES)


def history_of(train, gates, calibration, complete=True):
    return SampleHistory.of([train, gates, calibration], complete)


def numbers(first, n):
    """Hashes of samples that are told by their numbers."""
    return np.arange(first, first + n, dtype=np.uint64)


def test_hashes_tell_samples_and_labels_apart_and_integers_from_floats_not():
    X = np.random.default_rng(0).integers(0, 5, (500, 8))
    X = np.unique(X, axis=0)
    hashes = hashes_of(X)
    assert len(np.unique(hashes)) == len(X)
    assert np.array_equal(hashes, hashes_of(np.float32(X)))
    assert not np.isin(hashes_of(X, np.ones(len(X), int)), hashes).any()
    assert np.array_equal(hashes_of(X[::-1]), hashes[::-1])


def test_each_sample_keeps_its_part_in_any_order_and_others_are_new():
    history = history_of(numbers(0, 80), numbers(80, 10), numbers(90, 10))
    order = np.random.default_rng(0).permutation(120)
    parts = history.parts_of(numbers(0, 120)[order])
    expected = np.repeat([TRAIN, GATES, CALIBRATION, NEW], [80, 10, 10, 20])
    assert np.array_equal(parts, expected[order])


def test_equal_samples_keep_as_many_of_each_part():
    """On coarse tables samples are equal without being the same."""
    train, held_out = np.repeat(numbers(0, 10), 8), np.repeat(numbers(0, 10), 1)
    history = history_of(train, held_out, held_out)
    parts = history.parts_of(np.concatenate([train, held_out, held_out]))
    assert np.bincount(parts).tolist() == [80, 10, 10]


def test_samples_that_were_used_are_counted_unless_chance_explains_them():
    history = history_of(numbers(0, 900), numbers(900, 50), numbers(950, 50))
    assert history.count_used(numbers(800, 200)) == 100
    assert history.count_used(numbers(800, 200), (TRAIN, GATES)) == 150
    assert history.count_used(numbers(1000, 200)) == 0
    # One of 200 changes nothing, and may be a twin.
    assert history.count_used(numbers(899, 200), (TRAIN,)) == 0


def test_new_samples_of_a_table_of_few_distinct_rows_are_not_taken_for_those_that_trained():
    rng = np.random.default_rng(0)
    for n_distinct, n_columns in ((2, 3), (3, 5), (10, 4)):
        X = rng.integers(0, n_distinct, (3000, n_columns))
        codes = rng.integers(0, 2, 3000)
        hashes = hashes_of(X, codes)
        history = history_of(*np.split(hashes[:2000], [1800, 1900]))
        assert history.count_used(hashes[2000:]) == 0
        assert (history.parts_of(hashes[2000:]) == NEW).all()


def test_histories_join_to_what_any_network_learned():
    first = history_of(numbers(0, 50), numbers(50, 5), numbers(55, 5))
    second = history_of(numbers(50, 50), numbers(10, 5), numbers(0, 0), complete=False)
    both = joined([first, second])
    assert not both.complete
    assert (both.parts_of(numbers(0, 100)) == TRAIN).all()
    assert joined([first]) is first
    assert np.array_equal(second.after(first).parts_of(numbers(0, 100)), np.zeros(100))
