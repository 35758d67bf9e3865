import numpy as np
import pytest

from sklearn_jeidnn._splits import halve, hold_out


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
