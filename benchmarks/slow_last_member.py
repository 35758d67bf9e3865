"""How much of a slow classifier's gain is kept at a part of its time?

The last member is a stack of bags of CatBoost, extra trees, RealMLP and nearest neighbours, as it wins competitions;
companions are made for it and learn from its answers out of fold, everything else has its default. A table counts where
the stack is right on at least one sample in a hundred more than the best single fast classifier: boosted trees
(scikit-learn's, LightGBM, CatBoost), extra trees, a linear model, and the ready network alone. At a budget, the gain
that is kept is the accuracy above that classifier's, relative to the stack's. Beside it what a user would do by hand:
the best fast classifier in front, one threshold on its largest probability. Last, certificates: samples are drawn from
the test rows a thousand times, a limit on the loss of accuracy against the stack, or on other labels than its own, is
tested on them at a confidence of 0.95, and compared with the truth on all test rows.
"""

import time

import claims
import datasets
import numpy as np
import records
from bagged_stack import BaggedStack
from claims import Claim, Claims
from coverage import drawn
from sklearn.ensemble import ExtraTreesClassifier, HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_jeidnn import EarlyExitClassifier
from sklearn_jeidnn._operate import risk as risk_tests
from sklearn_jeidnn._operate.certification import risk_losses

SEED = 0
# Of the slow member's time.
BUDGETS = {0.15: 0.9, 0.30: 0.97}
LEAST_GAIN = 0.01
# Rows in a call that is timed: four batches of the default size.
TOGETHER = 16_384
NETWORK = "ready network"
# Calls that take longer are timed once.
LONG_SECONDS = 5
# Limits that are certified, on how many samples, how often, and how often that may go wrong by chance.
LIMITS = {"accuracy_drop": 0.01, "disagreement": 0.03}
N_TESTED, N_DRAWS, MOST_BROKEN = 1000, 1000, 0.066


def scaled(classifier):
    return make_pipeline(StandardScaler(), classifier)


def fast_classifiers(quick):
    from catboost import CatBoostClassifier
    from lightgbm import LGBMClassifier

    return {
        "HistGradientBoosting": HistGradientBoostingClassifier(random_state=SEED),
        "LightGBM": LGBMClassifier(random_state=SEED, verbose=-1, n_jobs=1),
        "CatBoost": CatBoostClassifier(random_seed=SEED, verbose=0, thread_count=1),
        "ExtraTrees, 300": ExtraTreesClassifier(300, random_state=SEED),
        "linear": scaled(LogisticRegression(max_iter=1000)),
        NETWORK: EarlyExitClassifier(
            companion=None, random_state=SEED, **({"max_epochs": 3} if quick else {})
        ),
    }


def stack(quick):
    # Of the extra "rivals", which --check does without.
    from catboost import CatBoostClassifier
    from pytabkit import RealMLP_TD_Classifier

    members = [
        CatBoostClassifier(random_seed=SEED, verbose=0, thread_count=1),
        ExtraTreesClassifier(1000, random_state=SEED),
        scaled(KNeighborsClassifier(15, weights="distance")),
    ]
    if not quick:
        members.append(
            RealMLP_TD_Classifier(random_state=SEED, device="cpu", n_threads=1, n_cv=1, verbosity=0)
        )
    return BaggedStack(members, SEED)


def run(name, quick):
    """Records of one table: the fast classifiers, the stack, and the cascade at each budget."""
    split = datasets.load(name)
    X_test, y_test = split.X_test, split.y_test
    # All are fitted on all rows but those that set the gates and calibrate.
    X, X_val, y, y_val = train_test_split(
        split.X_train, split.y_train, test_size=0.15, stratify=split.y_train, random_state=SEED
    )
    rows = []
    fitted = {}
    for classifier, clf in fast_classifiers(quick).items():
        start = time.process_time()
        fitted[classifier] = clf.fit(X, y)
        seconds = time.process_time() - start
        rows.append(record(name, classifier, clf.score(X_test, y_test), seconds, clf, X_test))
    start = time.process_time()
    cascade = EarlyExitClassifier(
        stack(quick),
        companion_training="distilled",
        random_state=SEED,
        **({"max_epochs": 3} if quick else {}),
    )
    cascade.fit(X, y, X_val=X_val, y_val=y_val)
    slow = cascade.module_
    seconds = time.process_time() - start - slow.fit_cpu_seconds_
    accuracy = slow.score(X_test, y_test)
    rows.append(record(name, "stack", accuracy, slow.fit_cpu_seconds_, slow, X_test))
    for budget in BUDGETS:
        at = cascade.at(budget=budget)
        cost, accuracy = at.mean_cost(X_test), at.score(X_test, y_test)
        found = record(name, f"cascade, budget {budget}", accuracy, seconds, at, X_test)
        rows.append({**found, "budget": budget, "mean_cost": cost, "exits": len(cascade.exits_)})
    fast = max(fast_classifiers(quick), key=lambda own: fitted[own].score(X_val, y_val))
    rows += by_threshold(name, fitted[fast], slow, rows, fast, X_test, y_test)
    return [*rows, *certificates(name, cascade, X_test, y_test)]


