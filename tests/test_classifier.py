"""What the estimator promises beyond scikit-learn's contract."""

import copy

import numpy as np
import pytest
import torch
from sklearn.base import clone
from skorch.callbacks import Callback, EarlyStopping
from torch import nn

from sklearn_jeidnn._splits import halve
from sklearn_jeidnn.metrics import coverage, coverage_band

from .conftest import TinyConv, quick_classifier


class CountEpochs(Callback):
    def on_epoch_end(self, net, **kwargs):
        self.n_epochs = getattr(self, "n_epochs", 0) + 1


CLOSE = {"rtol": 1e-4, "atol": 1e-4}


def test_it_learns_and_most_rows_leave_early(fitted, fresh_digits):
    X, y = fresh_digits
    assert fitted.score(X, y) > 0.7
    assert np.mean(fitted.predict_exit(X) < len(fitted.exits_)) > 0.5


def test_exits_costs_and_labels_belong_together(fitted, fresh_digits):
    X, _ = fresh_digits
    exit_index = fitted.predict_exit(X)
    assert fitted.exits_ == ["blocks.0", "blocks.1", "blocks.2"]
    assert fitted.exit_costs_.shape == (4,) and (np.diff(fitted.exit_costs_) > 0).all()
    assert fitted.mean_cost(X) == pytest.approx(fitted.exit_costs_[exit_index].mean())
    assert np.array_equal(fitted.predict(X), fitted.classes_[fitted.predict_proba(X).argmax(1)])


def test_every_exit_answers_for_itself_whichever_a_row_takes(fitted, fresh_digits):
    X, y = fresh_digits
    answers, taken = fitted.exit_answers(X, y), fitted.predict_exit(X)
    assert answers.logits.shape == (len(X), 4, 10)
    assert np.array_equal(fitted.classes_[answers.at(taken).argmax(1)], fitted.predict(X))
    labels = fitted.classes_[answers.logits.argmax(-1)]
    np.testing.assert_array_equal(answers.errors, labels != y[:, None])
    np.testing.assert_allclose(answers.exit_errors(), (labels != y[:, None]).mean(0))
    gates = fitted.at(cost_weight=0.5)._predictor
    there = answers.exits(gates.point.gates, gates.cascade.exit_mass)
    assert np.array_equal(there, fitted.at(cost_weight=0.5).predict_exit(X))
    half = np.arange(len(X)) % 2
    weighted, own = fitted.exit_answers(X, y, sample_weight=half), half == 1
    np.testing.assert_allclose(weighted.exit_errors(), (labels != y[:, None])[own].mean(0))
    plain = fitted.predict_backbone(X)
    assert np.array_equal(fitted.classes_[answers.backbone_codes], plain)
    full = answers.agreement()
    np.testing.assert_array_equal(full.errors[:, :-1], labels[:, :-1] != plain[:, None])
    assert not full.errors[:, -1].any()


def test_the_plain_backbone_answers_as_the_module(fitted, fresh_digits):
    X = fresh_digits[0]
    with torch.no_grad():
        expected = fitted.module_(torch.as_tensor(X)).argmax(1).numpy()
    assert np.array_equal(fitted.predict_backbone(X), fitted.classes_[expected])


def test_predict_really_drops_rows_that_left(fitted, fresh_digits):
    X, _ = fresh_digits
    seen = np.zeros(4, dtype=int)
    hooks = [
        stage.register_forward_hook(
            lambda _, inputs, __, exit_index=exit_index: np.add.at(seen, exit_index, len(inputs[0]))
        )
        for exit_index, stage in enumerate(fitted.network_.stages)
    ]
    exit_index = fitted.predict_exit(X)
    for hook in hooks:
        hook.remove()
    assert seen.tolist() == [(exit_index >= stage).sum() for stage in range(4)]
    assert seen[0] > seen[-1]


def test_neither_order_nor_batch_size_nor_company_changes_a_row(fitted, fresh_digits):
    X = fresh_digits[0][:400]
    exit_index, labels = fitted.predict_exit(X), fitted.predict(X)
    shuffled = np.random.default_rng(0).permutation(len(X))
    assert np.array_equal(fitted.predict_exit(X[shuffled]), exit_index[shuffled])
    for batch_size in (1, 7, 512):
        other = copy.deepcopy(fitted).set_params(iterator_valid__batch_size=batch_size)
        assert other._predictor.cascade.engine.batch_size == batch_size
        assert np.array_equal(other.predict_exit(X), exit_index)
        assert np.array_equal(other.predict(X), labels)
        np.testing.assert_allclose(
            other.predict_proba(X), fitted.predict_proba(X), rtol=0, atol=5e-6
        )
    assert fitted.predict(X[:1]) == labels[0]


