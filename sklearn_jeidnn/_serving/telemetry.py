"""What a service has done so far, in the text format of Prometheus."""

import math
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from .._operate.coverage import CoverageBounds
from .points import ServedPoint

QUANTILES = (0.5, 0.95, 0.99)
# Requests whose latencies give the percentiles.
N_RECENT = 4096
Labels = Mapping[str, str]
PREFIX = "jeidnn"


class Telemetry:
    """Counts of requests, samples and exits, and recent latencies.

    Parameters
    ----------
    exit_names : sequence of str (n_exits,)
    """

    def __init__(self, exit_names: Sequence[str]) -> None:
        self.exit_names = exit_names
        self.requests: Counter[tuple[str, int]] = Counter()
        self.exits = np.zeros(len(exit_names), dtype=np.int64)
        self.cost = 0.0
        self.latencies: deque[float] = deque(maxlen=N_RECENT)
        self.seconds, self.n_timed = 0.0, 0

    def count_request(self, endpoint: str, status: int, seconds: float) -> None:
        """Count a request; latencies are of those that were answered."""
        self.requests[endpoint, status] += 1
        if status == 200:
            self.latencies.append(seconds)
            self.seconds += seconds
            self.n_timed += 1

    def count_samples(self, exit_index: np.ndarray, exit_costs: np.ndarray) -> None:
        """Count samples by the exits that they took."""
        found = np.bincount(exit_index, minlength=len(self.exits))
        self.exits += found
        self.cost += float(found @ exit_costs)

    def lines(self) -> Iterator[str]:
        """Lines of text."""
        counts = [({"endpoint": e, "status": str(s)}, n) for (e, s), n in self.requests.items()]
        yield from metric("requests_total", "counter", "Requests by status.", counts)
        errors = sum(n for (_, status), n in self.requests.items() if status >= 400)
        yield from metric("errors_total", "counter", "Requests that were refused.", [({}, errors)])
        n_samples = int(self.exits.sum())
        yield from metric("samples_total", "counter", "Samples answered.", [({}, n_samples)])
        exits = [({"exit": name}, int(n)) for name, n in zip(self.exit_names, self.exits)]
        yield from metric("exits_total", "counter", "Samples by the exit they took.", exits)
        shares = [(own, n / n_samples if n_samples else math.nan) for own, n in exits]
        yield from metric("exit_rate", "gauge", "Share of samples by exit.", shares)
        mean = self.cost / n_samples if n_samples else math.nan
        help_text = "Mean cost of a sample, in passes of the plain backbone."
        yield from metric("mean_cost", "gauge", help_text, [({}, mean)])
        yield from self._latency_lines()

    def _latency_lines(self) -> Iterator[str]:
        found = np.quantile(self.latencies, QUANTILES) if self.latencies else [math.nan] * 3
        values = [({"quantile": str(q)}, float(value)) for q, value in zip(QUANTILES, found)]
        help_text = f"Seconds to answer a request; quantiles of the last {N_RECENT}."
        yield from metric("latency_seconds", "summary", help_text, values)
        yield f"{PREFIX}_latency_seconds_sum {self.seconds}"
        yield f"{PREFIX}_latency_seconds_count {self.n_timed}"


def batch_lines(batch_sizes: Mapping[int, int], n_queued: int) -> Iterator[str]:
    """How many samples were answered together, and how many wait."""
    yield f"# HELP {PREFIX}_batch_size Samples of a call of the predictor."
    yield f"# TYPE {PREFIX}_batch_size histogram"
    sizes = sorted(batch_sizes.items())
    edges = [2**i for i in range(max((size for size, _ in sizes), default=1).bit_length() + 1)]
    for edge in edges:
        n_below = sum(n for size, n in sizes if size <= edge)
        yield f'{PREFIX}_batch_size_bucket{{le="{edge}"}} {n_below}'
    n_batches = sum(n for _, n in sizes)
    yield f'{PREFIX}_batch_size_bucket{{le="+Inf"}} {n_batches}'
    yield f"{PREFIX}_batch_size_sum {sum(size * n for size, n in sizes)}"
    yield f"{PREFIX}_batch_size_count {n_batches}"
    yield from metric("queued_samples", "gauge", "Samples that wait.", [({}, n_queued)])


def watch_lines(points: Mapping[float | None, ServedPoint]) -> Iterator[str]:
    """What is watched, by operating point."""
    watched = [
        ({"budget": "own" if budget is None else f"{budget:g}"}, point.watched.watcher)
        for budget, point in points.items()
        if point.watched is not None
    ]
    if not watched:
        return
    help_text = "Wealth of bets that samples are not like those that calibrated."
    yield from metric("watch_wealth", "gauge", help_text, [(p, w.wealth) for p, w in watched])
    limits = [(p, 1 / w.alpha) for p, w in watched]
    yield from metric("watch_limit", "gauge", "Wealth that raises the alarm.", limits)
    alarms = [(p, int(w.alarm)) for p, w in watched]
    yield from metric("watch_alarm", "gauge", "1 once the wealth reached the limit.", alarms)
    seen = [(p, w.n_seen) for p, w in watched]
    yield from metric("watched_samples_total", "counter", "Samples that were watched.", seen)
    bounds = [
        ({**p, "exit": name}, found) for p, w in watched for name, found in w.coverage().items()
    ]
    yield from _coverage_lines(bounds)


def _coverage_lines(bounds: Sequence[tuple[Labels, CoverageBounds]]) -> Iterator[str]:
    of_names = {
        "labels_total": ("counter", "Labels that came back.", "n_samples"),
        "covered_total": ("counter", "Prediction sets that held the label.", "n_covered"),
        "coverage_low": ("gauge", "Lower end of the interval of the coverage.", "low"),
        "coverage_high": ("gauge", "Upper end of the interval of the coverage.", "high"),
        "coverage_is_below": ("gauge", "1 if coverage is shown to be below the level.", "is_below"),
    }
    for name, (kind, help_text, field) in of_names.items():
        values = [(own, float(getattr(found, field))) for own, found in bounds]
        yield from metric(name, kind, help_text, values)


def metric(
    name: str, kind: str, help_text: str, values: Iterable[tuple[Labels, float]]
) -> Iterator[str]:
    """Lines of one metric."""
    yield f"# HELP {PREFIX}_{name} {help_text}"
    yield f"# TYPE {PREFIX}_{name} {kind}"
    for labels, value in values:
        inside = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
        yield f"{PREFIX}_{name}{f'{{{inside}}}' if inside else ''} {_number(value)}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    return "NaN" if math.isnan(value) else repr(value)
