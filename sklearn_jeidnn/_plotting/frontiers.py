"""The line through operating points: their concave envelope, only where there are such points."""

import numpy as np

# Neighbours further apart are not joined, as a share of the axis.
MOST_OF_AXIS = 0.15


def frontier_rows(mean_cost: np.ndarray, accuracy: np.ndarray) -> np.ndarray:
    """Numbers of the points on the concave envelope, from the cheapest to the most accurate ones.

    A random choice between two neighbours reaches every point between them (Provost, Fawcett, "Robust Classification
    for Imprecise Environments", Machine Learning 2001). More expensive points that are less accurate are left out.

    Parameters
    ----------
    mean_cost, accuracy : ndarray (n_points,)
    """
    order = np.lexsort((-accuracy, mean_cost))
    envelope: list[int] = []
    for row in order.tolist():
        if envelope and accuracy[row] <= accuracy[envelope[-1]]:
            continue
        while len(envelope) > 1 and _is_below(envelope[-2], envelope[-1], row, mean_cost, accuracy):
            envelope.pop()
        envelope.append(row)
    # More expensive, and as accurate as any.
    as_accurate = [row for row in order.tolist() if accuracy[row] == accuracy[envelope[-1]]]
    if mean_cost[as_accurate[-1]] > mean_cost[envelope[-1]]:
        envelope.append(as_accurate[-1])
    return np.array(envelope, dtype=int)


def _is_below(first: int, middle: int, last: int, x: np.ndarray, y: np.ndarray) -> bool:
    """Whether the middle one of three points is not above the line through the others."""
    rise = (y[last] - y[first]) * (x[middle] - x[first])
    return bool((y[middle] - y[first]) * (x[last] - x[first]) <= rise)


def frontier_line(
    mean_cost: np.ndarray, heights: np.ndarray, rows: np.ndarray, widest_gap: float, is_log: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Costs and heights of a line over operating points; NaN where two neighbours are too far apart.

    Parameters
    ----------
    mean_cost, heights : ndarray (n_points,)
    rows : ndarray of int (n_vertices,)
        As :func:`frontier_rows` gives them.
    widest_gap : float
        Between neighbours, in decades if ``is_log``.
    is_log : bool
        Whether costs are drawn on a logarithmic axis.
    """
    vertices = mean_cost[rows]
    inside = (mean_cost >= vertices[0]) & (mean_cost <= vertices[-1])
    costs = np.unique(mean_cost[inside])
    line = np.interp(costs, vertices, heights[rows])
    places = np.log10(costs) if is_log else costs
    gaps = np.flatnonzero(np.diff(places) > widest_gap) + 1
    return np.insert(costs, gaps, np.nan), np.insert(line, gaps, np.nan)
