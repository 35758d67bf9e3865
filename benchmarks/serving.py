"""How many requests a second, and how long does each take?

Two networks: that of CIFAR-10, a companion in front, and MiniLM on the movie reviews (``fine_tuned.py``), whose first
exit costs nothing. Three services of each, one after the other in several turns, each asked by as many clients as
``--clients`` says, over loopback, from a process of its own: the plain network in torch, the whole network in 8-bit
integers in ONNX Runtime (of MiniLM what ``quantize_dynamic`` makes), and exits in 8-bit integers at budget 0.5. They
share all code of the service but what runs the network; the whole networks are not watched, the exits are, as by
default. Each request has ``--samples`` images, as an array, or sentences, as JSON, filled up to the longest of them. A
client sends its next request once the last one is answered. The same samples come again and again, which watching
notices.

Then hostile clients beside: garbage, half a body, a gigabyte, nothing. All others must be answered as before.

    python benchmarks/serving.py --export DIR               # fit and export into DIR, unless it is there, and measure
    python benchmarks/serving.py --export DIR --data minilm --seconds 60 --clients 32 --turns 3
    python benchmarks/serving.py --check
"""

import argparse
import itertools
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import claims
import numpy as np
import records
from claims import Claim, Claims

HERE = pathlib.Path(__file__).resolve().parent
SEED, BUDGET = 0, 0.5
DATA = CIFAR10, MINILM = "cifar10", "minilm"
SERVICES = PLAIN, WHOLE, EXITS = "plain torch", "whole int8", "exits int8"
N_SERVED = 512
HOST = "127.0.0.1"
# Least requests of the exits relative to those of the whole network in integers (project's 22nd issue).
LEAST_GAIN = 1.3
QUESTION = "serving"


def export(data, folder, quick):
    """Fit, and write what the services need: the exits, the whole network in integers, samples."""
    import torch

    torch.set_num_threads(1)
    clf, X, y = FITS[data](quick)
    clf = clf.at(budget=BUDGET)
    folder.mkdir(parents=True, exist_ok=True)
    clf.export(folder / "exits")
    WHOLE_NETWORKS[data](clf, folder / "whole.onnx")
    X, y = {name: part[:N_SERVED] for name, part in X.items()}, y[:N_SERVED]
    print(f"{data}: {clf.score(X if data == MINILM else X['X'], y):.3f} of the samples right")
    np.savez(folder / INPUTS, **X)


def fitted_cifar10(quick):
    import engines

    from sklearn_jeidnn import EarlyExitClassifier

    params, train, held_out, (X, y) = engines.LOADERS[engines.COMPANION](quick)
    clf = EarlyExitClassifier(**params, engine="onnxruntime", random_state=SEED)
    return clf.fit(*train, **held_out), {"X": np.float32(X)}, y


def fitted_minilm(quick):
    import real_networks

    from sklearn_jeidnn import EarlyExitClassifier

    params, train, held_out, (X, y), _ = real_networks.minilm(quick)
    clf = EarlyExitClassifier(
        **params, freeze_backbone=True, engine="onnxruntime", precision="int8", random_state=SEED
    )
    return clf.fit(*train, **held_out), X, y


def with_scales_set_beforehand(clf, path):
    """The same integers as those of the exits."""
    from sklearn_jeidnn._engines.onnx_parts import plain_graph

    path.write_bytes(plain_graph(clf._predictor.cascade.engine.sessions.graph))


def with_scales_of_a_call(clf, path):
    """What people do with a transformer: ONNX Runtime's quantize_dynamic, one scale for all tokens of a call."""
    from onnxruntime.quantization import quantize_dynamic

    exported = path.parent / "exits" / "backbone.onnx"
    quantize_dynamic(exported, path)


FITS = {CIFAR10: fitted_cifar10, MINILM: fitted_minilm}
WHOLE_NETWORKS = {CIFAR10: with_scales_set_beforehand, MINILM: with_scales_of_a_call}
INPUTS = "X.npz"


def free_port():
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


