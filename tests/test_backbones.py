import numpy as np
import pytest
import torch

from sklearn_jeidnn.backbones import ImageInput, ImageResNet


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


def test_a_broken_pixel_does_not_set_the_scale_of_all_others():
    rng = np.random.default_rng(0)
    images = rng.random((200, 8, 8)).astype(np.float32)
    clean = ImageResNet.from_data(images, 3, width=4, n_blocks=3).input
    spoilt = images.copy()
    spoilt[17, 3, 3] = 1e4
    broken = ImageResNet.from_data(spoilt, 3, width=4, n_blocks=3).input
    assert broken.scale == pytest.approx(clean.scale.item(), rel=0.02)
    assert broken(torch.as_tensor(spoilt)).abs().max() < 10


def test_ordinary_pixels_pass_the_limits_unchanged():
    images = np.random.default_rng(0).normal(size=(500, 8, 8)).astype(np.float32)
    low, high = ImageResNet.from_data(images, 3, width=4, n_blocks=3).input.limits
    assert low < images.min() and images.max() < high


def test_images_that_are_nearly_all_black_keep_their_other_pixels():
    images = np.zeros((300, 8, 8), dtype=np.float32)
    images[0, 0, 0] = 1
    assert ImageResNet.from_data(images, 3, width=4, n_blocks=3).input.limits == (0, 1)
