"""Which operating points keep to a limit, with confidence: tests on rows that chose nothing (NumPy only)."""

import math
from typing import NamedTuple

import numpy as np
from scipy.stats import binom

# Largest share of the capital that a bet may lose.
LARGEST_BET = 0.75


class RiskControl(NamedTuple):
    """A statement about rows like those that were tested."""

    risk: str  # "accuracy_drop", "disagreement" or "mean_cost"
    limit: float  # what its mean is at most
    confidence: float  # with which that is so
    n_rows: int  # tested
    estimate: float  # mean of the risk on those rows
    p_value: float  # of the point taken; NaN where none passed
    certified: bool  # False: no point passed, and the point taken needs no test


def betting_p_value(losses, limit, significance=0.05):
    """P-value of "the mean loss is more than the limit", of losses in [0, 1] in random order.

    Betting on small losses, a gambler's capital cannot grow, on average, if that is so. Waudby-Smith,
    Ramdas, "Estimating Means of Bounded Random Variables by Betting", JRSS B 2024, with its bets of
    section 3.2; Ville's inequality. Exact, and sharp where losses vary little.

    Parameters
    ----------
    losses : ndarray (n_rows,)
    limit : float
    significance : float, default=0.05
        Level at which bets pay best; the p-value holds whatever it is.

    Returns
    -------
    float
    """
    if limit >= 1:
        return 0.0
    # Of the rows before each row; half a loss, with a variance of a quarter, counts as seen before the first.
    n_seen = np.arange(1, len(losses) + 1)
    means = (0.5 + np.cumsum(losses)) / (n_seen + 1)
    squares = 0.25 + np.cumsum((losses - means) ** 2)
    variances = np.append(0.25, squares[:-1] / n_seen[1:])
    bets = np.sqrt(2 * math.log(1 / significance) / (len(losses) * variances))
    bets = np.minimum(bets, LARGEST_BET / (1 - limit))
    log_capital = np.cumsum(np.log1p(bets * (limit - losses)))
    return float(np.exp(-max(log_capital.max(), 0)))


def binomial_p_value(events, limit, significance=0.05):
    """P-value of "the rate of events is more than the limit": exact (Clopper, Pearson, Biometrika 1934).

    Parameters
    ----------
    events : ndarray of bool (n_rows,)
    limit : float
    significance : ignored

    Returns
    -------
    float
    """
    return float(binom.cdf(np.sum(events), len(events), limit))


def drop_p_value(drops, limit, significance=0.05):
    """P-value of "the mean drop is more than the limit", of drops in [-1, 1] in random order."""
    return betting_p_value((drops + 1) / 2, (limit + 1) / 2, significance)


class cost_p_value:
    """P-value of "the mean cost is more than the limit", of costs between the cheapest exit's and the dearest's.

    Parameters
    ----------
    exit_costs : ndarray (n_exits,)
    """

    def __init__(self, exit_costs):
        self.least, self.most = np.min(exit_costs), np.max(exit_costs)

    def __call__(self, costs, limit, significance=0.05):
        span = max(self.most - self.least, np.finfo(float).tiny)
        losses, limit = ((value - self.least) / span for value in (costs, limit))
        return betting_p_value(np.clip(losses, 0, 1), limit, significance)


def last_certified(losses_of_points, p_value_of, limit, confidence):
    """How far a sequence of points, ordered beforehand, keeps to a limit.

    Fixed-sequence testing: points are tested one after the other, each at the whole significance,
    up to the first that does not pass. With probability ``confidence`` none of those that passed
    breaks the limit, so the last may be taken. Maurer, Hothorn, Lehmacher 1995; Angelopoulos, Bates,
    Candès, Jordan, Lei, "Learn then Test", Annals of Applied Statistics 2025.

    Parameters
    ----------
    losses_of_points : iterable of ndarray (n_rows,)
        Read no further than to the first point that fails.
    p_value_of : callable
    limit, confidence : float

    Returns
    -------
    point : int
        -1 where the first did not pass.
    p_value : float
    """
    significance = 1 - confidence
    passed, its_p_value = -1, math.nan
    for point, losses in enumerate(losses_of_points):
        p_value = p_value_of(losses, limit, significance)
        if p_value > significance:
            break
        passed, its_p_value = point, p_value
    return passed, its_p_value
