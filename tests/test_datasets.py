import torch
from torch.utils.data import DataLoader

from sklearn_jeidnn._fit.datasets import SamplesDataset, whole_batch
from sklearn_jeidnn._fit.features import ExitFeatures


def rows(n_samples):
    X, mask = torch.randn(n_samples, 2), torch.arange(3 * n_samples).reshape(-1, 3)
    return SamplesDataset((X, mask), torch.arange(n_samples) % 2, torch.rand(n_samples))


def test_a_whole_batch_is_what_collating_row_by_row_gives():
    dataset = rows(10)
    whole, one_by_one = (
        next(iter(DataLoader(dataset, batch_size=4, collate_fn=collate_fn)))
        for collate_fn in (whole_batch, None)
    )
    for name in ("X", "sample_weight"):
        for first, second in zip(whole[0][name], one_by_one[0][name], strict=True):
            assert torch.equal(first, second)
    assert torch.equal(whole[1], one_by_one[1])


def test_batches_of_features_hold_every_row_once_but_a_lone_one():
    features = ExitFeatures([torch.arange(9.0)[:, None]], torch.arange(9), torch.ones(9))
    seen = torch.cat([batch.y for batch in features.batches(4)])
    assert len(seen) == 8 and len(seen.unique()) == 8
    assert all(
        torch.equal(batch.features[0][:, 0], batch.y.float()) for batch in features.batches(4)
    )
