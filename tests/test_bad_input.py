"""A user's mistakes: each gets an error that says what came and what is allowed."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.exceptions import NotFittedError
from torch import nn

from sklearn_jeidnn import EarlyExitClassifier

from .conftest import TinyConv, quick_classifier


def refused(match, error=ValueError, X=None, y=None, digits=None, **params):
    X = digits[0] if X is None else X
    y = digits[1] if y is None else y
    with pytest.raises(error, match=match):
        quick_classifier(**params).fit(X, y)


@pytest.mark.parametrize("value", [np.inf, -np.inf, 1e300])
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_values_that_are_not_finite_float32(digits, value):
    X = digits[0].astype(float)
    X[3, 5] = value
    refused(r"Input X contains infinity .*, in columns \[5\]", digits=digits, X=X)


@pytest.mark.parametrize(
    "make, match, error",
    [
        (sparse.csr_array, "Sparse data was passed", TypeError),
        (lambda X: X + 1j, "Complex data not supported", ValueError),
        (lambda X: np.full((300, 2), None), "every cell is missing", ValueError),
        (lambda X: X[0], "Expected 2D array, got 1D array", ValueError),
        (lambda X: X.reshape(300, 2, 2, 4, 4), "is not the shape of an image", ValueError),
        (lambda X: X[:0], "0 sample", ValueError),
        (lambda X: X[:, :0], "0 feature", ValueError),
    ],
)
def test_X_of_another_kind(digits, make, match, error):
    X = make(digits[0])
    refused(
        match, error, digits=digits, X=X, y=digits[1][: X.shape[0]] if X.ndim > 1 else digits[1][:1]
    )


@pytest.mark.parametrize(
    "make, match",
    [
        (lambda y: np.zeros(300), "y has 1 class .*at least 2 classes"),
        (lambda y: y[:-1], r"inconsistent numbers of samples: \[300, 299\]"),
        (lambda y: y + 0.5, "Unknown label type: continuous"),
        (lambda y: np.where(y > 5, np.nan, y), r"y has \d+ missing labels \(nan\), the first of"),
        (lambda y: np.column_stack([y, y]), "y should be a 1d array"),
    ],
)
def test_y_of_another_kind(digits, make, match):
    refused(match, digits=digits, y=make(digits[1]))


@pytest.mark.parametrize(
    "params",
    [
        {"cost_weight": -0.1},
        {"cost_weight": np.nan},
        {"cost_weight": "cheap"},
        {"gate_training": "trilevel"},
        {"gate_loss": "hinge"},
        {"exit_distribution": "uniform"},
        {"head": "body"},
        {"exits": 1.5},
        {"exits": 0},
        {"feature_passes": 0},
        {"memory": 3},
        {"precision": "float8"},
        {"validation_fraction": -0.1},
        {"validation_fraction": 1.0},
        {"max_epochs": 0},
        {"lr": 0},
        {"batch_size": 0},
        {"class_weight": "fair"},
        {"optimizer": "adam"},
        {"random_state": "x"},
        {"freeze_backbone": "yes"},
    ],
)
def test_parameters_out_of_range_are_named_with_what_is_allowed(digits, params):
    (name,) = params
    refused(f"The '{name}' parameter of EarlyExitClassifier must be .*Got", digits=digits, **params)


def test_a_module_that_is_not_one(digits):
    refused("module=<class 'dict'> is not a torch module", TypeError, digits=digits, module=dict)
    refused("module='resnet' is not a torch module", TypeError, digits=digits, module="resnet")


def test_a_module_built_with_parameters_that_it_does_not_have(digits):
    refused(
        r"module=TinyConv cannot be built with module__\* parameters \{'depth': 3\}",
        TypeError,
        digits=digits,
        module=TinyConv,
        module__depth=3,
    )
    refused(
        r"module=TabularResNet cannot be built .*'depth'", TypeError, digits=digits, module__depth=3
    )


def test_module_parameters_for_an_instance(digits):
    refused(
        "instance of TinyConv; give the class", digits=digits, module=TinyConv(), module__width=3
    )


def test_a_module_that_answers_another_number_of_classes(digits):
    refused(
        r"TinyConv answered \(3, 4\) for 3 rows.*y having 10 classes",
        digits=digits,
        module=TinyConv,
        module__n_classes=4,
    )


def test_a_module_that_does_not_take_these_rows(digits):
    refused(
        r"Sequential does not run on rows of shape \(64,\)",
        digits=digits,
        exits=["0"],
        module=nn.Sequential(nn.Linear(63, 5), nn.Linear(5, 10)),
    )


def test_exits_that_do_not_exist(digits):
    refused(
        r"exits=\['blocks.9'\] must name submodules of TabularResNet; unknown: \['blocks.9'\]",
        digits=digits,
        exits=["blocks.9"],
    )
    refused(r"exits=\[\] names no place to leave at", digits=digits, exits=[])


def test_a_head_that_is_none(digits):
    class Wrong(nn.Module):
        def __init__(self, n_features, n_classes):
            super().__init__()

        def forward(self, feature):
            return feature

    refused("head=dict must be built as head", digits=digits, head=dict)
    refused(r"head=Wrong answered \(3, 32\) for 3 rows", digits=digits, head=Wrong)


def test_freezing_weights_that_would_be_random(digits):
    refused(
        "freeze_backbone=True needs module to be a trained instance",
        digits=digits,
        freeze_backbone=True,
    )


@pytest.mark.parametrize("device", ["tpu9", "meta:x", "cuda:99"])
def test_a_device_that_is_not_there(digits, device):
    refused(f"device='{device}' cannot be used on this machine", digits=digits, device=device)


def test_too_few_rows_to_hold_any_out():
    with pytest.raises(ValueError, match="n_samples = 3; at least 4 are needed"):
        quick_classifier().fit(np.eye(3), [0, 1, 0])


def test_held_out_rows_that_do_not_fit(digits):
    X, y = digits
    for wrong, match in [
        ({"X_val": X}, "X_val and y_val go together"),
        ({"y_val": y}, "X_val and y_val go together"),
        ({"sample_weight_val": y}, "X_val and y_val go together"),
        ({"X_val": X[:1], "y_val": y[:1]}, "X_val has n_samples = 1; at least 2"),
        ({"X_val": X, "y_val": y[:-1]}, r"y_val has shape \(299,\), but there are 300 samples"),
        ({"X_val": X, "y_val": y + 1}, r"y_val has labels \[10\] that are not among classes_"),
        ({"X_val": X[:, 1:], "y_val": y}, "X_val has 63 features"),
    ]:
        with pytest.raises(ValueError, match=match):
            quick_classifier().fit(X, y, **wrong)


def test_weights_that_do_not_fit(digits):
    X, y = digits
    with pytest.raises(ValueError, match="Negative values in data passed to `sample_weight`"):
        quick_classifier().fit(X, y, sample_weight=-np.ones(300))
    with pytest.raises(ValueError, match="sample_weight.shape"):
        quick_classifier().fit(X, y, sample_weight=np.ones(299))


@pytest.mark.parametrize(
    "method", ["predict", "predict_proba", "predict_exit", "predict_set", "mean_cost"]
)
def test_predicting_before_fit(method, digits):
    with pytest.raises(NotFittedError):
        getattr(EarlyExitClassifier(), method)(digits[0])


def test_conformalizing_before_fit(digits):
    with pytest.raises(NotFittedError):
        EarlyExitClassifier().conformalize(*digits)


@pytest.mark.parametrize("confidence_level", [0, 1, -0.1, 1.1, np.nan, "high", None])
def test_a_confidence_level_outside_its_interval(fitted, digits, confidence_level):
    with pytest.raises(
        ValueError, match=f"confidence_level={confidence_level!r} is not allowed.*above 0"
    ):
        fitted.predict_set(digits[0], confidence_level=confidence_level)


def test_predicting_other_features_or_shapes(fitted, digits):
    X, y = digits
    with pytest.raises(
        ValueError, match="X has 63 features, but EarlyExitClassifier is expecting 64"
    ):
        fitted.predict(X[:, 1:])
    image = quick_classifier(module__width=4, module__n_blocks=3, max_epochs=1).fit(
        X.reshape(-1, 8, 8), y
    )
    with pytest.raises(
        ValueError, match=r"samples of shape \(8, 7\), but .* fitted on samples of shape \(8, 8\)"
    ):
        image.predict(X.reshape(-1, 8, 8)[:, :, 1:])


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int64, np.uint8, object])
def test_predicting_another_numeric_dtype_gives_the_same(fitted, digits, dtype):
    assert np.array_equal(fitted.predict(digits[0].astype(dtype)), fitted.predict(digits[0]))


def test_predicting_words_is_refused(fitted):
    with pytest.raises(ValueError, match="X has 'a' in column 0, which is one of numbers"):
        fitted.predict(np.full((2, 64), "a", dtype=object))


def test_labels_that_fit_never_saw_cannot_calibrate(fitted, digits):
    with pytest.raises(ValueError, match=r"y has labels \[10\] that are not among classes_"):
        fitted.conformalize(digits[0], digits[1] + 1)


def test_a_refused_fit_leaves_what_was_fitted(digits):
    clf = quick_classifier().fit(*digits)
    before = clf.predict_proba(digits[0])
    with pytest.raises(ValueError):
        clf.fit(np.full((300, 64), np.nan), digits[1])
    with pytest.raises(ValueError):
        clf.set_params(exits=["nowhere"]).fit(digits[0][:, :5], digits[1] % 3)
    assert np.array_equal(clf.predict_proba(digits[0]), before)
