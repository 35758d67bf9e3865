import numpy as np
import pytest
import torch
from sklearn.dummy import DummyClassifier
from torch import nn

from sklearn_jeidnn._encoding import column_spreads, gaps_of_few_values
from sklearn_jeidnn._tables import bearable_noise
from sklearn_jeidnn.backbones import (
    PiecewiseLinearEncoding,
    RobustScaling,
    TabularResNet,
    bin_edges,
)

from .conftest import quick_classifier


def test_encoding_says_how_far_a_value_has_come_through_each_bin():
    encoding = PiecewiseLinearEncoding([np.array([0.0, 1.0, 3.0])])
    values = torch.tensor([[-1.0], [0.5], [2.0], [9.0]])
    assert encoding(values).tolist() == [[0, 0], [0.5, 0], [1, 0.5], [1, 1]]


def test_one_hot_columns_pass_the_encoding_unchanged():
    X = np.eye(3, dtype=np.float32)
    encoding = PiecewiseLinearEncoding(bin_edges(X, 32))
    assert torch.equal(encoding(torch.as_tensor(X)), torch.as_tensor(X))


def test_few_values_are_edges_themselves_and_many_are_binned():
    X = np.column_stack([np.arange(1000) % 4, np.arange(1000)])
    few, many = bin_edges(X, 8)
    assert few.tolist() == [0, 1, 2, 3]
    assert 4 < len(many) <= 9 and many[0] == 0 and many[-1] == 999


def test_a_column_that_is_mostly_zero_keeps_edges_among_its_other_values():
    column = np.append(np.zeros(9900), np.arange(1, 101))
    assert (bin_edges(column[:, None], 16)[0] > 0).sum() >= 8


@pytest.mark.parametrize(
    "column", [np.full(9, 7.0), np.full(9, -1e30), np.zeros(9), 1e6 + np.arange(9) / 1e6]
)
def test_odd_columns_encode_to_finite_values(column):
    encoding = PiecewiseLinearEncoding(bin_edges(column[:, None], 4))
    assert torch.isfinite(encoding(torch.tensor(column[:, None], dtype=torch.float32))).all()


def test_a_tables_answer_has_one_row_per_row():
    X = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    backbone = TabularResNet.from_data(X, 4, width=8, n_blocks=2).eval()
    assert backbone(torch.as_tensor(X)).shape == (20, 4)


def test_a_code_for_missing_values_has_a_bin_of_its_own_and_takes_none_of_the_others():
    column = np.random.default_rng(0).normal(size=2000)
    edges = bin_edges(column[:, None], 16)[0]
    for code in (-999.0, 1e6):
        coded = np.append(column, np.full(40, code))
        with_code = bin_edges(coded[:, None], 16)[0]
        assert code in with_code
        np.testing.assert_array_equal(with_code[with_code != code], edges)


def test_a_code_for_most_values_leaves_the_few_others_their_bins():
    column = np.append(np.full(900, -999.0), np.linspace(0, 1, 100))
    assert (bin_edges(column[:, None], 16)[0] >= 0).sum() >= 9
    assert column_spreads(column[:, None]).scale == pytest.approx(0.5, abs=0.01)


def test_two_groups_of_many_values_are_both_ordinary():
    rng = np.random.default_rng(0)
    column = np.append(rng.normal(size=1000), 1e4 + rng.normal(size=1000))
    edges = bin_edges(column[:, None], 16)[0]
    assert (edges < 100).sum() >= 4 and (edges > 9000).sum() >= 4


def test_bins_have_the_resolution_of_ranks_not_of_the_largest_value():
    column = np.append(np.arange(100), [1e9])
    edges = bin_edges(np.repeat(column, 10)[:, None], 16)[0]
    assert (edges < 100).sum() >= 9


def test_a_column_far_from_zero_is_resolved_as_far_as_float32_goes():
    column = np.float32(48.85 + 1e-4 * np.random.default_rng(0).random(1000))
    edges = bin_edges(column[:, None], 16)
    half = torch.as_tensor([[column.min()], [column.max()]])
    first, last = PiecewiseLinearEncoding(edges)(half)
    assert len(edges[0]) > 8 and not first.any() and last.all()


@pytest.mark.parametrize("outlier", [1e4, -999.0, 1e30, 3e38])
def test_spread_and_scaling_do_not_depend_on_how_far_out_an_outlier_is(outlier):
    column = np.random.default_rng(0).normal(size=1000)
    clean = column_spreads(column[:, None])
    spoilt = column.copy()
    spoilt[5] = outlier
    broken = column_spreads(spoilt[:, None])
    np.testing.assert_allclose(np.ravel(broken), np.ravel(clean), atol=0.02)
    scaled = RobustScaling(broken.centre, broken.scale)(torch.as_tensor([[outlier]]).float())
    assert 2.9 < abs(scaled.item()) <= 3


