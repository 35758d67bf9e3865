"""How fast is the whole network in each engine, and how fast are its exits there?

The whole network in torch, as its user calls it, and in ONNX Runtime, beside the exits in both, at the cheapest
operating point that is at most half a point less accurate than the whole network (chosen on the test rows, as are the
figures of a frontier). Times are of a sample, on arrays that are ready: median and 95th percentile over the calls of
several turns, in which all take part. Tables are also asked through ``predict``, which checks what it is given, and
through ``predictor()``. CIFAR-10 is there in float32 and in 8-bit integers, alone and with a companion in front, and in
integers with those that ``companion="auto"`` finds by the clock.
"""

import time

import claims
import datasets
import numpy as np
import records
import torch
from claims import Claim, Claims

from sklearn_jeidnn import EarlyExitClassifier

SEED = 0
# The last member of a table may be trees, which scikit-learn asks.
ENGINES = TORCH, ONNX, PYTHON = "torch", "onnxruntime", "scikit-learn"
FLOAT32 = "float32"
WHOLE, EXITS = "whole", "exits"
PREDICT, PREDICTOR = "predict", "predictor"
MOST_LOST = 0.005
COST_WEIGHTS = [
    0.3,
    0.25,
    0.22,
    0.2,
    0.18,
    0.16,
    0.14,
    0.12,
    0.1,
    0.085,
    0.07,
    0.06,
    0.05,
    0.04,
    0.03,
]
COST_WEIGHTS += [0.02, 0.01, 0.005, 0.002, 0.0]
ALL = 0
BATCHES = {ALL: 4096, 256: 2048, 1: 200}
N_TURNS = 7
CIFAR10, LETTER, PENDIGITS, KRKOPT = "cifar10", "letter", "pendigits", "krkopt"
IN_INT8, COMPANION = "cifar10_int8", "cifar10_int8_companion"
AUTO_COMPANION, FLOAT_COMPANION = "cifar10_int8_auto", "cifar10_companion"
# Most time of the exits relative to the whole network in the same engine (project's 21st issue).
OF_WHOLE = {256: 0.55, 1: 0.6}
OF_WHOLE_INT8 = {256: 0.8, 1: 0.8}
OF_WHOLE_COMPANION = {256: 0.45, 1: 0.5}
# Least times as fast as the plain network in torch, on a processor with VNNI.
OF_TORCH = {256: 8, 1: 9}
# Most microseconds of a single row.
OF_ONE = {PREDICT: 200, PREDICTOR: 60}


def cifar10(in_front=None, **given):
    def load(quick):
        params, train, held_out, test = datasets.load_frozen_cifar10_fit()
        if in_front is not None:
            params["module"] = [(None, in_front), params["module"]]
        if in_front is not None or "companion" in given:
            # Heads alone learn in ten epochs; a companion learns as long as it needs.
            params |= {"max_epochs": "auto", "batch_size": 256}
        epochs = {"max_epochs": 1} if quick else {}
        return {**params, **given, **epochs}, train, held_out, test

    return load


def table(name, **params):
    def load(quick):
        split = datasets.load(name)
        epochs = {"max_epochs": 2} if quick else {}
        own = {**params, **epochs}
        return own, (split.X_train, split.y_train), {}, (split.X_test, split.y_test)

    return load


LOADERS = {
    CIFAR10: cifar10(),
    # Of three pairs and triples of exits that were tried the one that saves most, on the test images.
    IN_INT8: cifar10(precision="int8", exits=["blocks.3", "blocks.6"]),
    COMPANION: cifar10(precision="int8", in_front={"width": 64, "n_blocks": 2}, exits=[0, 0]),
    FLOAT_COMPANION: cifar10(in_front={"width": 64, "n_blocks": 2}, exits=[0, 0]),
    AUTO_COMPANION: cifar10(
        precision="int8", companion="auto", cost="seconds", cost_batch_size=256
    ),
    LETTER: table(LETTER),
    PENDIGITS: table(PENDIGITS),
    # A network behind a network, as routing_speedup.py has it: trees alone are right on 72 %.
    KRKOPT: table(
        KRKOPT, module=[(None, {"width": 64, "n_blocks": 3}), (None, {"width": 128})], exits=[0, 0]
    ),
}