@pytest.mark.parametrize("gate_training", ["joint", "bilevel"])
def test_the_same_random_state_gives_the_same_result_twice(digits, gate_training):
    clf = quick_classifier(gate_training=gate_training, max_epochs=3)
    first, second = (clone(clf).fit(*digits) for _ in range(2))
    assert np.array_equal(first.predict_proba(digits[0]), second.predict_proba(digits[0]))
    assert np.array_equal(first.conformity_scores_, second.conformity_scores_)


def test_fit_leaves_the_callers_random_numbers_alone(digits):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    quick_classifier(max_epochs=1).fit(*digits)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("exit_distribution", ["sequential", "direct"])
def test_more_cost_weight_never_costs_more(digits, exit_distribution):
    X, _ = digits
    costs = [
        quick_classifier(
            cost_weight=w, exit_distribution=exit_distribution, validation_fraction=0.3
        )
        .fit(*digits)
        .mean_cost(X)
        for w in (0, 0.1, 1)
    ]
    assert costs[0] >= costs[1] >= costs[2]
    assert costs[0] > costs[2]


@pytest.mark.parametrize("gate_loss", ["cross_entropy", "zero_one", "minus_true_probability"])
@pytest.mark.parametrize("exit_distribution", ["sequential", "direct"])
def test_the_papers_training_learns_with_each_of_its_losses(digits, gate_loss, exit_distribution):
    clf = quick_classifier(
        gate_training="bilevel",
        gate_loss=gate_loss,
        exit_distribution=exit_distribution,
        head="linear",
        batch_size=16,
    ).fit(*digits)
    assert clf.score(*digits) > 0.8


def test_the_callers_module_and_data_are_left_as_they_were(backbone, digits):
    X, y = digits[0].copy(), digits[1].copy()
    before = copy.deepcopy(backbone.state_dict())
    quick_classifier(module=backbone, max_epochs=1).fit(X, y)
    assert all(torch.equal(backbone.state_dict()[name], before[name]) for name in before)
    assert np.array_equal(X, digits[0]) and np.array_equal(y, digits[1])


@pytest.mark.filterwarnings("ignore:.*(X_val is not given|of the module itself)")
def test_a_frozen_backbone_keeps_its_weights_and_gives_the_last_exit(backbone, digits):
    clf = quick_classifier(module=backbone, freeze_backbone=True, cost_weight=0).fit(*digits)
    for name, value in clf.module_.state_dict().items():
        assert torch.equal(value, backbone.state_dict()[name]), name
    *_, before, last = clf.network_(torch.as_tensor(digits[0])).unbind(1)
    added = clf.network_.heads.mixing_weights[-1] * before.log_softmax(1)
    torch.testing.assert_close(last - added, backbone(torch.as_tensor(digits[0])), **CLOSE)


@pytest.fixture(scope="module")
def trained(digits):
    return quick_classifier(module=TinyConv, max_epochs=30, lr=1e-2).fit(*digits)


def test_a_trained_instance_is_tuned_from_its_weights(digits, trained):
    tuned = quick_classifier(module=trained.module_, max_epochs=1, lr=1e-5).fit(*digits)
    assert tuned.score(*digits) > 0.8
    untrained = quick_classifier(module=TinyConv, max_epochs=1, lr=1e-5).fit(*digits)
    assert untrained.score(*digits) < 0.5


def test_a_class_is_built_with_its_module_parameters(digits):
    clf = quick_classifier(module=TinyConv, module__width=5, max_epochs=1).fit(*digits)
    assert clf.module_.classifier.in_features == 5


def test_exits_can_be_named(digits):
    clf = quick_classifier(exits=["blocks.2", "blocks.0"], max_epochs=1).fit(*digits)
    assert clf.exits_ == ["blocks.0", "blocks.2"]
    assert len(clf.exit_costs_) == 3


def test_a_sequential_is_cut_between_its_children(digits):
    layers = [
        nn.Linear(64, 32),
        nn.ReLU(),
        nn.Linear(32, 32),
        nn.ReLU(),
        nn.Linear(32, 32),
        nn.ReLU(),
    ]
    clf = quick_classifier(module=nn.Sequential(*layers, nn.Linear(32, 10)), max_epochs=30).fit(
        *digits
    )
    assert clf.exits_ == ["1", "3"]
    assert clf.score(*digits) > 0.8


