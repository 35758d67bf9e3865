"""How often prediction sets hold labels that come late, with bounds that hold at all times (NumPy only)."""

import math
from dataclasses import dataclass

import numpy as np

# Coverages below the level on which is bet, and steps that find an end of an interval.
N_BETS, N_STEPS = 64, 60


@dataclass(frozen=True)
class CoverageBounds:
    """Coverage of some samples so far."""

    n_samples: int
    n_covered: int
    low: float
    high: float
    is_below: bool  # whether it is shown to be below the level

    @property
    def coverage(self) -> float:
        """NaN before the first label."""
        return self.n_covered / self.n_samples if self.n_samples else math.nan


class CoverageCounts:
    """Sets of a group of samples that held the truth, one after the other.

    Parameters
    ----------
    level : float
        Coverage that is promised.
    alpha : float
        Probability that the interval ever misses the true coverage; and that coverage is ever called too low if it is
        not.
    """

    def __init__(self, level: float, alpha: float) -> None:
        self.level, self.alpha = level, alpha
        self.n_samples, self.n_covered, self.is_below = 0, 0, False

    def update(self, covered: np.ndarray) -> None:
        """Take in whether sets held the truth: bool (n_samples,)."""
        self.n_samples += len(covered)
        self.n_covered += int(np.sum(covered))
        self.is_below |= self.log_capital_below() >= -math.log(self.alpha)

    def log_capital_below(self) -> float:
        """Logarithm of what bets on coverages below the level have won; small as long as it is not below.

        Bets are likelihood ratios, whose mean is at most 1 for every coverage that is not below the level.
        """
        lower = self.level * (np.arange(N_BETS) + 0.5) / N_BETS
        missed = self.n_samples - self.n_covered
        logs = self.n_covered * np.log(lower / self.level)
        logs += missed * np.log((1 - lower) / (1 - self.level))
        return float(logs.max() + np.log(np.mean(np.exp(logs - logs.max()))))

    def bounds(self) -> CoverageBounds:
        """Coverage so far, and a confidence sequence for the true one.

        It has the coverages against which bets have won less than ``1 / alpha``. Bets are mixed with a Beta(1/2, 1/2)
        distribution: Robbins, Annals of Mathematical Statistics 1970; Waudby-Smith, Ramdas, JRSS B 2024.
        """
        estimate = self.n_covered / self.n_samples if self.n_samples else 0.5
        return CoverageBounds(
            n_samples=self.n_samples,
            n_covered=self.n_covered,
            low=self._end(estimate, 0.0),
            high=self._end(estimate, 1.0),
            is_below=self.is_below,
        )

    def _end(self, inside: float, outside: float) -> float:
        """End of the interval between a coverage in it and 0 or 1."""
        if self._log_capital(outside) < -math.log(self.alpha):
            return outside
        for _ in range(N_STEPS):
            middle = (inside + outside) / 2
            if self._log_capital(middle) < -math.log(self.alpha):
                inside = middle
            else:
                outside = middle
        return outside

    def _log_capital(self, coverage: float) -> float:
        """Logarithm of what bets against a coverage have won."""
        missed = self.n_samples - self.n_covered
        if (coverage == 0 and self.n_covered) or (coverage == 1 and missed):
            return math.inf
        parts = [(self.n_covered, coverage), (missed, 1 - coverage)]
        expected = sum(count * math.log(share) for count, share in parts if count)
        mixed = math.lgamma(self.n_covered + 0.5) + math.lgamma(missed + 0.5)
        return mixed - math.lgamma(self.n_samples + 1) - math.log(math.pi) - expected
