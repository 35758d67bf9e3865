import numpy as np
import pytest

from sklearn_jeidnn._splits import (
    deal_folds,
    halve,
    hold_out,
    hold_out_calibration,
    keep_parts,
)


@pytest.mark.parametrize("n_samples", [4, 5, 11, 100, 1000])
def test_the_three_parts_are_disjoint_and_hold_every_row(n_samples):
    y = np.arange(n_samples) % 3
    parts = hold_out(y, 0.2, np.random.RandomState(0))
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(n_samples))
    assert all(len(part) for part in parts)


def test_gate_rows_follow_the_classes():
    y = np.repeat([0, 1], [900, 100])
    _, gate, _ = hold_out(y, 0.2, np.random.RandomState(0))
    assert abs(np.mean(y[gate]) - 0.1) < 0.03


def test_gate_rows_never_take_the_last_row_of_a_class():
    y = np.append(np.zeros(99, dtype=int), 1)
    for seed in range(20):
        _, gate, _ = hold_out(y, 0.9, np.random.RandomState(seed))
        assert 99 not in gate


def test_calibration_rows_are_drawn_alike_from_all_rows():
    y = np.append(np.zeros(9, dtype=int), 1)
    drawn = np.concatenate(
        [hold_out(y, 0.4, np.random.RandomState(seed))[2] for seed in range(500)]
    )
    counts = np.bincount(drawn, minlength=10)
    assert counts.min() > 70 and counts.max() < 130  # 100 expected, five deviations to either side


def test_too_few_rows_are_refused():
    with pytest.raises(ValueError, match="n_samples = 3; at least 4"):
        hold_out(np.array([0, 1, 0]), 0.2, np.random.RandomState(0))
    with pytest.raises(ValueError, match="X_val has n_samples = 1"):
        halve(1, np.random.RandomState(0))


def test_folds_are_of_equal_size_and_each_class_is_spread_over_them():
    y = np.repeat([0, 1, 2], [50, 23, 4])
    folds = deal_folds(y, 5, np.random.RandomState(0))
    counts = np.array([np.bincount(folds[y == code], minlength=5) for code in range(3)])
    assert np.ptp(counts, axis=1).max() <= 1 and np.ptp(counts.sum(axis=0)) <= 1
    assert not np.array_equal(folds, deal_folds(y, 5, np.random.RandomState(1)))


def test_the_only_row_of_a_class_is_in_no_fold():
    y = np.append(np.arange(10) % 2, 2)
    assert np.flatnonzero(deal_folds(y, 5, np.random.RandomState(0)) < 0).tolist() == [10]


def test_more_folds_than_rows_to_deal_out_are_refused():
    with pytest.raises(ValueError, match="cv=3 .* only 2 of the samples"):
        deal_folds(np.array([0, 0, 1, 2, 3]), 3, np.random.RandomState(0))


@pytest.mark.parametrize("n_samples", [6, 25, 1000])
def test_with_folds_the_same_rows_calibrate_as_without(n_samples):
    y = np.arange(n_samples) % 2
    *_, alone = hold_out(y, 0.1, np.random.RandomState(0))
    train, calibration = hold_out_calibration(n_samples, 0.1, 5, np.random.RandomState(0))
    assert np.array_equal(alone, calibration)
    assert np.array_equal(np.sort(np.append(train, calibration)), np.arange(n_samples))
    assert len(hold_out_calibration(n_samples, 0, 5, np.random.RandomState(0))[1]) == 0


def test_rows_that_calibrated_are_halved_where_none_set_the_gates():
    parts = np.array([0] * 6 + [2] * 4)
    kept = keep_parts(parts, np.arange(10) % 2, 0.1, np.random.RandomState(0))
    assert [len(part) for part in kept] == [6, 2, 2]
    assert keep_parts(parts[:7], np.arange(7) % 2, 0.1, np.random.RandomState(0)) is None
