"""Does a call take the time that is promised?

``cost="seconds"`` promises that a sample takes ``mean_cost(X)`` times ``plain_seconds_``, which is the time of the bare
module's own call. Here calls of ``predictor().predict`` are timed in turns with calls of the bare module (in ONNX
Runtime of the whole graph), in batches of 256 and sample by sample, each at prices of that batch size. Operating points
are that of the fit, and thresholds on the confidence that reach a tenth, a third and two thirds of the way from the
first exit to the last. What is measured over what is promised is relative to the bare module's call in the same turn,
since other jobs slow down both; since these come and go, exits are priced and calls are measured three times, and what
counts is the median.
"""

import time

import claims
import datasets
import numpy as np
import records
import torch
from claims import Claim, Claims
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

from sklearn_jeidnn import EarlyExitClassifier

SEED = 0
ENGINES = TORCH, ONNX = "torch", "onnxruntime"
CONVOLUTIONS, PERCEPTRON, TRANSFORMER = "digit_images", "letter", "movie_reviews"
CIFAR10, COMPANIONS, BEHIND = "cifar10", "pendigits", "krkopt"
LABELS = {
    CONVOLUTIONS: "two convolutions, digits as images",
    PERCEPTRON: "two-layer perceptron, Letter",
    TRANSFORMER: "transformer of width 64, movie reviews",
    CIFAR10: "shared network, CIFAR-10",
    COMPANIONS: "default classifier, pen digits",
    BEHIND: "network behind a companion, chess endgames",
}
# Rows that are predicted in each turn, in batches and sample by sample.
BATCHES = {256: 1024, 1: 100}
N_TURNS, N_REPEATS = 7, 3
FITTED = "as fitted"
SHARES = {"a tenth": 0.1, "a third": 1 / 3, "two thirds": 2 / 3}
# Largest measured over promised time (project's 21st issue), and the least in batches.
MOST, LEAST = {256: 1.05, 1: 1.1}, 0.9


def convolutions(quick):
    """Two convolutions on scikit-learn's digits."""
    X, y = load_digits(return_X_y=True)
    X = np.float32(X.reshape(-1, 1, 8, 8) / 16)
    parts = train_test_split(X, y, test_size=0.3, stratify=y, random_state=0)
    layers = [
        *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(512, 10)),
    ]
    return own_network(layers, parts, 2 if quick else 20)


def perceptron(quick):
    """Two hidden layers on Letter."""
    split = datasets.load("letter")
    X_train, X_test = (X / 8 - 1 for X in (split.X_train, split.X_test))
    layers = [nn.Linear(16, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 26)]
    parts = X_train, X_test, split.y_train, split.y_test
    return own_network(layers, parts, 2 if quick else 20)


def own_network(layers, parts, max_epochs):
    torch.manual_seed(0)
    X_train, X_test, y_train, y_test = parts
    params = {"module": nn.Sequential(*layers), "companion": None, "max_epochs": max_epochs}
    return params, (X_train, y_train), {}, (X_test, y_test)


def transformer(quick):
    split = datasets.load_movie_reviews()
    params = {
        "module": datasets.small_transformer(split.X_train),
        "companion": None,
        "max_epochs": 1 if quick else 4,
    }
    return params, (split.X_train, split.y_train), {}, (split.X_test, split.y_test)


def cifar10(quick):
    params, train, held_out, test = datasets.load_frozen_cifar10_fit()
    epochs = {"max_epochs": 1} if quick else {}
    return {**params, **epochs}, train, held_out, test


def with_companions(quick):
    split = datasets.load("pendigits")
    params = {"max_epochs": 2} if quick else {}
    return params, (split.X_train, split.y_train), {}, (split.X_test, split.y_test)


def behind_a_companion(quick):
    """A network behind a smaller one, where many samples go on."""
    split = datasets.load("krkopt")
    small, large = (None, {"width": 64, "n_blocks": 3}), (None, {"width": 128})
    params = {"module": [small, large], "exits": [0, 0], "max_epochs": 2 if quick else 20}
    return params, (split.X_train, split.y_train), {}, (split.X_test, split.y_test)


LOADERS = {
    CONVOLUTIONS: convolutions,
    PERCEPTRON: perceptron,
    TRANSFORMER: transformer,
    CIFAR10: cifar10,
    COMPANIONS: with_companions,
    BEHIND: behind_a_companion,
}


