"""Which answers are sure enough to be given, and which samples are left to a human (NumPy only)."""

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from .._conformal.rounding import LOG_ODDS
from .._numbers import check_number, check_probability
from .._warn import warn_caller
from .risk import binomial_p_value, last_certified, trials_needed
from .temperatures import OBSERVED_SHARE

# Thresholds that are tried: more of them fail sooner by chance, fewer leave out samples that could be answered.
MOST_THRESHOLDS = 100
# Probability with which the number of samples that a warning names would do.
POWER = 0.9
# Less than what a probability below 1 leaves.
LEAST_DOUBT = 1e-17


class DeferralCertificate(NamedTuple):
    """What was certified about the answers that are given."""

    risk: float  # largest share of wrong answers among those that are given
    confidence: float  # probability with which it holds
    threshold: float  # least probability of the label of a sample that is answered; infinite if none is certified
    n_samples: int  # labelled samples that calibrate
    n_answered: int  # those that the threshold answers
    n_errors: int  # those that it answers wrong
    p_value: float  # of the threshold; NaN if none passed
    certified: bool  # False: no threshold passed, and every sample is deferred


class DeferredLabels(NamedTuple):
    """Labels, and which samples are left to a human."""

    labels: np.ndarray  # (n_samples,), as predict gives them, also for samples that are deferred
    deferred: np.ndarray  # bool (n_samples,)
    certificate: DeferralCertificate


@dataclass(frozen=True, kw_only=True)
class LabelledAnswers:
    """How sure the answers of an operating point are, and which of them are wrong.

    Parameters
    ----------
    confidence : ndarray (n_samples,)
        Calibrated probability of the label, at the exit where the sample leaves.
    wrong : ndarray of bool (n_samples,)
    """

    confidence: np.ndarray
    wrong: np.ndarray

    def __len__(self) -> int:
        return len(self.wrong)

    def wrong_from(self, threshold: float) -> np.ndarray:
        """Which of the answers with at least this probability are wrong: bool (n_answered,)."""
        answered: np.ndarray = self.wrong[self.confidence >= threshold]
        return answered


class ThresholdPath(NamedTuple):
    """Thresholds from the strictest on, and what samples that chose nothing else say of them."""

    thresholds: np.ndarray  # (n_thresholds,)
    answered: np.ndarray  # (n_thresholds,), share of samples
    errors: np.ndarray  # (n_thresholds,), expected share of wrong answers among these

    @classmethod
    def of(cls, gates: LabelledAnswers) -> "ThresholdPath":
        """Thresholds that part the samples that set the gates evenly, never those that rounding alone tells apart."""
        order = np.argsort(-gates.confidence, kind="stable")
        sure, wrong = gates.confidence[order], gates.wrong[order]
        log_odds = np.log(sure) - np.log(np.maximum(1 - sure, LEAST_DOUBT))
        n_answered = _counts(log_odds)
        middles = (log_odds[n_answered[:-1] - 1] + log_odds[n_answered[:-1]]) / 2
        expected = OBSERVED_SHARE * wrong + (1 - OBSERVED_SHARE) * (1 - sure)
        return cls(
            # The last answers every sample.
            thresholds=np.append(1 / (1 + np.exp(-middles)), 0.0),
            answered=n_answered / len(sure),
            errors=np.cumsum(expected)[n_answered - 1] / n_answered,
        )

    def surest(self, risk: float) -> int:
        """The threshold that labelled samples will most surely show to keep to a risk.

        Evidence against a larger risk grows with the number of answers, and with the relative entropy of their
        expected errors and the risk (Chernoff's bound).
        """
        errors = np.clip(self.errors, np.finfo(float).tiny, 1 - 1e-12)
        entropy = errors * np.log(errors / risk)
        entropy += (1 - errors) * np.log((1 - errors) / (1 - risk))
        return int(np.argmax(np.where(errors < risk, self.answered * entropy, 0)))

    def from_surest(self, risk: float) -> "ThresholdPath":
        """The part of the path that is tested."""
        first = self.surest(risk)
        return ThresholdPath(*(values[first:] for values in self))