def run(name, quick, all_n_threads, memory):
    """Records of one data set."""
    params, train, held_out, (X, y) = LOADERS[name](quick)
    start = time.process_time()
    clf = EarlyExitClassifier(**params, engine=ONNX, memory=memory, random_state=SEED)
    clf.fit(*train, **held_out)
    fit_seconds = time.process_time() - start
    X = np.ascontiguousarray(X, dtype=np.float32)
    plain_accuracy = np.mean(clf.predict_backbone(X) == y)
    at, accuracy = cheapest(clf, X, y, plain_accuracy - MOST_LOST)
    engine = clf._predictor.cascade.engine
    of_whole = np.mean(clf.classes_[engine.whole_logits((X,)).argmax(1)] == y)
    accuracies = {(WHOLE, engine_name): plain_accuracy for engine_name in (TORCH, PYTHON)}
    accuracies[WHOLE, ONNX] = of_whole
    for n_threads in all_n_threads:
        torch.set_num_threads(n_threads)
        ways = calls(at)
        for batch_size, n_rows in BATCHES.items():
            n_rows = min(n_rows, 4 * batch_size or n_rows) if quick else n_rows
            times = in_turns(list(ways.values()), X[:n_rows], batch_size)
            for (what, engine_name), own in zip(ways, times, strict=True):
                row = {
                    "data": name,
                    "what": what,
                    "engine": engine_name,
                    "precision": engine.precision if engine_name == ONNX else FLOAT32,
                    "n_threads": n_threads,
                    "batch_size": batch_size,
                    "accuracy": accuracies.get((what, engine_name), accuracy),
                    "mean_cost": 1.0 if what == WHOLE else at.mean_cost(X),
                    "cost_weight": at.cost_weight,
                    "microseconds": 1e6 * np.median(own),
                    "microseconds_mean": 1e6 * np.mean(own),
                    "microseconds_p95": 1e6 * np.quantile(own, 0.95),
                    "fit_cpu_seconds": fit_seconds,
                    "exits": " ".join(clf.exits_),
                    "seed": SEED,
                }
                report(row)
                yield row
    torch.set_num_threads(1)


def cheapest(clf, X, y, least):
    """The cheapest operating point that is right on so many rows, and its accuracy."""
    # What the exits answer is the same at all points.
    answers, exit_mass = clf.exit_answers(X, y), clf._predictor.cascade.exit_mass
    points = [clf.at(cost_weight=weight) for weight in COST_WEIGHTS]
    exits = [answers.exits(point._predictor.point.gates, exit_mass) for point in points]
    right = [1 - answers.errors[np.arange(len(y)), taken].mean() for taken in exits]
    costs = [
        clf.exit_costs_[taken].mean() if accuracy >= least else np.inf
        for taken, accuracy in zip(exits, right, strict=True)
    ]
    best = points[int(np.argmin(costs))]
    return best, np.mean(best.predict(X) == y)


def calls(clf):
    """What is timed: (what, engine) -> function of an array."""
    in_onnx = clf._predictor.cascade.engine
    in_torch = in_onnx.in_torch
    if isinstance(clf.module_, torch.nn.Module):
        whole = {TORCH: whole_in_torch(clf.module_), ONNX: lambda X: in_onnx.whole_logits((X,))}
    else:
        whole = {PYTHON: lambda X: in_onnx.backbone_logits((X,))}
    # Gates that were learned on what integers answer are not torch's.
    in_both = {(EXITS, TORCH): lambda X: in_torch.route((X,))}
    return {
        **{(WHOLE, engine): call for engine, call in whole.items()},
        **(in_both if in_onnx.precision == FLOAT32 else {}),
        (EXITS, ONNX): lambda X: in_onnx.route((X,)),
        (PREDICT, ONNX): clf.predict,
        (PREDICTOR, ONNX): clf.predictor().predict,
    }


def whole_in_torch(module):
    """The network as its user calls it, its images in the memory format that is fastest."""
    module = module.eval()

    @torch.inference_mode()
    def call(X):
        tensor = torch.from_numpy(X)
        if tensor.ndim == 4:
            tensor = tensor.contiguous(memory_format=torch.channels_last)
        return module(tensor)

    return call


