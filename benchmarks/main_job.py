"""Do early exits alone keep the accuracy at a fraction of the cost, on real tables and images?

No companions (low_cost_exits.py puts them in front); every other parameter has its default. Beside it what
a user would do instead: the plain backbone trained without exits, plain backbones with fewer blocks, the best
single exit, scikit-learn's MLP and gradient boosting. No tuning by data set; CIFAR-10 alone trains for fewer
epochs, the plain backbones too.
"""

import time

import claims
import datasets
import numpy as np
import records
from baselines import train_plain
from claims import Claim, Claims
from joblib import Parallel, delayed
from sklearn.datasets import load_digits
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from sklearn_jeidnn import EarlyExitClassifier, metrics
from sklearn_jeidnn.backbones import ImageResNet, TabularResNet

SEED = 0
EXITS = "early exits"
MLP = "MLPClassifier((256, 256))"
LAST_EXIT = "last exit for all rows"
PLAIN = "plain backbone, 6 blocks"
CIFAR_EPOCHS = 12
# Where few blocks are the default, plain networks of fewer would say little.
SIX_BLOCKS = {"width": 32, "n_blocks": 6}
SIX_TABULAR_BLOCKS = {"width": 256, "n_blocks": 6}
TRAINING = {"max_epochs": 100}
# Least accuracy and largest mean cost, from the project's first issue.
WANTED = {
    "adult": (0.855, 0.35),
    "letter": (0.975, 0.4),
    "digits": (0.972, 0.4),
    "pendigits": (0.975, 0.4),
    "krkopt": (0.875, 0.5),
    "digit_images": (0.985, 0.5),
}
# A point less than was measured.
LEAST_ACCURACY = {
    "adult": 0.851,
    "letter": 0.972,
    "digits": 0.967,
    "pendigits": 0.972,
    "krkopt": 0.903,
    "digit_images": 0.982,
    "cifar10": 0.637,
}


def load(name):
    """(split, parameters of the ready backbone, parameters of the training)"""
    if name == "digit_images":
        X, y = load_digits(return_X_y=True)
        split = train_test_split(
            np.float32(X.reshape(-1, 8, 8)), y, test_size=0.3, stratify=y, random_state=0
        )
        return datasets.Split(*split), SIX_BLOCKS, TRAINING
    if name == "cifar10":
        split = datasets.load_cifar10(n_train=10000)
        flat = [np.float32(X.reshape(len(X), -1)) for X in (split.X_train, split.X_test)]
        split = datasets.Split(*flat, split.y_train, split.y_test)
        return (
            split,
            {"image_shape": (3, 32, 32), **SIX_BLOCKS},
            {**TRAINING, "max_epochs": CIFAR_EPOCHS},
        )
    return datasets.load(name), SIX_TABULAR_BLOCKS, TRAINING


def run(name, quick):
    """Records of one data set, one for each classifier."""
    split, module_params, training = load(name)
    training = {"max_epochs": 5} if quick else training
    rows = [early_exits(split, module_params, training)]
    estimator, last = rows[0].pop("estimator"), rows[0]
    rows += single_exits(estimator, split)
    rows += plain_backbones(split, module_params, training, quick)
    rows += scikit_learns_own(split, quick) if split.X_train.ndim == 2 else []
    for row in rows:
        row["ahead_at_cost"] = (
            row["mean_cost"] <= last["mean_cost"] and row["accuracy"] > last["accuracy"]
        )
    return [{"data": name, "seed": SEED, "n_test": len(split.y_test), **row} for row in rows]


def record(classifier, accuracy, mean_cost=np.nan, fit_seconds=np.nan, **more):
    blank = dict.fromkeys(
        ["coverage", "band_low", "band_high", "set_size", "n_calibration"], np.nan
    )
    return {
        "classifier": classifier,
        "accuracy": accuracy,
        "mean_cost": mean_cost,
        "fit_seconds": fit_seconds,
        **blank,
        **more,
    }


def early_exits(split, module_params, training):
    params = {f"module__{name}": value for name, value in module_params.items()}
    clf = EarlyExitClassifier(
        companion=None, cost_weight=0.1, random_state=SEED, **training, **params
    )
    # As a user has it: flattened pixels come through a pipeline.
    pipeline = make_pipeline(FunctionTransformer(), clf)
    start = time.perf_counter()
    pipeline.fit(split.X_train, split.y_train)
    seconds = time.perf_counter() - start
    codes = np.searchsorted(clf.classes_, split.y_test)
    sets = clf.predict_set(split.X_test, confidence_level=0.9)
    n_calibration = len(clf.conformity_scores_)
    low, high = metrics.coverage_band(n_calibration, len(codes), 0.9)
    return record(
        EXITS,
        pipeline.score(split.X_test, split.y_test),
        clf.mean_cost(split.X_test),
        seconds,
        coverage=metrics.coverage(sets, codes),
        band_low=low,
        band_high=high,
        set_size=metrics.mean_set_size(sets),
        n_calibration=n_calibration,
        estimator=clf,
    )


def single_exits(clf, split):
    """The cheapest exit that would be as good as the gates (if none is, the best), and the last exit."""
    accuracies = 1 - clf.exit_answers(split.X_test, split.y_test).exit_errors()
    as_good = np.flatnonzero(accuracies >= clf.score(split.X_test, split.y_test))
    chosen = as_good[0] if len(as_good) else accuracies.argmax()
    name = f"exit {chosen} for all rows ({'cheapest as good' if len(as_good) else 'best'})"
    return [
        record(name, accuracies[chosen], clf.exit_costs_[chosen]),
        record(LAST_EXIT, accuracies[-1], clf.exit_costs_[-1]),
    ]


