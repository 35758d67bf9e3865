"""Does a grid search over cost weights run through on Letter, on two processes?"""

import time

import claims
import datasets
import records
from claims import Claim, Claims
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_jeidnn import EarlyExitClassifier

SEED = 0
EPOCHS = 10
COST_WEIGHTS = [0, 0.03, 0.1, 0.3, 1]
# A point less than was measured.
LEAST_SCORE = {0: 0.917, 0.03: 0.917, 0.1: 0.914, 0.3: 0.898, 1: 0.877}


def load():
    return datasets.load("letter")


def run(epochs):
    split = load()
    pipeline = make_pipeline(
        StandardScaler(), EarlyExitClassifier(companion=None, max_epochs=epochs, random_state=SEED)
    )
    grid = {"earlyexitclassifier__cost_weight": COST_WEIGHTS}
    start = time.perf_counter()
    search = GridSearchCV(pipeline, grid, cv=3, n_jobs=2, error_score="raise")
    search.fit(split.X_train, split.y_train)
    seconds = time.perf_counter() - start
    test_accuracy = search.score(split.X_test, split.y_test)
    results = search.cv_results_
    return [
        {
            "data": "letter",
            "seed": SEED,
            "max_epochs": epochs,
            "cost_weight": weight,
            "mean_test_score": score,
            "search_seconds": seconds,
            "test_accuracy_of_best": test_accuracy,
        }
        for weight, score in zip(COST_WEIGHTS, results["mean_test_score"], strict=True)
    ]


def report(rows):
    for row in rows:
        print(
            f"cost_weight={row['cost_weight']:<5g} accuracy of 3 folds {row['mean_test_score']:.4f}"
        )
    first = rows[0]
    print(
        f"15 fits and one refit: {first['search_seconds']:.0f} s; test accuracy {first['test_accuracy_of_best']:.4f}"
    )


def regressions(rows):
    for row in rows:
        name = f"cost_weight={row['cost_weight']:g}: accuracy of 3 folds"
        yield Claim(name, row["mean_test_score"], ">=", LEAST_SCORE[row["cost_weight"]])
    yield Claim("test accuracy of the best", rows[0]["test_accuracy_of_best"], ">=", 0.938)


CLAIMS = {"grid_search": Claims(claims.none, regressions)}


if __name__ == "__main__":
    quick = claims.parse(claims.parser(__doc__, quick="two epochs"), CLAIMS).quick
    rows = run(2 if quick else EPOCHS)
    report(rows)
    records.write("grid_search", rows, quick)
    claims.settle(CLAIMS, quick=quick)
