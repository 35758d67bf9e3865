"""Do small tables gain if gates are set on out-of-fold answers of all rows, instead of on a twentieth of them?

A few training rows of a table fit a small default classifier three ways: some rows set the gates alone ("split"), all
of them do in five folds ("folds"), and the classifier of the folds with gates of further rows that nobody else has
("more": up to 5,000). Accuracy and mean cost on other training rows, at the default cost weight and at budgets; of the
first two also under the seven threshold policies, and what prediction sets cover.
"""

import copy
import time
from dataclasses import replace

import claims
import datasets
import numpy as np
import records
from claims import Claim, Claims
from operating_points import accuracy_and_cost, exits_at

from sklearn_jeidnn import EarlyExitClassifier, metrics
from sklearn_jeidnn._operate.exit_answers import ExitAnswers
from sklearn_jeidnn._operate.frontier import EXIT_POLICIES, LEARNED

SPLIT, FOLDS, MORE = WAYS = "split", "folds", "more"
DATA = [*datasets.UNTUNED, "krkopt", "letter"]
FEW, MANY = 1000, 4000
# Tables with so many training rows that some are left to test.
LARGE = ["mammography", "krkopt", "letter"]
N_SPLITS = {FEW: 20, MANY: 3}
# Splits on which the seven thresholds are tried, too.
N_COMPARED = 5
MOST_FURTHER, MOST_TEST = 5000, 3000
BUDGETS = [0.05, 0.1, 0.3]
LEVEL = 0.9
# Training is slow, and gates are what is asked about.
PARAMS = {"module__width": 128, "module__n_blocks": 3, "max_epochs": 30}
N_FOLDS = 5


