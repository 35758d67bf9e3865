"""What do files of fitted classifiers do to those who load them, and what is left when saving is killed?

Four classifiers of pen digits and of images of digits (the ready networks, with trees and in ONNX Runtime, float32 and
int8), saved and exported. Mutated files (bit flips, other bytes, cut tails, swapped lengths, hostile JSON; in half of
them the checksums are computed anew) are loaded and asked one by one in a process that is watched: whether it answers,
raises the documented error, raises another one, dies, takes more than a second, or more memory than the file and
200 MB. Then saving is killed at random moments, and the file loaded.
"""

import contextlib
import hashlib
import json
import multiprocessing
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import claims
import datasets
import numpy as np
import records
from claims import Claim, Claims
from sklearn.datasets import load_digits

SEED = 0
MOST_SECONDS, MOST_BYTES = 1.0, 200 * 2**20
N_FILES, N_KILLS = 10_000, 100
# Of the files: trees take longest to load.
SHARES = {"table": 0.1, "table_onnx": 0.1, "images": 0.4, "images_int8": 0.4}
HOSTILE = [
    None, True, -1, 0, 2**31, 2**63, 10**30, 1e308, -0.0, "", "../../etc/passwd", "os.system", "\x00", [], {},
    [[]] * 3, {"@": "Predictor"}, {"@array": "nowhere"}, {"@named": "lac"}, {"@tuple": []}, {"@float": "nan"},
    {"@items": ["a"], "dtype": "<U4000000000", "shape": [1]}, {"@dtype": "|O"}, {"@bytes": "AAAA"},
]  # fmt: skip


def fitted():
    """Classifiers by name, and samples for them."""
    from sklearn_jeidnn import EarlyExitClassifier

    pendigits = datasets.load("pendigits")
    X, y = load_digits(return_X_y=True)
    X = X.astype(np.float32).reshape(-1, 8, 8)
    small = {"max_epochs": 3, "cv": None, "random_state": SEED}
    table = pendigits.X_train[:1500], pendigits.y_train[:1500]
    found = {
        "table": (EarlyExitClassifier(module__width=32, **small).fit(*table), table[0]),
        "table_onnx": (
            EarlyExitClassifier(module__width=32, engine="onnxruntime", **small).fit(*table),
            table[0],
        ),
        "images": (EarlyExitClassifier(module__width=16, **small).fit(X, y), X),
        "images_int8": (
            EarlyExitClassifier(
                module__width=16, engine="onnxruntime", precision="int8", **small
            ).fit(X, y),
            X,
        ),
    }
    return {name: (clf, samples[:20]) for name, (clf, samples) in found.items()}


def mutated_bytes(data, rng):
    """Bytes with something wrong, and what."""
    data = bytearray(data)
    kind = rng.choice(["bits", "bytes", "tail", "length", "zeros", "swap", "insert"])
    if kind == "bits":
        for _ in range(rng.randint(1, 8)):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif kind == "bytes":
        start = rng.randrange(len(data))
        for i in range(start, min(len(data), start + rng.randint(1, 64))):
            data[i] = rng.randrange(256)
    elif kind == "tail":
        del data[rng.randrange(len(data)) :]
    elif kind == "length":
        data[:8] = rng.choice([0, 1, 7, len(data), 2**31, 2**40, 2**63]).to_bytes(8, "little")
    elif kind == "zeros":
        start = rng.randrange(len(data))
        n_zeros = min(len(data) - start, rng.randint(1, 4096))
        data[start : start + n_zeros] = bytes(n_zeros)
    elif kind == "swap":
        a, b = sorted(rng.sample(range(len(data)), 2))
        n = rng.randint(1, min(512, b - a))
        data[a : a + n], data[b : b + n] = data[b : b + n], data[a : a + n]
    else:
        at = rng.randrange(len(data))
        data[at:at] = rng.randbytes(rng.randint(1, 64))
    return bytes(data), kind