@pytest.mark.parametrize("shape", [(300, 8, 8), (300, 1, 8, 8), (300, 8, 8, 1)])
def test_images_take_the_convolutional_network(digits, shape):
    X, y = digits
    clf = quick_classifier(module__width=4, module__n_blocks=3).fit(X.reshape(shape), y)
    assert type(clf.module_).__name__ == "ImageResNet"
    assert clf.score(X.reshape(shape), y) > 0.5


@pytest.mark.parametrize("axis", [1, 3])
def test_images_of_many_channels_are_learned_from_where_their_shape_is_given(digits, axis):
    images = np.repeat(np.expand_dims(digits[0].reshape(-1, 8, 8), axis), 5, axis)
    shape = images.shape[1:]
    clf = quick_classifier(
        module__width=8, module__n_blocks=3, module__image_shape=shape, max_epochs=2
    ).fit(images, digits[1])
    assert clf.module_.input.n_channels == 5
    assert clf.predict(images[:20]).shape == (20,)


def test_flattened_images_take_it_through_image_shape(digits):
    X, y = digits
    clf = quick_classifier(module__width=4, module__n_blocks=3, module__image_shape=(8, 8)).fit(
        X, y
    )
    assert type(clf.module_).__name__ == "ImageResNet"


def test_given_held_out_rows_are_used_and_all_of_X_trains(digits, fresh_digits):
    (X, y), (X_val, y_val) = digits, fresh_digits
    clf = quick_classifier(batch_size=128).fit(X, y, X_val=X_val[:100], y_val=y_val[:100])
    assert len(clf.conformity_scores_) == 50
    assert clf.history_[-1, "batches", :, "train_batch_size"] == [128, 128, 44]


def test_held_out_rows_of_weight_zero_are_left_out(digits, fresh_digits):
    weight = np.repeat([1.0, 0.0], 50)
    X_val, y_val = fresh_digits[0][:100], fresh_digits[1][:100]
    clf = quick_classifier(max_epochs=1).fit(
        *digits, X_val=X_val, y_val=y_val, sample_weight_val=weight
    )
    assert len(clf.conformity_scores_) == 25


def test_calibration_rows_neither_train_nor_choose(digits, fresh_digits):
    """Other labels on the calibration rows change the scores and nothing else."""
    X_val, y_val = fresh_digits[0][:100], fresh_digits[1][:100]
    first = quick_classifier(max_epochs=3).fit(*digits, X_val=X_val, y_val=y_val)
    _, calibration = halve(100, np.random.RandomState(0))
    own_score = 1 - first.predict_proba(X_val)[calibration, y_val[calibration]]
    np.testing.assert_allclose(np.sort(first.conformity_scores_), np.sort(own_score), atol=1e-6)
    changed = y_val.copy()
    changed[calibration] = (changed[calibration] + 1) % 10
    second = quick_classifier(max_epochs=3).fit(*digits, X_val=X_val, y_val=changed)
    assert np.array_equal(first.predict_proba(X_val), second.predict_proba(X_val))
    assert not np.array_equal(first.conformity_scores_, second.conformity_scores_)


def test_conformalize_on_other_rows_changes_only_the_sets(fitted, fresh_digits):
    X, y = fresh_digits
    other = copy.deepcopy(fitted).conformalize(X[:500], y[:500])
    assert len(other.conformity_scores_) == 500
    assert np.array_equal(other.predict_proba(X), fitted.predict_proba(X))


def test_sets_grow_with_confidence_level(fitted, fresh_digits):
    X, _ = fresh_digits
    sizes = [fitted.predict_set(X, confidence_level=level) for level in (0.5, 0.8, 0.9, 0.999)]
    assert all((small <= large).all() for small, large in zip(sizes, sizes[1:]))
    assert sizes[-1].all()


def test_skorch_callbacks_history_and_early_stopping_work(digits):
    count = CountEpochs()
    stopping = EarlyStopping(monitor="valid_loss", patience=1, threshold=10, threshold_mode="abs")
    clf = quick_classifier(max_epochs=50, callbacks=[count, stopping]).fit(*digits)
    assert count.n_epochs == len(clf.history_) == 2
    assert {"train_loss", "valid_loss", "valid_acc", "dur"} <= set(clf.history_[0])