def load(name, n_rows, seed):
    """Pairs (rows, labels): those of the fit, those that set gates besides, those that test."""
    split = datasets.load_frames(name)
    X, y = split.X_train, split.y_train
    order = np.random.default_rng(seed).permutation(len(y))
    n_further = min(MOST_FURTHER, (len(y) - n_rows) // 2)
    ends = np.cumsum([n_rows, n_further, min(MOST_TEST, len(y) - n_rows - n_further)])
    return [(X.iloc[rows], y[rows]) for rows in np.split(order[: ends[-1]], ends[:-1])]


def run(name, n_rows, seed, quick):
    """Records of one split of a table."""
    given, further, test = load(name, n_rows, seed)
    # A label that only other rows have cannot be asked about.
    further, test = (known(rows, given[1]) for rows in (further, test))
    params = {**PARAMS, "max_epochs": 2} if quick else PARAMS
    for way, cv in ((SPLIT, None), (FOLDS, N_FOLDS)):
        start = time.process_time()
        clf = EarlyExitClassifier(cv=cv, random_state=seed, **params).fit(*given)
        seconds = time.process_time() - start
        answers = clf.exit_answers(*test)
        epochs = len(clf.history_)
        of_fit = {"coverage": covered(clf, *test), "n_epochs": epochs, "fit_cpu_seconds": seconds}
        setting = {"data": name, "n_rows": n_rows, "seed": seed, "n_test": len(test[1])}
        compared = EXIT_POLICIES if seed < N_COMPARED and not quick else [LEARNED]
        for row in points(clf, answers, compared):
            yield {**setting, "way": way, **row, **of_fit}
    nothing = dict.fromkeys(of_fit, np.nan)
    for row in points(with_further(clf, *further), answers, [LEARNED]):
        yield {**setting, "way": MORE, **row, **nothing}


def known(rows, labels):
    X, y = rows
    kept = np.isin(y, labels)
    return X[kept], y[kept]


def with_further(clf, X, y):
    """The same classifier, whose gates and temperatures are set on further rows, too."""
    predictor = clf._predictor
    own, further = predictor.frontier.answers, clf.exit_answers(X, y)
    names = ("logits", "backbone_logits", "gate_inputs", "codes", "weights")
    joined = {name: np.concatenate([getattr(a, name) for a in (own, further)]) for name in names}
    frontier = replace(predictor.frontier, answers=ExitAnswers(**joined))
    return copy.copy(clf)._adopt(replace(predictor, frontier=frontier))


def points(clf, answers, policies):
    """Records of the default cost weight (budget NaN) and of each budget, under each policy."""
    # What learned gates spend if nothing limits them.
    most = clf.frontier_["mean_cost"][0]
    for policy in policies:
        of_policy = clf.at(cost_weight=clf.cost_weight, exit_policy=policy)
        yield record(of_policy, answers, policy, np.nan, most)
        for budget in BUDGETS:
            if budget >= clf.exit_costs_[0]:
                yield record(of_policy.at(budget=budget), answers, policy, budget, most)


def record(clf, answers, policy, budget, most):
    accuracy, cost = accuracy_and_cost(clf, answers)
    exits = exits_at(clf, answers)
    logits = answers.logits[np.arange(len(exits)), exits]
    probabilities = clf._predictor.calibration.probabilities(logits, exits)
    return {
        "policy": policy,
        "budget": budget,
        "binds": bool(budget < most),
        "accuracy": accuracy,
        "mean_cost": cost,
        "log_loss": metrics.log_loss(probabilities, answers.codes),
        "backbone_accuracy": answers.backbone_accuracy,
    }


def covered(clf, X, y):
    sets = clf.predict_set(X, confidence_level=LEVEL)
    return metrics.coverage(sets, np.searchsorted(clf.classes_, y))


def report(rows):
    """One line for each way of a split."""
    for way in (SPLIT, FOLDS, MORE):
        own = [row for row in rows if row["way"] == way and row["policy"] == LEARNED]
        accuracies = " ".join(f"{100 * row['accuracy']:6.2f}" for row in own)
        first = own[0]
        print(
            f"{first['data']:12}{first['n_rows']:6}{first['seed']:3} {way:6}{accuracies}   covered "
            f"{first['coverage']:.3f}  {first['fit_cpu_seconds']:.0f} s",
            flush=True,
        )


def lead(rows, way, other, n_rows, data=None):
    """Mean accuracy of learned gates one way above another's, over the points that both have, tables alike."""
    found = by_point(rows, n_rows, data)
    return of_tables(
        (point[0], ways[way] - ways[other])
        for point, ways in found.items()
        if way in ways and other in ways
    )


def by_point(rows, n_rows, data):
    """{(table, seed, budget): {way: accuracy of learned gates}}; the budget is 0 at the default cost weight"""
    found = {}
    for row in rows:
        if row["policy"] == LEARNED and row["n_rows"] == n_rows and data in (None, row["data"]):
            budget = 0 if np.isnan(row["budget"]) else row["budget"]
            found.setdefault((row["data"], row["seed"], budget), {})[row["way"]] = row["accuracy"]
    return found


def of_tables(pairs):
    """Mean over tables of their means."""
    by_table = {}
    for table, value in pairs:
        by_table.setdefault(table, []).append(value)
    return float(np.mean([np.mean(values) for values in by_table.values()])) if by_table else np.nan


def over_thresholds(rows, way, n_rows, data=None):
    """Mean accuracy of learned gates above the best threshold on the same exits, at budgets that bind."""
    found = {}
    for row in rows:
        asked = row["way"] == way and row["n_rows"] == n_rows and row["seed"] < N_COMPARED
        if asked and row["binds"] and data in (None, row["data"]):
            point = (row["data"], row["seed"], row["budget"])
            found.setdefault(point, {})[row["policy"]] = row["accuracy"]
    return of_tables(
        (point[0], policies[LEARNED] - max(v for k, v in policies.items() if k != LEARNED))
        for point, policies in found.items()
        if len(policies) > 1
    )


def mean_accuracy(rows, way, n_rows, data):
    """Of learned gates, over the splits and points that all ways have: exits, and so budgets, differ."""
    found = by_point(rows, n_rows, data)
    return float(np.mean([ways[way] for ways in found.values() if len(ways) == len(WAYS)]))


def mean_coverage(rows, way, n_rows, data=None):
    """Over splits, tables alike."""
    return mean_of(rows, "coverage", way, n_rows, data)


def mean_seconds(rows, way, n_rows, data):
    """CPU seconds of a fit."""
    return mean_of(rows, "fit_cpu_seconds", way, n_rows, data)


def mean_of(rows, column, way, n_rows, data):
    return of_tables(
        (row["data"], row[column])
        for row in rows
        if (row["way"], row["n_rows"], row["policy"]) == (way, n_rows, LEARNED)
        and data in (None, row["data"])
    )


def targets(rows):
    yield Claim(f"{FEW} rows: folds behind more rows", lead(rows, MORE, FOLDS, FEW), "<=", 0.005)
    yield Claim(f"{FEW} rows: coverage", mean_coverage(rows, FOLDS, FEW), ">=", LEVEL - 0.01)
    yield Claim(f"{FEW} rows: coverage", mean_coverage(rows, FOLDS, FEW), "<=", LEVEL + 0.01)
    for n_rows in (FEW, MANY):
        gain = over_thresholds(rows, FOLDS, n_rows)
        yield Claim(f"{n_rows} rows: learned gates over the best threshold", gain, ">=", 0.002)


def regressions(rows):
    yield Claim(f"{FEW} rows: folds over the split", lead(rows, FOLDS, SPLIT, FEW), ">=", 0)
    for data in dict.fromkeys(row["data"] for row in rows):
        behind = lead(rows, MORE, FOLDS, FEW, data)
        yield Claim(f"{data}, {FEW} rows: folds behind more rows", behind, "<=", 0.01)


QUESTION = "out_of_fold_gates"
CLAIMS = {QUESTION: Claims(targets, regressions)}


if __name__ == "__main__":
    parser = claims.parser(__doc__, quick="one split, two epochs")
    parser.add_argument("--data", nargs="+", default=DATA, choices=DATA)
    parser.add_argument("--rows", nargs="+", type=int, default=[FEW, MANY], choices=[FEW, MANY])
    parser.add_argument("--splits", type=int, default=20, help="at most so many")
    options = claims.parse(parser, CLAIMS)
    asked = [
        (name, n_rows)
        for n_rows in options.rows
        for name in options.data
        if n_rows == FEW or name in LARGE
    ]
    kept = []
    if records.is_there(QUESTION, options.quick):
        stored = records.read(QUESTION, options.quick)
        kept = [row for row in stored if (row["data"], row["n_rows"]) not in asked]
    for name, n_rows in asked:
        for seed in range(1 if options.quick else min(options.splits, N_SPLITS[n_rows])):
            rows = list(run(name, n_rows, seed, options.quick))
            report(rows)
            kept += rows
        records.write(QUESTION, kept, options.quick)
    claims.settle(CLAIMS, quick=options.quick)
