"""Do guarantees that do not hold pass in silence? Frozen networks with the rows that they learned from.

Twenty trained networks, of five kinds in four sizes of training set, are given exits twice: with their own training
rows alone, as somebody with a trained network would do first, and with fresh held-out rows as ``X_val``. All of the
first must be warned of, none of the second, whose 90 % sets must cover as many test rows as the beta-binomial law
allows (99.9 %). Rows that calibrate and test rows are random parts of those that the network never saw. One of the
networks is the shared one for CIFAR-10, with its 40,000 training rows.
"""

import warnings
from typing import NamedTuple

import claims
import datasets
import numpy as np
import records
import torch
from claims import Claim, Claims
from sklearn.datasets import load_digits
from sklearn.preprocessing import StandardScaler
from torch import nn

from sklearn_jeidnn import EarlyExitClassifier, metrics
from sklearn_jeidnn.backbones import TabularResNet

SEED = 0
LEVEL, BAND = 0.9, 0.999
HEAD_EPOCHS = 3
# Rows that a network never saw: at most so many calibrate or set the gates, and as many are tested.
MOST_UNSEEN = 4000
PERCEPTRON, TABLE, IMAGE, TEXT, RESIDUAL = (
    "perceptron, Letter",
    "residual network for tables, chess endgames",
    "convolutions, digits as images",
    "small DistilBERT, movie reviews",
    "residual network, CIFAR-10",
)
N_TRAIN = {
    PERCEPTRON: [250, 1000, 4000, 12000],
    TABLE: [500, 2000, 6000, 15000],
    IMAGE: [100, 200, 400, 800],
    TEXT: [500, 1000, 2000, 4000],
    RESIDUAL: [500, 1000, 4000, 40000],
}
EPOCHS = {PERCEPTRON: 60, TABLE: 30, IMAGE: 60, TEXT: 6, RESIDUAL: 8}
SHARED = 40000
# Of a network's own rows: so many train heads beside an X_val, and show its accuracy.
MOST_OWN = 8000


class Data(NamedTuple):
    """Rows that may train, rows that no network sees; labels are numbers of classes."""

    X: np.ndarray | dict[str, np.ndarray]
    y: np.ndarray
    X_new: np.ndarray | dict[str, np.ndarray]
    y_new: np.ndarray


class SmallConv(nn.Sequential):
    """Three convolutions and a classifier for images of 8x8."""

    def __init__(self, width=16):
        layers = [nn.Unflatten(1, (1, 8)), nn.Conv2d(1, width, 3, padding=1), nn.ReLU()]
        for _ in range(2):
            layers += [nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
        super().__init__(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * width, 10))


def load(kind):
    """(rows, the shared network or None)"""
    shared = None
    if kind == PERCEPTRON:
        X, X_new, y, y_new = datasets.load("letter")
        scale = StandardScaler().fit(X)
        X, X_new = np.float32(scale.transform(X)), np.float32(scale.transform(X_new))
    elif kind == TABLE:
        X, X_new, y, y_new = datasets.load("krkopt")
    elif kind == IMAGE:
        X, y = load_digits(return_X_y=True)
        X, order = (
            np.float32(X / 16).reshape(-1, 8, 8),
            np.random.default_rng(SEED).permutation(len(y)),
        )
        (X, X_new), (y, y_new) = (np.split(part[order], [800]) for part in (X, y))
    elif kind == TEXT:
        X, X_new, y, y_new = datasets.load_movie_reviews()
    else:
        shared, (X, y), (X_new, y_new), _ = datasets.load_frozen_cifar10()
    classes = np.unique(y)
    codes, new_codes = (np.searchsorted(classes, part) for part in (y, y_new))
    order = np.random.default_rng(SEED).permutation(len(new_codes))[:MOST_UNSEEN]
    return Data(X, codes, take(X_new, order), new_codes[order]), shared


def take(X, rows):
    return {name: part[rows] for name, part in X.items()} if isinstance(X, dict) else X[rows]


def untrained(kind, X, n_classes):
    torch.manual_seed(SEED)
    if kind == PERCEPTRON:
        layers = [nn.Linear(X.shape[1], 128), nn.ReLU()]
        for _ in range(2):
            layers += [nn.Linear(128, 128), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(128, n_classes))
    if kind == TABLE:
        return TabularResNet.from_data(X, n_classes, width=64, n_blocks=4)
    if kind == IMAGE:
        return SmallConv()
    if kind == TEXT:
        return datasets.small_transformer(X)
    from cifar_resnet import CifarResNet

    return CifarResNet(width=8)


