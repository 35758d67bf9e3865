"""Capital of gamblers who bet that p-values are not uniform: it seldom grows if they are (NumPy only).

Each class is a test martingale: if p-values are independent and uniform, capital that begins at 1 ever reaches ``c``
with probability at most ``1 / c`` (Ville's inequality), however long one watches.
"""

import numpy as np

# P-values that are taken at once; also how often a gambler without a past begins.
CHUNK = 64
# Densities are no higher than at this p-value, and capital counts up to here, so that nothing overflows. Both may only
# lower capital.
LEAST_P, MOST_CAPITAL = 1e-4, 1e100
SLOPES = np.array([0.9, -0.9, 0.5, -0.5])
CURVES = np.array([0.9, -0.9])
POWERS = np.array([0.5, 0.25])
N_BINS, MOST_RUNS = 10, 16


def densities(p_values: np.ndarray) -> np.ndarray:
    """Fixed densities on [0, 1] of other p-values than uniform ones: (n_values,) -> (n_values, n_densities).

    They are for small, for large, for extreme and for middling p-values (jumpers' and power martingales' bets).
    """
    slope = 2 * p_values[:, None] - 1
    low, high = (np.maximum(p, LEAST_P)[:, None] for p in (p_values, 1 - p_values))
    return np.concatenate(
        [
            1 + SLOPES * slope,
            1 + CURVES * (3 * slope**2 - 1) / 2,
            POWERS * low ** (POWERS - 1),
            POWERS * high ** (POWERS - 1),
        ],
        axis=1,
    )


class DensityBets:
    """Capital on fixed densities; a share of it begins to bet at each p-value, so that late changes are noticed, too.

    After ``t`` p-values ``1 / (t + 1)`` still waits: a change at that time costs a factor of about ``t`` beside one
    that is there from the beginning, and no more.
    """

    def __init__(self) -> None:
        self.n_seen = 0
        self._betting = np.zeros(len(densities(np.zeros(1))[0]))

    def update(self, p_values: np.ndarray) -> np.ndarray:
        """Capital after each of at most ``CHUNK`` p-values: (n_values,) -> (n_values,)."""
        growth = np.cumprod(densities(p_values), axis=0)
        before = np.concatenate([np.ones((1, growth.shape[1])), growth[:-1]])
        number = self.n_seen + 1 + np.arange(len(p_values))
        begins = 1 / (number * (number + 1)) / growth.shape[1]
        betting = growth * (self._betting + np.cumsum(begins[:, None] / before, axis=0))
        self.n_seen += len(p_values)
        self._betting = np.minimum(betting[-1], MOST_CAPITAL)
        capital: np.ndarray = betting.sum(axis=1) + 1 / (number + 1)
        return capital


class HistogramBets:
    """Capital on histograms of the p-values so far: for changes of any kind, which they learn.

    Every ``CHUNK`` p-values a new histogram begins, with a share of what waits, as in :class:`DensityBets`. At most
    ``MOST_RUNS`` are kept: of the older half the one with the least capital is given up.
    """

    def __init__(self) -> None:
        self.n_seen = 0
        self._capital = np.empty(0)
        self._counts = np.empty((0, N_BINS))

    def update(self, p_values: np.ndarray) -> np.ndarray:
        """Capital after each p-value, of which no more come than are left of a chunk: (n_values,) -> (n_values,)."""
        if self.n_seen % CHUNK == 0:
            self._begin()
        bins = np.minimum((p_values * N_BINS).astype(int), N_BINS - 1)
        is_in = np.eye(N_BINS)[bins]
        here = (np.cumsum(is_in, axis=0) - is_in)[np.arange(len(bins)), bins]
        totals = self._counts.sum(axis=1, keepdims=True) + np.arange(len(bins))
        growth = np.cumprod(N_BINS * (self._counts[:, bins] + here) / totals, axis=1)
        capital = self._capital[:, None] * growth
        self._counts += is_in.sum(axis=0)
        self._capital = np.minimum(capital[:, -1], MOST_CAPITAL)
        n_begun = self.n_seen // CHUNK + 1
        self.n_seen += len(p_values)
        of_all: np.ndarray = capital.sum(axis=0) + 1 / (n_begun + 1)
        return of_all

    def _begin(self) -> None:
        number = self.n_seen // CHUNK + 1
        self._capital = np.append(self._capital, 1 / (number * (number + 1)))
        # As if each bin had been seen half a time.
        self._counts = np.concatenate([self._counts, np.full((1, N_BINS), 0.5)])
        if len(self._capital) > MOST_RUNS:
            least = int(np.argmin(self._capital[: MOST_RUNS // 2]))
            self._capital = np.delete(self._capital, least)
            self._counts = np.delete(self._counts, least, axis=0)


class Bets:
    """Half of the capital on either kind of bets."""

    def __init__(self) -> None:
        self._of_kinds = (DensityBets(), HistogramBets())

    @property
    def n_left(self) -> int:
        """P-values that may come at once."""
        return CHUNK - self._of_kinds[0].n_seen % CHUNK

    def update(self, p_values: np.ndarray) -> np.ndarray:
        """Capital after each of at most ``n_left`` p-values: (n_values,) -> (n_values,)."""
        capital: np.ndarray = sum(kind.update(p_values) for kind in self._of_kinds) / 2  # type: ignore[assignment]
        return capital
