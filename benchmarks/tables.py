"""Is the default as good on tables as what users have today, and at what price?

Every table as it comes: data frames, words included, nothing scaled. Beside the default classifier, each with
its defaults: boosted trees of three libraries, extra trees, and RealMLP. Accuracy and log-loss on the test rows, CPU
seconds of the fit, microseconds a row in one call of all test rows, in calls of 256, and in calls of one. Means over
five splits of the tables on which all fits take less than a minute; of others there is one split.
"""

import time

import claims
import datasets
import numpy as np
import records
from claims import Claim, Claims
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import ExtraTreesClassifier, HistGradientBoostingClassifier
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder

from sklearn_jeidnn import EarlyExitClassifier

OWN, BOOSTED, REALMLP = "EarlyExitClassifier", "HistGradientBoosting", "RealMLP-TD"
DATA = [*datasets.UNTUNED, *datasets.TABLES]
# Of tables on which all classifiers are fitted in less than a minute and that come without a split; of others one.
N_SPLITS = dict.fromkeys([*datasets.UNTUNED, "digits"], 5)
# From the issue.
WANTED = {"phoneme": 0.885, "adult": 0.865, "letter": 0.98}
MOST_BEHIND = 0.007


def classifiers(seed, quick):
    """Name -> function that makes a classifier for a training frame."""
    from catboost import CatBoostClassifier
    from lightgbm import LGBMClassifier
    from pytabkit import RealMLP_TD_Classifier

    few = {"max_epochs": 3} if quick else {}
    return {
        OWN: lambda X: EarlyExitClassifier(random_state=seed, **few),
        BOOSTED: lambda X: HistGradientBoostingClassifier(random_state=seed),
        "LightGBM": lambda X: LGBMClassifier(random_state=seed, verbose=-1, n_jobs=1),
        "CatBoost": lambda X: CatBoostClassifier(
            random_seed=seed,
            verbose=0,
            thread_count=1,
            cat_features=list(X.select_dtypes("category").columns),
        ),
        "ExtraTrees, 300": lambda X: make_pipeline(
            make_column_transformer(
                (
                    OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1),
                    make_column_selector(dtype_include="category"),
                ),
                remainder="passthrough",
            ),
            ExtraTreesClassifier(300, random_state=seed),
        ),
        REALMLP: lambda X: RealMLP_TD_Classifier(
            random_state=seed, device="cpu", n_threads=1, n_cv=1, verbosity=0
        ),
    }


def as_categories(frames):
    """Frames whose words are of the dtype of categories, as the rivals ask for them."""
    words = [name for name, dtype in frames[0].dtypes.items() if dtype.kind not in "biuf"]
    return [frame.astype(dict.fromkeys(words, "category")) for frame in frames]


def run(name, seed, names, quick):
    """Records of one split of a table."""
    split = datasets.load_frames(name, seed)
    rival_frames = as_categories([split.X_train, split.X_test])
    codes = {label: code for code, label in enumerate(np.unique(split.y_train).tolist())}
    y_train, y_test = (
        np.array([codes[label] for label in y.tolist()]) for y in (split.y_train, split.y_test)
    )
    for classifier, make in classifiers(seed, quick).items():
        if names and classifier not in names:
            continue
        own = classifier == OWN
        X_train, X_test = (split.X_train, split.X_test) if own else rival_frames
        clf = make(X_train)
        start = time.process_time()
        clf.fit(X_train, y_train)
        seconds = time.process_time() - start
        probabilities = np.float64(clf.predict_proba(X_test))
        yield {
            "data": name,
            "split": seed,
            "classifier": classifier,
            "accuracy": np.mean(probabilities.argmax(1) == y_test),
            "log_loss": log_loss(y_test, probabilities, labels=list(range(len(codes)))),
            "mean_cost": clf.mean_cost(X_test) if own else np.nan,
            "fit_cpu_seconds": seconds,
            "microseconds": microseconds(clf, X_test, len(X_test)),
            "microseconds_of_256": microseconds(clf, X_test, 256),
            "microseconds_of_one": microseconds(clf, X_test, 1),
            "seed": seed,
        }


def microseconds(clf, X, n):
    """Median time a row over calls of so many rows."""
    times = []
    for start in range(0, min(len(X), 10 * n), n):
        part = X.iloc[start : start + n]
        begin = time.perf_counter()
        clf.predict(part)
        times.append((time.perf_counter() - begin) / len(part))
    return 1e6 * float(np.median(times))


def report(row):
    print(
        f"{row['data']:12}{row['split']:2} {row['classifier']:22}{100 * row['accuracy']:7.2f} %"
        f"{row['log_loss']:8.4f}{row['fit_cpu_seconds']:8.1f} s{row['microseconds']:9.1f} us"
        f"{row['microseconds_of_256']:9.1f} us{row['microseconds_of_one']:9.0f} us",
        flush=True,
    )


def mean(rows, data, classifier, key="accuracy"):
    found = [row[key] for row in rows if (row["data"], row["classifier"]) == (data, classifier)]
    return float(np.mean(found)) if found else np.nan


def measured(rows):
    found = {row["data"] for row in rows}
    return [name for name in DATA if name in found]


def targets(rows):
    data = measured(rows)
    for rival in (BOOSTED, REALMLP):
        lead = np.mean([mean(rows, name, OWN) - mean(rows, name, rival) for name in data])
        yield Claim(f"mean lead over {rival}", lead, ">=", 0)
    for name in data:
        best = max(mean(rows, name, rival) for rival in (BOOSTED, REALMLP))
        yield Claim(f"{name}: behind", best - mean(rows, name, OWN), "<=", MOST_BEHIND)
    for name, least in WANTED.items():
        yield Claim(f"{name}: accuracy", mean(rows, name, OWN), ">=", least)
    faster = [
        mean(rows, name, OWN, "microseconds") <= mean(rows, name, BOOSTED, "microseconds")
        for name in data
    ]
    yield Claim(
        "share of tables on which one call is no slower than trees'", np.mean(faster), ">=", 0.9
    )


def regressions(rows):
    for name in measured(rows):
        best = max(mean(rows, name, rival) for rival in (BOOSTED, REALMLP))
        yield Claim(f"{name}: behind", best - mean(rows, name, OWN), "<=", 0.08)


QUESTION = "tables"
CLAIMS = {QUESTION: Claims(targets, regressions)}


if __name__ == "__main__":
    parser = claims.parser(__doc__, quick="three epochs")
    parser.add_argument("--data", nargs="+", default=DATA, choices=DATA)
    parser.add_argument("--splits", nargs="+", type=int, help="all by default")
    parser.add_argument("--classifiers", nargs="+", help="only these, by name; nothing is written")
    options = claims.parse(parser, CLAIMS)
    rows = []
    if not options.classifiers and records.is_there(QUESTION, options.quick):
        stored = records.read(QUESTION, options.quick)
        rows = [row for row in stored if row["data"] not in options.data]
    for name in options.data:
        for seed in options.splits or range(1 if options.quick else N_SPLITS.get(name, 1)):
            for row in run(name, seed, options.classifiers, options.quick):
                report(row)
                rows.append(row)
        if not options.classifiers:
            records.write(QUESTION, rows, options.quick)
    if not options.classifiers:
        claims.settle(CLAIMS, [QUESTION], options.quick)