@dataclass(frozen=True, kw_only=True)
class Deferral:
    """Thresholds of an operating point, certified as they are asked for.

    Parameters
    ----------
    gates : LabelledAnswers
        Of the samples that set the gates, which order the thresholds, and show nothing.
    labelled : LabelledAnswers
        Of the samples that calibrate, which trained and chose nothing.
    """

    gates: LabelledAnswers
    labelled: LabelledAnswers
    _known: dict[tuple[float, float], DeferralCertificate] = field(default_factory=dict)

    def certified(self, risk: float, confidence: float) -> DeferralCertificate:
        """The least threshold that the labelled samples show to keep to a risk.

        Thresholds are tested one after the other, from the one that most surely passes down to that which answers
        every sample, up to the first that does not pass (fixed-sequence testing). The order is that of other samples,
        and given how many labelled samples a threshold answers, those that it answers wrong are binomial, so each test
        is exact. A warning says so if none passes.
        """
        check_risk(risk, confidence)
        asked = float(risk), float(confidence)
        if asked not in self._known:
            self._known[asked] = self._tested(*asked)
        found = self._known[asked]
        if not found.certified:
            warn_caller(self._why_not(found))
        return found

    def _tested(self, risk: float, confidence: float) -> DeferralCertificate:
        path = ThresholdPath.of(self.gates).from_surest(risk)
        wrong = map(self.labelled.wrong_from, path.thresholds)
        passed, p_value = last_certified(wrong, binomial_p_value, risk, confidence)
        threshold = math.inf if passed < 0 else float(path.thresholds[passed])
        answered = self.labelled.wrong_from(threshold)
        return DeferralCertificate(
            risk=risk,
            confidence=confidence,
            threshold=threshold,
            n_samples=len(self.labelled),
            n_answered=len(answered),
            n_errors=int(answered.sum()),
            p_value=p_value,
            certified=passed >= 0,
        )

    def _why_not(self, found: DeferralCertificate) -> str:
        """What to do if no threshold passed."""
        path = ThresholdPath.of(self.gates).from_surest(found.risk)
        needed = samples_needed(
            found.risk,
            found.confidence,
            expected_error=float(path.errors[0]),
            answered_share=float(path.answered[0]),
            power=POWER,
        )
        remedy = "Give a larger risk: no threshold is expected to keep to this one."
        if needed is not None:
            remedy = (
                f"About {needed} would show it for {path.answered[0]:.0%} of all samples, by what the samples that set "
                "the gates say: give more to conformalize, or a larger risk."
            )
        return (
            f"{found.n_samples} samples that calibrate do not show that any threshold keeps to risk={found.risk!r} "
            f"with confidence={found.confidence!r}: every sample is deferred. {remedy}"
        )


def _counts(log_odds: np.ndarray) -> np.ndarray:
    """How many samples each threshold answers, about evenly up to all: (n_thresholds,).

    ``log_odds`` (n_samples,) fall; samples that rounding alone tells apart are on the same side of every threshold.
    """
    n_samples = len(log_odds)
    possible = np.append(np.flatnonzero(-np.diff(log_odds) > 2 * LOG_ODDS) + 1, n_samples)
    wanted = np.ceil(np.arange(1, MOST_THRESHOLDS + 1) * n_samples / MOST_THRESHOLDS)
    return np.unique(possible[np.searchsorted(possible, wanted)])


def check_risk(risk: float, confidence: float) -> None:
    """Refuse what is not a risk and a confidence."""
    check_probability(risk, "risk")
    check_probability(confidence, "confidence")


def samples_needed(
    risk: float, confidence: float, *, expected_error: float, answered_share: float, power: float
) -> int | None:
    """As :func:`sklearn_jeidnn.metrics.samples_needed`; None if nobody labels so many."""
    check_risk(risk, confidence)
    check_number(expected_error, "expected_error", least=0, below=1)
    check_number(answered_share, "answered_share", above=0, most=1)
    check_probability(power, "power")
    if expected_error >= risk:
        return None
    answered = trials_needed(risk, confidence, rate=expected_error, power=power)
    return None if answered is None else math.ceil(round(answered / answered_share, 9))
