import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from sklearn_jeidnn._exits.building import build_network
from sklearn_jeidnn._image_layers import shifted, whitening_filters
from sklearn_jeidnn._images import bearable_changes
from sklearn_jeidnn.backbones import FlipsAndShifts, ImageInput, ImageResNet

from .conftest import quick_classifier


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


def test_pixels_that_are_codes_do_not_set_the_scale_of_the_others():
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(300, 8, 8)).astype(np.float32)
    clean = ImageResNet.from_data(images, 3, width=4).input
    coded = np.where(rng.random(images.shape) < 0.02, 1e6, images).astype(np.float32)
    broken = ImageResNet.from_data(coded, 3, width=4).input
    assert clean.scale / 2 < broken.scale < 2 * clean.scale
    assert broken(torch.as_tensor(coded)).abs().max() < 10


def test_ordinary_pixels_pass_the_limits_unchanged():
    images = np.random.default_rng(0).normal(size=(500, 8, 8)).astype(np.float32)
    low, high = ImageResNet.from_data(images, 3, width=4, n_blocks=3).input.limits
    assert low < images.min() and images.max() < high


def test_images_that_are_nearly_all_black_keep_their_other_pixels():
    images = np.zeros((300, 8, 8), dtype=np.float32)
    images[0, 0, 0] = 1
    assert ImageResNet.from_data(images, 3, width=4, n_blocks=3).input.limits == (0, 1)


def digit_images():
    X, y = load_digits(return_X_y=True)
    return np.float32(X.reshape(-1, 8, 8)), y


def arrows(n_samples, rng):
    """Noisy images whose class is the side that a bright bar lies at, somewhere in that half."""
    y = rng.integers(2, size=n_samples)
    images = rng.normal(size=(n_samples, 16, 16))
    columns = np.where(y == 0, rng.integers(1, 6, size=n_samples), rng.integers(10, 15, n_samples))
    images[np.arange(n_samples), :, columns] += 3
    return np.float32(images), y


def discs(n_samples, rng):
    """Images of a bright or a dark disc, somewhere."""
    y = rng.integers(2, size=n_samples)
    rows, columns = np.mgrid[:16, :16]
    centres = rng.integers(5, 11, size=(2, n_samples, 1, 1))
    inside = (rows - centres[0]) ** 2 + (columns - centres[1]) ** 2 < 9
    sign = np.where(y == 0, -3, 3)[:, None, None]
    return np.float32(rng.normal(size=inside.shape) + sign * inside), y


def test_digits_are_neither_mirrored_nor_shifted():
    network = ImageResNet.from_data(digit_images()[0], 10, y=digit_images()[1], width=4)
    assert isinstance(network.changes, torch.nn.Identity)


@pytest.mark.parametrize("make, flip", [(arrows, False), (discs, True)])
def test_images_are_mirrored_where_that_leaves_their_class_alone(make, flip):
    X, y = make(600, np.random.default_rng(0))
    assert bearable_changes(X, y, (16, 16)) == (flip, 1)


def test_what_images_bear_is_decided_alike_whatever_was_drawn_before():
    X, y = discs(300, np.random.default_rng(0))
    torch.manual_seed(7)
    state = torch.get_rng_state()
    first = bearable_changes(X, y, (16, 16))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(8)
    assert bearable_changes(X, y, (16, 16)) == first


def test_nothing_is_changed_where_nothing_can_be_told():
    rng = np.random.default_rng(0)
    X, y = discs(400, rng)
    assert bearable_changes(X, rng.permutation(y), (16, 16)) == (False, 0)
    assert bearable_changes(X[:50], y[:50], (16, 16)) == (False, 0)


def test_what_the_user_says_of_flips_and_shifts_is_done():
    X, y = digit_images()
    network = ImageResNet.from_data(X, 10, y=y, flip=True, shift=2, width=4)
    assert (network.changes.flip, network.changes.shift) == (True, 2)


def test_fit_tells_the_network_the_classes_by_which_it_decides():
    X, y = discs(300, np.random.default_rng(0))
    clf = quick_classifier(module__width=8, module__n_blocks=2, max_epochs=1).fit(X, y)
    assert (clf.module_.changes.flip, clf.module_.changes.shift) == (True, 1)
    np.testing.assert_array_equal(clf.predict_proba(X), clf.predict_proba(X))


