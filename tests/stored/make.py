"""Write the files of this version of the format; run once for each version: python -m tests.stored.make."""

import pathlib

import numpy as np
from sklearn.datasets import load_iris

from sklearn_jeidnn import EarlyExitClassifier
from sklearn_jeidnn._store import exported, models

HERE = pathlib.Path(__file__).parent


def main():
    X, y = load_iris(return_X_y=True)
    clf = EarlyExitClassifier(
        companion=None, module__width=8, module__n_blocks=2, max_epochs=5, cv=None, random_state=0
    ).fit(X, y)
    clf.save(HERE / f"model_v{models.VERSION}.jeidnn")
    clf.export(HERE / f"export_v{exported.VERSION}")
    for name in (f"model_v{models.VERSION}", f"export_v{exported.VERSION}"):
        np.savetxt(HERE / f"{name}.csv", clf.predict_proba(X), delimiter=",", fmt="%.7f")


if __name__ == "__main__":
    main()