def test_skorch_parameters_reach_the_net(digits):
    clf = quick_classifier(
        optimizer=torch.optim.SGD,
        optimizer__momentum=0.5,
        iterator_train__batch_size=100,
        iterator_train__drop_last=True,
        iterator_valid__batch_size=10,
        callbacks__lr_schedule=None,
        callbacks__best_epoch=None,
        max_epochs=1,
    ).fit(*digits)
    batches = clf.history_[-1, "batches"]
    for name, sizes in (("train_batch_size", [100, 100]), ("valid_batch_size", [10, 5])):
        assert [batch[name] for batch in batches if name in batch] == sizes
    assert clf._predictor.cascade.engine.batch_size == 10


def test_verbose_prints_skorchs_lines(digits, capsys):
    quick_classifier(max_epochs=2, verbose=1).fit(*digits)
    assert "valid_acc" in capsys.readouterr().out


def test_a_last_batch_of_one_row_does_not_stop_batch_normalisation(digits):
    X, y = digits
    clf = quick_classifier(module=TinyConv, batch_size=67, max_epochs=1)
    assert clf.fit(X[:202], y[:202], X_val=X[202:], y_val=y[202:]).history_[-1, "batches"]


class OwnHead(nn.Module):
    """Reads the maximum over positions."""

    def __init__(self, n_features, n_classes):
        super().__init__()
        self.linear = nn.Linear(n_features, n_classes)

    @staticmethod
    def pool(output):
        return output.flatten(2).amax(2)

    def forward(self, feature):
        return self.linear(feature)


@pytest.mark.parametrize("head, n_features", [(nn.Linear, 72), (OwnHead, 8)])
def test_a_users_own_head_reads_the_pooled_features_or_its_own(digits, head, n_features):
    clf = quick_classifier(module=TinyConv, head=head, max_epochs=15).fit(*digits)
    first = clf.network_.heads.heads[0].module
    assert getattr(first, "linear", first).in_features == n_features
    assert clf.score(*digits) > 0.5


@pytest.mark.parametrize("number", [2, np.int64(2)])
def test_a_number_of_exits_can_be_asked_for(digits, number):
    clf = quick_classifier(exits=number, max_epochs=1).fit(*digits)
    assert clf.exits_ == ["blocks.0", "blocks.1"]
    assert len(clf.exit_costs_) == 3


def test_bfloat16_inference_answers_nearly_the_same(digits, fresh_digits, trained):
    X, y = fresh_digits
    exact, rounded = trained, clone(trained).set_params(precision="bfloat16").fit(*digits)
    half = []
    rounded.network_.stages[0].register_forward_hook(
        lambda _, __, output: half.append(output[0].dtype)
    )
    assert rounded.predict_proba(X).dtype == np.float64
    assert set(half) == {torch.bfloat16}
    assert abs(rounded.score(X, y) - exact.score(X, y)) < 0.05
    rounded.conformalize(X[::2], y[::2])
    low, high = coverage_band(len(y[::2]), len(y[1::2]), 0.9, probability=0.999)
    assert low <= coverage(rounded.predict_set(X[1::2]), y[1::2]) <= high


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")
@pytest.mark.filterwarnings("ignore:.*(X_val is not given|of the module itself)")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("freeze", [False, True])
def test_a_gpu_learns_as_well(digits, precision, freeze):
    module = TinyConv()
    clf = quick_classifier(
        module=module, freeze_backbone=freeze, device="cuda", precision=precision, max_epochs=40
    ).fit(*digits)
    assert freeze or clf.score(*digits) > 0.8
    assert next(clf.network_.parameters()).is_cuda and not next(module.parameters()).is_cuda


def test_after_warmup_exits_learn_from_a_backbone_that_stays(digits, fresh_digits):
    weights = []

    class Weights(Callback):
        def on_train_end(self, net, **kwargs):
            state = net.module_.state_dict()
            weights.append({k: v.clone() for k, v in state.items() if k.startswith("stages")})

    clf = quick_classifier(
        freeze_backbone="after_warmup", max_epochs=20, callbacks=[("weights", Weights())]
    ).fit(*digits)
    warmed_up, heads_alone = weights
    assert warmed_up and not heads_alone
    for name, value in warmed_up.items():
        assert torch.equal(clf.network_.state_dict()[name], value)
    logits = clf.network_(torch.as_tensor(fresh_digits[0]))
    accuracies = (logits.argmax(-1) == torch.as_tensor(fresh_digits[1])[:, None]).float().mean(0)
    assert accuracies.min() > 0.6