def test_images_are_changed_while_training_only():
    images = torch.arange(2 * 5 * 6.0).reshape(1, 2, 5, 6).repeat(64, 1, 1, 1)
    changes = FlipsAndShifts(flip=True, shift=1)
    assert changes.eval()(images) is images
    changed = changes.train()(images)
    assert changed.shape == images.shape
    seen = {tuple(image.flatten().tolist()) for image in changed}
    # Mirrored or not, nine places each: of 64 draws nearly all come.
    assert 12 <= len(seen) <= 18


def test_shifted_images_repeat_their_border():
    images = torch.arange(12.0).reshape(1, 1, 3, 4)
    places = torch.tensor([[0], [2]])
    expected = [[1, 2, 3, 3], [1, 2, 3, 3], [5, 6, 7, 7]]
    assert shifted(images, 1, places)[0, 0].tolist() == expected
    assert torch.equal(shifted(images, 1, torch.ones(2, 1, dtype=torch.long)), images)


def test_changes_happen_before_the_first_cut_and_not_in_prediction():
    torch.manual_seed(0)
    X = np.random.default_rng(0).random((40, 16, 16)).astype(np.float32)
    backbone = ImageResNet.from_data(X, 3, flip=True, shift=1, width=8).eval()
    samples = torch.as_tensor(X)
    options = {"head": "pooled", "exit_mass": "sequential", "frozen": False}
    network, names = build_network(backbone, "auto", (samples[:3],), 3, **options)
    assert names == ["blocks.0"]
    torch.testing.assert_close(network.eval()(samples)[:, -1], backbone(samples))
    network.train()
    assert not torch.equal(network(samples)[:, -1], network(samples)[:, -1])


@pytest.mark.parametrize(
    "size, map_size", [((8, 8), 4), ((28, 28), 4), ((32, 32), 4), ((50, 50), 3), ((96, 96), 3)]
)
def test_images_of_any_size_come_down_to_small_maps(size, map_size):
    maps = []
    network = ImageResNet((3, *size), 2, width=8).eval()
    network.blocks[-1].register_forward_hook(lambda block, given, made: maps.append(made))
    assert network(torch.zeros(2, 3, *size)).shape == (2, 2)
    assert maps[0].shape == (2, 16, map_size, map_size)


def test_filters_of_the_stem_make_patches_uncorrelated():
    rng = np.random.default_rng(0)
    smooth = rng.normal(size=(50, 3, 40, 40)).cumsum(2).cumsum(3) + rng.normal(size=(50, 1, 1, 1))
    images = torch.as_tensor(smooth / smooth.std(), dtype=torch.float32)
    filters = whitening_filters(images, 4, 5)
    answers = torch.nn.functional.conv2d(images, filters).transpose(0, 1).flatten(1)
    torch.testing.assert_close(answers.cov(), torch.eye(5), atol=0.15, rtol=0)


def test_the_stem_starts_with_them_in_both_signs():
    X = np.random.default_rng(0).random((60, 32, 32)).astype(np.float32)
    weight = ImageResNet.from_data(X, 3, width=8).stem[0].weight
    torch.testing.assert_close(weight[:3], -weight[3:6])


@pytest.mark.parametrize("X", [np.zeros((9, 8, 8)), np.ones((9, 2, 2)), np.zeros((1, 1, 1))])
def test_images_without_patches_to_learn_from_are_taken(X):
    network = ImageResNet.from_data(np.float32(X), 2, width=4).eval()
    assert network(torch.as_tensor(np.float32(X))).isfinite().all()


@pytest.mark.parametrize("n_images, epochs", [(50, 100), (5000, 50), (50_000, 20)])
def test_more_images_are_shown_less_often(n_images, epochs):
    X = np.zeros((n_images, 2, 2), dtype=np.float32)
    assert ImageResNet.from_data(X, 2, width=4).max_epochs == epochs


def test_bytes_and_shares_of_them_give_the_same_network():
    pixels = np.random.default_rng(0).integers(256, size=(60, 8, 8, 3), dtype=np.uint8)
    answers = []
    for X in (pixels, np.float32(pixels / 255)):
        torch.manual_seed(0)
        network = ImageResNet.from_data(X, 3, width=4).eval()
        answers.append(network(torch.as_tensor(X, dtype=torch.float32)))
    torch.testing.assert_close(*answers, atol=1e-4, rtol=1e-4)