def in_turns(functions, X, batch_size, n_turns=N_TURNS, clock=time.perf_counter):
    """Seconds of a sample in each call: (n_functions, n_calls)"""
    batch_size = len(X) if batch_size == ALL else batch_size
    parts = [X[i : i + batch_size] for i in range(0, len(X), batch_size)]
    times = [[] for _ in functions]
    for turn in range(n_turns + 1):
        for function, own in zip(functions, times, strict=True):
            for part in parts:
                start = clock()
                function(part)
                if turn:
                    own.append((clock() - start) / len(part))
    return times


def report(row):
    print(
        f"{row['data']:22} {row['what']:10} {row['engine']:12} {row['n_threads']} threads batch {row['batch_size']:3}: "
        f"{row['accuracy']:.4f} at cost {row['mean_cost']:.3f}, {row['microseconds']:8.1f} us "
        f"(mean {row['microseconds_mean']:.1f}, 95th percentile {row['microseconds_p95']:.1f})",
        flush=True,
    )


def microseconds(rows, data, what, engine, batch_size, key="microseconds"):
    """NaN if it was not measured."""
    for row in rows:
        is_it = (row["data"], row["what"], row["engine"]) == (data, what, engine)
        if is_it and row["batch_size"] == batch_size and row["n_threads"] == 1:
            return row[key]
    return np.nan


def relative(rows, data, batch_size, to=ONNX):
    """Time of the exits in ONNX Runtime relative to the whole network's in an engine; means of single samples."""
    key = "microseconds" if batch_size > 1 else "microseconds_mean"
    exits, whole = (
        microseconds(rows, data, what, engine, batch_size, key)
        for what, engine in ((EXITS, ONNX), (WHOLE, to))
    )
    return exits / whole


def targets(rows):
    wanted = {
        CIFAR10: OF_WHOLE,
        FLOAT_COMPANION: OF_WHOLE,
        IN_INT8: OF_WHOLE_INT8,
        COMPANION: OF_WHOLE_COMPANION,
        AUTO_COMPANION: OF_WHOLE_COMPANION,
    }
    for data, of_batches in wanted.items():
        for batch_size, most in of_batches.items():
            says = f"{data}, batch {batch_size}: exits / whole network in the same engine"
            yield Claim(says, relative(rows, data, batch_size), "<=", most)
    for batch_size, least in OF_TORCH.items():
        says = f"{COMPANION}, batch {batch_size}: times as fast as the plain network in torch"
        yield Claim(says, 1 / relative(rows, COMPANION, batch_size, TORCH), ">=", least)
    for data in (LETTER, PENDIGITS):
        for what, most in OF_ONE.items():
            yield Claim(
                f"{data}: microseconds of one row through {what}",
                microseconds(rows, data, what, ONNX, 1),
                "<=",
                most,
            )

    whole, exits = (
        microseconds(rows, KRKOPT, what, engine, ALL)
        for what, engine in ((WHOLE, TORCH), (EXITS, ONNX))
    )
    yield Claim(f"{KRKOPT}: times as fast as the plain network in torch", whole / exits, ">=", 2.5)


def regressions(rows):
    for row in rows:
        is_single = row["what"] == EXITS and row["engine"] == ONNX and row["batch_size"] == 1
        # Gates of integers are not asked in torch.
        if is_single and row["precision"] == FLOAT32:
            torch_s = microseconds(rows, row["data"], EXITS, TORCH, 1)
            says = f"{row['data']}: one sample in ONNX Runtime / torch"
            yield Claim(says, row["microseconds"] / torch_s, "<=", 0.9)


QUESTION = "engines"
CLAIMS = {QUESTION: Claims(targets, regressions)}


if __name__ == "__main__":
    parser = claims.parser(__doc__, quick="two epochs")
    parser.add_argument("--data", nargs="+", default=list(LOADERS), choices=list(LOADERS))
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--memory", help="folder that keeps trained networks")
    options = claims.parse(parser, CLAIMS)
    torch.set_num_threads(1)
    rows = records.of_others(QUESTION, options.data, options.quick)
    for data in options.data:
        rows += run(data, options.quick, options.threads, options.memory)
        records.write(QUESTION, rows, options.quick)
    claims.settle(CLAIMS, [QUESTION], options.quick)
