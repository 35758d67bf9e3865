"""How much of a slow classifier's gain is kept at a part of its time?

The last member is a stack of CatBoost, extra trees, RealMLP and nearest neighbours, as it wins competitions; companions
are made for it, everything else has its default. A table counts where the stack is right on at least one
sample in a hundred more than the best single fast classifier: boosted trees (scikit-learn's, LightGBM), a linear
model, and the ready network alone. At a budget, the gain that is kept is the accuracy above that
classifier's, relative to the stack's. Beside it what a user would do by hand: the best fast classifier in front, one
threshold on its largest probability.
"""

import time

import claims
import datasets
import numpy as np
import records
from claims import Claim, Claims
from sklearn.ensemble import (
    ExtraTreesClassifier,
    HistGradientBoostingClassifier,
    StackingClassifier,
)
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_jeidnn import EarlyExitClassifier

SEED = 0
# Of the slow member's time.
BUDGETS = {0.15: 0.9, 0.30: 0.97}
LEAST_GAIN = 0.01
# Rows in a call that is timed: four batches of the default size.
TOGETHER = 16_384
NETWORK = "ready network"


def scaled(classifier):
    return make_pipeline(StandardScaler(), classifier)


def fast_classifiers(quick):
    from lightgbm import LGBMClassifier

    return {
        "HistGradientBoosting": HistGradientBoostingClassifier(random_state=SEED),
        "LightGBM": LGBMClassifier(random_state=SEED, verbose=-1, n_jobs=1),
        "linear": scaled(LogisticRegression(max_iter=1000)),
        NETWORK: EarlyExitClassifier(
            companion=None, random_state=SEED, **({"max_epochs": 3} if quick else {})
        ),
    }


def stack(quick):
    # Of the extra "rivals", which --check does without.
    from catboost import CatBoostClassifier
    from pytabkit import RealMLP_TD_Classifier

    members = {
        "catboost": CatBoostClassifier(random_seed=SEED, verbose=0, thread_count=1),
        "trees": ExtraTreesClassifier(1000, random_state=SEED),
        "neighbours": scaled(KNeighborsClassifier(15, weights="distance")),
    }
    if not quick:
        members["realmlp"] = RealMLP_TD_Classifier(
            random_state=SEED, device="cpu", n_threads=1, n_cv=1, verbosity=0
        )
    return StackingClassifier(
        list(members.items()), LogisticRegression(max_iter=1000), cv=3, stack_method="predict_proba"
    )


def run(name, quick):
    """Records of one table: the fast classifiers, the stack, and the cascade at each budget."""
    split = datasets.load(name)
    X_test, y_test = split.X_test, split.y_test
    # One stack, fitted once: on all rows but those that set the gates and calibrate.
    X, X_val, y, y_val = train_test_split(
        split.X_train, split.y_train, test_size=0.15, stratify=split.y_train, random_state=SEED
    )
    rows = []
    fitted = {}
    for classifier, clf in {**fast_classifiers(quick), "stack": stack(quick)}.items():
        start = time.process_time()
        fitted[classifier] = clf.fit(X, y)
        seconds = time.process_time() - start
        rows.append(record(name, classifier, clf.score(X_test, y_test), seconds, clf, X_test))
    start = time.process_time()
    cascade = EarlyExitClassifier(
        fitted["stack"], random_state=SEED, **({"max_epochs": 3} if quick else {})
    )
    cascade.fit(X, y, X_val=X_val, y_val=y_val)
    seconds = time.process_time() - start
    for budget in BUDGETS:
        at = cascade.at(budget=budget)
        cost, accuracy = at.mean_cost(X_test), at.score(X_test, y_test)
        found = record(name, f"cascade, budget {budget}", accuracy, seconds, at, X_test)
        rows.append({**found, "budget": budget, "mean_cost": cost, "exits": len(cascade.exits_)})
    fast = max(fast_classifiers(quick), key=lambda own: fitted[own].score(X_val, y_val))
    rows += by_threshold(name, fitted[fast], fitted["stack"], rows, fast, X_test, y_test)
    return rows


def record(name, classifier, accuracy, seconds, clf, X_test):
    return {
        "data": name,
        "classifier": classifier,
        "accuracy": accuracy,
        "budget": np.nan,
        "mean_cost": np.nan,
        "exits": np.nan,
        "fit_cpu_seconds": seconds,
        "microseconds": 1e6 * seconds_of(clf, X_test) / TOGETHER,
        "seed": SEED,
    }


