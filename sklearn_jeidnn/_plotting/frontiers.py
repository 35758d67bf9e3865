"""The line through operating points: their concave envelope, only where there are such points."""

import numpy as np

# Neighbours further apart are not joined, as a share of the axis.
MOST_OF_AXIS = 0.15


def frontier_runs(
    mean_cost: np.ndarray, accuracy: np.ndarray, widest_gap: float, is_log: bool
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Points that lie close together, and which of them are on their concave envelope.

    An envelope goes from the cheapest point that is at least as accurate as all cheaper ones to the most accurate one.
    A random choice between two neighbours reaches every point between them (Provost, Fawcett, "Robust Classification
    for Imprecise Environments", Machine Learning 2001).

    Parameters
    ----------
    mean_cost, accuracy : ndarray (n_points,)
    widest_gap : float
        Between neighbours, in decades if ``is_log``.
    is_log : bool
        Whether costs are drawn on a logarithmic axis.

    Returns
    -------
    list of pairs of ndarray
        Numbers of the points of a run, by cost, and of those on its envelope. A run without an envelope is left out.
    """
    order = np.lexsort((-accuracy, mean_cost))
    places = np.log10(mean_cost[order]) if is_log else mean_cost[order]
    runs = np.split(order, np.flatnonzero(np.diff(places) > widest_gap) + 1)
    found, least = [], -np.inf
    for run in runs:
        envelope = _envelope(run[accuracy[run] >= least], mean_cost, accuracy)
        if len(envelope):
            found.append((run, envelope))
            least = accuracy[envelope[-1]]
    return found


def _envelope(rows: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Which points, ordered by ``x``, are on the concave envelope, up to the last of the highest ones."""
    envelope: list[int] = []
    for row in rows.tolist():
        if envelope and y[row] <= y[envelope[-1]]:
            continue
        while len(envelope) > 1 and _is_below(envelope[-2], envelope[-1], row, x, y):
            envelope.pop()
        envelope.append(row)
    if envelope:
        highest = rows[y[rows] == y[envelope[-1]]]
        if x[highest[-1]] > x[envelope[-1]]:
            envelope.append(int(highest[-1]))
    return np.array(envelope, dtype=int)


def _is_below(first: int, middle: int, last: int, x: np.ndarray, y: np.ndarray) -> bool:
    """Whether the middle one of three points is not above the line through the others."""
    rise = (y[last] - y[first]) * (x[middle] - x[first])
    return bool((y[middle] - y[first]) * (x[last] - x[first]) <= rise)


def frontier_line(
    mean_cost: np.ndarray, heights: np.ndarray, runs: list[tuple[np.ndarray, np.ndarray]]
) -> tuple[np.ndarray, np.ndarray]:
    """Costs and heights of a line over operating points; NaN between two runs.

    Parameters
    ----------
    mean_cost, heights : ndarray (n_points,)
    runs : list of pairs of ndarray
        As :func:`frontier_runs` gives them; between two points of an envelope the line is straight.
    """
    costs: list[float] = []
    line: list[float] = []
    for run, envelope in runs:
        vertices = mean_cost[envelope]
        own = np.unique(mean_cost[run])
        own = own[(own >= vertices[0]) & (own <= vertices[-1])]
        costs += [np.nan, *own] if costs else [*own]
        line += [np.nan] * bool(line) + [*np.interp(own, vertices, heights[envelope])]
    return np.array(costs), np.array(line)
