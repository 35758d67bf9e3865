"""What do exits save in networks that people have: a BERT, and a family of EfficientNets as a cascade?

The networks come trained inside packages and are fine-tuned once (``fine_tuned.py``): MiniLM, six layers and 22.7
million parameters, on the movie reviews; EfficientNet-Lite0, Lite1 and Lite2 on CIFAR-10, enlarged to 64, 80 and 96
pixels. The whole network (of the family the largest) stands beside its exits (the cascade) in the same engine, at the
cheapest operating point that is at most half a point less accurate (chosen on the test samples, as are the figures of a
frontier). Sentences stand in batches of about the same length, filled up to the longest. Times are of a sample, on
arrays that are ready: the mean over all calls of a turn, and of that the median over the turns, in which all ways take
part.
"""

import time
from typing import NamedTuple

import claims
import datasets
import fine_tuned
import numpy as np
import records
import torch
from claims import Claim, Claims

from sklearn_jeidnn import EarlyExitClassifier

SEED = 0
TORCH, ONNX = "torch", "onnxruntime"
FLOAT32, INT8 = "float32", "int8"
# Engines, and what they compute in.
WAYS = [(TORCH, FLOAT32), (ONNX, FLOAT32), (ONNX, INT8)]
WHOLE, EXITS, PREDICTOR = "whole", "exits", "predictor"
MINILM, FAMILY = "minilm", "efficientnet"
# The mean of a sentence's embeddings costs nothing, and tells nearly as much as the first layer.
EXITS_OF_MINILM = ["bert.embeddings", *(f"bert.encoder.layer.{i}" for i in range(5))]
# Sentences after those that MiniLM learned from, up to the usual test sentences.
N_UNSEEN = 2129
MOST_LOST = 0.005
N_TURNS = 5
# Operating points that are tried between two of a frontier.
N_BETWEEN = 3
# Samples that are timed, by the number of samples in a call.
N_TIMED = {MINILM: {64: 256, 1: 100}, FAMILY: {256: 512, 1: 100}}
# Most time relative to the whole network in the same engine (project's 21st issue).
OF_WHOLE = {(MINILM, 64): 0.5, (MINILM, 1): 0.6, (FAMILY, 256): 0.5, (FAMILY, 1): 0.5}
# Single images of the family save nothing so far.
NO_MORE_THAN = {(MINILM, 64): 0.6, (MINILM, 1): 0.7, (FAMILY, 256): 0.85}


class Loaded(NamedTuple):
    params: dict
    train: tuple
    held_out: dict
    test: tuple
    fine_tune_seconds: float


def minilm(quick):
    """Heads learn from the sentences that the network learned from, gates from others."""
    tuned = fine_tuned.minilm(quick)
    X, y = fine_tuned.tokenised_reviews()
    n_learned = fine_tuned.N_SENTENCES
    ends = [0, 256, 512, 768] if quick else [0, n_learned, n_learned + N_UNSEEN, len(y)]
    train, (X_val, y_val), test = (
        (taken(X, slice(*part)), y[slice(*part)]) for part in zip(ends[:-1], ends[1:], strict=True)
    )
    params = {"module": tuned.network, "exits": EXITS_OF_MINILM, "max_epochs": 2 if quick else 10}
    return Loaded(params, train, {"X_val": X_val, "y_val": y_val}, test, tuned.cpu_seconds)


def efficientnets(quick):
    """Heads and gates learn from images that no member has seen."""
    tuned = [fine_tuned.efficientnet(number, quick) for number in fine_tuned.PIXELS]
    n_each, n_test = (256, 256) if quick else (3000, 5000)
    n_learned = fine_tuned.N_IMAGES
    split = datasets.load_cifar10(n_learned + 2 * n_each)
    X, y = fine_tuned.images(split.X_train, split.y_train)
    (X, X_val), (y, y_val) = (np.split(part[n_learned:], 2) for part in (X, y))
    test = fine_tuned.images(split.X_test[:n_test], split.y_test[:n_test])
    params = {
        "module": [each.network for each in tuned],
        "exits": [0, 0, 0],
        "max_epochs": 2 if quick else 10,
    }
    seconds = sum(each.cpu_seconds for each in tuned)
    return Loaded(params, (X, y), {"X_val": X_val, "y_val": y_val}, test, seconds)


LOADERS = {MINILM: minilm, FAMILY: efficientnets}