def run(name, quick):
    """Records of one data set."""
    params, train, held_out, (X, _) = LOADERS[name](quick)
    clf = EarlyExitClassifier(**params, cost="seconds", cost_batch_size=256, random_state=SEED)
    clf.fit(*train, **held_out)
    for engine in ENGINES:
        in_engine = clf.at(engine=engine)
        for batch_size, n_rows in BATCHES.items():
            n_rows = min(n_rows // 4 if quick else n_rows, n_rows_of(X))
            rows = slice(0, n_rows - n_rows % batch_size)
            for repeat in range(1 if quick else N_REPEATS):
                priced = in_engine.at(cost_batch_size=batch_size)
                for row in measured(priced, taken(X, rows)):
                    of_call = {"engine": engine, "batch_size": batch_size, "repeat": repeat}
                    row = {"data": name, **of_call, **row}
                    report(row)
                    yield row


def measured(priced, X):
    """What is promised and what is measured, at several operating points."""
    lowest, highest = priced._predictor.frontier.exit_costs[[0, -1]]
    points = {FITTED: priced}
    for name, share in SHARES.items():
        budget = lowest + share * (highest - lowest)
        points[name] = priced.at(budget=budget, exit_policy="confidence")
    bare = bare_call(priced)
    for name, point in points.items():
        cost = point.mean_cost(X)
        calls = [point.predictor().predict, bare]
        of_exits, of_bare = in_turns(calls, X, priced.cost_batch_size)
        yield {
            "point": name,
            "n_exits": len(priced.exit_costs_),
            "mean_cost": cost,
            "share_at_first": np.mean(point.predict_exit(X) == 0),
            "share_at_last": np.mean(point.predict_exit(X) == len(priced.exits_)),
            "promised_microseconds": 1e6 * cost * priced.plain_seconds_,
            "microseconds": 1e6 * np.median(of_exits),
            "bare_microseconds": 1e6 * np.median(of_bare),
            "plain_microseconds": 1e6 * priced.plain_seconds_,
            "measured_over_promised": np.median(of_exits / of_bare) / cost,
            "seed": SEED,
        }


def bare_call(clf):
    """The whole network as its user calls it in this engine: what it takes, ready -> a call."""
    engine, module = clf._predictor.cascade.engine, clf.module_
    if clf.engine != TORCH or not isinstance(module, nn.Module):
        return lambda X: engine.backbone_logits(tuple(X.values()) if isinstance(X, dict) else (X,))

    @torch.inference_mode()
    def call(X):
        if isinstance(X, dict):
            return module(**{name: torch.from_numpy(array) for name, array in X.items()})
        return module(torch.from_numpy(X))

    return call


def in_turns(functions, X, batch_size):
    """Mean seconds of a sample in each turn: (n_functions, n_turns)"""
    n_rows = n_rows_of(X)
    parts = [taken(X, slice(i, i + batch_size)) for i in range(0, n_rows, batch_size)]
    times = np.empty((len(functions), N_TURNS + 1))
    for turn in range(N_TURNS + 1):
        for number, function in enumerate(functions):
            start = time.perf_counter()
            for part in parts:
                function(part)
            times[number, turn] = (time.perf_counter() - start) / n_rows
    return times[:, 1:]


def n_rows_of(X):
    return len(next(iter(X.values()))) if isinstance(X, dict) else len(X)


def taken(X, rows):
    """Some rows of an array, or of each array of a dict."""
    return {name: array[rows] for name, array in X.items()} if isinstance(X, dict) else X[rows]


def report(row):
    print(
        f"{row['data']:13} {row['engine']:11} batch {row['batch_size']:3} {row['point']:10} at {row['mean_cost']:.3f}, "
        f"{row['share_at_last']:.2f} to the last: promised {row['promised_microseconds']:7.1f} us, measured "
        f"{row['microseconds']:7.1f}, bare {row['bare_microseconds']:7.1f} (when priced "
        f"{row['plain_microseconds']:.1f}); measured over promised {row['measured_over_promised']:.3f}",
        flush=True,
    )


def ratios(rows):
    """Median of measured over promised: (data, engine, batch size, point) -> number"""
    found = {}
    for row in rows:
        key = row["data"], row["engine"], row["batch_size"], row["point"]
        found.setdefault(key, []).append(row["measured_over_promised"])
    return {key: float(np.median(repeats)) for key, repeats in found.items()}


def targets(rows):
    for (data, engine, batch_size, point), ratio in ratios(rows).items():
        says = f"{data}, {engine}, batch {batch_size}, {point}: measured over promised"
        yield Claim(says, ratio, "<=", MOST[batch_size])
        if batch_size > 1:
            yield Claim(says, ratio, ">=", LEAST)


def regressions(rows):
    """Most points keep to the promise."""
    for batch_size in BATCHES:
        own = [ratio for key, ratio in ratios(rows).items() if key[2] == batch_size]
        says = f"batch {batch_size}: median of measured over promised"
        yield Claim(says, float(np.median(own)), "<=", MOST[batch_size])
        yield Claim(says, float(np.median(own)), ">=", LEAST)


QUESTION = "promise"
CLAIMS = {QUESTION: Claims(targets, regressions)}


if __name__ == "__main__":
    parser = claims.parser(__doc__, quick="fewer epochs and rows")
    parser.add_argument("--data", nargs="+", default=list(LOADERS), choices=list(LOADERS))
    options = claims.parse(parser, CLAIMS)
    torch.set_num_threads(1)
    rows = records.of_others(QUESTION, options.data, options.quick)
    for data in options.data:
        rows += run(data, options.quick)
        records.write(QUESTION, rows, options.quick)
    claims.settle(CLAIMS, [QUESTION], options.quick)
