"""What every exit answers for some samples: all that an operating point needs to know of them."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from .._exits.gate_points import GatePoints
from .._exits.policy import ExitMass
from .operating_point import OperatingPoint
from .temperatures import fit_temperatures, log_losses, smoothed_errors


@dataclass(frozen=True, kw_only=True)
class ExitAnswers:
    """Answers of every exit for labelled samples, whichever exit a sample would take.

    Parameters
    ----------
    logits : ndarray (n_samples, n_exits, n_classes)
        The last exit is the backbone's end; its answer is combined with those of earlier exits.
    backbone_logits : ndarray (n_samples, n_classes)
        Of the plain backbone, which listens to no exit.
    gate_inputs : ndarray (n_samples, n_exits - 1, n_inputs)
    codes : ndarray of int (n_samples,)
        Column of each sample's label in ``classes_``.
    weights : ndarray (n_samples,)
    """

    logits: np.ndarray
    backbone_logits: np.ndarray
    gate_inputs: np.ndarray
    codes: np.ndarray
    weights: np.ndarray

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def n_exits(self) -> int:
        n_exits: int = self.logits.shape[1]
        return n_exits

    @cached_property
    def errors(self) -> np.ndarray:
        """1.0 if the exit's label is wrong, else 0.0: (n_samples, n_exits)."""
        wrong: np.ndarray = self.logits.argmax(-1) != self.codes[:, None]
        return wrong.astype(self.logits.dtype)

    @cached_property
    def backbone_codes(self) -> np.ndarray:
        """Label of the plain backbone, as a column of ``classes_``: (n_samples,)."""
        codes: np.ndarray = self.backbone_logits.argmax(-1)
        return codes

    @cached_property
    def backbone_accuracy(self) -> float:
        """Weighted accuracy of the plain backbone."""
        return self.mean(self.backbone_codes == self.codes)

    @cached_property
    def log_losses(self) -> np.ndarray:
        """Minus the logarithm of the true label's probability: (n_samples, n_exits)."""
        return log_losses(self.logits, self.codes)

    @cached_property
    def smoothed_errors(self) -> np.ndarray:
        """Errors, half observed and half expected by calibrated exits: (n_samples, n_exits)."""
        return smoothed_errors(self.logits, self.codes, self.weights)

    @cached_property
    def unweighted_temperatures(self) -> np.ndarray:
        """Temperature of each exit if every sample left there and all had the same weight: (n_exits,)."""
        return fit_temperatures(self.logits, self.codes, np.ones(len(self)))

    def mean(self, values: np.ndarray) -> float:
        """Weighted mean over the samples: (n_samples,) -> float."""
        return float(np.average(values, weights=self.weights))

    def exit_errors(self) -> np.ndarray:
        """Weighted mean error of each exit if every sample left there: (n_exits,)."""
        return np.average(self.errors, axis=0, weights=self.weights)

    def take(self, rows: np.ndarray) -> "ExitAnswers":
        """Answers for some of the samples."""
        return ExitAnswers(
            logits=self.logits[rows],
            backbone_logits=self.backbone_logits[rows],
            gate_inputs=self.gate_inputs[rows],
            codes=self.codes[rows],
            weights=self.weights[rows],
        )

    def at(self, exit_index: np.ndarray) -> np.ndarray:
        """Logits of the exits taken: (n_samples,) -> (n_samples, n_classes)."""
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
            codes=self.backbone_codes,
            weights=np.ones_like(self.weights),
        )
