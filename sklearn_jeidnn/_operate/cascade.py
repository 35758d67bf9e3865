"""A network with exits and their costs, and the engine that runs it."""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import numpy as np

from .._exits.policy import EXIT_DISTRIBUTIONS, ExitMass
from .._schema import Arrays
from .exit_answers import ExitAnswers
from .operating_point import OperatingPoint


class RoutedArrays(NamedTuple):
    """The exits that samples take, and the logits there."""

    logits: np.ndarray  # (n_samples, n_classes), of the exit taken
    exit_index: np.ndarray  # (n_samples,)


class AnsweredArrays(NamedTuple):
    """What every exit answers for samples, whichever they would take."""

    logits: np.ndarray  # (n_samples, n_exits, n_classes)
    backbone_logits: np.ndarray  # (n_samples, n_classes)
    gate_inputs: np.ndarray  # (n_samples, n_exits - 1, n_inputs)


class Engine(Protocol):
    """How the stages of a cascade run in prediction."""

    @property
    def batch_size(self) -> int:
        """Best number of samples of a call."""

    @property
    def network(self) -> Any:
        """Stages, heads and gates, which the estimator shows as ``network_``."""

    @property
    def module(self) -> Any:
        """The plain backbone, which the estimator shows as ``module_``."""

    def route(self, arrays: Arrays, exits: Any = None) -> RoutedArrays:
        """Run samples stage by stage; a sample that leaves is not run further.

        ``exits`` (n_samples,) forces where samples leave, for timing.
        """

    def answer(self, arrays: Arrays) -> AnsweredArrays:
        """Logits and gate inputs of every exit, whatever the operating point; logits of the plain backbone."""

    def backbone_logits(self, arrays: Arrays) -> np.ndarray:
        """Logits of the plain backbone."""

    def at(self, point: OperatingPoint) -> "Engine":
        """The same network with the gates of a point, and with its last exit."""

    def with_batch_size(self, batch_size: int | None) -> "Engine":
        """The same network, given another number of samples at once (None: as many as run fastest)."""


@dataclass(frozen=True, kw_only=True)
class Cascade:
    """Stages, heads and gates, with the names and costs of their exits.

    Parameters
    ----------
    engine : Engine
    exits : list of str
        Names of all exits but the last.
    exit_costs : ndarray (n_exits,)
        Relative to one pass of the plain backbone.
    exit_distribution : str
        A name in ``EXIT_DISTRIBUTIONS``.
    plain_seconds : float or None
        Time of one pass of the plain backbone, for a sample, if cost is time.
    history : object
        Of the training.
    trained : object
        What a later fit can go on from.
    """

    engine: Engine
    exits: list[str]
    exit_costs: np.ndarray
    exit_distribution: str
    plain_seconds: float | None = None
    history: Any = None
    trained: Any = None

    @property
    def exit_mass(self) -> ExitMass:
        """How a gate's probability becomes that of its exit."""
        return EXIT_DISTRIBUTIONS[self.exit_distribution]

    def answers(
        self, arrays: Arrays, codes: np.ndarray, weights: np.ndarray | None = None
    ) -> ExitAnswers:
        """Answers of every exit for labelled samples; by default all have the same weight."""
        weights = np.ones(len(codes), dtype=np.float32) if weights is None else weights
        return ExitAnswers(**self.engine.answer(arrays)._asdict(), codes=codes, weights=weights)

    def at(self, point: OperatingPoint) -> "Cascade":
        """The same cascade at an operating point."""
        return replace(self, engine=self.engine.at(point))