def places_in(value, path=()):
    """Paths to all values of a document."""
    yield path
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, item in items:
        yield from places_in(item, (*path, key))


def with_hostile(document, rng):
    """A document with one to three of its values replaced, left out or taken from elsewhere."""
    for _ in range(rng.randint(1, 3)):
        places = [path for path in places_in(document) if path]
        *path, last = rng.choice(places)
        holder = document
        for key in path:
            holder = holder[key]
        way = rng.random()
        if way < 0.6:
            holder[last] = rng.choice(HOSTILE)
        elif way < 0.8:
            del holder[last]
        else:
            other = document
            for key in rng.choice(places):
                other = other[key]
            holder[last] = json.loads(json.dumps(other))
    return document


def split_file(data):
    """Header, texts and body of a saved file."""
    n_header = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + n_header])
    return header, header.pop("__metadata__"), data[8 + n_header :]


def joined_file(header, texts, body):
    """A file with its checksum computed anew."""
    from sklearn_jeidnn._store.arrays import checksum_of

    texts = {name: text for name, text in texts.items() if name != "sha256"}
    header = {**header, "__metadata__": {**texts, "sha256": checksum_of(header, texts, [body])}}
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def mutated_file(data, rng):
    """A saved file with something wrong, what, and whether its checksum is right."""
    if rng.random() < 0.5:
        return *mutated_bytes(data, rng), False
    header, texts, body = split_file(data)
    way = rng.choice(["body", "header", "values"])
    if way == "body":
        damaged, kind = mutated_bytes(body, rng)
        body = damaged if kind in ("bits", "bytes", "zeros", "swap") else body[: len(damaged)]
    elif way == "header":
        header = with_hostile(header, rng)
    else:
        texts["values"] = json.dumps(with_hostile(json.loads(texts["values"]), rng))
    return joined_file(header, texts, body), f"{way}, with its checksum", True


