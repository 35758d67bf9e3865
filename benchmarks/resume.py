"""Does a fit with ``checkpoint=`` come to the same result after ``kill -9``, and what does it save and cost?

A default fit (three folds, trees, companions) on 2,500 rows of Letter in a process of its own, one thread. Moments are
shares of its processor time, drawn at random; each time the process is killed there, and the same program is started
again. Undisturbed fits with and without ``checkpoint=`` take turns; what ``checkpoint=`` takes is also measured inside
of the fit, since the clock of a shared machine tells no few percent.

python benchmarks/resume.py
"""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

import claims
import datasets
import numpy as np
import records
import torch
from claims import Claim, Claims

from sklearn_jeidnn import EarlyExitClassifier
from sklearn_jeidnn._fit import cascade
from sklearn_jeidnn._fit.checkpoint import Checkpoint

SEED = 0
N_TRAIN = 2500
N_KILLS, N_TURNS = 20, 2
BEGINS = "fit begins"
TICKS = os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def timing_checkpoints():
    """A list of one: processor time of all that ``checkpoint=`` adds to a fit."""
    spent = [0.0]

    def timed(function):
        def call(*arguments, **options):
            start = time.process_time()
            try:
                return function(*arguments, **options)
            finally:
                spent[0] += time.process_time() - start

        return call

    for name in ("store", "read", "_path", "_forget", "remove"):
        setattr(Checkpoint, name, timed(getattr(Checkpoint, name)))
    cascade.checkpoint_of = timed(cascade.checkpoint_of)
    yield spent


def fit(folder, result, n_train):
    """One fit, in this process; its answers to the test rows are stored."""
    torch.set_num_threads(1)
    split = datasets.load("letter")
    clf = EarlyExitClassifier(checkpoint=folder or None, random_state=SEED)
    print(BEGINS, flush=True)
    start = time.process_time()
    with timing_checkpoints() as spent:
        clf.fit(split.X_train[:n_train], split.y_train[:n_train])
    seconds = {"cpu_seconds": time.process_time() - start, "storing_seconds": spent[0]}
    np.save(result, clf.predict_proba(split.X_test))
    print(json.dumps(seconds), flush=True)


