"""What does it save that a frozen backbone runs once?

CIFAR-10, the shared network frozen, 40,000 rows that train its heads, 10,000 that it has not seen for
gates and calibration. In one run: one pass of the plain backbone over the 40,000 rows, a whole fit with
five epochs of the heads (as accurate as ten at the paper's steps), and the paper's way: ten epochs, in
which the backbone runs again over every batch, and over the held-out rows that say which epoch is best
(three of the ten are timed).
"""

import time

import claims
import datasets
import records
import torch
from claims import Claim, Claims
from torch.nn.functional import cross_entropy

from sklearn_jeidnn import EarlyExitClassifier

SEED = 0
EPOCHS = 5
BATCH = 512
LR = 2e-2
PAPER_EPOCHS = 10
PAPER_LR = 4e-3
# Every epoch of the paper's way costs the same: some are timed, and scaled up.
TIMED_EPOCHS = 3
N_WARM_UP = 600
# The plain backbone runs about as fast at 64 to 256 rows at a time, slower at more.
ROWS_AT_ONCE = 128


def load(quick):
    backbone, (X, y), held_out, test = datasets.load_frozen_cifar10()
    n_rows = 2000 if quick else len(X)
    return backbone, (X[:n_rows], y[:n_rows]), held_out, test


@torch.no_grad()
def one_pass(backbone, X):
    for rows in torch.as_tensor(X).split(ROWS_AT_ONCE):
        backbone(rows)


def papers_way(network, X, codes, X_val):
    """Epochs of the heads, the backbone in every batch (warm-up and turns cost the same a batch)."""
    heads, n_exits = network.heads.train(), network.n_exits
    optimizer = torch.optim.Adam(heads.parameters(), lr=PAPER_LR)
    weights = torch.arange(n_exits - 1, 0, -1)
    for _ in range(TIMED_EPOCHS):
        for rows in torch.randperm(len(X)).split(BATCH):
            with torch.no_grad():
                features = network.exit_features(X[rows])
            logits = heads(features)[:, :-1].transpose(1, 2)
            at_each = codes[rows, None].expand(-1, n_exits - 1)
            losses = cross_entropy(logits, at_each, reduction="none")
            loss = (losses * weights).sum(1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            for rows in X_val.split(ROWS_AT_ONCE):
                heads(network.exit_features(rows))


def run(quick):
    backbone, (X, y), (X_val, y_val), (X_test, y_test) = load(quick)
    clf = EarlyExitClassifier(
        backbone,
        freeze_backbone=True,
        max_epochs=EPOCHS,
        lr=LR,
        batch_size=BATCH,
        random_state=SEED,
    )
    # A first fit loads what torch needs to trace and to count.
    clf.fit(X[:N_WARM_UP], y[:N_WARM_UP], X_val=X_val[:N_WARM_UP], y_val=y_val[:N_WARM_UP])
    passes = [seconds(one_pass, backbone, X)]
    fit = seconds(clf.fit, X, y, X_val=X_val, y_val=y_val)
    passes.append(seconds(one_pass, backbone, X))
    accuracy, mean_cost = clf.score(X_test, y_test), clf.mean_cost(X_test)
    codes = torch.as_tensor((y[:, None] == clf.classes_).argmax(1))
    clf.network_.heads.requires_grad_(True)
    # As many as choose the epoch in a fit: the other half calibrates.
    choosing = torch.as_tensor(X_val[: len(X_val) // 2])
    paper = seconds(papers_way, clf.network_, torch.as_tensor(X), codes, choosing)
    paper *= PAPER_EPOCHS / TIMED_EPOCHS
    passes.append(seconds(one_pass, backbone, X))
    one = sorted(passes)[1]
    return {
        "data": "cifar10",
        "seed": SEED,
        "n_rows": len(X),
        "max_epochs": EPOCHS,
        "accuracy": accuracy,
        "mean_cost": mean_cost,
        "pass_seconds": one,
        "fit_seconds": fit,
        "paper_seconds": paper,
        "fit_in_passes": fit / one,
        "paper_over_fit": paper / fit,
    }


def seconds(function, *args, **kwargs):
    start = time.perf_counter()
    function(*args, **kwargs)
    return time.perf_counter() - start


def report(row):
    print(
        f"{row['n_rows']} rows: one pass {row['pass_seconds']:.1f} s, fit {row['fit_seconds']:.1f} s = "
        f"{row['fit_in_passes']:.2f} passes, the paper's way {row['paper_seconds']:.1f} s = "
        f"{row['paper_over_fit']:.1f} fits; accuracy {row['accuracy']:.4f} at {row['mean_cost']:.3f}"
    )


def targets(rows):
    (row,) = rows
    yield Claim("a fit, in passes of the backbone", row["fit_in_passes"], "<=", 2)
    yield Claim("the paper's way, in fits", row["paper_over_fit"], ">=", 8)


def regressions(rows):
    (row,) = rows
    yield Claim("a fit, in passes of the backbone", row["fit_in_passes"], "<=", 3)
    yield Claim("the paper's way, in fits", row["paper_over_fit"], ">=", 4)
    yield Claim("accuracy", row["accuracy"], ">=", 0.844)
    yield Claim("mean cost", row["mean_cost"], "<=", 0.6)


CLAIMS = {"run_once": Claims(targets, regressions)}


if __name__ == "__main__":
    quick = claims.parse(claims.parser(__doc__, quick="2,000 rows"), CLAIMS).quick
    row = run(quick)
    report(row)
    records.write("run_once", [row], quick)
    claims.settle(CLAIMS, quick=quick)
