import math

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from sklearn_jeidnn._cut import counted, multiply_adds

from .conftest import MaskedTokens, TinyConv, TinyTransformer, quick_classifier

N, T, C, H = 3, 5, 8, 6


@pytest.mark.parametrize(
    "layer, expected",
    [
        (nn.LSTM(C, H, batch_first=True), N * T * 4 * (C * H + H * H)),
        (nn.LSTM(C, H, num_layers=2), N * T * 4 * (C * H + 3 * H * H)),
        (nn.LSTM(C, H, bidirectional=True), N * T * 8 * (C * H + H * H)),
        (nn.GRU(C, H), N * T * 3 * (C * H + H * H)),
        (nn.RNN(C, H), N * T * (C * H + H * H)),
    ],
)
def test_recurrent_layers_multiply_by_every_weight_at_every_step(layer, expected):
    assert multiply_adds(layer.eval(), torch.randn(N, T, C))[1] == expected


def test_operations_that_torch_takes_as_free_are_counted():
    x, ids = torch.randn(N, T, C), torch.randint(0, 9, (N, T))
    assert multiply_adds(nn.Bilinear(C, C, H), x, x)[1] == N * T * C * C * H
    assert multiply_adds(nn.EmbeddingBag(9, H), ids)[1] == N * T * H
    assert multiply_adds(torch.cdist, x, x)[1] == N * T * T * C
    assert multiply_adds(torch.matmul, x, torch.randn(C))[1] == N * T * C
    assert multiply_adds(torch.einsum, "nij,nkj->nik", x, x)[1] == N * T * T * C
    # Half of 5 n log2(n) operations, and half of that if one side is real.
    assert multiply_adds(torch.fft.fft, x.to(torch.cfloat))[1] == 2.5 * N * T * C * math.log2(C)
    assert multiply_adds(torch.fft.rfft2, torch.randn(N, 4, 4))[1] == 1.25 * N * 16 * 4


@pytest.mark.parametrize("kind", [TinyConv, TinyTransformer])
def test_counts_are_those_of_torch_where_it_counts(kind):
    module, x = kind().eval(), torch.randn(N, 64)
    count = multiply_adds(module, x)[1]
    counter = FlopCounterMode(display=False)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH), counter:
        module(x)  # with gradients, so that torch does not take its fused layer
    assert count == counter.get_total_flops() / 2


def test_counting_leaves_the_settings_of_other_threads():
    module, seen = TinyTransformer().eval(), []
    module.blocks[0].register_forward_hook(
        lambda *_: seen.append(
            (
                torch.backends.mha.get_fastpath_enabled(),
                torch.backends.cuda.flash_sdp_enabled(),
                len(nn.modules.module._global_forward_hooks),
            )
        )
    )
    module(torch.randn(N, 64))
    multiply_adds(module, torch.randn(N, 64))
    assert seen[0] == seen[1]


def test_what_nobody_counts_is_named():
    assert counted(torch.linalg.svd, torch.randn(4, 4)).uncounted == ["aten._linalg_svd"]
    x = torch.randint(0, 50, (N, T))
    assert counted(MaskedTokens().eval(), x, torch.ones_like(x)).uncounted == []


@torch.library.custom_op("jeidnn_test::half", mutates_args=())
def half(x: torch.Tensor) -> torch.Tensor:
    return x / 2


half.register_fake(torch.empty_like)
half.register_autograd(lambda context, gradient: gradient / 2)


class Halved(nn.Module):
    """Its blocks call an operation of another library."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(64, 64)

        def forward(self, X):
            return half(self.layer(X))

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(self.Block() for _ in range(2))
        self.classifier = nn.Linear(64, 10)

    def forward(self, X):
        for block in self.blocks:
            X = block(X)
        return self.classifier(X)


def test_a_fit_warns_once_of_operations_that_are_not_counted(digits):
    with pytest.warns(UserWarning, match="does not count jeidnn_test.half") as caught:
        quick_classifier(module=Halved, max_epochs=1, exits=["blocks.0"]).fit(*digits)
    assert len(caught) == 1 and caught[0].filename == __file__
    quick_classifier(module=Halved, max_epochs=1, exits=["blocks.0"], cost=[0.5, 1]).fit(*digits)
