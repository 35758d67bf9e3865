"""How long do prediction sets for 1,000,000 rows and 100 classes take, beside MAPIE and crepes?

All three are given the same probabilities (random logits, softmax); each runs in a process of its own, whose largest
memory beyond the probabilities' is noted. crepes compares each label of each row with each calibration row: it is timed
on few rows, and its time for all is reckoned from them.

    pip install -c constraints.txt mapie crepes
    python benchmarks/set_speed.py
"""

import argparse
import json
import resource
import subprocess
import sys
import time

import claims
import numpy as np
import records
from claims import Claim, Claims

SEED = 0
LEVEL = 0.9
SCORES = ["lac", "randomized_aps"]
CREPES_ROWS = 100


def load(n_rows, n_classes):
    """(probabilities, class codes drawn from them)"""
    rng = np.random.default_rng(SEED)
    probabilities = np.empty((n_rows, n_classes))
    codes = np.empty(n_rows, dtype=int)
    for rows in np.array_split(np.arange(n_rows), max(1, n_rows // 10000)):
        own = np.exp(2 * rng.standard_normal((len(rows), n_classes)))
        own /= own.sum(axis=1, keepdims=True)
        probabilities[rows] = own
        drawn = own.cumsum(axis=1) < rng.random((len(rows), 1))
        codes[rows] = np.minimum(drawn.sum(axis=1), n_classes - 1)
    return probabilities, codes


def ours(score, probabilities, codes):
    from sklearn_jeidnn import conformal

    zeros = np.zeros(len(codes), dtype=int)
    start = time.perf_counter()
    uniform = zeros if score == "lac" else conformal.row_uniform([probabilities], SEED)
    rows = conformal.RoutedSamples(probabilities, zeros, uniform, zeros)
    fitted = conformal.ConformalSets(conformal.SCORES[score], conformal.pooled, rows, codes)
    conformalized = time.perf_counter()
    sets = fitted.sets(rows, [LEVEL])
    return conformalized - start, time.perf_counter() - conformalized, sets.sum() / len(sets)


def mapie(score, probabilities, codes):
    from mapie.classification import SplitConformalClassifier
    from sklearn.base import BaseEstimator, ClassifierMixin

    class Given(ClassifierMixin, BaseEstimator):
        """Answers the probabilities; its X are row numbers."""

        def fit(self, X, y):
            self.classes_ = np.arange(probabilities.shape[1])
            return self

        def predict(self, X):
            return self.predict_proba(X).argmax(axis=1)

        def predict_proba(self, X):
            return probabilities

    X = np.arange(len(codes))[:, None]
    name, further = ("lac", {}) if score == "lac" else ("aps", {"include_last_label": "randomized"})
    classifier = SplitConformalClassifier(
        Given().fit(X, codes), confidence_level=LEVEL, conformity_score=name, random_state=SEED
    )
    start = time.perf_counter()
    classifier.conformalize(X, codes)
    conformalized = time.perf_counter()
    _, sets = classifier.predict_set(X, conformity_score_params=further)
    return conformalized - start, time.perf_counter() - conformalized, sets.sum() / len(sets)


def crepes(score, probabilities, codes):
    from crepes import ConformalClassifier

    from sklearn_jeidnn import conformal

    start = time.perf_counter()
    if score == "lac":
        scores = 1 - probabilities
    else:
        scores = conformal.aps_scores(probabilities, conformal.row_uniform([probabilities], SEED))
    classifier = ConformalClassifier().fit(conformal.true_label_values(scores, codes))
    conformalized = time.perf_counter()
    sets = classifier.predict_set(scores[:CREPES_ROWS], confidence=LEVEL, smoothing=False)
    seconds = (time.perf_counter() - conformalized) * len(codes) / CREPES_ROWS
    return conformalized - start, seconds, sets.sum() / len(sets)


TOOLS = {"sklearn_jeidnn": ours, "mapie": mapie, "crepes": crepes}


def memory():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def alone(tool, score, n_rows, n_classes):
    """The record of one tool, in this process."""
    probabilities, codes = load(n_rows, n_classes)
    before = memory()
    conformalize, predict, size = TOOLS[tool](score, probabilities, codes)
    return {
        "tool": tool,
        "score": score,
        "n_rows": n_rows,
        "n_classes": n_classes,
        "seed": SEED,
        "conformalize_seconds": conformalize,
        "predict_set_seconds": predict,
        "further_gigabytes": memory() - before,
        "mean_set_size": size,
    }


def run(n_rows, n_classes):
    found = []
    for score in SCORES:
        for tool in TOOLS:
            command = [sys.executable, __file__, "--alone", tool, score]
            sizes = ["--rows", str(n_rows), "--classes", str(n_classes)]
            answer = subprocess.run([*command, *sizes], capture_output=True, text=True)
            if answer.returncode:
                print(f"{tool} does not run: {answer.stderr.strip().splitlines()[-1]}")
                continue
            found.append(json.loads(answer.stdout.splitlines()[-1]))
            report(found[-1])
    return found


def report(row):
    print(
        f"{row['tool']:16}{row['score']:16}{row['conformalize_seconds']:10.2f} +"
        f"{row['predict_set_seconds']:10.2f} s  {row['further_gigabytes']:.2f} GB more  "
        f"sets of {row['mean_set_size']:.3f}",
        flush=True,
    )


def seconds(row):
    return row["conformalize_seconds"] + row["predict_set_seconds"]


def beside_others(rows):
    """(our row, the row of another tool) of the same score"""
    own = {row["score"]: row for row in rows if row["tool"] == "sklearn_jeidnn"}
    return [(own[row["score"]], row) for row in rows if row["tool"] != "sklearn_jeidnn"]


def targets(rows):
    for own, other in beside_others(rows):
        name = f"{own['score']}: time relative to {other['tool']}"
        yield Claim(name, seconds(own) / seconds(other), "<=", 1)


def regressions(rows):
    for own, other in beside_others(rows):
        name = f"{own['score']}: time relative to {other['tool']}"
        yield Claim(name, seconds(own) / seconds(other), "<=", 1)
        # crepes answers a hundred rows only.
        if other["tool"] == "mapie":
            size = abs(own["mean_set_size"] / other["mean_set_size"] - 1)
            yield Claim(f"{own['score']}: size of sets, off MAPIE's by", size, "<=", 0.002)


CLAIMS = {"set_speed": Claims(targets, regressions)}


if __name__ == "__main__":
    parser = claims.parser(__doc__, quick="20,000 rows")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--alone", nargs=2, help=argparse.SUPPRESS)
    args = claims.parse(parser, CLAIMS)
    if args.alone:
        print(json.dumps(alone(*args.alone, args.rows, args.classes)))
        sys.exit()
    rows = run(20_000 if args.quick else args.rows, args.classes)
    records.write("set_speed", rows, args.quick)
    claims.settle(CLAIMS, quick=args.quick)
