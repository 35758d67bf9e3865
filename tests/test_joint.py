import torch

from sklearn_jeidnn._joint import temperatures
from sklearn_jeidnn._losses import expected_zero_one


def calibrated_logits(n_samples):
    """Logits whose softmax is the truth, and labels drawn from it."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(n_samples, 4, generator=generator)
    return logits, torch.multinomial(logits.softmax(1), 1, generator=generator).squeeze(1)


def test_temperatures_undo_the_scaling_of_calibrated_logits():
    logits, y = calibrated_logits(5000)
    scaled = torch.stack([logits, 3 * logits, 0.5 * logits], dim=1)
    found = temperatures(scaled, y, torch.ones(len(y)))
    torch.testing.assert_close(found, torch.tensor([1.0, 3.0, 0.5]), rtol=0.1, atol=0)


def test_temperatures_stay_finite_where_every_row_is_right():
    y = torch.tensor([0, 1, 2, 3])
    found = temperatures(10 * torch.eye(4)[:, None], y, torch.ones(4))
    assert torch.isfinite(found).all() and (found > 0).all()


def test_expected_errors_of_calibrated_logits_are_the_errors_on_average():
    logits, y = calibrated_logits(5000)
    expected = expected_zero_one(logits[:, None], torch.ones(1)).mean()
    errors = (logits.argmax(1) != y).float().mean()
    assert abs(expected - errors) < 0.02