def run(name, quick, ways):
    """Records of one network."""
    loaded = LOADERS[name](quick)
    start = time.process_time()
    clf = EarlyExitClassifier(
        **loaded.params, freeze_backbone=True, engine=ONNX, random_state=SEED
    ).fit(*loaded.train, **loaded.held_out)
    about = {
        "data": name,
        "fit_cpu_seconds": time.process_time() - start,
        "fine_tune_cpu_seconds": loaded.fine_tune_seconds,
        "exits": " ".join(clf.exits_),
        "exit_costs": spaced(clf.exit_costs_),
        "seed": SEED,
    }
    for precision in dict.fromkeys(precision for _, precision in ways):
        engines = [engine for engine, own in ways if own == precision]
        n_timed = {size: n // 4 if quick else n for size, n in N_TIMED[name].items()}
        for row in at_cheapest(clf, loaded, precision, engines, n_timed):
            row = {**about, **row}
            report(row)
            yield row


def at_cheapest(clf, loaded, precision, engines, n_timed):
    """Times of the whole network and of its exits in some engines of the same precision."""
    X, y = loaded.test
    moved = {} if precision == FLOAT32 else {"precision": precision, **loaded.held_out}
    in_engines = {engine: clf.at(engine=engine, **moved) for engine in engines}
    measured = in_engines[engines[-1]]
    frontier = measured.frontier(X, y)
    plain_accuracy = frontier["backbone_accuracy"][0]
    best = cheapest(measured, frontier, X, y, plain_accuracy - MOST_LOST)
    points = {engine: own.at(cost_weight=best.cost_weight) for engine, own in in_engines.items()}
    about = {
        "precision": precision,
        "cost_weight": best.cost_weight,
        "exit_rates": spaced(best.exit_rates),
        "accuracy_of_exits": spaced(1 - measured.exit_answers(X, y).exit_errors()),
    }
    for row in timed(points, X, n_timed):
        is_whole = row["what"] == WHOLE
        yield {
            **about,
            "accuracy": plain_accuracy if is_whole else best.accuracy,
            "mean_cost": 1.0 if is_whole else best.mean_cost,
            **row,
        }


class Point(NamedTuple):
    """What an operating point does to the test samples."""

    cost_weight: float
    accuracy: float
    mean_cost: float
    exit_rates: np.ndarray


def cheapest(clf, frontier, X, y, least):
    """The cheapest operating point that is right on so many samples: of a frontier, or just beyond it."""
    n_exits = len(clf.exit_costs_)
    of_frontier = [
        Point(
            weight, accuracy, cost, np.array([frontier[f"exit{i}_rate"][k] for i in range(n_exits)])
        )
        for k, (weight, accuracy, cost) in enumerate(
            zip(frontier["cost_weight"], frontier["accuracy"], frontier["mean_cost"], strict=True)
        )
    ]
    best = min((p for p in of_frontier if p.accuracy >= least), key=lambda p: p.mean_cost)
    # Cost weights of a frontier are half as large again, each than the one before.
    next_weight = min(
        (p.cost_weight for p in of_frontier if p.cost_weight > best.cost_weight),
        default=best.cost_weight,
    )
    between = [
        point_of(clf.at(cost_weight=weight), X, y)
        for weight in np.geomspace(best.cost_weight, next_weight, N_BETWEEN + 2)[1:-1]
    ]
    return min((best, *(p for p in between if p.accuracy >= least)), key=lambda p: p.mean_cost)


def point_of(clf, X, y):
    """What a classifier does to samples at its operating point."""
    routed = clf._predictor.cascade.engine.route(arrays_of(X))
    rates = np.bincount(routed.exit_index, minlength=len(clf.exit_costs_)) / len(y)
    right = clf.classes_[routed.logits.argmax(1)] == y
    return Point(clf.cost_weight, right.mean(), rates @ clf.exit_costs_, rates)


def timed(points, X, n_timed):
    """Times of every way to answer, by the number of samples in a call."""
    ways = {key: call for engine, clf in points.items() for key, call in calls(clf, engine).items()}
    for batch_size, n_each in n_timed.items():
        parts = batches(X, n_each, batch_size)
        seconds = in_turns(list(ways.values()), parts)
        n_samples = sum(map(n_of, parts))
        for (what, engine), own in zip(ways, seconds, strict=True):
            yield {
                "what": what,
                "engine": engine,
                "batch_size": batch_size,
                "n_threads": torch.get_num_threads(),
                "microseconds": 1e6 * np.median(own.sum(1)) / n_samples,
                "microseconds_p95": 1e6 * np.quantile(own / [n_of(part) for part in parts], 0.95),
            }


def calls(clf, engine):
    """What is timed in an engine: (what, engine) -> function of samples."""
    inside, predictor = clf._predictor.cascade.engine, clf.predictor()
    whole = whole_in_torch(clf.module_) if engine == TORCH else inside.whole_logits
    return {
        (WHOLE, engine): lambda X: whole(arrays_of(X)),
        (EXITS, engine): lambda X: inside.route(arrays_of(X)),
        (PREDICTOR, engine): predictor.predict,
    }


def whole_in_torch(module):
    """The network as its user calls it, its images in the memory format that is fastest."""
    module = module.eval()

    @torch.inference_mode()
    def call(arrays):
        tensors = [torch.from_numpy(array) for array in arrays]
        if tensors[0].ndim == 4:
            tensors = [tensor.contiguous(memory_format=torch.channels_last) for tensor in tensors]
        return module(*tensors)

    return call


def batches(X, n_samples, batch_size):
    """Some samples, drawn at random, in batches; sentences by length, filled up to the longest of a batch."""
    n_all = n_of(X)
    rows = np.random.default_rng(SEED).permutation(n_all)[:n_samples]
    if isinstance(X, dict):
        parts = fine_tuned.by_length(X, rows, batch_size)
        return [fine_tuned.trimmed(X, part) for part in parts]
    return [X[rows[i : i + batch_size]] for i in range(0, len(rows), batch_size)]


def taken(X, rows):
    return {name: part[rows] for name, part in X.items()} if isinstance(X, dict) else X[rows]


def arrays_of(X):
    return tuple(X.values()) if isinstance(X, dict) else (X,)


def n_of(X):
    return len(arrays_of(X)[0])


def in_turns(functions, parts):
    """Seconds of each call: arrays (n_turns, n_calls), one a function"""
    seconds = np.zeros((len(functions), N_TURNS + 1, len(parts)))
    for turn in range(N_TURNS + 1):
        for number, function in enumerate(functions):
            for k, part in enumerate(parts):
                start = time.perf_counter()
                function(part)
                seconds[number, turn, k] = time.perf_counter() - start
    return list(seconds[:, 1:])


def spaced(numbers):
    return " ".join(f"{number:.4f}" for number in numbers)


def report(row):
    print(
        f"{row['data']:12} {row['what']:10} {row['engine']:12} {row['precision']} batch {row['batch_size']:3}: "
        f"{row['accuracy']:.4f} at cost {row['mean_cost']:.3f}, {row['microseconds']:8.1f} us "
        f"(95th percentile {row['microseconds_p95']:.1f})",
        flush=True,
    )


def share_of_whole(rows, data, batch_size, engine=ONNX, precision=FLOAT32):
    """Time of the exits relative to the whole network in the same engine; NaN if it was not measured."""
    asked = {"data": data, "batch_size": batch_size, "engine": engine, "precision": precision}
    times = {
        row["what"]: row["microseconds"]
        for row in rows
        if asked.items() <= row.items() and row["n_threads"] == 1
    }
    return times.get(EXITS, np.nan) / times.get(WHOLE, np.nan)


def targets(rows):
    for (data, batch_size), most in OF_WHOLE.items():
        for precision in (FLOAT32, INT8):
            says = f"{data}, batch {batch_size}: exits / whole network in ONNX Runtime, {precision}"
            yield Claim(
                says, share_of_whole(rows, data, batch_size, precision=precision), "<=", most
            )


def regressions(rows):
    for (data, batch_size), most in NO_MORE_THAN.items():
        says = f"{data}, batch {batch_size}: exits / whole network in ONNX Runtime"
        yield Claim(says, share_of_whole(rows, data, batch_size), "<=", most)


QUESTION = "real_networks"
CLAIMS = {QUESTION: Claims(targets, regressions)}


if __name__ == "__main__":
    parser = claims.parser(__doc__, quick="few samples, two epochs")
    parser.add_argument("--data", nargs="+", default=list(LOADERS), choices=list(LOADERS))
    options = claims.parse(parser, CLAIMS)
    torch.set_num_threads(1)
    rows = records.of_others(QUESTION, options.data, options.quick)
    for data in options.data:
        rows += run(data, options.quick, WAYS)
        records.write(QUESTION, rows, options.quick)
    claims.settle(CLAIMS, [QUESTION], options.quick)