class Program:
    """The fit in a process of its own."""

    def __init__(self, folder, result, n_train):
        arguments = ["--fit", str(folder), str(result), str(n_train)]
        self.process = subprocess.Popen(
            [sys.executable, __file__, *arguments],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        next(line for line in self.process.stdout if BEGINS in line)
        self.begin = self._cpu_seconds()

    def _cpu_seconds(self):
        stat = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text()
        user, system = stat.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / TICKS

    def end(self):
        """Seconds of the whole fit."""
        rest, _ = self.process.communicate()
        if self.process.returncode:
            raise RuntimeError(f"the fit ended with {self.process.returncode}")
        return json.loads(rest.splitlines()[-1])

    def kill_after(self, cpu_seconds):
        """End it after so many seconds of its fit; return how many they were, or None if it ended by itself."""
        while (spent := self._cpu_seconds() - self.begin) < cpu_seconds:
            if self.process.poll() is not None:
                return None
            time.sleep(0.01)
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()
        assert self.process.returncode == -signal.SIGKILL
        return spent


def undisturbed(work, n_train, n_turns):
    """Rows of whole fits, with and without a checkpoint, in turns; the answers of the first."""
    rows, first = [], None
    for turn in range(n_turns):
        for kind in ("without checkpoint", "with checkpoint"):
            folder = "" if kind == "without checkpoint" else work / "folder"
            seconds = Program(folder, work / "answers.npy", n_train).end()
            answers = np.load(work / "answers.npy")
            first = answers if first is None else first
            same = np.array_equal(answers, first)
            rows.append(row(kind, turn, n_train, same=same, **seconds))
            print(rows[-1], flush=True)
    return rows, first


def row(
    kind,
    number,
    n_train,
    *,
    cpu_seconds,
    storing_seconds,
    same,
    killed_after=0.0,
    n_bytes=0,
    n_left=0,
):
    return {
        "data": "letter",
        "seed": SEED,
        "n_train": n_train,
        "kind": kind,
        "number": number,
        "killed_after": killed_after,
        "cpu_seconds": cpu_seconds,
        "storing_seconds": storing_seconds,
        "n_bytes": n_bytes,
        "n_files_left": n_left,
        "same": same,
    }


def killed(work, number, cpu_seconds, expected, n_train):
    """The row of a fit that is killed after so much processor time, and started again; None if it ended before."""
    folder, result = work / f"folder {number}", work / f"answers {number}.npy"
    spent = Program(folder, result, n_train).kill_after(cpu_seconds)
    if spent is None:
        return None
    n_bytes = sum(file.stat().st_size for file in folder.glob("*"))
    seconds = Program(folder, result, n_train).end()
    return row(
        "killed",
        number,
        n_train,
        killed_after=spent,
        **seconds,
        n_bytes=n_bytes,
        n_left=len(list(folder.glob("*"))),
        same=np.array_equal(np.load(result), expected),
    )


def run(n_kills, n_turns, n_train):
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        rows, expected = undisturbed(work, n_train, n_turns)
        whole = median_seconds(rows, "with checkpoint")
        rng = np.random.default_rng(SEED)
        while len(rows) < 2 * n_turns + n_kills:
            number = len(rows) - 2 * n_turns
            found = killed(work, number, rng.uniform(0, 0.98) * whole, expected, n_train)
            if found is not None:
                rows.append(found)
                print(found, flush=True)
    return rows


def median_seconds(rows, kind):
    return float(np.median([r["cpu_seconds"] for r in rows if r["kind"] == kind]))


def figures(rows):
    whole = median_seconds(rows, "with checkpoint")
    of_killed = [r for r in rows if r["kind"] == "killed"]
    lost = [(r["killed_after"] + r["cpu_seconds"]) / whole - 1 for r in of_killed]
    stored = [r for r in rows if r["kind"] == "with checkpoint"]
    return {
        "by_the_clock": whole / median_seconds(rows, "without checkpoint") - 1,
        "overhead": float(np.mean([r["storing_seconds"] / r["cpu_seconds"] for r in stored])),
        "lost": float(np.mean(lost)),
        "most_lost": max(lost),
        "remaining": float(np.mean([r["cpu_seconds"] / whole for r in of_killed])),
        "megabytes": max(r["n_bytes"] for r in of_killed) / 1e6,
    }


def report(rows):
    found = figures(rows)
    print(
        f"{sum(r['same'] for r in rows)} of {len(rows)} fits have the same answers; what was left after the kill took "
        f"{found['remaining']:.0%} of a whole fit on average; lost {found['lost']:.1%} on average, "
        f"{found['most_lost']:.1%} at most; overhead {found['overhead']:.1%} (by the clock of whole fits "
        f"{found['by_the_clock']:.1%}); at most {found['megabytes']:.1f} MB"
    )


def targets(rows):
    found = figures(rows)
    yield Claim("kills", sum(r["kind"] == "killed" for r in rows), ">=", N_KILLS)
    yield Claim("share of a fit that a kill loses", found["lost"], "<=", 0.08)
    yield Claim("what storing adds to a fit", found["overhead"], "<=", 0.03)


def regressions(rows):
    found = figures(rows)
    yield Claim("fits with the same answers", sum(r["same"] for r in rows), ">=", len(rows))
    yield Claim("files left", sum(r["n_files_left"] for r in rows), "<=", 0)
    # Processor time of the same fit differs by a fifth where other jobs share the cores.
    yield Claim("share of a fit that a kill loses", found["lost"], "<=", 0.25)
    yield Claim("what storing adds to a fit", found["overhead"], "<=", 0.08)


CLAIMS = {"resume": Claims(targets, regressions)}


if __name__ == "__main__":
    if "--fit" in sys.argv:
        *_, folder, result, n_train = sys.argv
        fit(folder, result, int(n_train))
        sys.exit()
    quick = claims.parse(claims.parser(__doc__, quick="two kills of a small fit"), CLAIMS).quick
    rows = run(2, 1, 1000) if quick else run(N_KILLS, N_TURNS, N_TRAIN)
    report(rows)
    records.write("resume", rows, quick)
    claims.settle(CLAIMS, quick=quick)