def test_scaling_of_a_constant_column_is_zero():
    scaling = RobustScaling([7.0], [0.0])
    assert not scaling(torch.tensor([[7.0], [3e38], [-3e38]])).any()


def test_noise_moves_columns_of_many_values_while_training_and_no_others():
    rng = np.random.default_rng(0)
    X = np.column_stack([3 * rng.normal(size=500), rng.integers(0, 2, 500), np.ones(500)])
    noise = TabularResNet.from_data(X, 2, noise=0.5).noise
    samples = torch.zeros(1000, 3)
    torch.manual_seed(0)
    deviations = noise.train()(samples).std(0)
    assert 1.3 < deviations[0] < 1.7
    assert not deviations[1:].any()
    assert torch.equal(noise.eval()(samples), samples)


def test_noise_on_few_values_is_a_share_of_the_smallest_gap_between_them():
    X = np.array([[0.0, 5, 0], [1, 5, 1], [4, 6, 2], [0, 6, 3]])
    np.testing.assert_equal(gaps_of_few_values(X, 2), [1, 0, np.nan])
    noise = TabularResNet.from_data(X, 2, n_bins=2, noise=0.0, discrete_noise=0.4).noise
    np.testing.assert_allclose(noise.deviations, [0.4, 0, 0])


def test_noise_is_as_large_as_neighbours_bear():
    rng = np.random.default_rng(0)
    groups = np.arange(1000) % 2
    apart = (3.0 * groups + rng.random(1000))[:, None]
    fine = rng.random((1000, 1))
    assert bearable_noise(apart, groups, apart.std(axis=0)) == 0.2
    assert bearable_noise(fine, np.int64(np.floor(40 * fine[:, 0]) % 2), fine.std(axis=0)) == 0.05


def noise_of(X, y, **params):
    return TabularResNet.from_data(X, 2, y=y, width=8, n_blocks=1, **params).noise


def test_whole_numbers_get_noise_where_their_neighbours_mean_the_same():
    X = np.random.default_rng(0).integers(0, 8, (2000, 3)).astype(np.float64)
    near = np.int64(X.sum(axis=1) > 10)
    np.testing.assert_allclose(noise_of(X, near).deviations, 0.4)
    # As on a chess board, one step further is another thing.
    chess = np.int64(X.sum(axis=1) % 2)
    assert isinstance(noise_of(X, chess), nn.Identity)
    np.testing.assert_allclose(noise_of(X, chess, discrete_noise=0.4).deviations, 0.4)


def test_the_ready_network_of_a_fit_gets_the_noise_that_its_samples_bear():
    y = np.arange(300) % 2
    X = 3 * y[:, None] + np.random.default_rng(0).random((300, 2))
    clf = quick_classifier(max_epochs=1).fit(X, y)
    without = TabularResNet.from_data(X, 2).noise.deviations
    assert (clf.module_.noise.deviations > 1.5 * without).all()


def test_dates_as_numbers_keep_their_days():
    rng = np.random.default_rng(0)
    # Nanoseconds of one day: float32 has steps of more than a minute there.
    second = 1e9
    column = 1.7e18 + 60 * second * rng.random(400)
    X, y = column[:, None], column > np.median(column)
    clf = quick_classifier(max_epochs=8).fit(X[:300], y[:300])
    assert clf.score(X[300:], y[300:]) > 0.9


def test_a_classifier_in_front_is_given_columns_as_the_user_gives_them():
    class Kept(DummyClassifier):
        def predict_proba(self, X):
            seen.append(X)
            return super().predict_proba(X)

    seen = []
    rng = np.random.default_rng(0)
    X = np.column_stack([1e9 + rng.random(200), rng.random(200)])
    y = np.arange(200) % 2
    clf = quick_classifier(module=[Kept(), None], companion_costs=[0.1], max_epochs=1).fit(X, y)
    seen.clear()
    clf.predict(X[:5])
    np.testing.assert_allclose(seen[0], X[:5], atol=1e-6)


def test_a_module_of_the_users_that_takes_blurred_columns_is_told():
    X = np.column_stack([1e9 + np.arange(300) / 300, np.arange(300.0)])
    module = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    with pytest.warns(UserWarning, match=r"X has columns \[0\] whose spread is small"):
        quick_classifier(module=module, exits=["1"], max_epochs=1).fit(X, np.arange(300) % 2)