class Server:
    """A service in a process of its own."""

    def __init__(self, what, data, folder):
        self.port = free_port()
        self.process = subprocess.Popen([sys.executable, *self._command(what, data, folder)])

    def _command(self, what, data, folder):
        if what == EXITS:
            limits = ["--threads", "1", "--port", str(self.port)]
            return ["-m", "sklearn_jeidnn", "serve", str(folder / "exits"), *limits]
        return [str(HERE / "whole_networks.py"), what, data, str(folder), str(self.port)]

    def __enter__(self):
        for _ in range(3000):
            if self.process.poll() is not None:
                break
            try:
                self.get("/ready")
                return self
            except OSError:
                time.sleep(0.2)
        self.process.kill()
        raise RuntimeError("the service does not begin")

    def __exit__(self, *error):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)

    def get(self, path):
        with urllib.request.urlopen(f"http://{HOST}:{self.port}{path}", timeout=30) as response:
            return response.read().decode()

    def megabytes(self):
        """Memory of the process (Linux)."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        (line,) = (line for line in status.splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1]) / 1024

    def cpu_seconds(self):
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1]
        return sum(map(int, fields.split()[11:13])) / os.sysconf("SC_CLK_TCK")


def clients(port, seconds, *further):
    """Command that runs clients, without torch."""
    return [sys.executable, str(HERE / "http_clients.py"), str(port), str(seconds), *further]


def loaded(server, folder, options):
    """The same, from a process of its own, as its clients are."""
    own = clients(server.port, options.seconds, "--inputs", str(folder / INPUTS))
    own += ["--clients", str(options.clients), "--samples", str(options.samples)]
    run = subprocess.run(own, capture_output=True, text=True)
    if run.returncode:
        raise RuntimeError(run.stderr)
    return json.loads(run.stdout)


def measure(what, data, folder, options):
    """One service under load: what is recorded of it."""
    with Server(what, data, folder) as server:
        short = argparse.Namespace(**{**vars(options), "seconds": min(5, options.seconds)})
        loaded(server, folder, short)
        before, cpu = server.megabytes(), server.cpu_seconds()
        found = loaded(server, folder, options)
        row = {
            "data": data,
            "what": what,
            "n_clients": options.clients,
            "n_samples": options.samples,
            "seconds": found["seconds"],
            "requests": found["n_requests"],
            "failed": found["n_failed"],
            "requests_per_second": found["n_requests"] / found["seconds"],
            **{f"milliseconds_{name}": found[name] for name in ("p50", "p95", "p99")},
            "server_cpu_ms_per_request": 1e3 * (server.cpu_seconds() - cpu) / found["n_requests"],
            "megabytes_before": before,
            "megabytes_after": server.megabytes(),
            "load_average": os.getloadavg()[0],
            "seed": SEED,
        }
    report(row)
    return row


def measure_harm(data, folder, options):
    """Exits under load, with hostile clients beside."""
    with Server(EXITS, data, folder) as server:
        hostile = subprocess.Popen(clients(server.port, options.seconds, "--hostile"))
        before = server.megabytes()
        found = loaded(server, folder, options)
        hostile.wait()
        row = {
            "what": f"{EXITS}, hostile clients beside",
            "requests": found["n_requests"],
            "failed": found["n_failed"],
            "seconds": found["seconds"],
            "requests_per_second": found["n_requests"] / found["seconds"],
            **{f"milliseconds_{name}": found[name] for name in ("p50", "p95", "p99")},
            "megabytes_before": before,
            "megabytes_after": server.megabytes(),
        }
    report(row)
    return row


def report(row):
    print(
        f"{row['what']:34} {row['requests_per_second']:7.0f} requests a second, {row['failed']} failed; "
        f"p50 {row['milliseconds_p50']:.1f}, p95 {row['milliseconds_p95']:.1f}, p99 {row['milliseconds_p99']:.1f} ms; "
        f"{row['megabytes_before']:.0f} to {row['megabytes_after']:.0f} MB",
        flush=True,
    )


def of(rows, data, what, n_samples, key="requests_per_second"):
    """Median over the turns; NaN if it was not measured."""
    asked = {"data": data, "what": what, "n_samples": n_samples}
    values = [row[key] for row in rows if asked.items() <= row.items()]
    return float(np.median(values)) if values else np.nan


def settings(rows):
    """Networks and numbers of samples in a request that were measured."""
    return sorted({(row["data"], row["n_samples"]) for row in rows})


def targets(rows):
    for data, n_samples in settings(rows):
        gain = of(rows, data, EXITS, n_samples) / of(rows, data, WHOLE, n_samples)
        says = f"{data}, {n_samples} samples a request: requests with exits / of the whole int8 network"
        yield Claim(says, gain, ">=", LEAST_GAIN)


def regressions(rows):
    yield Claim("requests that failed", sum(row["failed"] for row in rows), "<=", 0)
    grown = max(row["megabytes_after"] - row["megabytes_before"] for row in rows)
    # Requests of other lengths and numbers of sentences take other memory, which ONNX Runtime keeps.
    yield Claim("megabytes that a service grows under load", grown, "<=", 300)
    for data, n_samples in settings(rows):
        gain = of(rows, data, EXITS, n_samples) / of(rows, data, PLAIN, n_samples)
        says = f"{data}, {n_samples} samples a request: requests with exits / of plain torch"
        yield Claim(says, gain, ">=", 1)


CLAIMS = {QUESTION: Claims(targets, regressions)}


def parsed():
    parser = claims.parser(__doc__, quick="one epoch, two seconds")
    parser.add_argument("--export", type=pathlib.Path, help="folder of what is served")
    parser.add_argument("--data", nargs="+", default=list(DATA), choices=DATA)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--samples", type=int, nargs="+", default=[1, 16])
    return claims.parse(parser, CLAIMS)


def rows_of(data, options):
    """All that is measured of one network."""
    folder = options.export / data
    if not (folder / INPUTS).is_file():
        export(data, folder, options.quick)
    rows = []
    for n_samples, _ in itertools.product(options.samples, range(options.turns)):
        own = argparse.Namespace(**{**vars(options), "samples": n_samples})
        rows += [measure(what, data, folder, own) for what in SERVICES]
    own = argparse.Namespace(**{**vars(options), "samples": 1})
    return [*rows, {**rows[0], **measure_harm(data, folder, own), "n_samples": 1}]


def main(options):
    if options.quick:
        options.seconds, options.turns = 2, 1
    rows = [row for data in options.data for row in rows_of(data, options)]
    records.write(QUESTION, rows, options.quick)
    claims.settle(CLAIMS, quick=options.quick)


if __name__ == "__main__":
    main(parsed())
