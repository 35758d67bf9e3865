"""Is a row's answer its own, whatever its batch, and the same in a second fit?

Five tables: fitted twice with one ``random_state``; test rows in another order, and in batches of
1, 32 and 1024.
"""

import claims
import datasets
import numpy as np
import records
from claims import Claim, Claims

from sklearn_jeidnn import EarlyExitClassifier

SEED = 0
EPOCHS = 5
BATCHES = [1, 32, 1024]


def load(name):
    return datasets.load(name)


def run(name, n_rows):
    split = load(name)
    clf, again = (
        EarlyExitClassifier(companion=None, random_state=SEED, max_epochs=EPOCHS).fit(
            split.X_train, split.y_train
        )
        for _ in range(2)
    )
    X = split.X_test[:n_rows]
    exit_index, labels = clf.predict_exit(X), clf.predict(X)
    order = np.random.default_rng(SEED).permutation(len(X))
    moved = np.sum(clf.predict_exit(X[order]) != exit_index[order]) + np.sum(
        clf.predict(X[order]) != labels[order]
    )
    for batch_size in BATCHES:
        clf.set_params(iterator_valid__batch_size=batch_size)
        moved += np.sum(clf.predict_exit(X) != exit_index) + np.sum(clf.predict(X) != labels)
    identical = np.array_equal(
        clf.set_params(iterator_valid__batch_size=1024).predict_proba(X), again.predict_proba(X)
    )
    return {
        "data": name,
        "seed": SEED,
        "n_rows": len(X),
        "moved": int(moved),
        "fits_identical": identical,
    }


def report(row):
    print(
        f"{row['data']:10} {row['n_rows']} rows: {row['moved']} labels or exits moved; second fit identical: "
        f"{row['fits_identical']}",
        flush=True,
    )


def regressions(rows):
    for row in rows:
        yield Claim(f"{row['data']}: labels or exits that moved", row["moved"], "<=", 0)
        yield Claim(f"{row['data']}: second fit identical", row["fits_identical"], ">=", True)


CLAIMS = {"exactness": Claims(claims.none, regressions)}


if __name__ == "__main__":
    quick = claims.parse(claims.parser(__doc__, quick="300 rows of each set"), CLAIMS).quick
    rows = []
    for data in datasets.TABLES:
        rows.append(run(data, 300 if quick else None))
        report(rows[-1])
    records.write("exactness", rows, quick)
    claims.settle(CLAIMS, quick=quick)
