"""Does raising ``cost_weight`` lower the mean cost, and never raise it?

Five tables, one estimator for each cost weight, all else the same (``memory=`` keeps what is). The
backbones train for fewer epochs than by default, which does not touch the question.
"""

import argparse
import tempfile

import datasets
import numpy as np
import records
from joblib import Parallel, delayed

from sklearn_jeidnn import EarlyExitClassifier

SEED = 0
EPOCHS = 25
COST_WEIGHTS = [0, 0.03, 0.1, 0.3, 1]


def load(name):
    return datasets.load(name)


def run(name, epochs):
    with tempfile.TemporaryDirectory() as memory:
        return list(operating_points(name, epochs, memory))


def operating_points(name, epochs, memory):
    split = load(name)
    for cost_weight in COST_WEIGHTS:
        clf = EarlyExitClassifier(
            companion=None,
            cost_weight=cost_weight,
            max_epochs=epochs,
            memory=memory,
            random_state=SEED,
        ).fit(split.X_train, split.y_train)
        point = {
            "mean_cost": clf.mean_cost(split.X_test),
            "accuracy": clf.score(split.X_test, split.y_test),
        }
        yield {
            "data": name,
            "seed": SEED,
            "max_epochs": epochs,
            "cost_weight": cost_weight,
            **point,
        }


def report(rows):
    print(
        f"{rows[0]['data']:10}",
        *(f"{row['accuracy']:.4f} at {row['mean_cost']:.3f}" for row in rows),
        flush=True,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="digits and pen digits only, five epochs"
    )
    quick = parser.parse_args().quick
    print(f"{'':10}", *(f"cost_weight={w:<6g}" for w in COST_WEIGHTS))
    names = ["digits", "pendigits"] if quick else datasets.TABLES
    jobs = Parallel(2, return_as="generator_unordered")
    all_rows, claims = [], []
    for rows in jobs(delayed(run)(name, 5 if quick else EPOCHS) for name in names):
        report(rows)
        data = rows[0]["data"]
        costs = [row["mean_cost"] for row in rows]
        claims.append((f"{data}: never raised", bool(np.all(np.diff(costs) <= 0))))
        claims.append((f"{data}: lower at 1 than at 0", costs[-1] < costs[0]))
        all_rows += rows
    records.write("cost_weights_quick" if quick else "cost_weights", all_rows)
    records.check(claims)