def certificates(name, cascade, X_test, y_test):
    """How often a certified limit is broken, over draws of the samples that test it."""
    answers, of_fit = cascade.exit_answers(X_test, y_test), cascade._predictor.frontier
    p_values = {
        "accuracy_drop": risk_tests.drop_p_value,
        "disagreement": risk_tests.binomial_p_value,
    }
    for risk, limit in LIMITS.items():
        frontier = of_fit.of_agreement() if risk == "disagreement" else of_fit
        path = frontier.candidates_by_cost
        losses = np.stack([risk_losses(frontier, answers, risk, point) for point in path])
        costs = [risk_losses(frontier, answers, "mean_cost", point).mean() for point in path]
        found = drawn(
            losses, [*costs, cascade.exit_costs_[-1]], p_values[risk], limit, N_TESTED, N_DRAWS
        )
        yield {
            **of_nothing(name, f"certificate, {risk} {limit}"),
            "mean_cost": found["mean_cost"],
            "broken": found["broken"],
            "none_passed": found["none_passed"],
        }


def of_nothing(name, classifier):
    """A record in which nothing is measured yet."""
    columns = ("accuracy", "budget", "mean_cost", "exits", "fit_cpu_seconds", "microseconds")
    return {
        "data": name,
        "classifier": classifier,
        **dict.fromkeys((*columns, "broken", "none_passed"), np.nan),
        "seed": SEED,
    }


def record(name, classifier, accuracy, seconds, clf, X_test):
    return {
        **of_nothing(name, classifier),
        "accuracy": accuracy,
        "fit_cpu_seconds": seconds,
        "microseconds": 1e6 * seconds_of(clf, X_test) / TOGETHER,
    }


def seconds_of(clf, X):
    """Median time of one call on as many rows as the costs speak of; the test rows over and over."""
    X = X[np.arange(TOGETHER) % len(X)]
    times = []
    while len(times) < 3 and sum(times) < LONG_SECONDS:
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
        budget = "" if np.isnan(row["mean_cost"]) else f" cost {row['mean_cost']:.3f}"
        broken = "" if np.isnan(row["broken"]) else f"  broken {row['broken']:.3f}"
        print(
            f"{row['data']:12} {row['classifier']:32}{row['accuracy']:8.4f}{budget:12}"
            f"{row['microseconds']:9.1f} us{row['fit_cpu_seconds']:8.1f} s{broken}",
            flush=True,
        )


def gains(rows):
    """For each table: the stack's gain over the best fast classifier, and that at each budget and by thresholds."""
    for name in dict.fromkeys(row["data"] for row in rows):
        own = [row for row in rows if row["data"] == name]
        best = max(row["accuracy"] for row in own if is_fast(row))
        whole = next(row["accuracy"] for row in own if row["classifier"] == "stack") - best
        kept = {
            (row["classifier"].partition(",")[0] == "cascade", row["budget"]): row["accuracy"]
            - best
            for row in own
            if not np.isnan(row["budget"])
        }
        yield name, whole, kept


def is_fast(row):
    """Whether a record is of a single fast classifier."""
    return not row["classifier"].startswith(("stack", "cascade", "certificate")) and np.isnan(
        row["budget"]
    )


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
    for row in rows:
        if row["classifier"].startswith("certificate"):
            name = f"{row['data']}, {row['classifier']}: broken"
            yield Claim(name, row["broken"], "<=", MOST_BROKEN)


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
        if not options.data:
            records.write(QUESTION, rows, options.quick)
    for name, whole, kept in gains(rows):
        print(name, f"gain {whole:.4f}", {key: round(value, 4) for key, value in kept.items()})
    if not options.data:
        claims.settle(CLAIMS, [QUESTION], options.quick)
