"""What every exit answers for some samples: all that an operating point needs to know of them."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from .._exits.gate_points import GatePoints
from .._exits.policy import ExitMass
from .operating_point import OperatingPoint
from .temperatures import OBSERVED_SHARE, fit_temperatures, log_losses, smoothed_errors

# Instead of minus infinity, of which differences and products are NaN.
LEAST_LOGIT = np.float32(-1e30)


def with_gaps(logits: np.ndarray) -> np.ndarray:
    """Logits (..., n_classes) with NaN alone where an exit has no answer.

    It has none where a logit is NaN or plus infinity, or all are minus infinity. Single classes may be
    excluded by minus infinity.
    """
    if np.isfinite(logits.sum(dtype=np.float64)):
        return logits
    answered = np.isfinite(logits.max(-1, keepdims=True))
    gaps: np.ndarray = np.where(answered, np.maximum(logits, LEAST_LOGIT), np.float32(np.nan))
    return gaps


@dataclass(frozen=True, kw_only=True)
class ExitAnswers:
    """Answers of every exit for labelled samples, whichever exit a sample would take.

    Parameters
    ----------
    logits : ndarray (n_samples, n_exits, n_classes)
        The last exit is the backbone's end; its answer is combined with those of earlier exits. NaN where an
        exit has no answer for a sample.
    backbone_logits : ndarray (n_samples, n_classes)
        Of the plain backbone, which listens to no exit.
    gate_inputs : ndarray (n_samples, n_exits - 1, n_inputs)
    codes : ndarray of int (n_samples,)
        Column of each sample's label in ``classes_``.
    weights : ndarray (n_samples,)
    observed_share : float
        Share of the observed errors in ``smoothed_errors``; 0 if the last exit's probabilities are to be imitated.
    """

    logits: np.ndarray
    backbone_logits: np.ndarray
    gate_inputs: np.ndarray
    codes: np.ndarray
    weights: np.ndarray
    observed_share: float = OBSERVED_SHARE

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def n_exits(self) -> int:
        n_exits: int = self.logits.shape[1]
        return n_exits

    @cached_property
    def answered(self) -> np.ndarray:
        """Whether the exit has an answer: bool (n_samples, n_exits)."""
        answered: np.ndarray = ~np.isnan(self.logits[..., 0])
        return answered

    @property
    def n_gaps(self) -> int:
        """Number of samples for which some exit has no answer."""
        return int((~self.answered).any(axis=1).sum())

    @cached_property
    def without_gaps(self) -> np.ndarray:
        """Logits that give uniform probabilities where an exit has no answer: shape of ``logits``."""
        if self.answered.all():
            return self.logits
        filled: np.ndarray = np.where(self.answered[..., None], self.logits, np.float32(0))
        return filled

    @cached_property
    def labels(self) -> np.ndarray:
        """Code of the label at each exit, of the last answer up to there; -1 if there is none: (n_samples, n_exits)."""
        labels: np.ndarray = self.logits.argmax(-1)
        if not self.answered.all():
            labels = np.where(self.answered, labels, -1)
            for exit_index in range(1, self.n_exits):
                gaps = labels[:, exit_index] < 0
                labels[gaps, exit_index] = labels[gaps, exit_index - 1]
        return labels

    @cached_property
    def errors(self) -> np.ndarray:
        """1.0 if the exit's label is wrong or it has none, else 0.0: (n_samples, n_exits)."""
        wrong: np.ndarray = (self.labels != self.codes[:, None]) | ~self.answered
        return wrong.astype(self.logits.dtype)

    @cached_property
    def backbone_codes(self) -> np.ndarray:
        """Label of the plain backbone, as a column of ``classes_``; -1 if it has no answer: (n_samples,)."""
        answered = ~np.isnan(self.backbone_logits[:, 0])
        return np.where(answered, self.backbone_logits.argmax(-1), -1)

    @cached_property
    def backbone_accuracy(self) -> float:
        """Weighted accuracy of the plain backbone."""
        return self.mean(self.backbone_codes == self.codes)

    @cached_property
    def log_losses(self) -> np.ndarray:
        """Minus the logarithm of the true label's probability: (n_samples, n_exits)."""
        return log_losses(self.without_gaps, self.codes)

    @cached_property
    def smoothed_errors(self) -> np.ndarray:
        """Errors, some observed, the rest expected by the last exit: (n_samples, n_exits)."""
        smoothed = smoothed_errors(self.without_gaps, self.codes, self.weights, self.observed_share)
        return np.where(self.answered, smoothed, np.float32(1))

    @cached_property
    def unweighted_temperatures(self) -> np.ndarray:
        """Temperature of each exit if every sample left there and all had the same weight: (n_exits,)."""
        return fit_temperatures(self.without_gaps, self.codes, np.ones(len(self)))

    def mean(self, values: np.ndarray) -> float:
        """Weighted mean over the samples: (n_samples,) -> float."""
        return float(np.average(values, weights=self.weights))

    def exit_errors(self) -> np.ndarray:
        """Weighted mean error of each exit if every sample left there: (n_exits,)."""
        return np.average(self.errors, axis=0, weights=self.weights)

    def take(self, rows: np.ndarray) -> "ExitAnswers":
        """Answers for some of the samples."""
        return replace(
            self,
            logits=self.logits[rows],
            backbone_logits=self.backbone_logits[rows],
            gate_inputs=self.gate_inputs[rows],
            codes=self.codes[rows],
            weights=self.weights[rows],
        )

    def of_complete(self) -> "ExitAnswers":
        """Answers for the samples whose gate inputs are all there.

        Raises
        ------
        ValueError
            If there are none.
        """
        complete = ~np.isnan(self.gate_inputs).any(axis=(1, 2))
        if complete.all():
            return self
        if not complete.any():
            raise ValueError(
                f"module (or a companion) answers all {len(self)} held-out samples that set the gates with NaN or "
                f"infinity; give other samples as X_val, or mend the module's forward."
            )
        return self.take(np.flatnonzero(complete))

    def at(self, exit_index: np.ndarray) -> np.ndarray:
        """Logits of the exits taken, NaN where they have no answer: (n_samples,) -> (n_samples, n_classes)."""
        logits: np.ndarray = self.logits[np.arange(len(self)), exit_index]
        return logits

    def exits(self, gates: GatePoints, exit_mass: ExitMass) -> np.ndarray:
        """Exit that each sample takes with the gates of one point: (n_samples,)."""
        exit_index: np.ndarray = gates.exits(self.gate_inputs, exit_mass)[:, 0]
        return exit_index

    def of_point(self, point: OperatingPoint) -> "ExitAnswers":
        """The answers that an operating point gives: its last exit may be the plain backbone."""
        return self.with_plain_last_exit() if point.plain_last_exit else self

    def with_plain_last_exit(self) -> "ExitAnswers":
        """The same answers, but for the last exit the plain backbone's."""
        logits = self.logits.copy()
        logits[:, -1] = self.backbone_logits
        return replace(self, logits=logits)

    def agreement(self) -> "ExitAnswers":
        """Answers with the plain backbone's labels as the true ones, the last exit's too, and with equal weights."""
        return replace(
            self.with_plain_last_exit(),
            codes=np.maximum(self.backbone_codes, 0),
            weights=np.ones_like(self.weights),
        )
