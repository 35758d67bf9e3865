"""Gates of several operating points as arrays, and the columns of a gate's inputs."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .policy import Array, ExitMass, exits_taken, sigmoid

# Columns of a gate's inputs.
CONFIDENCE, ENTROPY, MARGIN, STREAK = 0, 1, 2, -1
# Logit of a gate that is as good as certain.
SATURATED_LOGIT = 50.0
# Largest rounding error of a gate's inputs, but for those that are whole numbers, and of logits, relative to them.
ROUNDING = 1e-6
# Columns without rounding error: whether two exits agree, and the streak.
WHOLE_NUMBERS = (-3, -1)


def rounding_of(logits: Array) -> Array:
    """Largest rounding error of logits."""
    return ROUNDING * (1 + abs(logits))


def is_borderline(
    score: Array, gate_inputs: Array, largest_logits: Array, rounding_margin: Any
) -> Array:
    """Whether rounding might change whether a sample leaves at an exit, or its label there: bool (n_samples,).

    Parameters
    ----------
    score : array or tensor (n_samples,)
        Of the gate; ``rounding_margin`` is its largest rounding error.
    gate_inputs : array or tensor (n_samples, n_inputs)
    largest_logits : array or tensor (n_samples,)
    rounding_margin : float or tensor
    """
    # Probabilities differ by less than logits do, so this flags at least the tied samples.
    tied = gate_inputs[:, MARGIN] < rounding_of(largest_logits)
    return (abs(score) < rounding_margin) | tied


def mean_and_scale(inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gate inputs (n_samples, n_gates, n_inputs) -> the mean and scale that standardise them."""
    return inputs.mean(0), np.maximum(inputs.std(0), np.float32(1e-3))


class GateOfExit(NamedTuple):
    """One gate, on inputs that are not standardised."""

    weight: np.ndarray  # (n_inputs,)
    bias: np.ndarray  # ()
    rounding_margin: float  # largest rounding error of the score


def standardise(inputs: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Gate inputs (n_samples, n_gates, n_inputs) of mean 0 and scale 1."""
    standardised: np.ndarray = (inputs - mean) / scale
    return standardised


@dataclass(frozen=True, kw_only=True)
class GatePoints:
    """Linear gates of several operating points.

    Parameters
    ----------
    weight : ndarray (n_points, n_gates, n_inputs)
    bias : ndarray (n_points, n_gates)
    mean, scale : ndarray (n_gates, n_inputs)
        They standardise the inputs.
    """

    weight: np.ndarray
    bias: np.ndarray
    mean: np.ndarray
    scale: np.ndarray

    def __len__(self) -> int:
        return len(self.bias)

    def leaving(self, inputs: np.ndarray) -> np.ndarray:
        """(n_samples, n_gates, n_inputs) -> probabilities (n_samples, n_points, n_gates) of leaving"""
        standardised = standardise(inputs, self.mean, self.scale).swapaxes(0, 1)
        scores = standardised @ np.moveaxis(self.weight, 0, -1) + self.bias.T[:, None]
        return np.moveaxis(sigmoid(scores), 0, -1)

    def exits(self, inputs: np.ndarray, exit_mass: ExitMass) -> np.ndarray:
        """(n_samples, n_gates, n_inputs) -> exits of the samples at each point (n_samples, n_points)"""
        exits: np.ndarray = exits_taken(self.leaving(inputs), exit_mass)
        return exits

    def per_exit(self) -> list[GateOfExit]:
        """The gates of the first point one by one, as arrays."""
        weight = self.weight[0] / self.scale
        bias = self.bias[0] - (weight * self.mean).sum(1)
        margin = np.abs(weight) * np.float32(ROUNDING)
        margin[:, WHOLE_NUMBERS] = 0
        margins = margin.sum(1).tolist()
        return [GateOfExit(*fields) for fields in zip(weight, bias, margins, strict=True)]

    def point(self, i: int) -> "GatePoints":
        """The gates of point ``i`` alone."""
        return GatePoints(
            weight=self.weight[i : i + 1],
            bias=self.bias[i : i + 1],
            mean=self.mean,
            scale=self.scale,
        )

    def always(self, logit: float) -> "GatePoints":
        """One point of as many gates, which give every sample the same logit."""
        return GatePoints(
            weight=0 * self.weight[:1],
            bias=0 * self.bias[:1] + logit,
            mean=self.mean,
            scale=self.scale,
        )

    def between(self, i: int, share: float) -> "GatePoints":
        """Gates between point ``i`` and the next, ``share`` of the way."""
        here, there = self.point(i), self.point(i + 1)
        return GatePoints(
            weight=here.weight + share * (there.weight - here.weight),
            bias=here.bias + share * (there.bias - here.bias),
            mean=self.mean,
            scale=self.scale,
        )

    def shifted(self, logits: float) -> "GatePoints":
        """The same gates with this many logits less, so that fewer samples leave."""
        return GatePoints(
            weight=self.weight, bias=self.bias - logits, mean=self.mean, scale=self.scale
        )
