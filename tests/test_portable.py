"""An estimator is stored without the device that it learned on, and loads where there is none."""

import copy
import pickle
from dataclasses import replace

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch import nn
from torch.nn.utils import parametrizations, weight_norm

from sklearn_jeidnn._portable import _tensors

from .conftest import TinyConv, TinyTransformer, quick_classifier

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")
has_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU on this machine")


def as_if_on(device, clf):
    """A copy that takes itself for one on a device; its weights stay where they are."""
    clf = copy.copy(clf).set_params(device=device)
    predictor = clf._predictor
    engine = replace(predictor.cascade.engine, device=device)
    return clf._adopt(replace(predictor, cascade=replace(predictor.cascade, engine=engine)))


@has_gpu
@pytest.mark.parametrize("device", ["cuda", torch.device("cuda", 1)])
def test_a_classifier_of_a_gpu_predicts_on_the_cpu_where_there_is_none(fitted, digits, device):
    content = pickle.dumps(as_if_on(device, fitted))
    with pytest.warns(UserWarning, match=r"device='cuda.*' cannot be used .* on the CPU"):
        loaded = pickle.loads(content)
    assert np.array_equal(loaded.predict_proba(digits[0]), fitted.predict_proba(digits[0]))
    assert np.array_equal(
        loaded.at(cost_weight=0.3).predict(digits[0]), fitted.at(cost_weight=0.3).predict(digits[0])
    )
    assert loaded.module_ is loaded._predictor.cascade.engine.module
    assert loaded.device == device
    with pytest.raises(ValueError, match="device="):
        loaded.fit(*digits)
    # What was loaded on the CPU is one of the CPU from then on.
    pickle.loads(pickle.dumps(loaded.set_params(device="cpu")))


def test_copies_share_and_deep_copies_do_not(fitted, digits):
    shallow, deep = copy.copy(fitted), copy.deepcopy(fitted)
    assert shallow.module_ is fitted.module_
    assert deep.module_ is not fitted.module_
    assert deep.module_ is deep._predictor.cascade.engine.module
    assert np.array_equal(deep.predict_proba(digits[0]), fitted.predict_proba(digits[0]))


@needs_gpu
@pytest.mark.filterwarnings("ignore:.*(X_val is not given|of the module itself|TypedStorage)")
@pytest.mark.parametrize("module", [TinyConv, TinyTransformer])
@pytest.mark.parametrize("freeze", [False, True])
def test_a_pickle_of_a_gpu_holds_no_tensor_of_it(digits, module, freeze, tmp_path, monkeypatch):
    # A GPU convolves in TF32, and the CPU does not.
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    torch.manual_seed(0)
    member = module().cuda().eval() if freeze else module
    clf = quick_classifier(module=member, freeze_backbone=freeze, device="cuda", max_epochs=2)
    clf.fit(*digits)
    content = pickle.dumps(clf)
    joblib.dump(clf, tmp_path / "clf")
    again = pickle.loads(content)
    assert next(again.network_.parameters()).is_cuda and next(clf.network_.parameters()).is_cuda
    assert clf.at(cost_weight=0.3).module_ is clf.module_
    own = clf.predict_proba(digits[0])
    np.testing.assert_allclose(again.predict_proba(digits[0]), own, atol=1e-5)
    original = torch.empty

    def without_gpu(*args, device=None, **kwargs):
        if device is not None and torch.device(device).type == "cuda":
            raise RuntimeError("no GPU")
        return original(*args, device=device, **kwargs)

    monkeypatch.setattr(torch.storage, "_load_from_bytes", on_the_cpu_only)
    monkeypatch.setattr(torch, "empty", without_gpu)
    for load in (lambda: pickle.loads(content), lambda: joblib.load(tmp_path / "clf")):
        with pytest.warns(UserWarning, match="cannot be used"):
            loaded = load()
        assert not next(loaded.network_.parameters()).is_cuda
        np.testing.assert_allclose(loaded.predict_proba(digits[0]), own, atol=1e-4)


def test_tensors_of_what_a_later_fit_goes_on_from_are_found(fitted):
    found = {id(tensor) for tensor in _tensors(vars(fitted))}
    trained = fitted._predictor.cascade.trained
    heads = [tensor for state in trained.heads for tensor in state.values()]
    weights = [p for member in trained.members for p in member.module.parameters()]
    assert heads and weights
    assert found >= {id(tensor) for tensor in (*heads, *weights, *fitted.network_.parameters())}


def on_the_cpu_only(content):
    """What torch does on a machine without a GPU: refuse a tensor of one."""
    import io

    found = torch.load(io.BytesIO(content), weights_only=False)
    assert found.device.type == "cpu"
    return found


@needs_gpu
@pytest.mark.parametrize("deterministic", [False, True])
def test_defaults_around_a_fit_on_a_gpu_change_nothing(digits, deterministic):
    def fit():
        clf = quick_classifier(device="cuda", max_epochs=2).fit(*digits)
        return clf.predict_proba(digits[0])

    usual = fit()
    torch.use_deterministic_algorithms(deterministic)
    torch.set_default_device("cuda")
    try:
        with torch.autocast("cuda"), torch.inference_mode():
            np.testing.assert_allclose(fit(), usual, atol=1e-3)
    finally:
        torch.set_default_device(None)
        torch.use_deterministic_algorithms(False)


class WeightNormalised(nn.Sequential):
    def __init__(self, normalise):
        super().__init__(
            normalise(nn.Linear(64, 16)), nn.ReLU(), nn.Linear(16, 16), nn.Linear(16, 10)
        )


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated", "ignore:.*during export")
def test_modules_that_torch_does_not_pickle_are_named(digits):
    X, y = digits
    params = {"exits": ["0"], "max_epochs": 1}
    clf = quick_classifier(
        module=WeightNormalised, module__normalise=parametrizations.weight_norm, **params
    ).fit(X, y)
    with pytest.raises(TypeError, match="cannot pickle '0' of WeightNormalised.*weight_norm and"):
        pickle.dumps(clf)
    assert np.array_equal(copy.deepcopy(clf).predict_proba(X), clf.predict_proba(X))
    older = quick_classifier(module=WeightNormalised, module__normalise=weight_norm, **params).fit(
        X, y
    )
    loaded = pickle.loads(pickle.dumps(older))
    assert np.array_equal(loaded.predict_proba(X), older.predict_proba(X))


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated")
def test_modules_with_results_of_their_last_call_are_copied_or_it_is_told_what_to_do(digits):
    module, X = WeightNormalised(weight_norm), torch.as_tensor(digits[0])
    clf = quick_classifier(module=module)
    module(X)
    for copied in (clone, copy.deepcopy):
        with pytest.raises(
            ValueError, match=r"module keeps a result .*once under torch.no_grad\(\)"
        ):
            copied(clf)
    with torch.no_grad():
        module(X)
    for copied in (clone, copy.deepcopy):
        assert copied(clf).module is not module
