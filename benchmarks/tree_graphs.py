"""Do ONNX graphs of boosted trees on tables with categories answer as scikit-learn, and how much sooner?

10,000 test rows each, drawn with replacement; a tenth of all values goes missing, and a twentieth of the categories
becomes one that fit did not see. scikit-learn, ONNX Runtime, and a graph of trees that take categories for numbers are
called in turns, in one thread each; times are of its CPU, which other jobs on the machine lengthen less than clocks'.
"""

import time
import warnings
from types import SimpleNamespace

import claims
import datasets
import numpy as np
import records
from claims import Claim, Claims

from sklearn_jeidnn._engines.onnx_graphs import ANSWERS, NUMBERS
from sklearn_jeidnn._fit.classifiers import ClassifierStage
from sklearn_jeidnn._fit.onnx_classifiers import classifier_as_onnx
from sklearn_jeidnn._fit.trees import boosted_trees
from sklearn_jeidnn._table_columns import columns_of

SEED = 0
N_ROWS, N_TRAIN = 10_000, 12_000
SIZES = {1: 100, 256: 30, N_ROWS: 3}
UNSEEN = np.float32(-1)
LEAST = 1e-7
# Which columns hold categories; identifiers are more than boosted trees tell apart.
COLUMNS = {
    "adult": "from_dtype",
    "adult, identifiers": ["fnlwgt"],
    "churn": ["state", "area_code", "international_plan", "voice_mail_plan"],
    "krkopt": [
        f"{p}_{axis}"
        for p in ("white_king", "white_rook", "black_king")
        for axis in ("file", "rank")
    ],
}
# Of chess endgames the first classes, since boosted trees have at most ten.
N_CLASSES = {"krkopt": 6}


def load(name):
    """(numbers that train, labels, numbers of test rows with gaps, which columns hold categories)"""
    split = datasets.load_frames(name.split(",")[0])
    chosen = COLUMNS[name]
    if chosen != "from_dtype":
        words = [c for c, dtype in split.X_train.dtypes.items() if dtype.kind not in "biuf"]
        chosen = sorted({*words, *chosen})
    columns = columns_of(split.X_train, chosen)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        X_train, X_test = (np.float32(columns.numbers(X)) for X in (split.X_train, split.X_test))
    rng = np.random.default_rng(SEED)
    X_test = X_test[rng.integers(len(X_test), size=N_ROWS)]
    X_test = np.where((rng.random(X_test.shape) < 0.05) & columns.is_categorical, UNSEEN, X_test)
    X_test = np.where(rng.random(X_test.shape) < 0.1, np.float32(np.nan), X_test)
    some = np.isin(split.y_train, np.unique(split.y_train)[: N_CLASSES.get(name)])
    return X_train[some], split.y_train[some], X_test, columns.is_categorical


def session_of(classifier):
    import onnxruntime

    classes = classifier.classes_
    schema = SimpleNamespace(classes=classes, n_classes=len(classes))
    stage = ClassifierStage(classifier, schema, as_numbers=True, least_probability=LEAST)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(
        classifier_as_onnx(stage), options, providers=["CPUExecutionProvider"]
    )


def run(name, n_train):
    """Records of one table, one for each size of a call."""
    X_train, y, X_test, categorical = load(name)
    rows = np.random.default_rng(SEED).permutation(len(y))[:n_train]
    classifier = boosted_trees(X_train, categorical, SEED).fit(X_train[rows], y[rows])
    session = session_of(classifier)

    # Trees that take positions of categories for numbers.
    of_numbers = boosted_trees(X_train, np.zeros_like(categorical), SEED)
    numbers_only = session_of(of_numbers.fit(X_train[rows], y[rows]))

    def in_onnx(X):
        return np.exp(session.run([ANSWERS], {NUMBERS: X})[0])

    def without_categories(X):
        return np.exp(numbers_only.run([ANSWERS], {NUMBERS: X})[0])

    answers = (classifier.predict_proba, in_onnx, without_categories)
    difference = np.abs(in_onnx(X_test) - classifier.predict_proba(X_test)).max()
    for n, n_calls in SIZES.items():
        calls = [np.roll(X_test, -i * n, axis=0)[:n] for i in range(n_calls)]
        times = np.array([[seconds(f, X) for f in answers] for X in calls])
        in_sklearn, own, without = 1e6 * np.median(times, axis=0)
        yield {
            "data": name,
            "seed": SEED,
            "n_classes": len(classifier.classes_),
            "n_categorical": int(categorical.sum()),
            "difference": difference,
            "rows_in_a_call": n,
            "microseconds_sklearn": in_sklearn,
            "microseconds_onnx": own,
            "microseconds_onnx_numbers_only": without,
            "ratio": np.median(times[:, 0] / times[:, 1]),
            "ratio_to_numbers_only": np.median(times[:, 1] / times[:, 2]),
        }


def seconds(answer, X):
    start = time.thread_time()
    answer(X)
    return time.thread_time() - start


def report(row):
    print(
        f"{row['data']:20}{row['n_classes']:3} classes, {row['n_categorical']:2} of categories, "
        f"{row['rows_in_a_call']:5} rows: scikit-learn {row['microseconds_sklearn']:8.0f} us, ONNX Runtime "
        f"{row['microseconds_onnx']:7.0f} us, ratio {row['ratio']:5.1f}; {row['ratio_to_numbers_only']:4.1f} times as "
        f"long as trees without categories; largest difference {row['difference']:.1e}",
        flush=True,
    )


def targets(rows):
    for row in rows:
        name = f"{row['data']}, {row['rows_in_a_call']} rows: times as fast as scikit-learn"
        yield Claim(name, row["ratio"], ">=", 1)


def regressions(rows):
    for row in rows:
        yield Claim(f"{row['data']}: difference", row["difference"], "<=", 1e-6)


QUESTION = "tree_graphs"
CLAIMS = {QUESTION: Claims(targets, regressions)}


if __name__ == "__main__":
    quick = claims.parse(claims.parser(__doc__, quick="1,000 training rows"), CLAIMS).quick
    rows = []
    for data in COLUMNS:
        for row in run(data, 1000 if quick else N_TRAIN):
            report(row)
            rows.append(row)
    records.write(QUESTION, rows, quick)
    claims.settle(CLAIMS, quick=quick)
