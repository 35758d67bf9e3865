"""Does ``predict`` save the time that the mean cost promises, on a wide table?

Letter on a backbone of 8 blocks of width 1024, against one pass of the plain backbone over the
same rows in batches of the same size, side by side in one run, medians.
"""

import argparse
import statistics
import time

import datasets
import numpy as np
import records
import torch

from sklearn_jeidnn import EarlyExitClassifier

SEED = 0
BATCH = 1024
COST_WEIGHTS = [0.02, 0.1]


def load():
    """(training rows, their labels, the 20,000 rows that are timed)"""
    split = datasets.load("letter")
    return split.X_train, split.y_train, np.concatenate([split.X_train, split.X_test])


def plain_pass(clf, X):
    with torch.no_grad():
        return torch.cat([clf.module_(rows) for rows in torch.as_tensor(X).split(BATCH)])


def side_by_side(clf, X, n_repeats):
    """Median seconds of (the plain backbone, predict), taken in turns."""
    times = [[], []]
    for _ in range(n_repeats + 1):
        for taken, function in zip(
            times, (lambda: plain_pass(clf, X), lambda: clf.predict(X)), strict=True
        ):
            start = time.perf_counter()
            function()
            taken.append(time.perf_counter() - start)
    return [statistics.median(taken[1:]) for taken in times]


def run(cost_weight, width, epochs, n_repeats):
    X_train, y_train, X = load()
    clf = EarlyExitClassifier(
        cost_weight=cost_weight,
        module__width=width,
        module__n_blocks=8,
        max_epochs=epochs,
        iterator_valid__batch_size=BATCH,
        random_state=SEED,
    ).fit(X_train, y_train)
    plain_seconds, seconds = side_by_side(clf, X, n_repeats)
    never = clf.network_.gates
    mean_cost = clf.mean_cost(X)
    with torch.no_grad():
        never.weight.zero_()
        never.bias.fill_(-100.0)
    _, all_stay_seconds = side_by_side(clf, X, n_repeats)
    return {
        "data": "letter",
        "seed": SEED,
        "width": width,
        "n_blocks": 8,
        "n_rows": len(X),
        "batch_size": BATCH,
        "cost_weight": cost_weight,
        "mean_cost": mean_cost,
        "plain_seconds": plain_seconds,
        "predict_seconds": seconds,
        "time_ratio": seconds / plain_seconds,
        "time_ratio_all_stay": all_stay_seconds / plain_seconds,
    }


def report(row):
    print(
        f"cost_weight={row['cost_weight']:<5g} mean cost {row['mean_cost']:.3f}  plain {row['plain_seconds']:.3f} s  "
        f"predict {row['predict_seconds']:.3f} s  ratio {row['time_ratio']:.3f}  "
        f"(if every row stays: {row['time_ratio_all_stay']:.3f})",
        flush=True,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="width 128, one epoch; proves nothing")
    quick = parser.parse_args().quick
    rows = [run(w, *((128, 1, 3) if quick else (1024, 5, 7))) for w in COST_WEIGHTS]
    for row in rows:
        report(row)
    records.write("routing_speedup_quick" if quick else "routing_speedup", rows)
    if not quick:
        records.check(
            [
                (
                    f"ratio {r['time_ratio']:.3f} <= 0.65 at mean cost {r['mean_cost']:.3f} <= 0.5",
                    r["time_ratio"] <= 0.65,
                )
                for r in rows
                if r["mean_cost"] <= 0.5
            ]
        )
