"""Tests of whether operating points keep to a limit, on samples that chose nothing (NumPy only)."""

import math
from collections.abc import Callable, Iterable

import numpy as np

# Losses (n_samples,), limit, significance -> p-value
PValue = Callable[[np.ndarray, float, float], float]

# Largest share of the capital that a bet may lose.
LARGEST_BET = 0.75
# Terms of a binomial sum that are further from the largest add less than rounding.
DEVIATIONS, FEWEST_TERMS = 12, 100
# More samples than anybody labels.
MOST_TRIALS = 10**7
# Power rises with the number of events, but for steps of whole numbers.
STEPS_BACK = 30


def betting_p_value(losses: np.ndarray, limit: float, significance: float = 0.05) -> float:
    """P-value of "the mean loss is more than the limit", of losses in [0, 1] in random order.

    If that is so, the capital of a gambler who bets on small losses does not grow on average.
    Waudby-Smith, Ramdas, "Estimating Means of Bounded Random Variables by Betting", JRSS B 2024, with
    the bets of its section 3.2; Ville's inequality. Exact, and sharp if losses vary little.

    Parameters
    ----------
    losses : ndarray (n_samples,)
    limit : float
    significance : float, default=0.05
        Level for which the bets are best; the p-value is valid for any.
    """
    if limit >= 1:
        return 0.0
    # Variances are those of the samples before each sample. Before the first, a loss of a half with a variance of a
    # quarter counts as seen.
    n_seen = np.arange(1, len(losses) + 1)
    means = (0.5 + np.cumsum(losses)) / (n_seen + 1)
    squares = 0.25 + np.cumsum((losses - means) ** 2)
    variances = np.append(0.25, squares[:-1] / n_seen[1:])
    bets = np.sqrt(2 * math.log(1 / significance) / (len(losses) * variances))
    bets = np.minimum(bets, LARGEST_BET / (1 - limit))
    log_capital = np.cumsum(np.log1p(bets * (limit - losses)))
    return float(np.exp(-max(log_capital.max(), 0)))


def binomial_p_value(events: np.ndarray, limit: float, significance: float = 0.05) -> float:
    """Exact p-value of "the rate of events is more than the limit" (Clopper, Pearson, Biometrika 1934).

    Parameters
    ----------
    events : ndarray of bool (n_samples,)
    limit : float
    significance : ignored
    """
    return binomial_cdf(int(np.sum(events)), len(events), limit)


# SciPy's would be taken, if certificates did not have to be made where there is NumPy only.
def binomial_cdf(n_events: int, n_trials: int, rate: float) -> float:
    """Probability of at most so many events in independent trials.

    The sum of the terms near the largest.
    """
    if n_events >= n_trials or rate <= 0:
        return 1.0
    deviation = math.sqrt(n_trials * rate * (1 - rate))
    least = min(n_events, int(n_trials * rate)) - int(DEVIATIONS * deviation) - FEWEST_TERMS
    events = np.arange(max(least, 0), n_events + 1)
    first = int(events[0])
    log_choices = math.lgamma(n_trials + 1) - math.lgamma(first + 1)
    log_choices -= math.lgamma(n_trials - first + 1)
    log_first = log_choices + first * math.log(rate) + (n_trials - first) * math.log1p(-rate)
    log_odds = math.log(rate) - math.log1p(-rate)
    steps = np.log(n_trials - events[:-1]) - np.log(events[:-1] + 1) + log_odds
    log_terms = log_first + np.append(0, np.cumsum(steps))
    largest = log_terms.max()
    return min(1.0, float(np.exp(largest) * np.exp(log_terms - largest).sum()))


def fewest_trials(n_events: int, rate: float, significance: float) -> int:
    """Fewest trials that show with so many events that their rate is at most this."""
    low, high = n_events, n_events + 1
    while binomial_cdf(n_events, high, rate) > significance:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        shows = binomial_cdf(n_events, middle, rate) <= significance
        low, high = (low, middle) if shows else (middle, high)
    return high


def trials_needed(limit: float, confidence: float, *, rate: float, power: float) -> int | None:
    """Fewest trials that show a limit with this probability, if events come at a rate.

    Trials with ``n_events`` events show it if ``binomial_cdf(n_events, n_trials, limit) <= 1 - confidence``, so the
    fewest are the :func:`fewest_trials` of the least number of events that is not exceeded with probability ``power``.

    Parameters
    ----------
    limit, confidence : float
    rate : float
        Of events, less than the limit.
    power : float
        Probability with which the limit is to be shown.

    Returns
    -------
    int or None
        None if more than ``MOST_TRIALS`` are needed.
    """

    def shown_by(n_events: int) -> int | None:
        n_trials = fewest_trials(n_events, limit, 1 - confidence)
        return n_trials if binomial_cdf(n_events, n_trials, rate) >= power else None

    low, high = -1, 0
    while shown_by(high) is None:
        low, high = high, 2 * high + 1
        if high > MOST_TRIALS * limit:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if shown_by(middle) is None else (low, middle)
    tried = map(shown_by, range(max(0, high - STEPS_BACK), high + 1))
    return next(n_trials for n_trials in tried if n_trials is not None)


def drop_p_value(drops: np.ndarray, limit: float, significance: float = 0.05) -> float:
    """P-value of "the mean drop is more than the limit", of drops in [-1, 1] in random order."""
    return betting_p_value((drops + 1) / 2, (limit + 1) / 2, significance)


class cost_p_value:
    """P-value of "the mean cost is more than the limit", of the costs of exits taken, in random order.

    Parameters
    ----------
    exit_costs : ndarray (n_exits,)
    """

    def __init__(self, exit_costs: np.ndarray) -> None:
        self.least, self.most = np.min(exit_costs), np.max(exit_costs)

    def __call__(self, costs: np.ndarray, limit: float, significance: float = 0.05) -> float:
        span = max(self.most - self.least, np.finfo(float).tiny)
        losses, limit = ((value - self.least) / span for value in (costs, limit))
        return betting_p_value(np.clip(losses, 0, 1), limit, significance)


def last_certified(
    losses_of_points: Iterable[np.ndarray], p_value_of: PValue, limit: float, confidence: float
) -> tuple[int, float]:
    """Find the last point of a sequence, ordered beforehand, up to which all points keep to a limit.

    Fixed-sequence testing: points are tested one after the other, each at the full significance
    level, up to the first that does not pass. With probability ``confidence`` none of the points that
    passed breaks the limit, so the last of them may be taken. Maurer, Hothorn, Lehmacher 1995; Angelopoulos, Bates,
    Candès, Jordan, Lei, "Learn then Test", Annals of Applied Statistics 2025.

    Parameters
    ----------
    losses_of_points : iterable of ndarray (n_samples,)
        Read no further than to the first point that fails.
    p_value_of : callable
    limit, confidence : float

    Returns
    -------
    point : int
        -1 if the first did not pass.
    p_value : float
        Of that point; NaN if there is none.
    """
    significance = 1 - confidence
    passed, its_p_value = -1, math.nan
    for point, losses in enumerate(losses_of_points):
        p_value = p_value_of(losses, limit, significance)
        # A p-value of NaN shows nothing.
        if not p_value <= significance:
            break
        passed, its_p_value = point, p_value
    return passed, its_p_value
