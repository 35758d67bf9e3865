"""What does ``memory=`` save a grid search over cost weights on Letter?

Eight cost weights and five folds, one process, against the five fits that train a backbone (one
cost weight, no memory). The backbone trains for fewer epochs than by default, which makes the
ratio no better: gates take the same time however long it trained.
"""

import tempfile
import time

import claims
import datasets
import records
from claims import Claim, Claims
from sklearn.model_selection import GridSearchCV

from sklearn_jeidnn import EarlyExitClassifier

SEED = 0
EPOCHS = 30
COST_WEIGHTS = [0, 0.01, 0.03, 0.05, 0.1, 0.2, 0.5, 1]


def load():
    return datasets.load("letter")


def search_seconds(split, epochs, cost_weights, memory):
    clf = EarlyExitClassifier(companion=None, max_epochs=epochs, memory=memory, random_state=SEED)
    search = GridSearchCV(
        clf, {"cost_weight": cost_weights}, cv=5, refit=False, error_score="raise"
    )
    start = time.perf_counter()
    search.fit(split.X_train, split.y_train)
    return time.perf_counter() - start, search.cv_results_["mean_test_score"]


def run(epochs):
    split = load()
    fits, (alone,) = search_seconds(split, epochs, [0.1], None)
    with tempfile.TemporaryDirectory() as folder:
        whole, scores = search_seconds(split, epochs, COST_WEIGHTS, folder)
    return {
        "data": "letter",
        "seed": SEED,
        "max_epochs": epochs,
        "five_fits_seconds": fits,
        "search_seconds": whole,
        "ratio": whole / fits,
        "score_without_memory": alone,
        "score_with_memory": scores[COST_WEIGHTS.index(0.1)],
    }


def report(row):
    print(
        f"five fits {row['five_fits_seconds']:.0f} s; 40 fits with memory {row['search_seconds']:.0f} s, "
        f"{row['ratio']:.2f} times that; accuracy at cost_weight=0.1 {row['score_without_memory']:.4f} and "
        f"{row['score_with_memory']:.4f}"
    )


def targets(rows):
    (row,) = rows
    yield Claim("time of the search over that of the five fits", row["ratio"], "<=", 1.5)


def regressions(rows):
    (row,) = rows
    moved = abs(row["score_without_memory"] - row["score_with_memory"])
    yield Claim("change of the score by the memory", moved, "<=", 0)
    yield Claim("time of the search over that of the five fits", row["ratio"], "<=", 2)
    yield Claim("accuracy of the five folds", row["score_with_memory"], ">=", 0.953)


CLAIMS = {"memory": Claims(targets, regressions)}


if __name__ == "__main__":
    quick = claims.parse(claims.parser(__doc__, quick="two epochs"), CLAIMS).quick
    row = run(2 if quick else EPOCHS)
    report(row)
    records.write("memory", [row], quick)
    claims.settle(CLAIMS, quick=quick)