def mutated_folder(source, target, rng):
    """A copy of an exported folder with something wrong; return what, and whether checksums are right."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    is_right = rng.random() < 0.5
    names = sorted(file.name for file in target.iterdir())
    name = rng.choice(names)
    kind = "hostile JSON"
    if name == "predictor.json" and rng.random() < 0.7:
        document = json.loads((target / name).read_text())
        (target / name).write_text(json.dumps(with_hostile(document, rng)))
    elif rng.random() < 0.05:
        (target / name).unlink()
        (target / name).symlink_to("/dev/zero" if rng.random() < 0.5 else "/etc/passwd")
        kind = "a link"
    else:
        data, kind = mutated_bytes((target / name).read_bytes(), rng)
        (target / name).write_bytes(data)
    if is_right and kind != "a link":
        _with_checksums(target)
    return f"{name.partition('_')[0]}: {kind}", is_right


def _with_checksums(folder):
    arrays = folder / "arrays.safetensors"
    # What is damaged beyond that keeps the checksum that it has.
    with contextlib.suppress(Exception):
        arrays.write_bytes(joined_file(*split_file(arrays.read_bytes())))
    with contextlib.suppress(Exception):
        document = json.loads((folder / "predictor.json").read_text())
        for name in document["files"]:
            file = folder / os.path.basename(name)
            if file.is_file():
                document["files"][name] = hashlib.sha256(file.read_bytes()).hexdigest()
        document.pop("sha256", None)
        text = json.dumps(document, sort_keys=True).encode()
        document["sha256"] = hashlib.sha256(text).hexdigest()
        (folder / "predictor.json").write_text(json.dumps(document))


def peak_bytes():
    """Most memory of this process since the last call, above what it has now."""
    status = pathlib.Path("/proc/self/status").read_text()
    peak, now = (
        1024 * int(line.split()[1])
        for key in ("VmHWM", "VmRSS")
        for line in status.splitlines()
        if line.startswith(key)
    )
    return peak, now


def ask(path, samples):
    """Load a file or folder and answer samples: "answers", "documented error", or the name of another error."""
    from sklearn_jeidnn import EarlyExitClassifier
    from sklearn_jeidnn.runtime import Predictor

    try:
        found = Predictor.load(path) if path.is_dir() else EarlyExitClassifier.load(path)
    except (ValueError, OSError, ImportError):
        return "documented error"
    except BaseException as error:
        return f"load: {type(error).__name__}"
    try:
        found.predict(samples)
        found.predict_set(samples)
    except (ValueError, TypeError):
        return "refuses samples"
    except BaseException as error:
        return f"predict: {type(error).__name__}: {str(error)[:80]}"
    return "answers"


def watch(connection, samples):
    """Answer requests to ask files, and say how long it took and what it took of memory."""
    import warnings

    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    while True:
        try:
            path = connection.recv()
        except EOFError:
            return
        pathlib.Path("/proc/self/clear_refs").write_text("5")
        _, before = peak_bytes()
        start = time.process_time()
        answer = ask(pathlib.Path(path), samples)
        seconds = time.process_time() - start
        peak, _ = peak_bytes()
        connection.send((answer, seconds, peak - before))


class Watched:
    """A process that asks files, started anew when one has killed it."""

    def __init__(self, samples):
        self.samples = samples
        self.start()

    def start(self):
        self.connection, other = multiprocessing.Pipe()
        self.process = multiprocessing.get_context("spawn").Process(
            target=watch, args=(other, self.samples), daemon=True
        )
        self.process.start()
        other.close()

    def ask(self, path):
        self.connection.send(str(path))
        try:
            if self.connection.poll(60):
                return self.connection.recv()
            what = "hangs"
        except (EOFError, ConnectionResetError):
            what = "dies"
        self.process.kill()
        self.process.join()
        self.start()
        return what, 60.0, 0


def fuzz(name, stored, samples, n_files, rng, folder):
    """What mutated copies of a file or folder do: one row for each kind of mutation."""
    watched = Watched(samples)
    usual = watched.ask(stored)
    usual = watched.ask(stored)
    rows = []
    size = (
        sum(f.stat().st_size for f in stored.iterdir())
        if stored.is_dir()
        else stored.stat().st_size
    )
    data = None if stored.is_dir() else stored.read_bytes()
    for i in range(n_files):
        target = folder / f"mutant_{stored.name}"
        if stored.is_dir():
            what, is_right = mutated_folder(stored, target, rng)
        else:
            mutant, what, is_right = mutated_file(data, rng)
            target.write_bytes(mutant)
        answer, seconds, n_bytes = watched.ask(target)
        rows.append((what, is_right, answer, seconds, n_bytes))
        bad = answer not in ("answers", "documented error", "refuses samples")
        if bad or seconds > MOST_SECONDS or n_bytes > size + MOST_BYTES:
            print(
                f"{name} {stored.name} {i}: {what}: {answer}, {seconds:.2f} s, {n_bytes >> 20} MB",
                flush=True,
            )
            kept = folder / "kept" / f"{stored.name}_{i}"
            kept.parent.mkdir(exist_ok=True)
            (shutil.copytree if target.is_dir() else shutil.copy)(target, kept)
    return summary(name, stored, rows, usual, size)


def summary(name, stored, rows, usual, size):
    answers = [row[2] for row in rows]
    fine = {"answers", "documented error", "refuses samples"}
    return {
        "classifier": name,
        "stored": "folder" if stored.is_dir() else "file",
        "file_bytes": size,
        "n_files": len(rows),
        "n_right_checksum": sum(row[1] for row in rows),
        "n_documented_errors": answers.count("documented error"),
        "n_answers": answers.count("answers"),
        "n_refuse_samples": answers.count("refuses samples"),
        "n_other_errors": sum(a not in fine and a not in ("dies", "hangs") for a in answers),
        "n_dead": answers.count("dies") + answers.count("hangs"),
        "n_slow": sum(row[3] > MOST_SECONDS for row in rows),
        "n_large": sum(row[4] > size + MOST_BYTES for row in rows),
        "most_seconds": max(row[3] for row in rows),
        "seconds_of_the_whole": usual[1],
        "most_megabytes": max(row[4] for row in rows) / 2**20,
        "n_kills": 0,
        "n_whole_after_kill": 0,
    }


SAVER = """
import sys, pickle, warnings
import torch
torch.set_num_threads(1)
clf = pickle.load(open(sys.argv[1], "rb"))
print("ready", flush=True)
while True:
    clf.save(sys.argv[2])
