"""One data set of 300 rows, two tiny backbones, one fitted estimator."""

import contextlib
import random

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from sklearn_jeidnn import EarlyExitClassifier
from sklearn_jeidnn._fit import prices
from sklearn_jeidnn._fit.assembly import Assembly
from sklearn_jeidnn._operate import gate_descent

torch.set_num_threads(1)


def seed_global_generators():
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)


# A file, a fixture, a test draw the same numbers whatever ran before: modules are often made with random weights.
@pytest.hookimpl(tryfirst=True)
def pytest_collectstart():
    seed_global_generators()


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup():
    seed_global_generators()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call():
    seed_global_generators()


FULL_DESCENT, SHORT_DESCENT = gate_descent.GATE_STEPS, 60


@contextlib.contextmanager
def gates_descend(n_steps):
    """Gates are trained for so many steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gate_descent, "GATE_STEPS", n_steps)
        yield


@pytest.fixture
def no_trees(monkeypatch):
    """Networks alone stand before and beside the ready network for tables."""
    monkeypatch.setattr(Assembly, "tree_cuts", lambda assembly, weights: [])


@pytest.fixture(autouse=True, scope="module")
def _short_loops():
    """Most of the time of a small fit goes into gates, or into measuring seconds; few tests ask how good these get.

    Other processes know nothing of it: use the threshold policies there.
    """
    with gates_descend(SHORT_DESCENT), pytest.MonkeyPatch.context() as patch:
        patch.setattr(prices, "ENOUGH_SECONDS", 0.1)
        yield


@pytest.fixture
def full_descent():
    """For tests that ask how good gates get."""
    with gates_descend(FULL_DESCENT):
        yield


class TinyConv(nn.Module):
    """Three convolutions in a list; takes flattened 8x8 images."""

    def __init__(self, n_classes=10, width=8):
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
            for _ in range(3)
        )
        self.classifier = nn.Linear(width, n_classes)

    def forward(self, X):
        maps = self.stem(X.reshape(-1, 1, 8, 8) / 16)
        for block in self.blocks:
            maps = block(maps)
        return self.classifier(maps.mean((2, 3)))


class TinyTransformer(nn.Module):
    """Rows of 8x8 images as tokens; a value computed before the first block is read after the last."""

    def __init__(self, n_classes=10, width=16):
        super().__init__()
        self.embedding = nn.Linear(8, width)
        self.position = nn.Parameter(torch.zeros(8, width))
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 2, 32, dropout=0.0, batch_first=True)
            for _ in range(3)
        )
        self.classifier = nn.Linear(width, n_classes)

    def forward(self, X):
        tokens = embedded = self.embedding(X.reshape(-1, 8, 8) / 16) + self.position
        for block in self.blocks:
            tokens = block(tokens)
        return self.classifier((tokens + embedded).mean(1) + self.position.mean(0))


class Answer:
    """What some libraries' modules answer."""

    def __init__(self, logits):
        self.logits = logits


class MaskedTokens(nn.Module):
    """Attention over embedded tokens; padding is masked out, the answer is an object."""

    def __init__(self, n_classes=3, width=8, vocabulary=50):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 2, 16, dropout=0.1, batch_first=True)
            for _ in range(3)
        )
        self.classifier = nn.Linear(width, n_classes)

    def forward(self, input_ids, attention_mask):
        padding = ~attention_mask.bool()
        tokens = self.embedding(input_ids)
        for block in self.blocks:
            tokens = block(tokens, src_key_padding_mask=padding)
        return Answer(self.classifier(tokens[:, 0]))


@pytest.fixture(scope="session")
def digits():
    X, y = load_digits(return_X_y=True)
    return np.float32(X[:300]), y[:300]


@pytest.fixture(scope="session")
def fresh_digits():
    """In random order: writers come one after the other, and guarantees are for samples that are exchangeable."""
    X, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(np.arange(300, len(y)))
    return np.float32(X[order]), y[order]


@pytest.fixture(params=[TinyConv, TinyTransformer])
def backbone(request):
    torch.manual_seed(0)
    return request.param().eval()


def quick_classifier(**params):
    """An estimator that is fitted in about a second."""
    quick = (
        {"module__width": 32, "module__n_blocks": 4, "companion": None}
        if "module" not in params
        else {}
    )
    return EarlyExitClassifier(
        **{"max_epochs": 10, "lr": 5e-3, "batch_size": 32, "random_state": 0, **quick, **params}
    )


def calibrated_logits(n_samples):
    """Logits whose softmax is the truth, and labels drawn from it."""
    rng = np.random.default_rng(0)
    logits = 2 * rng.standard_normal((n_samples, 4), dtype=np.float32)
    return logits, drawn_labels(logits, rng)


def drawn_labels(logits, rng):
    """Labels drawn from the softmax of logits (n_samples, n_classes)."""
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return (probabilities[:, :-1].cumsum(1) < rng.random((len(logits), 1))).sum(1)


@pytest.fixture(scope="session")
def fitted(digits):
    with gates_descend(FULL_DESCENT):
        return quick_classifier(validation_fraction=0.3, max_epochs=30).fit(*digits)