def plain_backbones(split, module_params, training, quick):
    is_image = split.X_train.ndim > 2 or "image_shape" in module_params
    backbone_class = ImageResNet if is_image else TabularResNet
    codes = np.unique(split.y_train, return_inverse=True)[1]
    test_codes = np.searchsorted(np.unique(split.y_train), split.y_test)
    rows, full_cost = [], None
    for n_blocks in (6, 1) if quick else (6, 3, 2, 1):
        start = time.perf_counter()
        params = {**training, **module_params, "n_blocks": n_blocks}
        net, cost = train_plain(backbone_class, split.X_train, codes, seed=SEED, **params)
        full_cost = full_cost or cost
        accuracy = np.mean(net.predict(split.X_test) == test_codes)
        seconds = time.perf_counter() - start
        rows.append(
            record(f"plain backbone, {n_blocks} blocks", accuracy, cost / full_cost, seconds)
        )
    return rows


def scikit_learns_own(split, quick):
    mlp = MLPClassifier((256, 256), random_state=SEED, max_iter=5 if quick else 200)
    rivals = {
        MLP: make_pipeline(StandardScaler(), mlp),
        "HistGradientBoosting": HistGradientBoostingClassifier(
            random_state=SEED, max_iter=10 if quick else 100
        ),
    }
    rows = []
    for name, rival in rivals.items():
        start = time.perf_counter()
        rival.fit(split.X_train, split.y_train)
        seconds = time.perf_counter() - start
        rows.append(record(name, rival.score(split.X_test, split.y_test), fit_seconds=seconds))
    return rows


def report(name, rows):
    print(
        f"\n{name}\n{'':42}{'accuracy':>9}{'cost':>7}{'fit s':>7}{'coverage':>10}{'99 % band':>18}{'set size':>9}"
    )
    for row in rows:
        cost = f"{row['mean_cost']:.3f}" if np.isfinite(row["mean_cost"]) else ""
        seconds = f"{row['fit_seconds']:.0f}" if np.isfinite(row["fit_seconds"]) else ""
        line = f"{row['classifier']:42}{row['accuracy']:9.4f}{cost:>7}{seconds:>7}"
        if np.isfinite(row["coverage"]):
            band = f"[{row['band_low']:.4f}, {row['band_high']:.4f}]"
            line += f"{row['coverage']:10.4f}{band:>18}{row['set_size']:9.2f}"
        print(line + ("   <- ahead at this cost" if row["ahead_at_cost"] else ""), flush=True)


def of(rows, classifier):
    """The row of a classifier; where an older run did not measure it, one of NaN."""
    found = [row for row in rows if row["classifier"] == classifier]
    return found[0] if found else record(classifier, np.nan)


def lost_by_exits(rows):
    """Accuracy that the last exit gives up to the plain backbone trained alone."""
    return of(rows, PLAIN)["accuracy"] - of(rows, LAST_EXIT)["accuracy"]


def targets(rows):
    own, plain = of(rows, EXITS), of(rows, PLAIN)["accuracy"]
    if own["data"] in WANTED:
        accuracy, cost = WANTED[own["data"]]
        yield Claim("accuracy", own["accuracy"], ">=", accuracy)
        yield Claim("mean cost", own["mean_cost"], "<=", cost)
    if own["data"] != "digit_images":
        yield Claim("lead of the MLP", of(rows, MLP)["accuracy"] - own["accuracy"], "<=", 0.003)
    chance = 2 * np.sqrt(2 * plain * (1 - plain) / own["n_test"])
    yield Claim("lost by exits (bound: chance)", lost_by_exits(rows), "<=", chance)


def regressions(rows):
    own = of(rows, EXITS)
    yield Claim("accuracy", own["accuracy"], ">=", LEAST_ACCURACY[own["data"]])
    yield Claim("mean cost", own["mean_cost"], "<", 1)
    # Other writers in the test rows: pen digits' official split is not exchangeable (see coverage.py).
    if own["data"] != "pendigits":
        yield Claim("coverage above its band's end", own["coverage"], ">=", own["band_low"])
        yield Claim("coverage below its band's end", own["coverage"], "<=", own["band_high"])
    # CIFAR-10 was last measured when the last exit was not.
    if not np.isnan(lost_by_exits(rows)):
        yield Claim("lost by exits", lost_by_exits(rows), "<=", 0.01)


DATA = ["cifar10", *WANTED]
CLAIMS = {f"main_job_{name}": Claims(targets, regressions) for name in DATA}


if __name__ == "__main__":
    parser = claims.parser(__doc__, quick="five epochs, fewer baselines")
    parser.add_argument("--data", nargs="+", default=DATA, choices=DATA)
    parser.add_argument("--jobs", type=int, default=2, help="data sets at once, a core each")
    options = claims.parse(parser, CLAIMS)
    jobs = Parallel(options.jobs, return_as="generator_unordered")
    for rows in jobs(delayed(run)(data, options.quick) for data in options.data):
        report(rows[0]["data"], rows)
        records.write(f"main_job_{rows[0]['data']}", rows, options.quick)
    claims.settle(CLAIMS, [f"main_job_{name}" for name in options.data], options.quick)
