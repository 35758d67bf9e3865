"""Do prediction sets hold, and stay the same sample by sample, on tables of few distinct rows?

Scores of equal rows tie with the threshold in exact arithmetic, and single precision gives a sample other last digits
in another batch. Adult's columns of categories: three of two values each (8 distinct rows), and all words but the
occupation and the country. 300 test rows calibrate, drawn many times; the others are covered as they are answered in
one call, and as they are answered one by one.
"""

import claims
import datasets
import numpy as np
import pandas as pd
import records
from claims import Claim, Claims
from sklearn.preprocessing import OneHotEncoder

from sklearn_jeidnn import EarlyExitClassifier, conformal

SEED = 0
LEVELS = [0.8, 0.9, 0.95]
N_CALIBRATION = 300
WORDS = ["workclass", "education", "marital_status", "relationship", "race", "sex"]


def load(name):
    """(training rows, labels, test rows, labels)"""
    table, y = datasets.read_table("adult")
    is_train = (table["split"] == "train").to_numpy()
    if name == "three binary columns":
        columns = [
            table["sex"] == "Male",
            table["marital_status"] == "Married-civ-spouse",
            table["education_num"] >= 13,
        ]
        X = np.float32(pd.concat(columns, axis=1))
    else:
        X = OneHotEncoder(sparse_output=False, dtype=np.float32).fit_transform(table[WORDS])
    return X[is_train], y[is_train], X[~is_train], y[~is_train]


def run(name, n_draws, max_epochs):
    """One record for each score and level."""
    X_train, y_train, X, y = load(name)
    clf = EarlyExitClassifier(companion=None, max_epochs=max_epochs, random_state=SEED)
    clf.fit(X_train, y_train)
    distinct, number = np.unique(X, axis=0, return_inverse=True)
    codes = np.searchsorted(clf.classes_, y)
    found = []
    for score in conformal.SCORES:
        clf.set_params(conformity_score=score).conformalize(X, y)
        one_by_one = answers_one_by_one(clf, distinct)
        rng = np.random.default_rng(SEED)
        counts = [
            beside(clf, X, codes, number, one_by_one, rng.permutation(len(X)))
            for _ in range(n_draws)
        ]
        found += [
            {
                "data": name,
                "seed": SEED,
                "score": score,
                "level": level,
                "n_calibration": N_CALIBRATION,
                "n_draws": n_draws,
                "n_distinct": len(distinct),
                **of_level,
            }
            for level, of_level in zip(LEVELS, summary(np.array(counts)), strict=True)
        ]
    return found


def answers_one_by_one(clf, distinct):
    """What sets read of each distinct row by itself."""
    found = [clf._predictor.routed((row[None],), np.zeros(1, int)) for row in distinct]
    return conformal.RoutedSamples(*(np.concatenate(column) for column in zip(*found, strict=True)))


def beside(clf, X, codes, number, one_by_one, order):
    """(coverage in one call, coverage one by one, share of sets that differ, mean size one by one) at each level"""
    calibration, test = order[:N_CALIBRATION], order[N_CALIBRATION:]
    clf.conformalize(X[calibration], clf.classes_[codes[calibration]])
    together = clf.predict_set(X[test], confidence_level=LEVELS)
    alone = clf._predictor.calibration.sets.sets(one_by_one, LEVELS)[number[test]]
    rows = np.arange(len(test))
    return np.stack(
        [
            together[rows, codes[test]].mean(0),
            alone[rows, codes[test]].mean(0),
            (together != alone).any(1).mean(0),
            alone.sum(1).mean(0),
        ]
    )


def summary(counts):
    """Of each level, from counts (n_draws, 4, n_levels)."""
    mean, error = counts.mean(0), counts.std(0) / np.sqrt(len(counts))
    names = ["coverage_in_one_call", "coverage_one_by_one", "share_that_differs", "size_one_by_one"]
    for level in range(len(LEVELS)):
        of_level = dict(zip(names, mean[:, level], strict=True))
        yield {**of_level, "standard_error": error[1, level]}


def report(rows):
    for row in rows:
        print(
            f"{row['data']:20} {row['score']:15} at {row['level']}: covered {row['coverage_in_one_call']:.4f} in one "
            f"call, {row['coverage_one_by_one']:.4f} +- {row['standard_error']:.4f} one by one; "
            f"{row['share_that_differs']:.4f} of the sets differ; size {row['size_one_by_one']:.3f}",
            flush=True,
        )


def regressions(rows):
    for row in rows:
        name = f"{row['data']}, {row['score']}, {row['level']}"
        least = row["level"] - 3 * row["standard_error"]
        yield Claim(f"{name}: coverage one by one", row["coverage_one_by_one"], ">=", least)
        yield Claim(f"{name}: sets that differ", row["share_that_differs"], "<=", 0)


CLAIMS = {"tied_scores": Claims(claims.none, regressions)}


if __name__ == "__main__":
    quick = claims.parse(claims.parser(__doc__, quick="a few draws"), CLAIMS).quick
    rows = []
    for name in ("three binary columns", "six columns of words"):
        rows += run(name, n_draws=20 if quick else 300, max_epochs=1 if quick else 5)
        report(rows[-len(conformal.SCORES) * len(LEVELS) :])
    records.write("tied_scores", rows, quick)
    claims.settle(CLAIMS, quick=quick)
