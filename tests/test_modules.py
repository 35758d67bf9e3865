import threading
import warnings
from functools import partial

import pytest
import torch
from torch import nn

from sklearn_jeidnn._fit.modules import copied, forget_results, plain_module

from .conftest import TinyConv, quick_classifier


def small(module, digits, **params):
    X, y = digits
    return quick_classifier(module=module, max_epochs=1, **params).fit(X[:60] % 16, y[:60])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_modules_of_any_precision_are_taken_as_float32(dtype, digits):
    module = TinyConv().to(dtype)
    fitted = small(module, digits)
    assert {tensor.dtype for tensor in fitted.module_.parameters()} == {torch.float32}
    assert {tensor.dtype for tensor in module.parameters()} == {dtype}


@pytest.mark.parametrize("wrap", [torch.compile, nn.DataParallel])
def test_wrapped_modules_are_taken_as_what_they_wrap(wrap):
    module = TinyConv()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, when it loads its compiler
        assert type(plain_module(copied(wrap(module)))) is TinyConv
        module.blocks[0] = wrap(module.blocks[0])
    inside = copied(module)
    assert type(inside.blocks[0]) is nn.Sequential and type(module.blocks[0]) is not nn.Sequential


def test_a_function_may_build_the_module(digits):
    build = partial(TinyConv, width=4)
    fitted = small(build, digits, module__n_classes=10)
    assert isinstance(fitted.module_, TinyConv) and fitted.module_.stem.out_channels == 4


def test_a_function_that_builds_something_else_is_refused(digits):
    with pytest.raises(TypeError, match="is not a torch module, and returned int.*function that"):
        small(lambda: 3, digits)
    with pytest.raises(ValueError, match="freeze_backbone=True needs module to be a trained"):
        small(TinyConv.__call__, digits, freeze_backbone=True)


@pytest.mark.parametrize(
    "parameter, kind",
    [
        (torch.zeros(2, dtype=torch.cfloat), r"complex \(torch.complex64\)"),
        (torch.eye(2).to_sparse(), r"sparse \(torch.sparse_coo\)"),
        (torch.zeros(2, device="meta"), "meta"),
    ],
)
def test_parameters_that_cannot_learn_are_refused(parameter, kind):
    module = TinyConv()
    module.odd = nn.Parameter(parameter)
    with pytest.raises(ValueError, match=f"TinyConv has the {kind}.*parameter 'odd'"):
        copied(module)


def test_scripted_programs_are_refused():
    module = TinyConv()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates them
        module.blocks[1] = torch.jit.script(module.blocks[1])
    with pytest.raises(ValueError, match="TorchScript program at 'blocks.1'"):
        plain_module(module)


def test_hooks_of_parameters_are_copied_with_them():
    module = nn.Linear(2, 1)
    module.weight.register_hook(torch.zeros_like)
    copy_of_module = copied(module)
    copy_of_module(torch.ones(1, 2)).sum().backward()
    assert not copy_of_module.weight.grad.any() and copy_of_module.bias.grad.any()


def test_an_instance_that_cannot_be_copied_is_refused_with_what_to_do():
    module = nn.Linear(2, 1)
    module.lock = threading.Lock()
    with pytest.raises(TypeError, match="Linear cannot be copied.*give its class, or a function"):
        copied(module)


def test_results_that_a_module_keeps_do_not_hinder_copies():
    module = nn.Linear(2, 1)
    module.last = module(torch.ones(1, 2))
    module.lasts = {"a": [module.last]}
    other = copied(module)
    assert torch.equal(other.last, module.last) and other.lasts["a"][0].is_leaf
    forget_results(module)
    assert module.last.is_leaf and module.lasts["a"][0].is_leaf
