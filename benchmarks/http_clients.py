"""Clients that ask a service as fast as it answers, or harm it; ``serving.py`` runs them in a process of their own.

python benchmarks/http_clients.py PORT SECONDS --inputs X.npz --clients 32 --samples 1
python benchmarks/http_clients.py PORT SECONDS --hostile
"""

import argparse
import io
import itertools
import json
import selectors
import socket
import time

import numpy as np

HOST = "127.0.0.1"


def requests_of(X, n_samples):
    """Requests as bytes: images as a file of NumPy's, sentences as JSON, filled up to the longest of a request."""
    n_all = len(next(iter(X.values())))
    for start in range(0, n_all, n_samples):
        rows = np.arange(start, start + n_samples) % n_all
        own = {name: part[rows] for name, part in X.items()}
        kind, body = as_npy(own["X"]) if "X" in own else as_json(own)
        head = (
            f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        yield head.encode() + body


def as_npy(X):
    file = io.BytesIO()
    np.save(file, X)
    return "application/octet-stream", file.getvalue()


def as_json(X):
    length = X["attention_mask"].sum(1).max()
    inputs = {name: part[:, :length].tolist() for name, part in X.items()}
    return "application/json", json.dumps({"X": inputs}).encode()


class Client:
    """One connection, which sends a request whenever the last one is answered."""

    def __init__(self, port):
        self.socket = socket.create_connection((HOST, port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.answer, self.length = b"", None

    def send(self, request):
        self.start = time.perf_counter()
        self.answer, self.length = b"", None
        self.socket.sendall(request)

    def receive(self):
        """Seconds and status, if the answer is whole."""
        part = self.socket.recv(2**18)
        if not part:
            return time.perf_counter() - self.start, 0
        self.answer = self.answer + part if self.answer else part
        if self.length is None:
            end = self.answer.find(b"\r\n\r\n")
            if end < 0:
                return None
            at = self.answer.find(b"content-length: ") + 16
            self.length = end + 4 + int(self.answer[at : self.answer.index(b"\r", at)])
        if len(self.answer) < self.length:
            return None
        return time.perf_counter() - self.start, int(self.answer[9:12])


def load(port, requests, n_clients, seconds):
    """Seconds of each request that was answered, how many failed, and how long all took."""
    selector = selectors.DefaultSelector()
    stream = itertools.cycle(requests)
    clients = [Client(port) for _ in range(n_clients)]
    begin = time.perf_counter()
    times, n_failed, end = [], 0, begin + seconds
    for client in clients:
        selector.register(client.socket, selectors.EVENT_READ, client)
        client.send(next(stream))
    n_open = n_clients
    while n_open:
        for key, _ in selector.select(timeout=60):
            found = key.data.receive()
            if found is None:
                continue
            times.append(found[0])
            n_failed += found[1] != 200
            if time.perf_counter() < end and found[1]:
                key.data.send(next(stream))
            else:
                selector.unregister(key.data.socket)
                key.data.socket.close()
                n_open -= 1
    return times, n_failed, time.perf_counter() - begin


def harm(port, seconds):
    """Clients that send what nobody should."""
    head = (
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: "
    )
    random = np.random.default_rng(0)
    end, held = time.perf_counter() + seconds, []
    gigabyte = [head + b"1000000000\r\n\r\n", head.replace(b"Content-Length: ", b"X: ")]
    gigabyte[1] += b"1\r\nTransfer-Encoding: chunked\r\n\r\n"
    for turn in itertools.count():
        if time.perf_counter() > end:
            break
        kind = turn % 4
        client = socket.create_connection((HOST, port))
        client.settimeout(5)
        try:
            if kind == 0:
                client.sendall(random.bytes(2000))
            elif kind == 1:
                client.sendall(head + b'1000\r\n\r\n{"X": [')
            elif kind == 2:
                client.sendall(gigabyte[turn // 4 % 2])
                part = b"100000\r\n" + b" " * 2**20 + b"\r\n"
                for _ in range(1000):
                    client.sendall(part if turn // 4 % 2 else part[8:-2])
        except OSError:
            pass
        held = [*held, client][-100:]
        time.sleep(0.05)


def main(options):
    if options.hostile:
        return harm(options.port, options.seconds)
    requests = list(requests_of(dict(np.load(options.inputs)), options.samples))
    times, n_failed, seconds = load(options.port, requests, options.clients, options.seconds)
    p50, p95, p99 = 1e3 * np.quantile(times, [0.5, 0.95, 0.99])
    found = {"n_requests": len(times), "n_failed": n_failed, "seconds": seconds}
    print(json.dumps({**found, "p50": p50, "p95": p95, "p99": p99}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("port", type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("--inputs")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--samples", type=int, default=1)
    parser.add_argument("--hostile", action="store_true")
    main(parser.parse_args())
