"""Does one ONNX graph that leaves early by itself answer what the classifier answers, in no more time?

The file that ``export_onnx`` writes, in a session of ONNX Runtime, beside the engine that routes between its sessions
from Python, on arrays that are ready, and beside ``predictor()``, which checks them. Labels, exits and probabilities of
the first 10,000 rows in calls of 256. Times are of a sample, on one thread: what the processor spent on this process,
since other jobs run beside it; of each call the median over several turns, in which all take part, and then the mean
over the calls.
"""

import os
import tempfile
import time

import claims
import engines
import numpy as np
import onnxruntime
import records
import torch
from claims import Claim, Claims
from engines import CIFAR10, IN_INT8, LETTER, LOADERS, ONNX, PENDIGITS, SEED, cifar10, in_turns

from sklearn_jeidnn import EarlyExitClassifier

FILE, ENGINE, PREDICTOR = "file", "engine", "predictor"
OTHERS = ENGINE, PREDICTOR
OUTPUTS = ["label", "probabilities", "exit"]
N_COMPARED, BATCH_SIZE = 10_000, 256
# Rows that are timed, and in how many turns: a call of a table takes microseconds.
BATCHES = {256: 1024, 1: 60}
N_TURNS, N_IMAGE_TURNS = 41, 7
# All samples leave early, as many as are worth it, as few as that.
COST_WEIGHTS = [0.2, 0.02, 0.0]
MOST_RELATIVE, MOST_DIFFERENCE = 1.1, 1e-5
DATA = {
    LETTER: LOADERS[LETTER],
    f"{LETTER}_int8": engines.table(LETTER, precision="int8"),
    PENDIGITS: LOADERS[PENDIGITS],
    f"{PENDIGITS}_int8": engines.table(PENDIGITS, precision="int8"),
    CIFAR10: cifar10(),
    IN_INT8: LOADERS[IN_INT8],
}


def run(data, quick, memory):
    """Records of one data set."""
    params, train, held_out, (X, _) = DATA[data](quick)
    clf = EarlyExitClassifier(**params, engine=ONNX, memory=memory, random_state=SEED)
    clf.fit(*train, **held_out)
    # Rows of tables that train are compared, too: there are fewer others.
    X = X if len(X) >= N_COMPARED else np.concatenate([X, train[0]])
    X = np.ascontiguousarray(X[:N_COMPARED], dtype=np.float32)
    for cost_weight in COST_WEIGHTS:
        at = clf.at(cost_weight=cost_weight)
        session, n_bytes = exported(at)
        same = compared(at, session, X[:512] if quick else X)
        for batch_size, n_rows in BATCHES.items():
            row = {
                "data": data,
                "precision": at._predictor.cascade.engine.precision,
                "cost_weight": cost_weight,
                "n_exits": len(at.exits_) + 1,
                "batch_size": batch_size,
                "file_bytes": n_bytes,
                **same,
                **timed(
                    at, session, X[: min(n_rows, 2 * batch_size) if quick else n_rows], batch_size
                ),
                "seed": SEED,
            }
            report(row)
            yield row


def exported(clf):
    """A session of the classifier's file, and the file's size."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "classifier.onnx")
        clf.export_onnx(path)
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return session, os.path.getsize(path)


def compared(clf, session, X):
    """How many rows the file answers otherwise than the classifier."""
    batches = [X[i : i + BATCH_SIZE] for i in range(0, len(X), BATCH_SIZE)]
    answers = zip(*(session.run(OUTPUTS, {"X": batch}) for batch in batches), strict=True)
    labels, probabilities, exits = map(np.concatenate, answers)
    expected = clf._predictor.probabilities_and_exits((X,))
    difference = np.abs(probabilities - expected[0]).max(axis=1)
    return {
        "mean_cost": clf.exit_costs_[exits].mean(),
        "n_compared": len(X),
        "labels_differ": int((labels != clf.predict(X)).sum()),
        "exits_differ": int((exits != expected[1]).sum()),
        "probabilities_differ": int((difference > MOST_DIFFERENCE).sum()),
        "largest_difference": difference.max(),
    }


def timed(clf, session, X, batch_size):
    """Microseconds of a sample."""
    engine, predictor = clf._predictor.cascade.engine, clf.predictor()
    ways = {
        FILE: lambda batch: session.run(OUTPUTS, {"X": batch}),
        ENGINE: lambda batch: engine.route((batch,)),
        PREDICTOR: predictor.predict_proba,
    }
    n_turns = N_TURNS if X.ndim == 2 else N_IMAGE_TURNS
    times = in_turns(list(ways.values()), X, batch_size, n_turns, time.process_time)
    times = np.reshape(times, (len(ways), n_turns, -1))
    of_ways = 1e6 * np.median(times, axis=1).mean(axis=1)
    return {f"microseconds_{name}": value for name, value in zip(ways, of_ways, strict=True)}


def relative(row, to):
    return row[f"microseconds_{FILE}"] / row[f"microseconds_{to}"]


def report(row):
    differ = (
        f"{row['labels_differ']} labels, {row['exits_differ']} exits of {row['n_compared']} differ"
    )
    print(
        f"{name_of(row)}: {row[f'microseconds_{FILE}']:8.1f} us, {relative(row, ENGINE):.2f} of the engine's, "
        f"{relative(row, PREDICTOR):.2f} of predictor()'s; {differ}",
        flush=True,
    )


def name_of(row):
    return f"{row['data']} at {row['cost_weight']}, batch {row['batch_size']}"


def targets(rows):
    for row in rows:
        for to in OTHERS:
            yield Claim(f"{name_of(row)}: file / {to}", relative(row, to), "<=", MOST_RELATIVE)


def regressions(rows):
    for row in rows:
        for what in ("labels", "exits", "probabilities"):
            says = f"{name_of(row)}: {what} that differ, of {row['n_compared']}"
            yield Claim(says, row[f"{what}_differ"], "<=", 0)


QUESTION = "single_file"
CLAIMS = {QUESTION: Claims(targets, regressions)}


if __name__ == "__main__":
    parser = claims.parser(__doc__, quick="two epochs")
    parser.add_argument("--data", nargs="+", default=list(DATA), choices=list(DATA))
    parser.add_argument("--memory", help="folder that keeps trained networks")
    options = claims.parse(parser, CLAIMS)
    torch.set_num_threads(1)
    rows = records.of_others(QUESTION, options.data, options.quick)
    for data in options.data:
        rows += run(data, options.quick, options.memory)
        records.write(QUESTION, rows, options.quick)
    claims.settle(CLAIMS, [QUESTION], options.quick)
