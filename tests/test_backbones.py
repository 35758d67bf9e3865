import numpy as np
import pytest
import torch

from sklearn_jeidnn.backbones import (
    ImageInput,
    ImageResNet,
    PiecewiseLinearEncoding,
    TabularResNet,
    bin_edges,
)


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


@pytest.mark.parametrize("shape", [(8, 8), (1, 8, 8), (3, 9, 7), (8, 8, 3), (32, 32, 3)])
def test_images_in_any_layout_give_the_same_answer_flat_or_not(shape):
    X = np.random.default_rng(0).random((5, *shape)).astype(np.float32)
    torch.manual_seed(0)
    backbone = ImageResNet.from_data(X, 3, width=4, n_blocks=3).eval()
    torch.manual_seed(0)
    flat = ImageResNet.from_data(X.reshape(5, -1), 3, image_shape=shape, width=4, n_blocks=3).eval()
    answer = backbone(torch.as_tensor(X))
    assert answer.shape == (5, 3)
    torch.testing.assert_close(flat(torch.as_tensor(X.reshape(5, -1))), answer)


def test_channels_are_moved_not_mixed():
    X = torch.arange(2 * 5 * 6 * 3, dtype=torch.float32).reshape(2, 5, 6, 3)
    torch.testing.assert_close(ImageInput((5, 6, 3))(X), X.permute(0, 3, 1, 2))


@pytest.mark.parametrize("shape", [(8,), (0, 8), (2, 3, 8, 8)])
def test_shapes_of_no_image_are_refused(shape):
    with pytest.raises(ValueError, match="is not the shape of an image"):
        ImageInput(shape)


@pytest.mark.parametrize(
    "shape, channels_first",
    [
        ((12, 16, 16), True),
        ((16, 16, 12), False),
        ((64, 8, 8), True),
        ((8, 8, 64), False),
        ((6, 9, 20), True),
        ((20, 9, 6), False),
        ((16, 16, 16), True),
        ((3, 9, 5), True),
        ((5, 9, 3), False),
    ],
)
def test_an_image_shape_that_is_given_may_have_many_channels_in_either_order(shape, channels_first):
    layout = ImageInput(shape)
    first, middle, last = shape
    if channels_first:
        assert (layout.n_channels, layout.size) == (first, (middle, last))
    else:
        assert (layout.n_channels, layout.size) == (last, (first, middle))
    assert layout(torch.zeros(2, *shape)).shape == (2, layout.n_channels, *layout.size)


def test_many_channels_that_nobody_speaks_of_are_refused_with_what_to_do():
    with pytest.raises(ValueError, match=r"give module__image_shape=\(12, 8, 8\)"):
        ImageResNet.from_data(np.zeros((2, 12, 8, 8)), 3)
    X = np.random.default_rng(0).random((5, 12, 8, 8)).astype(np.float32)
    network = ImageResNet.from_data(X, 3, image_shape=(12, 8, 8), width=4, n_blocks=3)
    assert network(torch.as_tensor(X)).shape == (5, 3)


def test_an_image_shape_that_does_not_fit_the_rows_is_refused():
    with pytest.raises(
        ValueError, match=r"module__image_shape=\(8, 9\) has 72 values, but a row of X has 64"
    ):
        ImageResNet.from_data(np.zeros((2, 64)), 3, image_shape=(8, 9))


def test_noise_moves_columns_of_many_values_while_training_and_no_others():
    rng = np.random.default_rng(0)
    X = np.column_stack([3 * rng.normal(size=500), rng.integers(0, 2, 500), np.ones(500)])
    noise = TabularResNet.from_data(X, 2, noise=0.5).noise
    rows = torch.zeros(1000, 3)
    torch.manual_seed(0)
    deviations = noise.train()(rows).std(0)
    assert 1.3 < deviations[0] < 1.7
    assert not deviations[1:].any()
    assert torch.equal(noise.eval()(rows), rows)
