import io

import pytest
import torch
from torch.nn.functional import adaptive_avg_pool2d, adaptive_max_pool2d

from sklearn_jeidnn._exits.exit_heads import ExitHeads
from sklearn_jeidnn._exits.heads import LinearHead, PooledHead, VectorHead
from sklearn_jeidnn._exits.pools import average_pool, detailed_pool


@pytest.mark.parametrize("shape", [(4, 6), (4, 5, 6), (4, 6, 7, 7), (4, 6, 1, 1)])
def test_pools_give_one_vector_a_row_that_does_not_depend_on_other_rows(shape):
    output = torch.randn(shape)
    for pool in (average_pool, detailed_pool):
        assert pool(output).ndim == 2
        torch.testing.assert_close(pool(output)[1:2], pool(output[1:2]))


def test_average_pool_of_maps_is_their_mean():
    maps = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(average_pool(maps), maps.mean((2, 3)))


@pytest.mark.parametrize("head", [LinearHead, VectorHead, PooledHead])
def test_heads_run_alone_answer_what_they_answer_together(head):
    torch.manual_seed(0)
    heads = ExitHeads([head(6, 3), head(8, 3)]).eval()
    features = [torch.randn(5, 6), torch.randn(5, 8), torch.randn(5, 3)]
    together = heads(features)
    first = heads.one(0, features[0], None)
    torch.testing.assert_close(together[:, 0], first.logits)
    torch.testing.assert_close(together[:, 1], heads.one(1, features[1], first.passed_on).logits)
    torch.testing.assert_close(together[:, 2], features[2])


def test_no_gradient_flows_from_a_head_to_the_one_before():
    heads = ExitHeads([PooledHead(6, 3), PooledHead(6, 3)]).eval()
    features = [torch.randn(5, 6), torch.randn(5, 6), torch.zeros(5, 3)]
    heads(features)[:, 1].sum().backward()
    assert not any(p.grad is not None and p.grad.any() for p in heads.heads[0].parameters())
    assert heads.heads[1].output.bias.grad.any()


def two_heads():
    return ExitHeads([LinearHead(6, 3), LinearHead(8, 3)], first_exits=(0, 2)).eval()


def test_the_state_dict_holds_the_mixing_weights():
    features = [torch.randn(5, 6), torch.randn(5, 8), torch.randn(5, 3)]
    heads, loaded = two_heads(), two_heads()
    heads.mix([0.0, 0.4, 0.7], 0.0)
    stored = io.BytesIO()
    torch.save(heads.state_dict(), stored)
    stored.seek(0)
    loaded.load_state_dict(torch.load(stored, weights_only=True))
    assert loaded.mixing_weights == heads.mixing_weights == pytest.approx([0.0, 0.4, 0.7])
    assert torch.equal(loaded(features), heads(features))
    loaded.mix(0.0, 0.0)
    assert not torch.allclose(loaded(features), heads(features))


@pytest.mark.parametrize("size", [(8, 8), (4, 6), (12, 6), (2, 2), (7, 7), (8, 5), (1, 1)])
def test_detailed_pool_is_deviation_and_means_and_maxima_of_quarters(size):
    maps = torch.randn(3, 5, *size, dtype=torch.float64)
    positions = maps.flatten(2)
    deviation = positions.var(2, correction=0).clamp(min=1e-6).sqrt()
    grids = [
        adaptive(maps, 2).flatten(1) for adaptive in (adaptive_avg_pool2d, adaptive_max_pool2d)
    ]
    expected = torch.cat([deviation, *grids], dim=1)
    torch.testing.assert_close(detailed_pool(maps), expected, rtol=1e-6, atol=1e-6)