"""


def kill(name, clf, samples, n_kills, rng, folder):
    """Kill a process that saves without end at random moments, and see whether the file is whole."""
    import pickle

    from sklearn_jeidnn import EarlyExitClassifier

    pickled, path = folder / f"{name}.pickle", folder / "killed" / "model.jeidnn"
    path.parent.mkdir(exist_ok=True)
    pickled.write_bytes(pickle.dumps(clf))
    clf.save(path)
    expected = clf.predict_proba(samples)
    n_whole = 0
    for _ in range(n_kills):
        process = subprocess.Popen(
            [sys.executable, "-c", SAVER, str(pickled), str(path)], stdout=subprocess.PIPE
        )
        process.stdout.readline()
        time.sleep(rng.random() * 1.0)
        process.send_signal(signal.SIGKILL)
        process.wait()
        loaded = EarlyExitClassifier.load(path)
        n_whole += bool(np.array_equal(loaded.predict_proba(samples), expected))
    return n_whole


def main(n_files, n_kills, keep, quick):
    rng = random.Random(SEED)
    folder = pathlib.Path(keep or tempfile.mkdtemp())
    folder.mkdir(exist_ok=True)
    rows = []
    for name, (clf, samples) in fitted().items():
        clf.save(folder / f"{name}.jeidnn")
        clf.export(folder / f"{name}_export")
        for stored in (folder / f"{name}.jeidnn", folder / f"{name}_export"):
            n_own = round(n_files * SHARES[name] / 2)
            rows.append(fuzz(name, stored, samples, n_own, rng, folder))
            print(rows[-1], flush=True)
        if n_kills:
            rows[-2]["n_kills"] = n_kills // 4
            rows[-2]["n_whole_after_kill"] = kill(name, clf, samples, n_kills // 4, rng, folder)
            print(name, "whole after", rows[-2]["n_whole_after_kill"], "of", n_kills // 4, "kills")
    records.write("model_files", [{"seed": SEED, **row} for row in rows], quick)


def regressions(rows):
    total = {key: sum(row[key] for row in rows) for key in rows[0] if key.startswith("n_")}
    yield Claim("errors that are not the documented one", total["n_other_errors"], "<=", 0)
    yield Claim("processes that died or hung", total["n_dead"], "<=", 0)
    yield Claim("files that took more than a second", total["n_slow"], "<=", 0)
    yield Claim("files that took more memory than 200 MB and their size", total["n_large"], "<=", 0)
    yield Claim(
        "files that were not whole after a kill",
        total["n_kills"] - total["n_whole_after_kill"],
        "<=",
        0,
    )


CLAIMS = {"model_files": Claims(claims.none, regressions)}


if __name__ == "__main__":
    options = claims.parser(__doc__, quick="160 files, 4 kills")
    options.add_argument("--files", type=int, default=N_FILES)
    options.add_argument("--kills", type=int, default=N_KILLS)
    options.add_argument(
        "--keep", help="folder for the files, and for those that did something wrong"
    )
    arguments = claims.parse(options, CLAIMS)
    n_files, n_kills = (160, 4) if arguments.quick else (arguments.files, arguments.kills)
    main(n_files, n_kills, arguments.keep, arguments.quick)
    claims.settle(CLAIMS, quick=arguments.quick)
