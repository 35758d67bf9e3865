"""What do class weights change where some classes are a hundred times rarer than others?

CIFAR-10 with the exponential profile of an imbalance of 100 (Cui and others, CVPR 2019; the paper's data with a long
tail): 5,000 training images of the first class, 50 of the last, the ready network for images for twelve epochs. The
test images are as many of each class; where samples as they come in training are meant, they are weighted by the
profile. Without class weights, with "balanced" ones, and with their square roots; exits beside the plain network.

    python benchmarks/long_tail.py [--seeds 0] [--quick]
"""

import copy
import time
from dataclasses import replace

import claims
import datasets
import numpy as np
import records
from claims import Claim, Claims

from sklearn_jeidnn import EarlyExitClassifier, metrics

QUESTION, IMBALANCE, LEVEL, BUDGET = "long_tail", 100, 0.9, 0.6
MAX_EPOCHS, N_OF_FIRST = 12, 5000
PLAIN, EXITS, AT_BUDGET = "plain network", "exits", "exits at a budget"
NONE, BALANCED, ROOTS = "none", "balanced", "square roots"
WEIGHTS = [NONE, BALANCED, ROOTS]
# Of ten classes, in the order of the profile.
FREQUENT, RARE = slice(0, 3), slice(7, 10)


def counts(n_first):
    """Images of each class: (10,)."""
    return np.int64(n_first * IMBALANCE ** (-np.arange(10) / 9))


def load(quick):
    """(training images and labels, test images and labels), labels 0 to 9 in the order of the profile."""
    split = datasets.load_cifar10()
    classes = np.unique(split.y_train)
    y_train, y_test = (np.searchsorted(classes, y) for y in (split.y_train, split.y_test))
    of_class = [np.flatnonzero(y_train == label) for label in range(10)]
    n_first = N_OF_FIRST // 5 if quick else N_OF_FIRST
    kept = [rows[:n] for rows, n in zip(of_class, counts(n_first), strict=True)]
    kept = np.random.default_rng(0).permutation(np.concatenate(kept))
    return (split.X_train[kept], y_train[kept]), (split.X_test, y_test)


def class_weight(name, y):
    if name == NONE:
        return None
    balanced = len(y) / 10 / np.bincount(y, minlength=10)
    return dict(enumerate(balanced if name == BALANCED else np.sqrt(balanced)))


def means_of_classes(values, y):
    """Mean of each class: (10,)."""
    return np.bincount(y, values, minlength=10) / np.bincount(y, minlength=10)


def described(name, values, y):
    """Mean of values (n_samples,) over samples as they come, over classes, over frequent and rare ones."""
    of_classes, profile = means_of_classes(values, y), counts(N_OF_FIRST)
    return {
        f"{name}_as_they_come": np.average(of_classes, weights=profile),
        f"{name}_of_classes": of_classes.mean(),
        f"{name}_of_frequent": of_classes[FREQUENT].mean(),
        f"{name}_of_rare": of_classes[RARE].mean(),
    }


def by_class(clf):
    """The same classifier, whose sets hold the truth in each class."""
    predictor = clf._predictor
    rule = replace(predictor.rule, condition_on="class")
    return copy.copy(clf)._adopt(predictor.conformalized(rule, predictor.samples, None))


def measured(clf, X, y):
    """One record of an operating point."""
    exit_index, found = clf.predict_exit(X), {}
    found |= described("accuracy", clf.predict(X) == y, y)
    found |= described("cost", clf.exit_costs_[exit_index], y)
    for name, other in (("pooled", clf), ("by_class", by_class(clf))):
        sets = other.predict_set(X, confidence_level=LEVEL)
        found |= described(f"coverage_{name}", sets[np.arange(len(y)), y], y)
        found |= described(f"size_{name}", sets.sum(axis=1), y)
    probabilities = clf.predict_proba(X)
    covered = means_of_classes(probabilities[np.arange(len(y)), y], y)
    return {**found, "probability_of_rare": covered[RARE].mean()}


def of_plain(clf, X, y):
    """What the plain network does; it costs 1, and has no sets."""
    found = described("accuracy", clf.predict_backbone(X) == y, y)
    return {**found, **described("cost", np.ones(len(y)), y)}


def run(weights, seed, data, quick):
    """One record for the plain network and for each operating point."""
    (X_train, y_train), (X, y) = data
    clf = EarlyExitClassifier(
        companion=None,
        class_weight=class_weight(weights, y_train),
        max_epochs=1 if quick else MAX_EPOCHS,
        random_state=seed,
    )
    start = time.process_time()
    clf.fit(X_train, y_train)
    setting = {"seed": seed, "class_weight": weights, "n_train": len(y_train)}
    setting |= {"n_calibration": len(clf.conformity_scores_), "imbalance": IMBALANCE}
    setting |= {"fit_cpu_seconds": time.process_time() - start}
    found = {
        EXITS: measured(clf, X, y),
        AT_BUDGET: measured(clf.at(budget=BUDGET), X, y),
        PLAIN: of_plain(clf, X, y),
    }
    records_of_fit = []
    for way, values in found.items():
        row = {**setting, "way": way, **{name: values.get(name, np.nan) for name in found[EXITS]}}
        records_of_fit.append(row)
        told = ("accuracy_as_they_come", "accuracy_of_classes", "accuracy_of_rare")
        print(weights, way, *(f"{row[n]:.3f}" for n in (*told, "cost_as_they_come")), flush=True)
    return records_of_fit


def of(rows, way, weights, column):
    """Mean over the seeds."""
    own = [r[column] for r in rows if (r["way"], r["class_weight"]) == (way, weights)]
    return float(np.mean(own))


def targets(rows):
    for weights in WEIGHTS:
        plain, exits = (of(rows, way, weights, "accuracy_of_classes") for way in (PLAIN, EXITS))
        name = f"{weights}: balanced accuracy of exits less the plain network's"
        yield Claim(name, exits - plain, ">=", -0.01)
    gains = [of(rows, EXITS, weights, "accuracy_of_classes") for weights in (BALANCED, NONE)]
    yield Claim("balanced accuracy that balanced weights gain", gains[0] - gains[1], ">", 0)


def regressions(rows):
    for row in rows:
        if row["way"] == PLAIN:
            continue
        low, _ = metrics.coverage_band(row["n_calibration"], 10**4, LEVEL, probability=0.999)
        name = f"seed {row['seed']}, {row['class_weight']}, {row['way']}"
        covered = row["coverage_pooled_as_they_come"]
        # A little below the band: few test images stand for the profile's rare classes.
        yield Claim(f"{name}: coverage as they come", covered, ">=", low - 0.01)
    rare = [of(rows, EXITS, w, "accuracy_of_rare") for w in (BALANCED, NONE)]
    yield Claim("accuracy of rare classes that weights gain", rare[0] - rare[1], ">", 0)


CLAIMS = {QUESTION: Claims(targets, regressions)}


if __name__ == "__main__":
    parser = claims.parser(__doc__, quick="a fifth of the images, one epoch")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    args = claims.parse(parser, CLAIMS)
    data, found = load(args.quick), []
    for seed in args.seeds:
        for weights in WEIGHTS:
            found += run(weights, seed, data, args.quick)
        records.write(QUESTION, found, args.quick)
    claims.settle(CLAIMS, quick=args.quick)
