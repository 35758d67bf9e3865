"""A network in bfloat16 holds its weights in bfloat16, where that answers as exactly as autocast does."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from sklearn_jeidnn._exits.building import build_network
from sklearn_jeidnn._exits.gates import all_gate_inputs
from sklearn_jeidnn._fit.precision import answers_as_exactly, converts

from .conftest import TinyConv, TinyTransformer, quick_classifier

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")


class Images(nn.Module):
    """A tiny backbone that takes images, not their pixels in a row."""

    def __init__(self, backbone=TinyConv):
        super().__init__()
        self.backbone = backbone()

    def forward(self, images):
        return self.backbone(images.flatten(1))


class OfTables(Images):
    """It takes the pixels in a row."""

    def forward(self, table):
        return self.backbone(table)


class OfLargeNumbers(Images):
    """What tells samples apart is lost if the samples are in bfloat16."""

    def forward(self, images):
        return super().forward(images - 1000)


class OfFloat32(Images):
    """Half of its arithmetic asks for float32."""

    def forward(self, images):
        pixels = torch.full((1, 64), 2.0, dtype=torch.float32, device=images.device)
        return super().forward(pixels * images.flatten(1))


@pytest.fixture
def images(digits):
    return torch.as_tensor(digits[0]).reshape(-1, 1, 8, 8)[:32]


def network_of(module, images, precision="bfloat16"):
    torch.manual_seed(0)
    network, _ = build_network(
        module.eval(),
        ["backbone.blocks.0", "backbone.blocks.1"],
        (images,),
        10,
        head="pooled",
        exit_mass="sequential",
        frozen=False,
        precision=precision,
    )
    return network


@pytest.mark.parametrize("backbone", [TinyConv, TinyTransformer])
def test_converted_weights_answer_as_exactly_as_autocast(images, backbone):
    assert answers_as_exactly(network_of(Images(backbone), images), (images,))


def test_samples_that_the_precision_cannot_tell_apart_are_not_converted(images):
    network = network_of(OfLargeNumbers(), images + 1000)
    assert not answers_as_exactly(network, (images + 1000,))


def test_a_module_that_does_not_run_in_the_precision_is_not_converted(images):
    assert not answers_as_exactly(network_of(OfFloat32(), images), (images,))


def test_tables_keep_autocast(images):
    assert converts(network_of(Images(), images), (images,))
    table = images.flatten(1)
    assert not converts(network_of(OfTables(), table), (table,))


@pytest.mark.parametrize("backbone", [TinyConv, TinyTransformer])
def test_a_converted_network_has_weights_of_its_own(images, backbone):
    network = network_of(Images(backbone), images)
    before = {
        name: value.clone() for name, value in network.state_dict().items() if "extra" not in name
    }
    expected = network.for_inference().route(images)
    network.converts = True
    runs = network.for_inference()
    assert {p.dtype for p in runs.stages.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in runs.heads.parameters()} == {torch.float32}
    read = []
    for stage in runs.stages:
        stage.register_forward_hook(lambda _, __, output: read.append(output[0].dtype))
    routed = runs.route(images)
    assert set(read) == {torch.bfloat16} and routed.logits.dtype == torch.float32
    torch.testing.assert_close(routed.logits, expected.logits, rtol=0.05, atol=0.05)
    for name, value in network.state_dict().items():
        assert "extra" in name or torch.equal(value, before[name])
    # It is converted once.
    again = runs.for_inference()
    assert all(a is b for a, b in zip(again.stages, runs.stages, strict=True))


def test_every_exit_answers_as_it_does_where_samples_leave(images):
    network = network_of(Images(), images)
    network.converts = True
    runs = network.for_inference()
    with runs.inference():
        logits = runs(images)
    last = torch.full((len(images),), 2)
    torch.testing.assert_close(runs.route(images, exits=last).logits, logits[:, 2])


@needs_gpu
@pytest.mark.filterwarnings("ignore:.*(X_val is not given|of the module itself)")
@pytest.mark.parametrize("freeze", [False, True])
@pytest.mark.parametrize("backbone", [TinyConv, TinyTransformer])
def test_on_a_gpu_weights_are_converted(digits, freeze, backbone):
    X, y = digits[0].reshape(-1, 1, 8, 8), digits[1]
    module = Images(backbone)
    clf = quick_classifier(
        module=module, freeze_backbone=freeze, device="cuda", precision="bfloat16", max_epochs=30
    ).fit(X, y)
    assert {p.dtype for p in clf.network_.stages.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in clf.module_.parameters()} == {torch.float32}
    assert freeze or clf.score(X, y) > 0.8
    alone = np.concatenate([clf.predict(X[i : i + 1]) for i in range(50)])
    assert np.mean(alone == clf.predict(X[:50])) > 0.9
    assert np.mean(clf.predict_backbone(X) == clf.predict(X)) > 0.5 or freeze


@needs_gpu
def test_on_a_gpu_tables_keep_autocast(digits):
    clf = quick_classifier(device="cuda", precision="bfloat16", max_epochs=2).fit(*digits)
    assert {p.dtype for p in clf.network_.stages.parameters()} == {torch.float32}


def with_gates_that_divide(network, images):
    """Gates at the median of the largest probability."""
    with torch.no_grad():
        inputs = all_gate_inputs(network(images))[:, :, 0]
        network.gates.weight[:, 0] = 1
        network.gates.mean[:, 0] = inputs.median(0).values
    return network.for_inference()


def test_heads_apart_answer_as_those_of_the_network(images):
    network = with_gates_that_divide(network_of(Images(), images, "float32"), images)
    with torch.inference_mode():
        apart = network.with_heads_on_cpu()
    expected = network.route(images)
    assert len(expected.exit_index.unique()) > 1
    for i, image in enumerate(images):
        routed = apart.route(image[None])
        assert routed.exit_index == expected.exit_index[i]
        torch.testing.assert_close(routed.logits[0], expected.logits[i], rtol=1e-4, atol=1e-5)
    assert apart.heads is not network.heads and apart.stages is network.stages
    assert network.for_few_samples() is network, "its heads are on the CPU already"


@needs_gpu
@pytest.mark.parametrize("exit_distribution", ["sequential", "direct"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_on_a_gpu_heads_of_few_samples_are_on_the_cpu(
    digits, precision, exit_distribution, monkeypatch
):
    # TF32 rounds otherwise with each number of samples.
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    X, y = digits[0].reshape(-1, 1, 8, 8), digits[1]
    clf = quick_classifier(
        module=Images,
        device="cuda",
        precision=precision,
        exit_distribution=exit_distribution,
        max_epochs=20,
    ).fit(X, y)
    engine = clf._predictor.cascade.engine
    network = engine.network.for_few_samples()
    assert not any(p.is_cuda for p in (*network.heads.parameters(), *network.gates.parameters()))
    assert all(p.is_cuda for p in network.stages.parameters())
    assert engine.network.for_few_samples() is network
    together = engine.route((X,))
    for n_samples in (1, 60):
        parts = [engine.route((X[i : i + n_samples],)) for i in range(0, 120, n_samples)]
        exits = np.concatenate([routed.exit_index for routed in parts])
        logits = np.concatenate([routed.logits for routed in parts])
        if precision == "float32":
            assert np.array_equal(exits, together.exit_index[:120])
            np.testing.assert_allclose(logits, together.logits[:120], rtol=1e-3, atol=1e-4)
        else:
            assert np.mean(exits == together.exit_index[:120]) > 0.9
    # Other gates get other copies.
    other = clf.at(cost_weight=1.0)
    alone = np.concatenate([other.predict_exit(image[None]) for image in X[:20]])
    assert np.mean(alone == other.predict_exit(X)[:20]) > 0.9


@needs_gpu
@pytest.mark.parametrize("n_samples", [1, 16, 256])
def test_the_host_waits_for_a_gpu_once_an_exit(images, n_samples):
    samples = images.repeat(8, 1, 1, 1)[:n_samples].cuda()
    network = network_of(Images().cuda(), samples)
    network.converts = True
    network = with_gates_that_divide(network, images.cuda())
    assert len(network.route(images.cuda()).exit_index.unique()) > 1
    network.route(samples)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            network.route(samples)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    waits = [
        f"{w.filename}:{w.lineno}" for w in caught if "called a synchronizing" in str(w.message)
    ]
    assert len(waits) <= network.n_exits, waits
