"""How many folds a fit takes by default."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from skorch.callbacks import EarlyStopping

from sklearn_jeidnn import EarlyExitClassifier
from sklearn_jeidnn._fit.fold_count import (
    AUTO,
    FEWEST_SAMPLES,
    FOLDS_UP_TO,
    folds_of,
)
from sklearn_jeidnn._fit.members import as_members
from sklearn_jeidnn._fit.spec import CascadeSpec
from sklearn_jeidnn._samples import GivenSamples, ReadingOptions, read_parts

from .conftest import TinyConv


def found(n_samples, *, cv=AUTO, is_table=True, X_val=None, **params):
    """Number of folds that a fit of so many samples takes; 0 for none."""
    estimator = EarlyExitClassifier(cv=cv, **params)
    spec = CascadeSpec.of(estimator)
    X = np.random.RandomState(0).standard_normal((n_samples, 2))
    y = np.arange(n_samples) % 2
    _, parts = read_parts(
        GivenSamples(X=X, y=y),
        GivenSamples(X=X_val, y=None if X_val is None else np.arange(len(X_val)) % 2),
        ReadingOptions(
            estimator_name="EarlyExitClassifier",
            keeps_integers=False,
            takes_tables=is_table,
            categorical_features=None,
        ),
        validation_fraction=0.1,
        rng=np.random.RandomState(0),
        n_folds=folds_of(
            cv,
            spec,
            as_members(spec.module, spec.module_params),
            warm_start=estimator.warm_start,
            gives_held_out=X_val is not None,
            validation_fraction=0.1,
        ),
    )
    return parts.n_folds


def test_small_tables_take_folds_by_default():
    assert EarlyExitClassifier().cv == AUTO
    few, many = FOLDS_UP_TO[5], FOLDS_UP_TO[3]
    sizes = [FEWEST_SAMPLES - 1, FEWEST_SAMPLES, few, few + 1, many, many + 1]
    assert [found(size) for size in sizes] == [0, 5, 5, 3, 3, 0]


def test_a_slow_classifier_is_not_fitted_again_on_many_samples():
    sizes = [FOLDS_UP_TO[5], FOLDS_UP_TO[5] + 1]
    assert [found(size, module=LogisticRegression()) for size in sizes] == [5, 0]


def test_a_number_holds_for_any_size():
    assert [found(size, cv=3) for size in (20, FOLDS_UP_TO[3] + 1)] == [3, 3]
    assert found(FEWEST_SAMPLES, cv=None) == 0


@pytest.mark.parametrize(
    "params",
    [
        {"warm_start": True},
        {"gate_training": "bilevel"},
        {"module": TinyConv(), "freeze_backbone": True},
        {"module": TinyConv()},
        {"module": [LogisticRegression().fit([[0.0, 0], [1, 1]], [0, 1]), None]},
        {"callbacks": [EarlyStopping()]},
        {"callbacks__best_epoch": None},
        {"iterator_train__sampler": range(3)},
        {"is_table": False},
        {"X_val": np.zeros((10, 2))},
    ],
)
def test_what_does_not_go_together_with_folds_has_none_by_default(params):
    assert found(FEWEST_SAMPLES, **params) == 0