def trained(kind, X, y, n_classes, words):
    """A network that learned these rows, none held out: what a user comes with; ``words`` are all it may meet."""
    network, codes = (
        untrained(kind, X if kind != TEXT else words, n_classes).train(),
        torch.as_tensor(y),
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3 if kind != TEXT else 1e-3)
    for _ in range(EPOCHS[kind]):
        for rows in torch.randperm(len(y)).split(64):
            if len(rows) > 1:
                optimizer.zero_grad()
                logits = logits_of(network, take(X, rows.numpy()))
                nn.functional.cross_entropy(logits, codes[rows]).backward()
                optimizer.step()
    return network.eval()


def logits_of(network, X):
    if isinstance(X, dict):
        return network(**{name: torch.as_tensor(part) for name, part in X.items()}).logits
    return network(torch.as_tensor(X))


def fitted(network, n_classes, X, y, **held_out):
    """(estimator, its warnings)"""
    clf = EarlyExitClassifier(
        network,
        # Few rows lack classes that the network has logits for.
        classes=np.arange(n_classes),
        freeze_backbone=True,
        companion=None,
        max_epochs=HEAD_EPOCHS,
        random_state=SEED,
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        clf.fit(X, y, **held_out)
    return clf, [str(w.message) for w in caught if issubclass(w.category, UserWarning)]


def covered(clf, X, y):
    return metrics.coverage(clf.predict_set(X, confidence_level=LEVEL), y)


def run(kind, n_train, data, shared):
    X, y = take(data.X, np.arange(n_train)), data.y[:n_train]
    n_classes = data.y.max() + 1
    network = shared if n_train == SHARED else trained(kind, X, y, n_classes, data.X)
    half = len(data.y_new) // 2
    held_out, test = (
        (take(data.X_new, rows), data.y_new[rows])
        for rows in np.split(np.arange(len(data.y_new)), [half])
    )
    own, told = fitted(network, n_classes, X, y)
    X, y = take(X, slice(MOST_OWN)), y[:MOST_OWN]
    further = {"X_val": held_out[0], "y_val": held_out[1]}
    fresh, told_of_fresh = fitted(network, n_classes, X, y, **further)
    n_calibration = len(fresh.conformity_scores_)
    low, high = metrics.coverage_band(n_calibration, len(test[1]), LEVEL, probability=BAND)
    return {
        "kind": kind,
        "seed": SEED,
        "n_train": n_train,
        "accuracy_on_own_rows": np.mean(own.predict_backbone(X) == y),
        "accuracy_on_new_rows": np.mean(own.predict_backbone(test[0]) == test[1]),
        "warned": any("X_val" in message for message in told),
        "refuses_to_certify": refuses_to_certify(own),
        "coverage": covered(own, *test),
        "warnings_with_x_val": len(told_of_fresh),
        "coverage_with_x_val": covered(fresh, *test),
        "n_calibration": n_calibration,
        "n_test": len(test[1]),
        "band_low": low,
        "band_high": high,
    }


def refuses_to_certify(clf):
    try:
        clf.at(max_accuracy_drop=0.5, risk_confidence=0.5)
    except ValueError:
        return True
    return False


def report(row):
    print(
        f"{row['kind']:45} {row['n_train']:6} rows: accuracy {row['accuracy_on_own_rows']:.3f} on them, "
        f"{row['accuracy_on_new_rows']:.3f} on new ones; coverage {row['coverage']:.3f} (warned: {row['warned']}), "
        f"with X_val {row['coverage_with_x_val']:.3f} in [{row['band_low']:.3f}, {row['band_high']:.3f}] "
        f"({row['warnings_with_x_val']} warnings)",
        flush=True,
    )


def regressions(rows):
    yield Claim("networks", len(rows), ">=", 20)
    yield Claim("kinds of networks", len({row["kind"] for row in rows}), ">=", 5)
    for row in rows:
        name = f"{row['kind']}, {row['n_train']} rows"
        yield Claim(f"{name}: warned", row["warned"], ">=", True)
        yield Claim(f"{name}: refuses to certify", row["refuses_to_certify"], ">=", True)
        yield Claim(f"{name}: warnings with X_val", row["warnings_with_x_val"], "<=", 0)
        covered = row["coverage_with_x_val"]
        yield Claim(f"{name}: coverage with X_val", covered, ">=", row["band_low"])
        yield Claim(f"{name}: coverage with X_val", covered, "<=", row["band_high"])


CLAIMS = {"trained_networks": Claims(claims.none, regressions)}


if __name__ == "__main__":
    quick = claims.parse(
        claims.parser(__doc__, quick="the two smallest networks for tables and images"), CLAIMS
    ).quick
    rows = []
    for kind in [TABLE, IMAGE] if quick else N_TRAIN:
        data, shared = load(kind)
        for n_train in N_TRAIN[kind][: 1 if quick else None]:
            rows.append(run(kind, n_train, data, shared))
            report(rows[-1])
    records.write("trained_networks", rows, quick)
    claims.settle(CLAIMS, quick=quick)
