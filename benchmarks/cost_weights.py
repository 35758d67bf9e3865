"""Does raising ``cost_weight`` lower the mean cost of early exits, and never raise it?

Five tables, no companions, one estimator for each cost weight, all else the same (``memory=`` keeps what is). The
backbones train for fewer epochs than by default, which does not touch the question.
"""

import tempfile

import claims
import datasets
import numpy as np
import records
from claims import Claim, Claims
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


def costs_by_data(rows):
    """{data set: mean costs, by rising cost weight}"""
    names = dict.fromkeys(row["data"] for row in rows)
    return {name: [row["mean_cost"] for row in rows if row["data"] == name] for name in names}


def targets(rows):
    for name, costs in costs_by_data(rows).items():
        yield Claim(f"{name}: largest rise of the mean cost", np.diff(costs).max(), "<=", 0)


def regressions(rows):
    for name, costs in costs_by_data(rows).items():
        yield Claim(f"{name}: largest rise of the mean cost", np.diff(costs).max(), "<=", 0.005)
        yield Claim(f"{name}: mean cost at 1 less that at 0", costs[-1] - costs[0], "<", 0)
        yield Claim(f"{name}: mean cost at the default, 0.1", costs[2], "<", 0.6)


CLAIMS = {"cost_weights": Claims(targets, regressions)}


if __name__ == "__main__":
    parser = claims.parser(__doc__, quick="digits and pen digits only, five epochs")
    quick = claims.parse(parser, CLAIMS).quick
    print(f"{'':10}", *(f"cost_weight={w:<6g}" for w in COST_WEIGHTS))
    names = ["digits", "pendigits"] if quick else datasets.TABLES
    jobs = Parallel(2, return_as="generator_unordered")
    all_rows = []
    for rows in jobs(delayed(run)(name, 5 if quick else EPOCHS) for name in names):
        report(rows)
        all_rows += rows
    records.write("cost_weights", all_rows, quick)
    claims.settle(CLAIMS, quick=quick)
