"""Does an exported folder answer what its classifier answers, and how soon, where there is no torch?

Letter and Adult (words, missing values), fitted for few epochs, exported, and loaded in a process in which torch,
scikit-learn and SciPy cannot be imported. Labels and exits of up to 10,000 test rows at the classifier's operating
point and at half the cost, probabilities, sets; seconds of processor time to import and to load.
"""

import pathlib
import subprocess
import sys
import tempfile

import claims
import datasets
import numpy as np
import records
from claims import Claim, Claims

from sklearn_jeidnn import EarlyExitClassifier

SEED = 0
EPOCHS = 5
N_ROWS = 10_000
BUDGET = 0.5
# What cannot be imported there.
ABSENT = ["torch", "skorch", "sklearn", "scipy", "joblib", "onnx", "skops", "safetensors"]
ASKED = """
import sys, time
[sys.modules.__setitem__(name, None) for name in {absent}]
start = time.process_time()
from sklearn_jeidnn.runtime import Predictor
imported = time.process_time()
predictor = Predictor.load({folder!r})
loaded = time.process_time()
import pickle
import numpy as np
X = pickle.load(open({samples!r}, "rb"))
found = {{"seconds": [imported - start, loaded - imported]}}
for name, at in (("own", predictor), ("half", predictor.at(budget={budget}))):
    found |= {{
        f"{{name}}_labels": at.predict(X).astype(str),
        f"{{name}}_exits": at.predict_exit(X),
        f"{{name}}_probabilities": at.predict_proba(X),
        f"{{name}}_sets": at.predict_set(X),
    }}
np.savez({answers!r}, **found)
"""


def ask(folder, X, budget):
    """What an exported folder answers in a process of its own."""
    import pickle

    samples, answers = folder.parent / "samples.pickle", folder.parent / "answers.npz"
    samples.write_bytes(pickle.dumps(X))
    code = ASKED.format(
        absent=ABSENT,
        folder=str(folder),
        samples=str(samples),
        answers=str(answers),
        budget=budget,
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    return np.load(answers)


def run(name, engine, n_rows):
    split = datasets.load_frames(name)
    clf = EarlyExitClassifier(
        max_epochs=EPOCHS, cv=None, engine=engine, random_state=SEED, companion="auto"
    ).fit(split.X_train[:8000], split.y_train[:8000])
    X = split.X_test[:n_rows]
    budget = max(BUDGET, 1.01 * float(clf.exit_costs_[0]))
    with tempfile.TemporaryDirectory() as parent:
        folder = pathlib.Path(parent) / name
        clf.export(folder)
        n_bytes = sum(file.stat().st_size for file in folder.iterdir())
        found = ask(folder, X, budget)
    row = {"data": name, "engine": engine, "seed": SEED, "n_rows": len(X), "n_bytes": n_bytes}
    row["import_seconds"], row["load_seconds"] = found["seconds"]
    for point, at in (("own", clf), ("half", clf.at(budget=budget))):
        row[f"{point}_labels_differ"] = int(
            (at.predict(X).astype(str) != found[f"{point}_labels"]).sum()
        )
        row[f"{point}_exits_differ"] = int((at.predict_exit(X) != found[f"{point}_exits"]).sum())
        difference = np.abs(at.predict_proba(X) - found[f"{point}_probabilities"])
        row[f"{point}_probabilities_differ_by"] = float(difference.max())
        row[f"{point}_sets_differ"] = int((at.predict_set(X) != found[f"{point}_sets"]).sum())
    return row


def regressions(rows):
    for row in rows:
        name = f"{row['data']}, {row['engine']}"
        most = 0 if row["engine"] == "onnxruntime" else 3
        for point in ("own", "half"):
            for what in ("labels", "exits"):
                key = f"{point}_{what}_differ"
                yield Claim(f"{name}: {what} that differ ({point})", row[key], "<=", most)
        yield Claim(f"{name}: probabilities", row["own_probabilities_differ_by"], "<=", 1e-5)


def targets(rows):
    for row in rows:
        seconds = row["import_seconds"] + row["load_seconds"]
        yield Claim(f"{row['data']}, {row['engine']}: import and load", seconds, "<=", 0.5)


CLAIMS = {"exported": Claims(targets, regressions)}


if __name__ == "__main__":
    quick = claims.parse(claims.parser(__doc__, quick="300 rows"), CLAIMS).quick
    rows = []
    for data in ("letter", "adult"):
        for engine in ("onnxruntime", "torch"):
            rows.append(run(data, engine, 300 if quick else N_ROWS))
            print(rows[-1], flush=True)
    records.write("exported", rows, quick)
    claims.settle(CLAIMS, quick=quick)