def seconds_of(clf, X):
    """Median time of one call on as many rows as the costs speak of; the test rows over and over."""
    X = X[np.arange(TOGETHER) % len(X)]
    times = []
    for _ in range(3):
        start = time.perf_counter()
        clf.predict_proba(X)
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def by_threshold(name, fast, slow, rows, fast_name, X_test, y_test):
    """What a user would do by hand: the samples that the fast classifier is least sure of go on."""
    micro = {row["classifier"]: row["microseconds"] for row in rows}
    share_of_fast = micro[fast_name] / micro["stack"]
    probabilities = fast.predict_proba(X_test)
    order = np.argsort(probabilities.max(axis=1), kind="stable")
    labels = fast.classes_[probabilities.argmax(axis=1)]
    slow_labels = slow.predict(X_test)
    found = []
    for budget in BUDGETS:
        n_on = int(max(0, budget - share_of_fast) * len(order))
        mixed = labels.copy()
        mixed[order[:n_on]] = slow_labels[order[:n_on]]
        row = record(
            name, f"{fast_name}, threshold", np.mean(mixed == y_test), np.nan, fast, X_test
        )
        cost = share_of_fast + n_on / len(order)
        found.append({**row, "budget": budget, "mean_cost": cost})
    return found


def report(rows):
    for row in rows:
        budget = "" if np.isnan(row["budget"]) else f" cost {row['mean_cost']:.3f}"
        print(
            f"{row['data']:12} {row['classifier']:32}{row['accuracy']:8.4f}{budget:12}"
            f"{row['microseconds']:9.1f} us{row['fit_cpu_seconds']:8.1f} s",
            flush=True,
        )


def gains(rows):
    """For each table: the stack's gain over the best fast classifier, and that at each budget and by thresholds."""
    fast = {"HistGradientBoosting", "LightGBM", "linear", NETWORK}
    for name in dict.fromkeys(row["data"] for row in rows):
        own = [row for row in rows if row["data"] == name]
        best = max(row["accuracy"] for row in own if row["classifier"] in fast)
        whole = next(row["accuracy"] for row in own if row["classifier"] == "stack") - best
        kept = {
            (row["classifier"].partition(",")[0] == "cascade", row["budget"]): row["accuracy"]
            - best
            for row in own
            if not np.isnan(row["budget"])
        }
        yield name, whole, kept


def pooled(rows, budget, cascade=True):
    """Share of the gain kept at a budget, over the tables where there is one."""
    counted = [(whole, kept) for _, whole, kept in gains(rows) if whole >= LEAST_GAIN]
    if not counted:
        return np.nan
    return sum(kept[cascade, budget] for _, kept in counted) / sum(whole for whole, _ in counted)


def time_ratio(rows, row):
    """Measured time of one call on all test samples, relative to the stack's."""
    own = (r for r in rows if r["data"] == row["data"] and r["classifier"] == "stack")
    return row["microseconds"] / next(own)["microseconds"]


def targets(rows):
    for row in rows:
        if row["classifier"].startswith("cascade"):
            name = f"{row['data']}, budget {row['budget']}: time of one call"
            yield Claim(name, time_ratio(rows, row), "<=", 1.25 * row["budget"])
    for budget, least in BUDGETS.items():
        yield Claim(f"gain kept at {budget:.0%} of the time", pooled(rows, budget), ">=", least)
        by_hand = pooled(rows, budget, cascade=False)
        name = f"gain kept at {budget:.0%}, above a threshold by hand"
        yield Claim(name, pooled(rows, budget) - by_hand, ">=", 0)


def regressions(rows):
    for row in rows:
        if row["classifier"].startswith("cascade"):
            name = f"{row['data']}, budget {row['budget']}: mean cost"
            yield Claim(name, row["mean_cost"], "<=", 1.25 * row["budget"])


QUESTION = "slow_last_member"
CLAIMS = {QUESTION: Claims(targets, regressions)}


if __name__ == "__main__":
    parser = claims.parser(__doc__, quick="three epochs, a smaller stack")
    parser.add_argument("--data", nargs="+", help="data sets; the untuned ones by default")
    options = claims.parse(parser, CLAIMS)
    rows = []
    for name in options.data or datasets.UNTUNED:
        found = run(name, options.quick)
        report(found)
        rows += found
    for name, whole, kept in gains(rows):
        print(name, f"gain {whole:.4f}", {key: round(value, 4) for key, value in kept.items()})
    if not options.data:
        records.write(QUESTION, rows, options.quick)
        claims.settle(CLAIMS, [QUESTION], options.quick)
