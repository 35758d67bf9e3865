"""Capital of gamblers who bet that p-values are not uniform: it seldom grows if they are (NumPy only).

Each class is a test martingale for each of several streams of p-values: if those of a stream are independent and
uniform, capital that begins at 1 ever reaches ``c`` with probability at most ``1 / c`` (Ville's inequality), however
long one watches.
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
    """Fixed densities on [0, 1] of other p-values than uniform ones: (...) -> (..., n_densities).

    They are for small, for large, for extreme and for middling p-values (jumpers' and power martingales' bets).
    """
    slope = 2 * p_values[..., None] - 1
    low, high = (np.maximum(p, LEAST_P)[..., None] for p in (p_values, 1 - p_values))
    return np.concatenate(
        [
            1 + SLOPES * slope,
            1 + CURVES * (3 * slope**2 - 1) / 2,
            POWERS * low ** (POWERS - 1),
            POWERS * high ** (POWERS - 1),
        ],
        axis=-1,
    )


class DensityBets:
    """Capital on fixed densities; a share of it begins to bet at each p-value, so that late changes are noticed, too.

    After ``t`` p-values ``1 / (t + 1)`` still waits: a change at that time costs a factor of about ``t`` beside one
    that is there from the beginning, and no more.

    Parameters
    ----------
    n_streams : int
    """

    def __init__(self, n_streams: int) -> None:
        self.n_seen = 0
        self._betting = np.zeros((n_streams, 1, len(densities(np.zeros(())))))

    def update(self, p_values: np.ndarray) -> np.ndarray:
        """Capital after each of at most ``CHUNK`` p-values: (n_streams, n_values) -> (n_streams, n_values)."""
        growth = np.cumprod(densities(p_values), axis=1)
        before = np.concatenate([np.ones_like(growth[:, :1]), growth[:, :-1]], axis=1)
        number = self.n_seen + 1 + np.arange(growth.shape[1])
        begins = 1 / (number * (number + 1)) / growth.shape[2]
        betting = growth * (self._betting + np.cumsum(begins[:, None] / before, axis=1))
        self.n_seen += growth.shape[1]
        self._betting = np.minimum(betting[:, -1:], MOST_CAPITAL)
        capital: np.ndarray = betting.sum(axis=2) + 1 / (number + 1)
        return capital


class HistogramBets:
    """Capital on histograms of the p-values so far: for changes of any kind, which they learn.

    Every ``CHUNK`` p-values a new histogram begins, with a share of what waits, as in :class:`DensityBets`. At most
    ``MOST_RUNS`` are kept: of the older half the one with the least capital is given up.

    Parameters
    ----------
    n_streams : int
    """

    def __init__(self, n_streams: int) -> None:
        self.n_seen = 0
        self._capital = np.empty((n_streams, 0))
        self._counts = np.empty((n_streams, 0, N_BINS))

    def update(self, p_values: np.ndarray) -> np.ndarray:
        """Capital after each p-value, of which no more come than are left of a chunk.

        (n_streams, n_values) -> (n_streams, n_values)
        """
        if self.n_seen % CHUNK == 0:
            self._begin()
        bins = np.minimum((p_values * N_BINS).astype(int), N_BINS - 1)
        is_in = np.eye(N_BINS)[bins]
        here = np.take_along_axis(np.cumsum(is_in, axis=1) - is_in, bins[..., None], 2)
        known = np.take_along_axis(self._counts, bins[:, None], 2)
        totals = self._counts.sum(axis=2, keepdims=True) + np.arange(bins.shape[1])
        growth = np.cumprod(N_BINS * (known + here[:, None, :, 0]) / totals, axis=2)
        capital = self._capital[..., None] * growth
        self._counts += is_in.sum(axis=1, keepdims=True)
        self._capital = np.minimum(capital[..., -1], MOST_CAPITAL)
        n_begun = self.n_seen // CHUNK + 1
        self.n_seen += bins.shape[1]
        of_all: np.ndarray = capital.sum(axis=1) + 1 / (n_begun + 1)
        return of_all

    def _begin(self) -> None:
        number, n_streams = self.n_seen // CHUNK + 1, len(self._capital)
        share = np.full((n_streams, 1), 1 / (number * (number + 1)))
        self._capital = np.concatenate([self._capital, share], axis=1)
        # As if each bin had been seen half a time.
        new = np.full((n_streams, 1, N_BINS), 0.5)
        self._counts = np.concatenate([self._counts, new], axis=1)
        if self._capital.shape[1] > MOST_RUNS:
            self._give_up(np.argmin(self._capital[:, : MOST_RUNS // 2], axis=1))

    def _give_up(self, runs: np.ndarray) -> None:
        """Give up a run of each stream."""
        places = np.arange(self._capital.shape[1] - 1)
        kept = places + (places >= runs[:, None])
        self._capital = np.take_along_axis(self._capital, kept, 1)
        self._counts = np.take_along_axis(self._counts, kept[..., None], 1)


class Bets:
    """Half of the capital of each stream on either kind of bets.

    Parameters
    ----------
    n_streams : int
    """

    def __init__(self, n_streams: int) -> None:
        self._of_kinds = (DensityBets(n_streams), HistogramBets(n_streams))

    @property
    def n_left(self) -> int:
        """P-values that may come at once."""
        return CHUNK - self._of_kinds[0].n_seen % CHUNK

    def update(self, p_values: np.ndarray) -> np.ndarray:
        """Capital after each of at most ``n_left`` p-values: (n_streams, n_values) -> (n_streams, n_values)."""
        first, second = (kind.update(p_values) for kind in self._of_kinds)
        capital: np.ndarray = (first + second) / 2
        return capital
